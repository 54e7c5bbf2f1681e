// Small choices: how hits are ranked and chosen, how large pictures are, light or dark, the language, the key.

import * as api from "/assets/api.js";
import { $, h } from "/assets/dom.js";
import { fieldsOf } from "/assets/filters.js";
import { currentLanguage, languages, number, onLanguage, setLanguage, t } from "/assets/i18n.js";
import { popover } from "/assets/popovers.js";
import { change, onChange, state } from "/assets/state.js";

const read = (name) => {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
};

const write = (name, value) => {
  try {
    if (value) localStorage.setItem(name, value);
    else localStorage.removeItem(name);
  } catch {
    // Not remembered, then.
  }
};

/** `sized(size)` is told how large pictures shall be; `changedKey()` that another key, or none, is used. */
export function initOptions({ sized, changedKey }) {
  popover($("#options-button"), $("#options"), drawOptions);
  popover($("#menu-button"), $("#menu"), drawMenu);
  initSearchOptions();
  for (const radio of document.querySelectorAll('input[name="size"]')) radio.addEventListener("change", () => sized(keepSize(radio.value)));
  const size = read("crossmodal.size");
  const chosen = document.querySelector(`input[name="size"][value="${["small", "medium", "large"].includes(size) ? size : "medium"}"]`);
  chosen.checked = true;
  sized(chosen.value);
  for (const radio of document.querySelectorAll('input[name="theme"]')) radio.addEventListener("change", () => setTheme(radio.value));
  $("#language").replaceChildren(...Object.entries(languages).map(([code, name]) => h("option", { value: code, lang: code, text: name })));
  $("#language").addEventListener("change", (event) => setLanguage(event.target.value));
  $("#key-button").addEventListener("click", () => {
    const had = api.hasKey();
    $("#menu").hidePopover();
    if (!had) return askForKey(false).then((key) => key && (api.setKey(key), changedKey()));
    api.setKey(null);
    changedKey();
  });
  $("#keys-button").addEventListener("click", () => {
    $("#menu").hidePopover();
    $("#keys").showModal();
  });
  $("#key-cancel").addEventListener("click", () => $("#key").close());
  $("#keys-close").addEventListener("click", () => $("#keys").close());
  onChange(drawOptions);
  onLanguage(drawOptions);
  drawOptions();
}

function keepSize(size) {
  write("crossmodal.size", size);
  return size;
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  write("crossmodal.theme", theme === "auto" ? null : theme);
  document.dispatchEvent(new Event("themechange"));
}

function initSearchOptions() {
  for (const radio of document.querySelectorAll('input[name="mode"]')) radio.addEventListener("change", () => change({ mode: radio.value }));
  $("#alpha-on").addEventListener("change", (event) => change({ alpha: event.target.checked ? 0.5 : null }));
  $("#alpha").addEventListener("input", (event) => change({ alpha: Number(event.target.value) }, { typed: true }));
  $("#diverse-on").addEventListener("change", (event) => change({ diversity: event.target.checked ? 0.5 : null }));
  $("#diverse").addEventListener("input", (event) => change({ diversity: Number(event.target.value) }, { typed: true }));
  $("#group").addEventListener("change", (event) => change({ group: event.target.value }));
  $("#relevant").addEventListener("change", (event) => change({ relevant: event.target.checked }));
  $("#options-reset").addEventListener("click", () => change({ mode: "vector", alpha: null, diversity: null, group: "", relevant: false }));
}

function drawOptions() {
  document.querySelector(`input[name="mode"][value="${state.mode}"]`).checked = true;
  $("#alpha-row").hidden = state.mode !== "hybrid";
  $("#alpha-on").checked = state.alpha !== null;
  $("#alpha").disabled = state.alpha === null;
  if (document.activeElement !== $("#alpha")) $("#alpha").value = state.alpha ?? 0.5;
  $("#diverse-on").checked = state.diversity !== null;
  $("#diverse").disabled = state.diversity === null;
  if (document.activeElement !== $("#diverse")) $("#diverse").value = state.diversity ?? 0.5;
  $("#diverse-value").textContent = state.diversity === null ? "" : number(state.diversity);
  $("#alpha-value").textContent = state.alpha === null ? "" : number(state.alpha);
  $("#relevant").checked = state.relevant;
  drawGroups();
  const changed = state.mode !== "vector" || state.diversity !== null || state.group !== "";
  $("#options-button").classList.toggle("on", changed);
  $("#options-reset").disabled = !changed && !state.relevant;
}

function drawGroups() {
  const choice = $("#group");
  const keys = fieldsOf(state.collection).map((field) => field.replace(/^"(.*)"$/, "$1"));
  const values = ["", "folder", "file", ...keys];
  if (state.group && !values.includes(state.group)) values.push(state.group);
  const names = { "": t("group.none"), folder: t("group.folder"), file: t("group.file") };
  const signature = JSON.stringify([values, currentLanguage()]);
  if (choice.dataset.drawn !== signature) {
    choice.dataset.drawn = signature;
    choice.replaceChildren(...values.map((value) => h("option", { value, text: names[value] ?? value })));
  }
  choice.value = state.group;
}

function drawMenu() {
  document.querySelector(`input[name="theme"][value="${document.documentElement.dataset.theme ?? "auto"}"]`).checked = true;
  $("#language").value = currentLanguage();
  $("#key-button span").textContent = t(api.hasKey() ? "key.forget" : "key.enter");
}

/** Asks for a key; answers null if the reader would rather not. */
export function askForKey(wrong) {
  const dialog = $("#key");
  $("#key-wrong").hidden = !wrong;
  const field = $("#key-field");
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use" ? field.value.trim() || null : null), { once: true });
  });
}
