// The language of the page: dictionaries, plurals, numbers, and elements that follow when the language is switched.

import { en } from "/assets/words-en.js";
import { fr } from "/assets/words-fr.js";

const dictionaries = { en, fr };
const STORED = "crossmodal.language";
/** What each element says, and with which values: how a switch of language finds its way through the page. */
const said = new WeakMap();
const listeners = new Set();

export const languages = { en: "English", fr: "Français" };
let language = dictionaries[document.documentElement.lang] ? document.documentElement.lang : "en";

export const currentLanguage = () => language;

/** The text of `key`, `{name}` replaced by values; numbers are written as the language writes them. `n` chooses the plural. */
export function t(key, values = {}) {
  let text = dictionaries[language][key] ?? dictionaries.en[key];
  if (text === undefined) return key;
  if (typeof text === "object") {
    text = text[new Intl.PluralRules(language).select(Number(values.n))] ?? text.other;
  }
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    if (value === undefined) return whole;
    return typeof value === "number" ? number(value) : String(value);
  });
}

export function number(value, options) {
  return new Intl.NumberFormat(language, options).format(value);
}

export function fixed(value, digits) {
  return number(value, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function percent(value) {
  return number(value, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

export function bytes(value) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const power = value < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return number(value / 1000 ** power, { style: "unit", unit: units[power], unitDisplay: power ? "short" : "long", maximumFractionDigits: power ? 1 : 0 });
}

export function date(value) {
  // The API gives moments as text; some storages give nanoseconds since 1970.
  const moment = typeof value === "number" ? new Date(value / (value > 1e15 ? 1e6 : value > 1e11 ? 1 : 1e-3)) : new Date(value);
  if (Number.isNaN(moment.getTime())) return String(value);
  return new Intl.DateTimeFormat(language, { dateStyle: "long", timeStyle: "short" }).format(moment);
}

/** Writes a text into an element, now and after each switch of language. */
export function say(element, key, values) {
  element.dataset.t = key;
  remember(element, "", values);
  element.textContent = t(key, values);
  return element;
}

export function sayAttribute(element, attribute, key, values) {
  element.setAttribute(`data-t-${attribute}`, key);
  remember(element, attribute, values);
  element.setAttribute(attribute, t(key, values));
  return element;
}

/** Lets go of a text that was said: the element holds foreign text, or none. */
export function hush(element, text = "") {
  delete element.dataset.t;
  element.textContent = text;
  return element;
}

function remember(element, slot, values) {
  if (!values) return;
  const all = said.get(element) ?? {};
  all[slot] = values;
  said.set(element, all);
}

const ATTRIBUTES = ["aria-label", "title", "placeholder", "aria-description", "alt"];

export function translate(root = document) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t, said.get(element)?.[""]);
  for (const attribute of ATTRIBUTES) {
    for (const element of root.querySelectorAll(`[data-t-${attribute}]`)) {
      element.setAttribute(attribute, t(element.getAttribute(`data-t-${attribute}`), said.get(element)?.[attribute]));
    }
  }
}

export function setLanguage(next) {
  if (!dictionaries[next]) return;
  language = next;
  document.documentElement.lang = next;
  try {
    localStorage.setItem(STORED, next);
  } catch {
    // Remembering is a courtesy; without storage the switch still holds for this page.
  }
  translate();
  for (const listener of listeners) listener();
}

/** For what isn't plain text: numbers in pictures, sorted lists. */
export function onLanguage(listener) {
  listeners.add(listener);
}
