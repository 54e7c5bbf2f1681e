// Which collection is shown, what others there are, and making and deleting them.

import * as api from "/assets/api.js";
import { $, h, iconButton } from "/assets/dom.js";
import { bytes, hush, number, onLanguage, say, t } from "/assets/i18n.js";
import { confirm, explain, notice, tell } from "/assets/notices.js";
import { popover } from "/assets/popovers.js";
import { change, onChange, state } from "/assets/state.js";

let all = [];
let models = [];
let openAdd;
/** Whether the server has been heard; before, nothing is known of its collections. */
let heard = false;

export const currentCollection = () => all.find((one) => one.name === state.collection) ?? null;
export const knownModels = () => models;

export function initCollections(actions) {
  openAdd = actions.openAdd;
  popover($("#collection-button"), $("#collections"), () => {
    refresh().catch(tell);
  });
  $("#new-collection").addEventListener("click", () => openCreate());
  $("#create-form").addEventListener("submit", create);
  $("#create-cancel").addEventListener("click", () => $("#create").close());
  onChange(draw);
  onLanguage(draw);
}

/** Asks for the collections and the models anew. If the address names no collection, the first is shown. */
export async function refresh() {
  [all, models] = await Promise.all([api.collections(), models.length ? models : api.models()]);
  heard = true;
  if (!state.collection && all.length) change({ collection: remembered() ?? all[0].name }, { replace: true });
  draw();
}

function remembered() {
  try {
    const name = localStorage.getItem("crossmodal.collection");
    return all.some((one) => one.name === name) ? name : null;
  } catch {
    return null;
  }
}

function switchTo(name) {
  try {
    localStorage.setItem("crossmodal.collection", name);
  } catch {
    // Not remembered, then.
  }
  const parts = state.parts.filter((part) => part.kind !== "item");
  change({ collection: name, parts, filter: "", group: "", item: null, view: state.view === "classify" ? "pictures" : state.view });
}

function draw() {
  const here = currentCollection();
  const button = $("#collection-button");
  button.hidden = !heard;
  if (state.collection) hush($(".name", button), state.collection);
  else say($(".name", button), "collection.none");
  hush($(".count", button), here ? number(here.items) : "");
  $("#add-button").hidden = !state.collection;
  const list = $("#collection-list");
  const focused = document.activeElement?.closest?.("li")?.dataset.name;
  list.replaceChildren(...all.map(row));
  if (focused && !list.contains(document.activeElement)) list.querySelector(`[data-name="${CSS.escape(focused)}"] button`)?.focus();
  const about = $("#about");
  const model = models.find((one) => one.default);
  hush(about, model ? t("model.default", { id: model.id }) : "");
}

function row(one) {
  const facts = [t("collection.items", { n: one.items }), one.model, one.searchable === false ? t("collection.asleep") : bytes(one.bytes ?? 0)].filter(Boolean).join(" · ");
  const current = one.name === state.collection;
  const choose = h("button", {
    type: "button", class: "choice", "aria-current": current ? "true" : null,
    on: {
      click: () => {
        $("#collections").hidePopover();
        $("#collection-button").focus();
        if (!current) switchTo(one.name);
      },
    },
  }, h("span", { class: "name", text: one.name }), h("span", { class: "soft", text: facts }));
  return h("li", { data: { name: one.name } }, choose, one.removable ? iconButton("trash", ["collection.delete", { name: one.name }], () => removeCollection(one)) : null);
}

export function openCreate() {
  const choice = $("#create-model");
  choice.replaceChildren(...models.map((model) => h("option", { value: model.id, text: model.id })));
  choice.value = models.find((model) => model.default)?.id ?? "";
  $("#create-error").hidden = true;
  $("#collections").hidePopover();
  $("#create").showModal();
  $("#create-name").select();
}

async function create(event) {
  event.preventDefault();
  const name = $("#create-name").value.trim();
  if (!name) return;
  try {
    const made = await api.createCollection(name, $("#create-model").value);
    $("#create").close();
    $("#create-name").value = "";
    await refresh();
    switchTo(made.name);
    openAdd();
  } catch (error) {
    const line = $("#create-error");
    line.hidden = false;
    if (error.code === "conflict") say(line, "create.taken", { name });
    else if (error.code === "invalid_request") hush(line, error.message);
    else say(line, ...explain(error));
    $("#create-name").focus();
  }
}

async function removeCollection(one) {
  $("#collections").hidePopover();
  const sure = await confirm({ title: "collection.deleteTitle", text: "collection.deleteText", values: { name: one.name, n: one.items }, yes: "delete.yes" });
  if (!sure) return $("#collection-button").focus();
  try {
    await api.deleteCollection(one.name);
    notice("collection.deleted", { name: one.name });
    all = all.filter((other) => other.name !== one.name);
    if (one.name === state.collection) switchTo(all[0]?.name ?? "");
    else draw();
    $("#collection-button").focus();
  } catch (error) {
    tell(error);
  }
}

