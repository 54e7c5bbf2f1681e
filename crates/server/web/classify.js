// Naming a picture: the reader gives labels, the model says how well each of them fits.

import * as api from "/assets/api.js";
import { $, debounce, h, iconButton, reducedMotion } from "/assets/dom.js";
import { onLanguage, percent, say, t } from "/assets/i18n.js";
import { explain } from "/assets/notices.js";
import { dataAddress, keep, kept, picturesIn } from "/assets/pictures-kept.js";
import { change, onChange, state } from "/assets/state.js";

const PAUSE = 150;
/** Phrases that photographs come with; several of them are averaged, which is steadier than one. */
const TEMPLATES = {
  "": ["a photo of a {}"],
  plain: ["{}"],
  several: ["a photo of a {}", "a picture of the {}", "a close-up photo of a {}", "a drawing of a {}", "{}"],
};

let picture = null;
let stop = null;
let input;
let getModels;

export function initClassify({ models }) {
  getModels = models;
  input = $("#label");
  $("#labels-form").addEventListener("submit", (event) => {
    event.preventDefault();
    addLabels(input.value);
  });
  input.addEventListener("input", () => input.value.includes(",") && addLabels(input.value));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Backspace" || input.value || !state.labels.length) return;
    event.preventDefault();
    $("#labels").lastElementChild.querySelector("button").focus();
  });
  input.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text");
    if (!/[\n,;]/.test(text)) return;
    event.preventDefault();
    addLabels(text);
  });
  $("#classify-choose").addEventListener("click", () => $("#classify-file").click());
  $("#classify-file").addEventListener("change", (event) => {
    if (event.target.files[0]) setPicture(event.target.files[0]);
    event.target.value = "";
  });
  const drop = $("#classify-drop");
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    const [file] = picturesIn(event.dataTransfer);
    if (!file) return;
    event.preventDefault();
    setPicture(file);
  });
  $("#template").addEventListener("change", chooseTemplate);
  $("#template-own").addEventListener("input", debounce((event) => change({ template: `own:${event.target.value}` }, { typed: true }), 250));
  $("#classify-model").addEventListener("change", (event) => change({ model: event.target.value }));
  onChange((next, before) => {
    if (next.view !== "classify") return;
    draw();
    const same = ["view", "template", "model"].every((name) => next[name] === before[name]) && next.labels.join("\n") === before.labels.join("\n");
    if (!same) run();
  });
  onLanguage(draw);
  draw();
}

/** Shows a file to the model. */
export async function setPicture(file) {
  const entry = await kept(await keep(file));
  picture = entry;
  try {
    sessionStorage.setItem("crossmodal.classify", entry.name);
  } catch {
    // Then a reload forgets it.
  }
  if (state.view !== "classify") change({ view: "classify", item: null });
  draw();
  run();
}

/** After a reload the picture of before is back. */
export async function restorePicture() {
  try {
    const name = sessionStorage.getItem("crossmodal.classify");
    picture = name ? await kept(name) : null;
  } catch {
    picture = null;
  }
  draw();
  if (state.view === "classify") run();
}

function addLabels(text) {
  const fresh = text.split(/[,;\n]/).map((label) => label.trim()).filter((label) => label && !state.labels.includes(label));
  input.value = "";
  if (fresh.length) change({ labels: [...state.labels, ...new Set(fresh)] });
}

function chooseTemplate(event) {
  const own = event.target.value === "own";
  change({ template: own ? `own:${$("#template-own").value || "a photo of a {}"}` : event.target.value });
  if (own) $("#template-own").focus();
}

function templates() {
  if (!state.template.startsWith("own:")) return TEMPLATES[state.template] ?? TEMPLATES[""];
  const own = state.template.slice(4).trim();
  return [own.includes("{}") ? own : `${own} {}`.trim()];
}

