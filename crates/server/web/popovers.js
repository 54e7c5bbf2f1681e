// Panels that open from a button, and the words that appear on pointing at something.

import { h } from "/assets/dom.js";
import { hush } from "/assets/i18n.js";

/** Makes `button` open `panel` below itself. The browser closes it on Esc and on a click elsewhere. */
export function popover(button, panel, onOpen = () => {}) {
  panel.popover = "auto";
  panel.id ||= `panel-${Math.random().toString(36).slice(2, 8)}`;
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-controls", panel.id);
  button.popoverTargetElement = panel;
  panel.addEventListener("beforetoggle", (event) => {
    const open = event.newState === "open";
    button.setAttribute("aria-expanded", String(open));
    if (open) onOpen();
  });
  panel.addEventListener("toggle", (event) => {
    if (event.newState !== "open") return;
    place(panel, button);
    const first = panel.querySelector("[autofocus], [aria-checked='true'], input, button, select, a");
    first?.focus({ preventScroll: true });
  });
  addEventListener("resize", () => panel.matches(":popover-open") && place(panel, button));
}

/** Below the button, within the window; on a phone the style sheet makes it a sheet at the bottom. */
function place(panel, button) {
  const from = button.getBoundingClientRect();
  const size = panel.getBoundingClientRect();
  const rightwards = from.left + size.width <= innerWidth - 12;
  const left = rightwards ? from.left : Math.max(12, from.right - size.width);
  panel.style.setProperty("--left", `${Math.round(left)}px`);
  panel.style.setProperty("--top", `${Math.round(from.bottom + 8)}px`);
}

let tip = null;
let timer = 0;

/** Words at an element, until it is left. `describe(element)` makes them, or answers null. */
export function tips(selector, describe) {
  tip ??= document.body.appendChild(h("div", { class: "tip", role: "tooltip", id: "tip", popover: "manual" }));
  const show = (element, delay) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const text = element.isConnected && describe(element);
      if (!text) return;
      hush(tip, text);
      if (!tip.matches(":popover-open")) tip.showPopover();
      const at = element.getBoundingClientRect();
      const size = tip.getBoundingClientRect();
      const below = at.bottom + 8 + size.height < innerHeight;
      tip.style.left = `${Math.max(12, Math.min(innerWidth - size.width - 12, at.left + at.width / 2 - size.width / 2))}px`;
      tip.style.top = `${below ? at.bottom + 8 : at.top - size.height - 8}px`;
    }, delay);
  };
  const hide = () => {
    clearTimeout(timer);
    if (tip.matches(":popover-open")) tip.hidePopover();
  };
  document.addEventListener("pointerover", (event) => {
    const element = event.target.closest?.(selector);
    if (element) show(element, 250);
    else hide();
  });
  document.addEventListener("focusin", (event) => {
    const holder = event.target.matches?.(":focus-visible") ? event.target : null;
    const element = holder && (holder.matches(selector) ? holder : holder.matches(".tile") ? holder.querySelector(selector) : null);
    if (element) show(element, 900);
    else hide();
  });
  addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", hide);
}
