// The map of a collection: every picture a point, what is alike lying together. Drawn on a canvas; where there is room the
// pictures themselves take the place of their points.

import * as api from "/assets/api.js";
import { $, h, reducedMotion } from "/assets/dom.js";
import { currentLanguage, onLanguage, say } from "/assets/i18n.js";
import { explain } from "/assets/notices.js";
import { titleOf } from "/assets/search.js";
import { onChange, state } from "/assets/state.js";
import * as thumbnails from "/assets/thumbnails.js";

const LIMIT = 5000;
const POLL = 700;
const MOST_ZOOM = 60;
/** Pictures smaller than this say less than a point. */
const LEAST_PICTURE = 30;
const MOST_PICTURE = 120;
/** Pictures kept in memory for drawing, and how many are asked for at a time. */
const KEPT = 600;
const AT_ONCE = 4;

let canvas;
let context;
let card;
let actions;
let data = null;
let stop = null;
let frame = null;
/** What the window shows: centre in map coordinates, and how far in. */
let eye = { x: 0, y: 0, zoom: 1 };
let hits = new Set();
let pointed = -1;
/** Moved by keys: what lies in the middle is what is pointed at. */
let byKeys = false;
const pictures = new Map();
let queue = [];
let asking = 0;
let colours = {};

/** `actions`: open(item), known(key) answers with an item if it is at hand. */
export function initMap(given) {
  actions = given;
  canvas = $("#map");
  card = $("#map-card");
  context = canvas.getContext("2d");
  new ResizeObserver(resize).observe(canvas);
  onChange((next, before) => {
    if (next.view !== "map") return;
    if (before.view !== "map" || before.collection !== next.collection || !data) load();
  });
  onLanguage(() => data && describe());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  document.addEventListener("themechange", recolour);
  pointer();
  canvas.addEventListener("keydown", keys);
  canvas.addEventListener("blur", () => point(-1));
  $("#map-in").addEventListener("click", () => zoomBy(1.6));
  $("#map-out").addEventListener("click", () => zoomBy(1 / 1.6));
  $("#map-all").addEventListener("click", () => glideTo({ x: 0, y: 0, zoom: 1 }));
  if (state.view === "map") load();
}

/** The hits of the present query stand out; null: there is no query. */
export function highlight(keys) {
  hits = new Set(keys ?? []);
  if (data) {
    describe();
    // What stands out is of no use where it can't be seen.
    const width = canvas.clientWidth;
    const seen = !hits.size || !width || data.keys.some((key, index) => {
      const [x, y] = hits.has(key) ? onScreen(index) : [-1, -1];
      return x >= 0 && y >= 0 && x <= width && y <= canvas.clientHeight;
    });
    if (!seen) glideTo({ x: 0, y: 0, zoom: 1 });
  }
  redraw();
}

/** The collection has changed: the map is asked for anew. */
export function mapChanged() {
  data = null;
  if (state.view === "map") load();
}

async function load() {
  const { collection } = state;
  if (!collection) return;
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop;
  const note = $("#map-note");
  if (data?.collection !== collection) {
    data = null;
    pictures.clear();
    queue = [];
    eye = { x: 0, y: 0, zoom: 1 };
  }
  try {
    for (;;) {
      const answer = await api.map(collection, LIMIT, signal);
      if (answer.state === "ready") {
        data = { ...answer, x: spread(answer.x), y: spread(answer.y), collection };
        break;
      }
      note.hidden = false;
      say($("p", note), "map.computing");
      $("progress", note).hidden = false;
      const { progress } = answer;
      if (typeof progress === "number") $("progress", note).value = progress;
      else $("progress", note).removeAttribute("value");
      await new Promise((resolve) => setTimeout(resolve, POLL));
      signal.throwIfAborted();
    }
    note.hidden = data.keys.length > 0;
    if (!data.keys.length) empty("map.empty");
    describe();
    resize();
  } catch (error) {
    if (error.name === "AbortError") return;
    empty(...explain(error));
    note.hidden = false;
  }
}

/** Stretches coordinates over -1..1: what matters is what lies by what, and the window is there to be used. */
function spread(values) {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return values.map((value) => (most > least ? ((value - least) / (most - least)) * 2 - 1 : 0));
}

