// Pictures that were dropped, pasted or chosen. The address only has their names; they are kept in this browser, so that going
// back and reloading work. They never leave it but for a search.

import { h } from "/assets/dom.js";

const STORE = "pictures";
/** How many are kept; the oldest go first. */
const MOST = 40;
/** Larger ones are made smaller before they are sent: models look at a few hundred pixels, and a search is repeated at each letter. */
const LARGE_BYTES = 2_000_000;
const LARGE_SIDE = 1280;

const memory = new Map();
let opening = null;

function database() {
  opening ??= new Promise((resolve) => {
    try {
      const call = indexedDB.open("crossmodal", 1);
      call.onupgradeneeded = () => call.result.createObjectStore(STORE, { keyPath: "name" });
      call.onsuccess = () => resolve(call.result);
      call.onerror = () => resolve(null);
    } catch {
      resolve(null); // Private windows may refuse; then pictures live as long as the page.
    }
  });
  return opening;
}

const done = (call) =>
  new Promise((resolve, reject) => {
    call.onsuccess = () => resolve(call.result);
    call.onerror = () => reject(call.error);
  });

/** Takes a file in and answers with its name. */
export async function keep(file) {
  const blob = await smaller(file);
  const name = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
  const entry = { name, blob, title: file.name ?? "", address: URL.createObjectURL(blob) };
  memory.set(name, entry);
  try {
    const base = await database();
    if (base) {
      const store = base.transaction(STORE, "readwrite").objectStore(STORE);
      store.put({ name, blob, title: entry.title });
      const names = await done(store.getAllKeys());
      for (const old of names.slice(0, Math.max(0, names.length - MOST))) store.delete(old);
    }
  } catch {
    // A full disk: see above.
  }
  return name;
}

/** `{blob, title, address}`, or null if this browser doesn't have it (any more). */
export async function kept(name) {
  if (memory.has(name)) return memory.get(name);
  try {
    const base = await database();
    const entry = base && (await done(base.transaction(STORE).objectStore(STORE).get(name)));
    if (!entry) return null;
    entry.address = URL.createObjectURL(entry.blob);
    memory.set(name, entry);
    return entry;
  } catch {
    return null;
  }
}

export function dataAddress(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function smaller(file) {
  if (file.size <= LARGE_BYTES) return file;
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, LARGE_SIDE / Math.max(picture.width, picture.height));
    const canvas = h("canvas", { width: Math.round(picture.width * scale), height: Math.round(picture.height * scale) });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close();
    return await new Promise((resolve) => canvas.toBlob((blob) => resolve(blob ?? file), "image/jpeg", 0.92));
  } catch {
    return file; // A kind that browsers don't read, TIFF for one; the server may.
  }
}

const PICTURE_NAME = /\.(jpe?g|jpe|jfif|png|gif|webp|bmp|tiff?)$/i;

export const looksLikePicture = (file) => (file.type ? file.type.startsWith("image/") : PICTURE_NAME.test(file.name));
export const pictureByName = (file) => PICTURE_NAME.test(file.name);

/** The pictures of a drop or a paste. */
export function picturesIn(transfer) {
  return [...(transfer?.files ?? [])].filter(looksLikePicture);
}
