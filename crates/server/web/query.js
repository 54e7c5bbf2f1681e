// The search field: words as they are typed, and before them the chips of a query that is put together from several parts.

import { $, h, icon, iconButton } from "/assets/dom.js";
import { currentLanguage, hush, onLanguage, say, sayAttribute, t } from "/assets/i18n.js";
import { keep, kept, picturesIn } from "/assets/pictures-kept.js";
import { split } from "/assets/expression.js";
import { titleOf } from "/assets/search.js";
import * as api from "/assets/api.js";
import { change, onChange, settle, state } from "/assets/state.js";
import * as thumbnails from "/assets/thumbnails.js";
import { announce, notice } from "/assets/notices.js";

/** What is known of items that were made into chips, so that they needn't be asked for. */
const known = new Map();
const STEP = 0.1;
const MOST = 20;

let input;
let list;

export function initQuery() {
  input = $("#words");
  list = $("#chips");
  $("#query-form").addEventListener("submit", (event) => {
    event.preventDefault();
    settle();
    change({ query: input.value });
  });
  input.addEventListener("input", () => change({ query: input.value }, { typed: true }));
  input.addEventListener("change", settle);
  input.addEventListener("keydown", keys);
  $("#combine").addEventListener("click", combine);
  $("#clear").addEventListener("click", () => {
    change({ query: "", parts: [] });
    input.focus();
  });
  $("#choose-picture").addEventListener("click", () => $("#picture-file").click());
  $("#picture-file").addEventListener("change", async (event) => {
    await addPictures([...event.target.files]);
    event.target.value = "";
  });
  const field = $("#field");
  field.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("application/x-crossmodal-item")) return;
    event.preventDefault();
    field.classList.add("over");
  });
  field.addEventListener("dragleave", () => field.classList.remove("over"));
  field.addEventListener("drop", (event) => {
    field.classList.remove("over");
    const key = event.dataTransfer.getData("application/x-crossmodal-item");
    if (!key) return;
    event.preventDefault();
    addItem({ key: Number(key) }, 1);
  });
  onChange(draw);
  onLanguage(() => draw(state, {}));
  draw(state, {});
}

export function focusQuery() {
  input.focus();
  input.select();
}

function keys(event) {
  if (event.key === "Escape" && input.value) {
    event.preventDefault();
    change({ query: "" });
  } else if (event.key === "ArrowDown") {
    if (!document.querySelector(".tile")) return;
    event.preventDefault();
    document.querySelector('.tile[tabindex="0"]')?.focus();
  } else if (event.key === "Backspace" && input.selectionStart === 0 && input.selectionEnd === 0 && state.parts.length) {
    event.preventDefault();
    list.lastElementChild?.querySelector(".remove").focus();
  }
}

/** Makes chips of what is typed, so that more can be added to it. A sum comes apart into its operands. */
function combine() {
  const text = input.value.trim();
  if (text) change({ parts: [...state.parts, ...(split(text) ?? [{ kind: "text", weight: 1, value: text }])], query: "" });
  input.focus();
}

export async function addPictures(files, weight = 1) {
  const parts = [];
  for (const file of files) parts.push({ kind: "picture", weight, value: await keep(file) });
  if (!parts.length) return;
  change({ view: state.view === "classify" ? "pictures" : state.view, parts: [...state.parts, ...parts], item: null });
  announce("chip.added");
}

export function addItem(item, weight) {
  known.set(`${state.collection}/${item.key}`, item);
  const others = state.parts.filter((part) => part.kind !== "item" || part.value !== item.key);
  change({ parts: [...others, { kind: "item", weight, value: item.key }], item: null });
  notice(weight > 0 ? "chip.itemAdded" : "chip.itemSubtracted");
}

/** A query that is nothing but this item. */
export function similarTo(item) {
  known.set(`${state.collection}/${item.key}`, item);
  change({ view: "pictures", query: "", parts: [{ kind: "item", weight: 1, value: item.key }], item: null, mode: state.mode === "text" ? "vector" : state.mode });
}

/** Pasted pictures become parts, wherever the paste was meant for; texts go where they always go. */
export function pasted(event) {
  const pictures = picturesIn(event.clipboardData);
  if (!pictures.length) return null;
  event.preventDefault();
  return pictures;
}

let drawn = "";

