// The row for filters: the text, what the server says is wrong with it, and the help.

import { $, debounce, h } from "/assets/dom.js";
import { change, onChange, settle, state } from "/assets/state.js";

const EXAMPLES = [
  ["name like '%sun%'", "filter.example.like"],
  ["modified >= 2024-01-01", "filter.example.date"],
  ["size > 2MB", "filter.example.size"],
  ["tag in (beach, 'city at night')", "filter.example.in"],
  ["year >= 2020 and not exists rating", "filter.example.and"],
];
const PAUSE = 350;
/** How the server names the field that it complains about. */
const ABOUT = /^field `filter`: /;

let input;
/** Metadata keys that were seen in the collection, offered as fields. */
const seen = new Map();

export function initFilters() {
  input = $("#filter");
  const apply = debounce(() => change({ filter: input.value.trim() }, { typed: true }), PAUSE);
  input.addEventListener("input", apply);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      apply.now();
      settle();
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      if (input.value) {
        input.value = "";
        apply.now();
      } else showFilter(false);
    }
  });
  $("#filter-button").addEventListener("click", () => showFilter($("#filter-row").hidden));
  $("#filter-clear").addEventListener("click", () => {
    input.value = "";
    apply.now();
    showFilter(false);
  });
  $("#filter-examples").append(
    ...EXAMPLES.map(([text, key]) => h("li", {}, insert(text), h("span", { t: key }))),
  );
  onChange(draw);
  if (state.filter) showFilter(true, false);
  draw(state);
}

function insert(text) {
  return h("button", { type: "button", class: "code", text, on: { click: () => put(text) } });
}

function put(text) {
  const joint = input.value.trim() ? `${input.value.trim()} and ` : "";
  input.value = joint + text;
  input.focus();
  input.dispatchEvent(new Event("input"));
}

function showFilter(open, focus = true) {
  $("#filter-row").hidden = !open;
  $("#filter-button").setAttribute("aria-expanded", String(open));
  if (focus) (open ? input : $("#filter-button")).focus();
}

/** Adds a condition, from an item's table. */
export function filterBy(condition) {
  const filter = state.filter ? `${state.filter} and ${condition}` : condition;
  showFilter(true, false);
  change({ filter, item: null });
}

function draw(next) {
  if (document.activeElement !== input && input.value.trim() !== next.filter) input.value = next.filter;
  if (next.filter && $("#filter-row").hidden) showFilter(true, false);
  $("#filter-button").classList.toggle("on", next.filter !== "");
  const keys = seen.get(next.collection) ?? new Set();
  const fields = ["name", "path", "size", "modified", ...keys];
  $("#filter-fields").replaceChildren(
    ...fields.slice(0, 24).map((field) => h("li", {}, h("button", { type: "button", class: "code", text: field, on: { click: () => put(`${field} `) } }))),
  );
}

/** Learns the fields of a collection from some of its items. */
export function learnFields(collection, items) {
  const keys = seen.get(collection) ?? new Set();
  const before = keys.size;
  for (const item of items.slice(0, 100)) for (const key of Object.keys(item.metadata ?? {})) keys.add(quoted(key));
  seen.set(collection, keys);
  if (keys.size !== before) draw(state);
}

export const fieldsOf = (collection) => [...(seen.get(collection) ?? [])];

const MEANINGS = /^(and|or|not|in|like|exists|true|false)$/i;
const BUILT_IN = /^(id|modality|path|uri|name|size|modified)$/;

/** A metadata key as the filter language writes it. */
export function quoted(key) {
  if (/^[^\s()<>=!,'".]+$/.test(key) && !MEANINGS.test(key) && !BUILT_IN.test(key)) return key;
  return `"${key}"`;
}

/** A value as the filter language writes it. */
export function literal(value) {
  if (typeof value !== "string") return String(value);
  return `'${value.replaceAll("'", "''")}'`;
}

/** Shows what the server found wrong, its pointer included; `null` takes it away. Answers whether it was about the filter. */
export function filterError(message) {
  const about = message !== null && state.filter !== "" && ABOUT.test(message);
  complain($("#filter-error"), input, about ? message.replace(ABOUT, "") : null);
  if (about) showFilter(true, false);
  return about;
}

/** Shows below a field what is wrong with it, the server's pointer on lines of its own; `null` takes it away. */
export function complain(place, field, message) {
  place.hidden = message === null;
  if (message === null) return field.removeAttribute("aria-invalid");
  field.setAttribute("aria-invalid", "true");
  const [first, ...pointer] = message.split("\n");
  place.replaceChildren(h("p", { text: first }));
  if (pointer.length) place.append(h("pre", { text: unindent(pointer).join("\n") }));
}

function unindent(lines) {
  const depth = Math.min(...lines.filter((line) => line.trim()).map((line) => /^ */.exec(line)[0].length));
  return lines.map((line) => line.slice(depth));
}