function empty(key, values) {
  say($("#map-note p"), key, values);
  $("#map-note progress").hidden = true;
}

function describe() {
  const shown = data.keys.length;
  const among = data.keys.filter((key) => hits.has(key)).length;
  say($("#map-said"), hits.size ? "map.saidHits" : "map.said", hits.size ? { n: among, all: shown } : { n: shown });
}

function recolour() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "accent", "paper", "card", "line"]) colours[name] = style.getPropertyValue(`--${name}`).trim();
  redraw();
}

function resize() {
  const { clientWidth, clientHeight } = canvas;
  if (!clientWidth) return;
  const density = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.round(clientWidth * density);
  canvas.height = Math.round(clientHeight * density);
  recolour();
}

/** Pixels for the width of one map unit. Both sides are stretched to the window: the map has no scale of its own. */
function scale() {
  const margin = Math.min(64, canvas.clientWidth * 0.08);
  return { x: (canvas.clientWidth / 2 - margin) * eye.zoom, y: (canvas.clientHeight / 2 - margin) * eye.zoom };
}

function onScreen(index) {
  const { x, y } = scale();
  return [canvas.clientWidth / 2 + (data.x[index] - eye.x) * x, canvas.clientHeight / 2 + (data.y[index] - eye.y) * y];
}

function redraw() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    if (data && canvas.clientWidth) paint();
  });
}

function paint() {
  const density = canvas.width / canvas.clientWidth;
  const { clientWidth: width, clientHeight: height } = canvas;
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, width, height);
  const seen = [];
  for (let index = 0; index < data.keys.length; index += 1) {
    const [x, y] = onScreen(index);
    if (x > -80 && y > -80 && x < width + 80 && y < height + 80) seen.push({ index, x, y, hit: hits.has(data.keys[index]) });
  }
  const size = pictureSize(seen, width, height);
  const radius = Math.max(2, Math.min(5, 2 + Math.log2(eye.zoom + 1)));
  const places = size ? room(seen, size) : new Set();
  queue = [];
  for (const point of seen) if (!places.has(point) && !point.hit) dot(point, radius);
  for (const point of seen) if (places.has(point)) tile(point, size, radius);
  for (const point of seen) if (!places.has(point) && point.hit) dot(point, radius);
  if (pointed >= 0) ring(pointed, places, size, radius);
  if (byKeys && document.activeElement === canvas) crosshair(width, height);
  fetchMore();
}

/** How large pictures may be: what each point has of the window on average, a little less as points cluster. */
function pictureSize(seen, width, height) {
  if (!seen.length) return 0;
  const size = Math.sqrt((width * height) / seen.length) * 0.66;
  return size < LEAST_PICTURE ? 0 : Math.min(MOST_PICTURE, size);
}

/** The points that get a picture: hits first, then as they come, none over another. */
function room(seen, size) {
  const cells = new Map();
  const taken = new Set();
  const cell = (x, y) => `${Math.floor(x / size)},${Math.floor(y / size)}`;
  for (const point of [...seen].sort((a, b) => Number(b.hit) - Number(a.hit))) {
    let free = true;
    for (let dx = -1; dx <= 1 && free; dx += 1) {
      for (let dy = -1; dy <= 1 && free; dy += 1) {
        for (const other of cells.get(cell(point.x + dx * size, point.y + dy * size)) ?? []) {
          if (Math.abs(other.x - point.x) < size && Math.abs(other.y - point.y) < size) free = false;
        }
      }
    }
    if (!free) continue;
    taken.add(point);
    const key = cell(point.x, point.y);
    cells.set(key, [...(cells.get(key) ?? []), point]);
  }
  return taken;
}

function dot({ x, y, hit }, radius) {
  context.beginPath();
  context.arc(x, y, hit ? radius + 1.5 : radius, 0, Math.PI * 2);
  context.fillStyle = hit ? colours.accent : colours.soft;
  context.globalAlpha = hit ? 1 : hits.size ? 0.35 : 0.7;
  context.fill();
  context.globalAlpha = 1;
}

