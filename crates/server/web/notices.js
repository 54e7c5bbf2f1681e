// Short words about what happened, and the strip on top of the page when something stands in the way.

import { ApiError } from "/assets/api.js";
import { $, h, iconButton } from "/assets/dom.js";
import { say, t } from "/assets/i18n.js";

const STAYS = 6000;

/** A line at the bottom that goes by itself. */
export function notice(key, values, kind = "plain") {
  const line = h("div", { class: `notice ${kind}` }, h("span", { t: [key, values] }));
  const go = () => line.remove();
  line.append(iconButton("close", "close", go));
  const list = $("#notices");
  list.append(line);
  while (list.children.length > 3) list.firstElementChild.remove();
  // Errors wait to be read; the rest goes, unless somebody is at it.
  if (kind !== "bad") setTimeout(() => line.matches(":hover, :focus-within") ? setTimeout(go, STAYS) : go(), STAYS);
}

/** What went wrong, in the reader's words where the cause is known, else in the server's. */
export function explain(error) {
  if (!(error instanceof ApiError)) return ["error.page", { message: error.message }];
  const known = {
    unreachable: "error.unreachable",
    unauthorized: "error.unauthorized",
    forbidden: "error.forbidden",
    too_large: "error.tooLarge",
    timeout: "error.timeout",
    unavailable: "error.unavailable",
    rate_limited: "error.busy",
    overloaded: "error.busy",
  }[error.code];
  return [known ?? "error.server", { message: error.message, n: error.retryAfter || 1 }];
}

export function tell(error) {
  if (error.name !== "AbortError") notice(...explain(error), "bad");
}

/** The strip on top: what is the matter, and what can be done about it. */
export function strip(key, values, action) {
  const place = $("#strip");
  place.replaceChildren(h("p", { t: [key, values] }));
  if (action) place.append(h("button", { type: "button", t: action.key, on: { click: action.act } }));
  place.hidden = false;
}

export function clearStrip() {
  $("#strip").hidden = true;
}

/** Counts seconds down in the strip, then acts. Answers with a way to stop. */
export function countdown(key, seconds, act, action) {
  let left = Math.max(1, Math.ceil(seconds));
  strip(key, { n: left }, action);
  const line = $("#strip p");
  const timer = setInterval(() => {
    left -= 1;
    if (left > 0) return say(line, key, { n: left });
    clearInterval(timer);
    act();
  }, 1000);
  return () => clearInterval(timer);
}

/** A question in a window of its own; answers true or false. */
export function confirm({ title, text, values, yes }) {
  const dialog = h("dialog", { class: "small confirm", "aria-labelledby": "confirm-title" });
  return new Promise((resolve) => {
    const no = h("button", { type: "button", t: "cancel", on: { click: () => dialog.close() } });
    const sure = h("button", { type: "button", class: "danger", t: yes, on: { click: () => dialog.close("yes") } });
    dialog.append(h("h2", { id: "confirm-title", t: [title, values] }), h("p", { t: [text, values] }), h("div", { class: "answers" }, no, sure));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
    no.focus();
  });
}

/** For screen readers only. */
export function announce(key, values) {
  $("#announcer").textContent = t(key, values);
}
