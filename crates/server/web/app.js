// The page: puts the parts together, runs the searches, and says how they went.

import { addFiles, filesOf, initAdd, openAdd } from "/assets/add.js";
import * as api from "/assets/api.js";
import { drawModels, initClassify, restorePicture, setPicture } from "/assets/classify.js";
import { currentCollection, initCollections, knownModels, openCreate, refresh } from "/assets/collections.js";
import { $, debounce, h, isTyping } from "/assets/dom.js";
import { complain, filterError, initFilters, learnFields } from "/assets/filters.js";
import { Gallery } from "/assets/gallery.js";
import { fixed, hush, number, onLanguage, say, t, translate } from "/assets/i18n.js";
import { initItem, openItem, remove } from "/assets/item.js";
import { highlight, initMap, mapChanged } from "/assets/map.js";
import { announce, clearStrip, countdown, explain, notice, tell } from "/assets/notices.js";
import { askForKey, initOptions } from "/assets/options.js";
import { looksLikePicture } from "/assets/pictures-kept.js";
import { tips } from "/assets/popovers.js";
import { addItem, addPictures, focusQuery, initQuery, pasted, similarTo } from "/assets/query.js";
import { PictureMissing, sourceFor } from "/assets/search.js";
import { address, change, hasQuery, onChange, state } from "/assets/state.js";

/** A pause in typing that is long enough for a search. */
const PAUSE = 120;
/** Answers that take longer than this are announced by dimming what they will replace. */
const SLOW = 180;
/** How long half a query may stand before it is called wrong. */
const PATIENCE = 500;
/** What the server's messages about pictures have in common. */
const ABOUT_PICTURES = /picture|image|pixel|decod/i;
/** Hits that stand out on the map where confidence doesn't choose them. */
const STANDING_OUT = 24;

let gallery;
/** What the gallery shows, and what is on its way to replace it. */
let source = null;
let coming = null;
let stopWaiting = () => {};

function start() {
  translate();
  api.connect({ askForKey, onContact: contact });
  initOptions({ sized: (size) => (gallery ? gallery.setSize(size) : (firstSize = size)), changedKey: begin });
  gallery = new Gallery($("#grid"), {
    open: (place) => openItem(source.items[place]),
    similar: similarTo,
    add: addItem,
    remove,
    needMore: more,
    leave: focusQuery,
  });
  gallery.setSize(firstSize);
  initQuery();
  initFilters();
  initCollections({ openAdd });
  initItem({ neighbour, removed, closed: (key) => refocus(key), classify: classifyItem });
  initMap({ open: (key) => openItem(known(key) ?? { key }), known });
  initClassify({ models: knownModels });
  initAdd({ added });
  tips(".meter, .explained", (meter) => {
    const confidence = Number(meter.dataset.confidence);
    return t(confidence >= 0.7 ? "confidence.high" : confidence >= 0.3 ? "confidence.middle" : "confidence.low", {
      value: fixed(confidence, 2), chance: number(Math.max(1, Math.round((1 - confidence) * 100))),
    });
  });
  initWindow();
  onChange(follow);
  onLanguage(() => (drawViews(), drawState(), title()));
  drawViews();
  restorePicture();
  begin();
}

let firstSize = "medium";

/** From nothing: which collections are there, then what the address asks for. */
async function begin() {
  clearStrip();
  try {
    await refresh();
    drawModels();
    api.version().then((version) => ($("#version").textContent = `${version.name} ${version.version}`), () => {});
  } catch (error) {
    return trouble(error, begin);
  }
  search(true);
}

function follow(next, before, { typed }) {
  // An address without a collection, as the bare page has it: the first one is meant.
  if (!next.collection && before.collection) return begin();
  drawViews();
  title();
  const asked = ["collection", "query", "filter", "mode", "alpha", "group", "diversity", "relevant"];
  const same = asked.every((name) => next[name] === before[name]) && JSON.stringify(next.parts) === JSON.stringify(before.parts);
  if (!same) {
    if (typed) searchSoon();
    else searchSoon.now();
  }
  if (next.view !== before.view) {
    $("#grid").hidden = next.view !== "pictures";
    if (next.view === "pictures") gallery.draw();
  }
}

const searchSoon = debounce(() => search(), PAUSE);

/** Fetches the first page of what the state asks for; whatever was on its way is dropped. */
async function search(first = false) {
  searchSoon.cancel();
  queryWrong.cancel();
  stopWaiting();
  coming?.close();
  coming = null;
  if (!state.collection) return blank();
  const mine = sourceFor(state);
  coming = mine;
  const page = $("#view-pictures");
  const slow = setTimeout(() => page.classList.add("stale"), source && !first ? SLOW : 0);
  if (!source) drawState();
  try {
    await mine.more();
    if (coming !== mine) return;
    source?.close();
    [source, coming] = [mine, null];
    filterError(null);
    queryWrong.now(null);
    clearStrip();
    learnFields(state.collection, mine.items);
    if (scrollY > $("#grid").offsetTop) scrollTo({ top: 0 });
    gallery.show(mine);
    drawState();
    said();
    standOut();
  } catch (error) {
    if (error.name === "AbortError" || coming !== mine) return;
    coming = null;
    trouble(error, () => search(), mine);
  } finally {
    clearTimeout(slow);
    if (coming === null) page.classList.remove("stale");
  }
}

