// Reads a query written as a sum ("2:dog + puppy - fruit"), so that it can be taken apart into chips. The grammar is that of
// docs/searching.md; what names files or items is left to the server.

const WEIGHT = /^(\d+(?:\.\d+)?|\.\d+):(?!\d)(.*)$/s;

/** Words and quoted texts in a row, or null if a quote isn't closed. */
function tokens(text) {
  const found = [];
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text[at])) {
      at += 1;
      continue;
    }
    const rest = text.slice(at);
    const quoted = /^((?:(?:\d+(?:\.\d+)?|\.\d+):)?)"((?:[^"\\]|\\.)*)"(?=\s|$)/s.exec(rest);
    const word = quoted ? null : /^\S+/.exec(rest)[0];
    if (word && /^((\d+(\.\d+)?|\.\d+):)?"/.test(word)) return null;
    found.push(quoted ? { quoted: quoted[2].replace(/\\(["\\])/g, "$1"), weight: quoted[1] } : { word });
    at += (quoted ? quoted[0] : word).length;
  }
  return found;
}

/** The operands as text parts with signed weights, or null if the text isn't a sum, or is one for the server alone. */
export function split(text) {
  const all = tokens(text);
  if (!all?.length) return null;
  const operands = [];
  let sign = 1;
  let words = [];
  let pluses = 0;
  const close = () => {
    if (!words.length) return false;
    operands.push(operand(words, sign));
    words = [];
    return true;
  };
  for (const [place, token] of all.entries()) {
    const operator = token.word === "+" || token.word === "-";
    if (!operator) words.push(token);
    else if (place === 0 && token.word === "-") sign = -1;
    else {
      if (!close()) return null;
      sign = token.word === "-" ? -1 : 1;
      pluses += token.word === "+" ? 1 : 0;
    }
  }
  if (!close() || operands.includes(null)) return null;
  const marked = operands.some((one) => one.marked);
  if (pluses === 0 && !(marked && (operands.length > 1 || all[0].word === "-"))) return null;
  return operands.map(({ weight, value }) => ({ kind: "text", weight, value }));
}

function operand(words, sign) {
  let weight = 1;
  let marked = false;
  const texts = words.map((token, place) => {
    let { word } = token;
    const first = place === 0;
    if (first && token.quoted !== undefined && token.weight) weight = Number(token.weight.slice(0, -1));
    const match = first && word !== undefined ? WEIGHT.exec(word) : null;
    if (match) {
      weight = Number(match[1]);
      word = match[2];
    }
    marked ||= Boolean(match) || token.quoted !== undefined;
    return token.quoted ?? word;
  });
  const value = texts.filter(Boolean).join(" ");
  if (!value || /^(item|image):/.test(value) || !(weight > 0 && weight <= 1000)) return null;
  return { weight: sign * weight, value, marked };
}
