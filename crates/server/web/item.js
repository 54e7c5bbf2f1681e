// The window of one item: the picture, what is known of it, and what can be done with it.

import * as api from "/assets/api.js";
import { h, icon, iconButton } from "/assets/dom.js";
import { filterBy, literal, quoted } from "/assets/filters.js";
import { meter, missing, scoreText } from "/assets/gallery.js";
import { bytes, currentLanguage, date, fixed, hush, onLanguage } from "/assets/i18n.js";
import { confirm, notice, tell } from "/assets/notices.js";
import { addItem, similarTo } from "/assets/query.js";
import { titleOf } from "/assets/search.js";
import { change, onChange, state } from "/assets/state.js";
import * as thumbnails from "/assets/thumbnails.js";

/** What browsers show by themselves. Of the rest there is the thumbnail. */
const SHOWN = /\.(jpe?g|jpe|jfif|png|gif|webp|bmp)$/i;
/** An original above this isn't loaded unasked. */
const LARGE = 15_000_000;
/** One below this is loaded anyhow: drawings are small, and crisper than their thumbnails. */
const SMALL = 300_000;

let dialog;
const parts = {};
let shown = null;
let stop = null;
/** Whether opening made an entry of the history, which closing takes back. */
let entered = false;
let actions;

/** `actions`: neighbour(key, step) answers with the item beside, removed(key), closed(key), classify(item). */
export function initItem(given) {
  actions = given;
  build();
  onChange(follow);
  onLanguage(() => shown && fill(shown));
  follow(state, { item: null });
}

export function openItem(item) {
  entered = state.item === null || entered;
  shown = item;
  change({ item: item.key }, { replace: state.item !== null });
}

function build() {
  parts.stage = h("div", { class: "stage" });
  // What the window opens on is its title: buttons come and go with what stands beside the item.
  parts.title = h("h2", { id: "item-title", tabindex: "-1", autofocus: true });
  parts.facts = h("p", { class: "facts" });
  parts.path = h("p", { class: "path" });
  parts.table = h("dl", { class: "metadata" });
  parts.open = h("a", { class: "button", target: "_blank", rel: "noopener" }, icon("open"), h("span", { t: "item.open" }));
  parts.open.addEventListener("click", openBlob);
  const button = (drawing, key, act, extra = "") => h("button", { type: "button", class: extra, on: { click: act } }, icon(drawing), h("span", { t: key }));
  parts.previous = iconButton("left", "item.previous", () => step(-1), { class: "quiet icon-only turn previous" });
  parts.next = iconButton("right", "item.next", () => step(1), { class: "quiet icon-only turn next" });
  parts.classify = button("scale", "item.classify", () => actions.classify(shown));
  dialog = h("dialog", { class: "item", "aria-labelledby": "item-title" },
    h("div", { class: "viewer" }, parts.stage, parts.previous, parts.next),
    h("div", { class: "about" },
      h("div", { class: "heading" }, parts.title, iconButton("close", "close", () => dialog.close())),
      parts.facts,
      h("div", { class: "actions" },
        button("similar", "item.similar", () => similarTo(shown), "primary"),
        h("div", { class: "pair" }, button("plus", "item.add", () => addItem(shown, 1)), button("minus", "item.subtract", () => addItem(shown, -0.5))),
        h("div", { class: "pair" }, parts.open, parts.classify)),
      parts.path,
      parts.table,
      h("div", { class: "end" }, button("trash", "item.delete", () => remove(shown), "quiet danger"))),
  );
  dialog.addEventListener("close", closed);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    const away = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!away || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    step(away);
  });
  document.body.append(dialog);
}

async function follow(next, before) {
  if (next.item === null) {
    if (dialog.open) dialog.close();
    return;
  }
  if (dialog.open && next.item === before.item && next.collection === before.collection) return;
  if (!next.collection) return;
  if (!dialog.open) dialog.showModal();
  if (shown?.key !== next.item) shown = null;
  stop?.abort();
  stop = new AbortController();
  if (shown) fill(shown);
  else blank();
  try {
    const whole = await api.item(next.collection, next.item, stop.signal);
    // A hit knows its score, the item its size and date.
    const hit = shown;
    shown = { ...whole, ...hit, ...whole };
    fill(shown, hit !== null);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 404) notice("item.gone", {}, "bad");
    else tell(error);
    if (dialog.open && !shown) dialog.close();
  }
}

function blank() {
  release();
  parts.stage.replaceChildren(h("div", { class: "spinner" }));
  hush(parts.title, "…");
  for (const part of [parts.facts, parts.path, parts.table]) part.replaceChildren();
}

function release() {
  for (const image of parts.stage.querySelectorAll("img")) thumbnails.release(image);
}

function fill(item, again = false) {
  const title = titleOf(item, currentLanguage());
  hush(parts.title, title);
  parts.facts.replaceChildren(...factsOf(item));
  parts.facts.hidden = !parts.facts.childNodes.length;
  hush(parts.path, item.path || item.id);
  parts.path.append(iconButton("copy", "item.copyPath", copyPath));
  parts.table.replaceChildren(...rowsOf(item));
  const address = api.fileAddress(state.collection, item.key);
  parts.open.href = address;
  parts.previous.disabled = !actions.neighbour(item.key, -1);
  parts.next.disabled = !actions.neighbour(item.key, 1);
  parts.classify.hidden = item.modality !== "image";
  if (!again || !parts.stage.querySelector("img")) picture(item, title);
  else original(item, parts.stage.querySelector("img"));
}