function draw() {
  const place = $("#classify-picture");
  place.hidden = !picture;
  $("#classify-drop").classList.toggle("filled", Boolean(picture));
  if (picture && place.getAttribute("src") !== picture.address) {
    place.src = picture.address;
    // Small drawings may grow, but not until they are porridge.
    place.decode().then(() => place.style.setProperty("--width", `${place.naturalWidth * 2.5}px`), () => {});
  }
  say($("#classify-choose span"), picture ? "classify.other" : "classify.choose");
  const list = $("#labels");
  const focused = [...list.children].findIndex((label) => label.contains(document.activeElement));
  list.replaceChildren(...state.labels.map((label) => h("li", { class: "chip" }, h("span", { class: "name", text: label }), remover(label))));
  if (focused >= 0) (list.children[Math.min(focused, list.children.length - 1)]?.querySelector("button") ?? input).focus();
  const own = state.template.startsWith("own:");
  $("#template").value = own ? "own" : state.template;
  $("#template-own").hidden = !own;
  if (own && document.activeElement !== $("#template-own")) $("#template-own").value = state.template.slice(4);
  drawModels();
  if (!picture || !state.labels.length) {
    stop?.abort();
    bars([]);
    say($("#classify-hint"), !picture ? "classify.needPicture" : "classify.needLabels");
    $("#classify-hint").hidden = false;
  }
}

function remover(label) {
  return iconButton("close", "chip.remove", () => change({ labels: state.labels.filter((other) => other !== label) }), { class: "quiet icon-only remove" });
}

export function drawModels() {
  const choice = $("#classify-model");
  const able = getModels().filter((model) => !model.modalities || (model.modalities.includes("image") && model.modalities.includes("text")));
  const ids = able.map((model) => model.id);
  if ([...choice.options].map((option) => option.value).join("\n") !== ids.join("\n")) choice.replaceChildren(...ids.map((id) => h("option", { value: id, text: id })));
  choice.value = ids.includes(state.model) ? state.model : (able.find((model) => model.default)?.id ?? ids[0] ?? "");
  choice.disabled = ids.length < 2;
}

async function run() {
  stop?.abort();
  if (!picture || !state.labels.length) return;
  stop = new AbortController();
  const { signal } = stop;
  const results = $("#bars");
  const hint = $("#classify-hint");
  try {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    signal.throwIfAborted();
    results.setAttribute("aria-busy", "true");
    const json = { inputs: [{ image: await dataAddress(picture.blob) }], labels: state.labels, templates: templates() };
    if (state.model) json.model = state.model;
    const { results: [first] } = await api.classify(json, signal);
    hint.hidden = true;
    bars(first.predictions);
  } catch (error) {
    if (error.name === "AbortError") return;
    bars([]);
    hint.hidden = false;
    if (error.code === "invalid_input") say(hint, "error.picture", { message: error.message });
    else say(hint, ...explain(error));
  } finally {
    if (!signal.aborted) results.removeAttribute("aria-busy");
  }
}

/** Bars keep their identity by label: each glides from where it was, at the length it had, to its new place and length. */
function bars(predictions) {
  const list = $("#bars");
  const before = new Map([...list.children].map((row) => [row.dataset.label, { row, top: row.offsetTop, share: Number(row.dataset.share) }]));
  const rows = predictions.map(({ label, probability }, rank) => {
    const row = before.get(label)?.row ?? h("li", { data: { label } }, h("span", { class: "label", text: label }), h("span", { class: "share" }), h("span", { class: "track" }, h("i")));
    row.dataset.share = probability;
    row.classList.toggle("best", rank === 0);
    $("i", row).style.width = `${probability * 100}%`;
    $(".share", row).textContent = percent(probability);
    return row;
  });
  list.replaceChildren(...rows);
  if (!reducedMotion()) for (const row of rows) glide(row, before.get(row.dataset.label));
  const best = predictions[0];
  $("#classify-said").textContent = best ? t("classify.best", { label: best.label, share: percent(best.probability) }) : "";
}

function glide(row, from) {
  const timing = { duration: 420, easing: "cubic-bezier(.2, .7, .2, 1)" };
  $("i", row).animate([{ width: `${(from?.share ?? 0) * 100}%` }, { width: `${row.dataset.share * 100}%` }], timing);
  if (from && from.top !== row.offsetTop) row.animate([{ transform: `translateY(${from.top - row.offsetTop}px)` }, { transform: "none" }], timing);
  else if (!from) row.animate([{ opacity: 0 }, { opacity: 1 }], timing);
}