function blank() {
  source = null;
  $("#grid").style.height = "0";
  $("#grid").replaceChildren();
  gallery.rows.clear();
  gallery.source = null;
  drawState();
}

async function more() {
  const mine = source;
  try {
    await mine.more();
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  if (mine !== source) return;
  gallery.later();
  drawState();
}

/** While somebody is typing, half a query is no mistake: it is left alone for a moment. What was found before stays. */
const queryWrong = debounce((message) => complain($("#query-error"), $("#words"), message), PATIENCE);

/** What to do about a failure: wait, wait for the server, or say what is wrong where it is. */
function trouble(error, retry, mine = null) {
  if (error instanceof PictureMissing) {
    show("empty.picture");
    return;
  }
  if (error.status === 429 || error.code === "unavailable") {
    stopWaiting = countdown(error.status === 429 ? "strip.busy" : "strip.starting", error.retryAfter || 3, retry);
    return;
  }
  if (error.code === "unreachable") return; // contact() does the rest.
  if (mine) drawState();
  if (error.status === 404 && !currentCollection()) {
    blank();
    return show("empty.collection404", { name: state.collection });
  }
  if (filterError(error.message ?? null)) {
    announce("filter.wrong");
    return;
  }
  if (error.code === "invalid_input" && state.parts.some((part) => part.kind === "picture") && ABOUT_PICTURES.test(error.message)) {
    return show("error.picture", { message: error.message }, error.message);
  }
  if (mine && [400, 404].includes(error.status)) return queryWrong(error.message);
  show(...explain(error), "", error.status === 401 ? [action("key.enter", begin, "primary")] : []);
}

let gone = false;

/** Each request tells whether the server is there. When it isn't, this asks until it is. */
function contact(failure) {
  if (!failure) {
    if (gone) {
      gone = false;
      clearStrip();
      stopWaiting();
    }
    return;
  }
  if (gone) return;
  gone = true;
  waitForServer(2);
}

function waitForServer(seconds) {
  const look = async () => {
    stopWaiting();
    try {
      const response = await fetch("/health/ready");
      if (!response.ok) throw new Error(response.statusText);
      gone = false;
      clearStrip();
      notice("strip.back");
      begin();
    } catch {
      waitForServer(Math.min(30, seconds * 1.6));
    }
  };
  stopWaiting = countdown("strip.gone", seconds, look, { key: "strip.now", act: look });
}

/** A message in the gallery's place, with what can be done. */
function show(key, values = {}, detail = "", actions = []) {
  const place = $("#empty");
  const [head, text] = [t(`${key}.title`, values), t(`${key}.text`, values)];
  place.replaceChildren(h("h2", { text: head === `${key}.title` ? t(key, values) : head }));
  if (text !== `${key}.text`) place.append(h("p", { text }));
  if (detail.includes("\n") || (detail && !text.includes(detail) && !head.includes(detail))) place.append(h("pre", { text: detail }));
  if (actions.length) place.append(h("div", { class: "actions" }, ...actions));
  place.hidden = false;
  // The line above would speak of what isn't shown.
  for (const id of ["#count", "#time"]) hush($(id));
  $("#view-pictures").classList.add("replaced");
}

const action = (key, act, kind = "") => h("button", { type: "button", class: kind, t: key, on: { click: act } });

/** The line above the gallery, and what stands in its place when there is nothing to show. */
function drawState() {
  const line = $("#count");
  const here = currentCollection();
  $("#empty").hidden = true;
  $("#view-pictures").classList.remove("replaced");
  $("#loading").hidden = !(coming && !source);
  $("#more").hidden = true;
  $("#time").textContent = "";
  $("#relevant-row").hidden = !hasQuery();
  $(".choices").hidden = !state.collection;
  if (!state.collection) {
    hush(line);
    if (here === null && !coming) show("empty.none", {}, "", [action("collection.new", openCreate, "primary")]);
    return;
  }
  if (!source) {
    hush(line);
    return;
  }
  const n = source.items.length;
  if (source.failure) $("#more").hidden = false;
  if (source.kind === "browse") say(line, state.filter ? "count.filtered" : "count.items", { n: source.total ?? n });
  else say(line, source.done ? "count.hits" : "count.more", { n });
  const timed = source.kind === "search" && source.milliseconds !== undefined;
  $("#time").textContent = timed ? t("count.time", { ms: fixed(source.milliseconds, source.milliseconds < 10 ? 1 : 0) }) : here ? `· ${here.model}` : "";
  if (n) return;
  if (source.kind === "browse" && !source.filter) show("empty.collection", { name: state.collection }, "", [action("add.button", openAdd, "primary")]);
  else if (source.kind === "browse") show("empty.filter", {}, "", [action("filter.clear", () => change({ filter: "" }))]);
  else if (state.relevant) show("empty.relevant", {}, "", [action("empty.nearest", () => change({ relevant: false }), "primary")]);
  else show("empty.hits", {}, "", state.filter ? [action("filter.clear", () => change({ filter: "" }))] : []);
}

const said = debounce(() => source && announce(source.kind === "browse" ? "count.items" : source.done ? "count.hits" : "count.more", { n: source.total ?? source.items.length }), 700);

function standOut() {
  if (source.kind !== "search") return highlight(null);
  const sure = source.items.filter((hit) => hit.confidence >= 0.7);
  highlight((sure.length ? sure : source.items.slice(0, STANDING_OUT)).map((hit) => hit.key));
}

function title() {
  const words = state.query || (state.parts.length ? t("search.parts") : "");
  document.title = [words, state.collection, "crossmodal"].filter(Boolean).join(" · ");
}

function drawViews() {
  for (const link of document.querySelectorAll(".views a")) {
    const current = link.dataset.view === state.view;
    link.href = address({ ...state, view: link.dataset.view, item: null });
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== `view-${state.view}`;
  document.body.dataset.view = state.view;
  $("#query").hidden = state.view === "classify" || !state.collection;
}

const known = (key) => source?.items.find((item) => item.key === key) ?? null;

function neighbour(key, away) {
  const place = source?.items.findIndex((item) => item.key === key) ?? -1;
  if (place < 0) return null;
  if (place + away >= source.items.length - 5 && !source.done) more();
  return source.items[place + away] ?? null;
}

function refocus(key) {
  if (state.view === "map") return $("#map").focus({ preventScroll: true });
  const place = source?.items.findIndex((item) => item.key === key) ?? -1;
  // Only when nothing else took the focus: actions in the window lead elsewhere by themselves.
  if (place >= 0 && (document.activeElement === document.body || document.activeElement === null || $("#grid").contains(document.activeElement))) gallery.focus(place);
}

function removed(key) {
  source?.remove(key);
  gallery.redraw();
  drawState();
  mapChanged();
  refresh().catch(() => {});
  if (!document.querySelector("dialog[open]")) gallery.focus(gallery.current) || focusQuery();
}

function added(collection) {
  refresh().catch(() => {});
  if (collection !== state.collection) return;
  mapChanged();
  search();
}

async function classifyItem(item) {
  try {
    const blob = await (await api.request(api.fileAddress(state.collection, item.key))).blob();
    setPicture(new File([blob], item.name || "picture", { type: blob.type }));
  } catch (error) {
    tell(error);
  }
}

/** Keys, drops and pastes that are meant for the whole page. */
function initWindow() {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    event.preventDefault();
    if (state.view === "classify") change({ view: "pictures" });
    focusQuery();
  });
  document.addEventListener("paste", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const pictures = pasted(event);
    if (!pictures) return;
    if (state.view === "classify") setPicture(pictures[0]);
    else addPictures(pictures);
  });
  $("#skip").addEventListener("click", () => (state.view === "pictures" && gallery.focus(gallery.current)) || $("#main").focus());
  $("#more").addEventListener("click", more);
  for (const link of document.querySelectorAll(".views a")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      change({ view: link.dataset.view, item: null });
    });
  }
  // What is scrolled to by keys mustn't hide below the search, which stays on top and grows with its chips.
  new ResizeObserver(() => {
    document.documentElement.style.scrollPaddingTop = `${$("#query").offsetHeight + 8}px`;
  }).observe($("#query"));
  initDrop();
}

