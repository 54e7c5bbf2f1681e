// What the gallery shows, page by page: the hits of a query, or the items of a collection in their order.

import * as api from "/assets/api.js";
import { dataAddress, kept } from "/assets/pictures-kept.js";
import { hasQuery } from "/assets/state.js";

const HITS = 60;
const ITEMS = 200;

/** A list that grows. `more()` fetches the next page, once at a time. */
class Source {
  items = [];
  done = false;
  loading = null;
  /** Why the last page didn't come; the gallery offers to try again. */
  failure = null;
  constructor(collection) {
    this.collection = collection;
    this.stop = new AbortController();
  }

  more() {
    if (this.done) return Promise.resolve();
    this.loading ??= this.page()
      .then(() => {
        this.failure = null;
      })
      .catch((error) => {
        if (error.name !== "AbortError") this.failure = error;
        throw error;
      })
      .finally(() => {
        this.loading = null;
      });
    return this.loading;
  }

  close() {
    this.stop.abort();
  }

  remove(key) {
    const place = this.items.findIndex((one) => one.key === key);
    if (place < 0) return;
    this.items.splice(place, 1);
    if (this.total !== undefined) this.total -= 1;
    if (this.offset !== undefined && this.offset !== null) this.offset -= 1;
  }
}

class Browse extends Source {
  kind = "browse";
  total = undefined;
  after = undefined;
  constructor(state) {
    super(state.collection);
    this.filter = state.filter;
  }

  async page() {
    const page = await api.items(this.collection, { limit: ITEMS, after: this.after, filter: this.filter }, this.stop.signal);
    this.items.push(...page.items);
    this.total = page.total;
    this.after = page.next;
    this.done = page.next === undefined || page.next === null;
  }
}

class Hits extends Source {
  kind = "search";
  offset = 0;
  constructor(state) {
    super(state.collection);
    this.state = state;
    this.seen = new Set();
  }

  async page() {
    this.body ??= await bodyOf(this.state);
    const answer = await api.search(this.collection, { ...this.body, offset: this.offset }, this.stop.signal);
    // Between two pages the collection may have changed; nothing is shown twice.
    const fresh = answer.hits.filter((hit) => !this.seen.has(hit.key));
    for (const hit of fresh) this.seen.add(hit.key);
    this.items.push(...fresh);
    this.milliseconds ??= answer.milliseconds;
    this.searched = answer.searched;
    this.offset = answer.next_offset ?? null;
    this.done = this.offset === null;
  }
}

/** Says which picture isn't in this browser: a link from elsewhere, or long ago. */
export class PictureMissing extends Error {}

async function bodyOf(state) {
  const parts = [];
  for (const part of state.parts) {
    const weight = part.weight;
    if (part.kind === "text") parts.push({ weight, text: part.value });
    else if (part.kind === "item") parts.push({ weight, item: part.value });
    else {
      const picture = await kept(part.value);
      if (!picture) throw new PictureMissing(part.value);
      parts.push({ weight, image: await dataAddress(picture.blob) });
    }
  }
  const body = { k: HITS, mode: state.mode, metadata: true };
  if (state.query.trim()) body.query = state.query.trim();
  if (parts.length) body.parts = parts;
  if (state.filter) body.filter = state.filter;
  if (state.mode === "hybrid" && state.alpha !== null) body.alpha = state.alpha;
  if (state.group) body.group_by = state.group;
  if (state.diversity !== null) body.diversity = state.diversity;
  if (state.relevant) body.relevant_only = true;
  return body;
}

export const sourceFor = (state) => (hasQuery(state) ? new Hits(state) : new Browse(state));

/** Metadata keys whose texts say what a picture shows, best first. */
const CAPTIONS = ["caption", "title", "headline", "description", "alt", "alt_text", "label", "summary"];

/** What an item is called: its caption (in the reader's language where there are several), else its file's name. */
export function titleOf(item, language) {
  const metadata = item.metadata ?? {};
  const names = [...CAPTIONS.flatMap((key) => [`${key}_${language}`, key]), language, "en"];
  for (const name of names) {
    const value = metadata[name];
    if (typeof value === "string" && value.trim()) return value.trim();
  }
  return item.name || item.id || String(item.key);
}
