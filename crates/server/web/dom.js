// How the page makes elements. Texts from the server only ever become text nodes or attributes, never markup.

import { say, sayAttribute } from "/assets/i18n.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `properties` are attributes, but for: `class`, `on` (listeners), `data`, `text` (as it is), `t` (a key of the
 * dictionary, or `[key, values]`), `label`, `hint` and `placeholder` (the same for `aria-label`, `title` and `placeholder`).
 */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") element.className = value;
    else if (key === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (key === "data") Object.assign(element.dataset, value);
    else if (key === "text") element.textContent = value;
    else if (key === "t") say(element, ...[value].flat());
    else if (key === "label") sayAttribute(element, "aria-label", ...[value].flat());
    else if (key === "hint") sayAttribute(element, "title", ...[value].flat());
    else if (key === "placeholder") sayAttribute(element, "placeholder", ...[value].flat());
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** One of the drawings at the top of index.html. Decoration only: what it means is said in words beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon and a name that is read out, and shown on hovering. */
export function iconButton(name, key, onclick, properties = {}) {
  return h("button", { type: "button", class: "quiet icon-only", label: key, hint: key, on: { click: onclick }, ...properties }, icon(name));
}

export const $ = (selector, root = document) => root.querySelector(selector);

/** Calls `action` once nothing has been asked for `delay` ms; `now()` calls it at once, `cancel()` not at all. */
export function debounce(action, delay) {
  let timer = 0;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(action, delay, ...values);
  };
  later.cancel = () => clearTimeout(timer);
  later.now = (...values) => {
    clearTimeout(timer);
    action(...values);
  };
  return later;
}

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Whether keys typed now are meant for a field. */
export function isTyping(target) {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}