/** Files dragged over the page: two places to drop them, as they can be searched by or added. */
function initDrop() {
  const veil = $("#veil");
  let depth = 0;
  const files = (event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
  const hide = () => {
    depth = 0;
    veil.hidden = true;
  };
  addEventListener("dragenter", (event) => {
    if (!files(event)) return;
    depth += 1;
    $("#veil-add").hidden = !state.collection || state.view === "classify";
    say($("#veil-search span"), state.view === "classify" ? "veil.classify" : "veil.search");
    if (state.collection) say($("#veil-add span"), "veil.add", { collection: state.collection });
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!files(event)) return;
    depth -= 1;
    if (depth <= 0) hide();
  });
  addEventListener("dragover", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    for (const zone of veil.children) zone.classList.toggle("over", zone.contains(event.target));
  });
  addEventListener("drop", async (event) => {
    if (event.defaultPrevented || !files(event)) return hide();
    event.preventDefault();
    const adding = $("#veil-add").contains(event.target);
    hide();
    if (adding) return addFiles(await filesOf(event.dataTransfer));
    const pictures = [...event.dataTransfer.files].filter(looksLikePicture);
    if (!pictures.length) return notice("veil.noPicture", {}, "bad");
    if (state.view === "classify") setPicture(pictures[0]);
    else addPictures(pictures.slice(0, 8));
  });
}

start();