function factsOf(item) {
  if (item.score === undefined) return [];
  const score = h("span", { class: "score", text: scoreText(item.score, state.mode) });
  if (item.confidence === null || item.confidence === undefined) return [score];
  const bar = meter(item.confidence);
  const label = h("span", { class: "soft explained", tabindex: "0", data: { confidence: item.confidence }, t: ["confidence", { value: fixed(item.confidence, 2) }] });
  bar.setAttribute("aria-hidden", "true");
  return [score, bar, label];
}

function picture(item, title) {
  release();
  if (item.modality !== "image") {
    const text = typeof item.metadata?.text === "string" ? item.metadata.text : title;
    parts.stage.replaceChildren(h("blockquote", { text }));
    return;
  }
  const image = h("img", { alt: title });
  const spinner = h("div", { class: "spinner" });
  parts.stage.replaceChildren(spinner, image);
  image.addEventListener("load", () => {
    spinner.remove();
    // Small drawings may grow, but not until they are porridge.
    image.style.setProperty("--width", `${image.naturalWidth * 3}px`);
    image.style.setProperty("--height", `${image.naturalHeight * 3}px`);
    image.classList.add("loaded");
  });
  image.addEventListener("error", () => parts.stage.replaceChildren(missing()));
  thumbnails.show(image, state.collection, item.key, 1024);
  original(item, image);
}

/** The file itself takes the thumbnail's place where that gains anything. */
function original(item, image) {
  const gains = item.size <= SMALL || /\.gif$/i.test(item.name ?? "") || Math.max(parts.stage.clientWidth, parts.stage.clientHeight) * devicePixelRatio > 1024;
  if (!gains || !item.size || item.size > LARGE || !SHOWN.test(item.name ?? "") || image.dataset.original) return;
  image.dataset.original = "1";
  const full = new Image();
  full.addEventListener("load", () => {
    if (shown?.key !== item.key || !image.isConnected) return thumbnails.release(full);
    image.src = full.src;
  });
  thumbnails.showAddress(full, api.fileAddress(state.collection, item.key));
}

/** Metadata as rows; what is nested gets dots, as in filters. */
function rowsOf(item) {
  const rows = [];
  for (const [path, value] of flatten(item.metadata ?? {}, [])) {
    const values = Array.isArray(value) ? value : [value];
    const single = values.filter((one) => ["string", "number", "boolean"].includes(typeof one) && String(one).length <= 64);
    const field = path.map(quoted).join(".");
    const cells = values.map((one) => {
      const text = typeof one === "object" && one !== null ? JSON.stringify(one) : String(one);
      if (!single.includes(one)) return h("span", { text });
      return h("button", { type: "button", class: "value", text, hint: "item.filterBy", on: { click: () => filterBy(`${field} = ${literal(one)}`) } });
    });
    rows.push(h("dt", { text: path.join(".") }), h("dd", { class: values.length > 1 ? "many" : "" }, ...cells));
  }
  const own = [
    ["item.size", item.size === undefined || item.size === null ? null : bytes(item.size)],
    ["item.modified", item.modified ? date(item.modified) : null],
    ["item.key", String(item.key)],
  ];
  for (const [key, value] of own) if (value) rows.push(h("dt", { t: key }), h("dd", { text: value }));
  return rows;
}

function* flatten(object, path) {
  for (const [key, value] of Object.entries(object)) {
    if (value === null) continue;
    if (typeof value === "object" && !Array.isArray(value)) yield* flatten(value, [...path, key]);
    else yield [[...path, key], value];
  }
}

async function copyPath() {
  try {
    await navigator.clipboard.writeText(shown.path || shown.id);
    notice("item.copied");
  } catch {
    // Only secure pages may write to the clipboard; elsewhere the path can be marked and copied by hand.
    getSelection().selectAllChildren(parts.path);
  }
}

/** With a key the browser can't fetch the file by itself. */
async function openBlob(event) {
  if (!api.hasKey()) return;
  event.preventDefault();
  try {
    const blob = await (await api.request(parts.open.href)).blob();
    const link = h("a", { href: URL.createObjectURL(blob), target: "_blank", rel: "noopener" });
    // Only pictures are opened: anything else, drawings with scripts too, would run as a part of this page.
    if (!/^image\/(png|jpeg|gif|webp|bmp)$/.test(blob.type)) link.download = shown.name || "file";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    tell(error);
  }
}

function step(away) {
  const next = shown && actions.neighbour(shown.key, away);
  if (!next) return;
  openItem(next);
  // At either end the button that was pressed goes; the focus mustn't go with it.
  if (document.activeElement?.disabled || document.activeElement === document.body) parts.title.focus();
}

/** Asks, deletes, and shows what stands beside. */
export async function remove(item) {
  const title = titleOf(item, currentLanguage());
  const text = item.uploaded ? "delete.uploaded" : "delete.text";
  if (!(await confirm({ title: "delete.title", text, values: { title }, yes: "delete.yes" }))) return;
  try {
    await api.deleteItem(state.collection, item.key);
    const beside = actions.neighbour(item.key, 1) ?? actions.neighbour(item.key, -1);
    actions.removed(item.key);
    notice("delete.done", { title });
    if (!dialog.open) return;
    if (beside) openItem(beside);
    else dialog.close();
  } catch (error) {
    tell(error);
  }
}

function closed() {
  stop?.abort();
  release();
  const key = shown?.key;
  shown = null;
  if (state.item !== null) {
    if (entered) history.back();
    else change({ item: null }, { replace: true });
  }
  entered = false;
  actions.closed(key);
}