function tile(point, size, radius) {
  const key = data.keys[point.index];
  const picture = pictures.get(key);
  if (!picture) {
    queue.push(point);
    return dot(point, radius);
  }
  if (picture === "none" || picture === "coming") return dot(point, radius);
  // Used last, so that it is let go of last.
  pictures.delete(key);
  pictures.set(key, picture);
  const side = size - 6;
  const shrink = side / Math.max(picture.width, picture.height);
  const [width, height] = [picture.width * shrink, picture.height * shrink];
  if (hits.size && !point.hit) {
    // Faded, but not so that points below shine through.
    context.fillStyle = colours.paper;
    context.fillRect(point.x - width / 2, point.y - height / 2, width, height);
    context.globalAlpha = 0.35;
  }
  context.drawImage(picture, point.x - width / 2, point.y - height / 2, width, height);
  context.globalAlpha = 1;
  if (point.hit) {
    context.lineWidth = 2;
    context.strokeStyle = colours.accent;
    context.strokeRect(point.x - width / 2 - 1, point.y - height / 2 - 1, width + 2, height + 2);
  }
}

function ring(index, places, size, radius) {
  const [x, y] = onScreen(index);
  const large = [...places].some((point) => point.index === index) && pictures.get(data.keys[index])?.width;
  const half = large ? size / 2 : radius + 5;
  context.lineWidth = 2;
  context.strokeStyle = colours.ink;
  context.beginPath();
  if (large) context.rect(x - half, y - half, half * 2, half * 2);
  else context.arc(x, y, half, 0, Math.PI * 2);
  context.stroke();
}

function crosshair(width, height) {
  context.lineWidth = 1;
  context.strokeStyle = colours.accent;
  context.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(width / 2 + dx * 6, height / 2 + dy * 6);
    context.lineTo(width / 2 + dx * 16, height / 2 + dy * 16);
  }
  context.stroke();
}

function fetchMore() {
  const collection = data?.collection;
  while (asking < AT_ONCE && queue.length) {
    const key = data.keys[queue.shift().index];
    if (pictures.has(key)) continue;
    pictures.set(key, "coming");
    asking += 1;
    thumbnails.bitmap(collection, key, 160).then(
      (picture) => pictures.set(key, picture),
      () => pictures.set(key, "none"),
    ).finally(() => {
      asking -= 1;
      for (const old of pictures.keys()) {
        if (pictures.size <= KEPT) break;
        pictures.get(old).close?.();
        pictures.delete(old);
      }
      redraw();
    });
  }
}

function nearest(x, y, reach) {
  let best = -1;
  let least = reach * reach;
  for (let index = 0; index < (data?.keys.length ?? 0); index += 1) {
    const [px, py] = onScreen(index);
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) [best, least] = [index, distance];
  }
  return best;
}

let naming = null;

/** Shows the card of a point: its picture at once, its name as soon as it is known. */
function point(index) {
  if (index === pointed) return index >= 0 && placeCard(index);
  pointed = index;
  naming?.abort();
  redraw();
  card.hidden = index < 0;
  canvas.style.cursor = index < 0 ? "" : "pointer";
  if (index < 0) return;
  const key = data.keys[index];
  const image = h("img", { alt: "" });
  const name = h("p");
  for (const old of card.querySelectorAll("img")) thumbnails.release(old);
  card.replaceChildren(image, name);
  thumbnails.show(image, data.collection, key, 240);
  image.addEventListener("error", () => image.remove());
  placeCard(index);
  naming = new AbortController();
  const fill = (item) => {
    name.textContent = titleOf(item, currentLanguage());
    if (byKeys) $("#map-announcer").textContent = name.textContent;
  };
  const item = actions.known(key);
  if (item) fill(item);
  else setTimeout((signal) => signal.aborted || api.item(data.collection, key, signal).then(fill, () => {}), 120, naming.signal);
}

function placeCard(index) {
  const [x, y] = onScreen(index);
  const left = x < canvas.clientWidth / 2;
  const top = y < canvas.clientHeight / 2;
  card.style.transform = `translate(${Math.round(x + (left ? 24 : -24))}px, ${Math.round(y)}px) translate(${left ? 0 : -100}%, ${top ? -20 : -80}%)`;
}