function draw(next, before) {
  if (input.value !== next.query) input.value = next.query;
  $("#combine").disabled = next.query.trim() === "";
  $("#clear").hidden = !next.query && !next.parts.length;
  sayAttribute(input, "placeholder", next.parts.length ? "search.more" : "search.placeholder");
  if (before.collection !== undefined && before.collection !== next.collection) {
    // Items belong to their collection; a link to another one can't mean them.
    const parts = next.parts.filter((part) => part.kind !== "item");
    if (parts.length !== next.parts.length) return change({ parts }, { replace: true });
  }
  const signature = JSON.stringify([next.parts, next.collection, currentLanguage(), Boolean(next.query)]);
  if (signature === drawn) return;
  drawn = signature;
  const focus = focusedChip();
  for (const image of list.querySelectorAll("img")) thumbnails.release(image);
  list.replaceChildren(...next.parts.map((part, place) => chip(part, place, next.parts.length + (next.query ? 1 : 0))));
  list.hidden = !next.parts.length;
  refocus(focus);
}

/** Redrawing replaces the chip that is being worked on; the focus goes back to where it was. */
function focusedChip() {
  const holder = document.activeElement?.closest?.(".chip");
  if (!holder || !list.contains(holder)) return null;
  return { place: [...list.children].indexOf(holder), name: document.activeElement.dataset.role };
}

function refocus(focus) {
  if (!focus) return;
  const holder = list.children[Math.min(focus.place, list.children.length - 1)];
  (holder?.querySelector(`[data-role="${focus.name}"]`) ?? input).focus();
}

function replacePart(place, patch) {
  change({ parts: state.parts.map((part, other) => (other === place ? { ...part, ...patch } : part)) }, { typed: true });
}

function removePart(place) {
  change({ parts: state.parts.filter((_, other) => other !== place) });
  announce("chip.removed");
}

function chip(part, place, total) {
  const negative = part.weight < 0;
  const name = h("span", { class: "name" });
  const toggle = h("button", {
    type: "button", class: "sign", data: { role: "sign" },
    label: negative ? "chip.isSubtracted" : "chip.isAdded", hint: negative ? "chip.isSubtracted" : "chip.isAdded",
    on: { click: () => replacePart(place, { weight: -part.weight }) },
  }, icon(negative ? "minus" : "plus"));
  const weight = h("input", {
    type: "number", class: "weight", step: STEP, min: STEP, max: MOST, value: Number(Math.abs(part.weight).toFixed(2)), data: { role: "weight" },
    label: "chip.weight", hint: "chip.weight",
    on: {
      input: (event) => {
        const value = Number(event.target.value);
        if (value > 0 && value <= 1000) replacePart(place, { weight: Math.sign(part.weight) * value });
      },
      keydown: (event) => event.key === "Enter" && event.preventDefault(),
    },
  });
  const remove = iconButton("close", "chip.remove", () => removePart(place), { class: "quiet icon-only remove" });
  remove.dataset.role = "remove";
  const element = h("li", { class: negative ? "chip minus" : "chip" }, toggle);
  if (part.kind !== "text") element.append(picture(part, name));
  else hush(name, part.value);
  if (part.kind === "text") element.append(name);
  element.append(h("span", { class: "times", "aria-hidden": "true", text: "×" }), weight, remove);
  // A single part that is added needs neither sign nor weight.
  element.classList.toggle("alone", total === 1 && part.weight === 1);
  element.addEventListener("keydown", (event) => chipKeys(event, place));
  return element;
}

function chipKeys(event, place) {
  const inWeight = event.target.matches(".weight");
  if ((event.key === "Delete" || event.key === "Backspace") && !inWeight) {
    event.preventDefault();
    removePart(place);
    if (!state.parts.length) input.focus();
  } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && !inWeight) {
    const stops = [...list.querySelectorAll("button, input"), input].filter((stop) => stop.offsetParent);
    const next = stops[stops.indexOf(event.target) + (event.key === "ArrowRight" ? 1 : -1)];
    event.preventDefault();
    next?.focus();
  }
}

/** The thumbnail of a chip; its words are filled in once they are known. */
function picture(part, name) {
  const image = h("img", { alt: "", width: 28, height: 28 });
  const holder = h("span", { class: "pictured" }, image, name);
  name.classList.add("visually-hidden");
  if (part.kind === "item") {
    thumbnails.show(image, state.collection, part.value, 96);
    const id = `${state.collection}/${part.value}`;
    const fill = (item) => {
      hush(name, t("chip.item", { title: titleOf(item, currentLanguage()) }));
      holder.title = titleOf(item, currentLanguage());
    };
    if (known.get(id)?.name) fill(known.get(id));
    else {
      say(name, "chip.someItem");
      api.item(state.collection, part.value).then((item) => {
        known.set(id, item);
        fill(item);
      }, () => holder.classList.add("lost"));
    }
    return holder;
  }
  say(name, "chip.picture");
  kept(part.value).then((entry) => {
    if (entry) {
      image.src = entry.address;
      image.addEventListener("error", () => image.replaceWith(icon("broken")), { once: true });
      if (entry.title) holder.title = entry.title;
      return;
    }
    image.replaceWith(icon("broken"));
    holder.classList.add("lost");
    say(name, "chip.lost");
  });
  return holder;
}
