// Pictures of items on the screen. Without a key the browser loads and caches them itself; with one they are fetched, shown
// as blobs, and let go of when they leave the screen.

import * as api from "/assets/api.js";

const SIZES = [96, 160, 240, 320, 480, 640, 1024];
/** Few enough that a search isn't kept waiting behind a screenful of pictures. */
const AT_ONCE = 6;

const waiting = [];
let running = 0;
const shown = new WeakMap();

/** The smallest size on offer that is sharp at `width` CSS pixels; few sizes, so that caches are hit. */
export function sizeFor(width) {
  const wanted = width * Math.min(devicePixelRatio || 1, 2);
  return SIZES.find((size) => size >= wanted * 0.95) ?? SIZES.at(-1);
}

/** Shows an item's thumbnail in `image`; `release` it when it leaves the page. */
export function show(image, collection, key, size) {
  showAddress(image, api.thumbnailAddress(collection, key, size));
}

export function showAddress(image, address) {
  release(image);
  if (!api.hasKey()) {
    image.src = address;
    return;
  }
  const entry = { image, address, stop: new AbortController(), blob: "" };
  shown.set(image, entry);
  waiting.push(entry);
  next();
}

export function release(image) {
  const entry = shown.get(image);
  if (!entry) return;
  shown.delete(image);
  entry.stop.abort();
  if (entry.blob) URL.revokeObjectURL(entry.blob);
}

async function next() {
  while (running < AT_ONCE && waiting.length) {
    const entry = waiting.shift();
    if (entry.stop.signal.aborted) continue;
    running += 1;
    load(entry).finally(() => {
      running -= 1;
      next();
    });
  }
}

async function load(entry) {
  try {
    const response = await api.request(entry.address, { signal: entry.stop.signal, priority: "low" });
    const blob = await response.blob();
    if (entry.stop.signal.aborted) return;
    entry.blob = URL.createObjectURL(blob);
    entry.image.src = entry.blob;
  } catch (error) {
    if (error.name !== "AbortError") entry.image.dispatchEvent(new Event("error"));
  }
}

/** A thumbnail for drawing on a canvas. */
export async function bitmap(collection, key, size, signal) {
  const response = await api.request(api.thumbnailAddress(collection, key, size), { signal, priority: "low" });
  return createImageBitmap(await response.blob());
}