function clamp(next) {
  const zoom = Math.max(0.6, Math.min(MOST_ZOOM, next.zoom));
  return { zoom, x: Math.max(-1.2, Math.min(1.2, next.x)), y: Math.max(-1.2, Math.min(1.2, next.y)) };
}

/** Zooms so that the place at (x, y) on the screen stays there. */
function zoomAt(factor, x, y) {
  const before = scale();
  const [px, py] = [eye.x + (x - canvas.clientWidth / 2) / before.x, eye.y + (y - canvas.clientHeight / 2) / before.y];
  eye = clamp({ ...eye, zoom: eye.zoom * factor });
  const after = scale();
  eye = clamp({ ...eye, x: px - (x - canvas.clientWidth / 2) / after.x, y: py - (y - canvas.clientHeight / 2) / after.y });
  redraw();
}

const zoomBy = (factor) => glideTo(clamp({ ...eye, zoom: eye.zoom * factor }));

function pan(dx, dy) {
  const { x, y } = scale();
  eye = clamp({ ...eye, x: eye.x - dx / x, y: eye.y - dy / y });
  redraw();
}

function glideTo(goal) {
  const from = eye;
  const begin = performance.now();
  const length = reducedMotion() ? 0 : 220;
  const step = (now) => {
    const share = length ? Math.min(1, (now - begin) / length) : 1;
    const soft = 1 - (1 - share) ** 3;
    eye = { x: from.x + (goal.x - from.x) * soft, y: from.y + (goal.y - from.y) * soft, zoom: from.zoom * (goal.zoom / from.zoom) ** soft };
    redraw();
    if (share < 1) requestAnimationFrame(step);
    else if (byKeys) aim();
  };
  requestAnimationFrame(step);
}

/** With keys: what is nearest to the middle is what Enter opens. */
function aim() {
  byKeys = true;
  point(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, 160));
}

function keys(event) {
  const far = event.shiftKey ? 160 : 48;
  const moves = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (moves[event.key]) {
    pan(...moves[event.key]);
    aim();
  } else if (event.key === "+" || event.key === "=") zoomBy(1.6);
  else if (event.key === "-") zoomBy(1 / 1.6);
  else if (event.key === "0") glideTo({ x: 0, y: 0, zoom: 1 });
  else if (event.key === "Enter" && pointed >= 0) actions.open(data.keys[pointed]);
  else return;
  byKeys = true;
  event.preventDefault();
}

/** Mouse, pen and fingers: one drags, two pinch, a tap opens. */
function pointer() {
  const down = new Map();
  let moved = 0;
  const local = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  canvas.addEventListener("pointerdown", (event) => {
    byKeys = false;
    down.set(event.pointerId, local(event));
    canvas.setPointerCapture(event.pointerId);
    moved = down.size > 1 ? Infinity : 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = local(event);
    const before = down.get(event.pointerId);
    if (!before) {
      byKeys = false;
      return point(nearest(at.x, at.y, Math.max(14, 40 - 2 * eye.zoom)));
    }
    if (down.size === 2) pinch(down, event.pointerId, at);
    else {
      moved += Math.hypot(at.x - before.x, at.y - before.y);
      if (moved > 4) {
        point(-1);
        pan(at.x - before.x, at.y - before.y);
      }
    }
    down.set(event.pointerId, at);
  });
  const up = (event) => {
    const at = down.get(event.pointerId);
    down.delete(event.pointerId);
    if (event.type !== "pointerup" || !at || moved > 4 || !data) return;
    const index = nearest(at.x, at.y, 40);
    // A finger can't hover: its first tap shows, the second opens.
    if (index >= 0 && (event.pointerType !== "touch" || index === pointed)) actions.open(data.keys[index]);
    else point(index);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", (event) => down.size || event.pointerType === "touch" || byKeys || point(-1));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = local(event);
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoomAt(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0018)), x, y);
    point(nearest(x, y, 24));
  }, { passive: false });
}

function pinch(down, id, at) {
  const [first, second] = [...down.entries()];
  const other = first[0] === id ? second[1] : first[1];
  const before = down.get(id);
  const factor = Math.hypot(at.x - other.x, at.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
  zoomAt(factor, (at.x + other.x) / 2, (at.y + other.y) / 2);
  pan((at.x - before.x) / 2, (at.y - before.y) / 2);
}
