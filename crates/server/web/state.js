// What the page shows, kept in the address so that back, forward, reload and shared links work. It stands behind the `#`, which
// browsers keep to themselves: what somebody searched for doesn't end up in the logs of proxies.

const VIEWS = ["pictures", "map", "classify"];
const MODES = ["vector", "text", "hybrid"];

const EMPTY = {
  collection: "",
  view: "pictures",
  query: "",
  parts: [],
  filter: "",
  mode: "vector",
  alpha: null,
  group: "",
  diversity: null,
  relevant: false,
  item: null,
  labels: [],
  template: "",
  model: "",
};

const listeners = new Set();
export let state = parse(location.hash);
/** Whether the newest entry of the history is one that is still being typed. */
let typing = false;

/** A part is `{kind: "text" | "item" | "picture", weight, value}`; the value of a picture is its name in pictures-kept.js. */
function writePart(part) {
  return `${part.kind[0]}:${Number(part.weight.toFixed(3))}:${part.value}`;
}

function readPart(text) {
  const match = /^([tip]):(-?[\d.]+):(.+)$/s.exec(text);
  if (!match) return null;
  const kind = { t: "text", i: "item", p: "picture" }[match[1]];
  const weight = Number(match[2]);
  if (!Number.isFinite(weight) || weight === 0) return null;
  return { kind, weight, value: kind === "item" ? Number(match[3]) : match[3] };
}

function numberOrNull(text) {
  return text === null || text === "" || !Number.isFinite(Number(text)) ? null : Number(text);
}

function parse(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [collection = "", view = ""] = path.split("/").map(decode);
  const fields = new URLSearchParams(search);
  return {
    ...EMPTY,
    collection,
    view: VIEWS.includes(view) ? view : "pictures",
    query: fields.get("q") ?? "",
    parts: fields.getAll("part").map(readPart).filter(Boolean),
    filter: fields.get("filter") ?? "",
    mode: MODES.includes(fields.get("mode")) ? fields.get("mode") : "vector",
    alpha: numberOrNull(fields.get("alpha")),
    group: fields.get("group") ?? "",
    diversity: numberOrNull(fields.get("diversity")),
    relevant: fields.get("relevant") === "1",
    item: numberOrNull(fields.get("item")),
    labels: fields.getAll("label").filter(Boolean),
    template: fields.get("template") ?? "",
    model: fields.get("model") ?? "",
  };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // A mangled link names no collection that exists; the page says so.
  }
}

export function address(of) {
  const fields = new URLSearchParams();
  if (of.query) fields.set("q", of.query);
  for (const part of of.parts) fields.append("part", writePart(part));
  if (of.filter) fields.set("filter", of.filter);
  if (of.mode !== "vector") fields.set("mode", of.mode);
  if (of.alpha !== null) fields.set("alpha", of.alpha);
  if (of.group) fields.set("group", of.group);
  if (of.diversity !== null) fields.set("diversity", of.diversity);
  if (of.relevant) fields.set("relevant", "1");
  if (of.item !== null) fields.set("item", of.item);
  if (of.view === "classify") {
    for (const label of of.labels) fields.append("label", label);
    if (of.template) fields.set("template", of.template);
  }
  if (of.model) fields.set("model", of.model);
  const search = fields.toString();
  return `#/${encodeURIComponent(of.collection)}/${of.view}${search ? `?${search}` : ""}`;
}

/**
 * Changes the state and the address. While something is `typed`, the letters share one entry of the history; `replace` makes none.
 */
export function change(patch, { typed = false, replace = false } = {}) {
  const before = state;
  state = { ...state, ...patch };
  const next = address(state);
  if (next !== location.hash) {
    if (replace || (typed && typing)) history.replaceState(history.state, "", next);
    else history.pushState(null, "", next);
  }
  if (!replace) typing = typed;
  for (const listener of listeners) listener(state, before, { typed });
}

/** What was typed is meant: further letters begin a new entry of the history. */
export function settle() {
  typing = false;
}

export function onChange(listener) {
  listeners.add(listener);
}

export const hasQuery = (of = state) => of.query.trim() !== "" || of.parts.length > 0;

addEventListener("popstate", () => {
  const before = state;
  const next = parse(location.hash);
  // Labels are only in addresses of their own view; going elsewhere and back by the tabs shouldn't forget them.
  if (next.view !== "classify") Object.assign(next, { labels: before.labels, template: before.template });
  state = next;
  typing = false;
  for (const listener of listeners) listener(state, before, { typed: false });
});
