// The grid of pictures. Only the rows near the window exist as elements, so that thousands scroll as lightly as twenty; a row
// that has the focus stays, however far it is scrolled away.

import { h, icon, iconButton } from "/assets/dom.js";
import { currentLanguage, fixed, onLanguage, t, translate } from "/assets/i18n.js";
import { titleOf } from "/assets/search.js";
import * as thumbnails from "/assets/thumbnails.js";

/** Least width of a tile in pixels, by size. */
const LEAST = { small: 112, medium: 184, large: 288 };
const GAP = { small: 10, medium: 20, large: 24 };
/** Height of what stands below a picture. */
const CAPTION = { browse: 30, search: 52 };
/** Rows outside the window that are kept ready. */
const SPARE = 2;
/** A row that is only flown over doesn't load its pictures. */
const PAUSE = 90;

export class Gallery {
  source = null;
  size = "medium";
  rows = new Map();
  /** The tile that Tab comes to. */
  current = 0;

  /** `actions`: open(place), similar(item), add(item, weight), remove(item), needMore(). */
  constructor(grid, actions) {
    this.grid = grid;
    this.actions = actions;
    grid.addEventListener("keydown", (event) => this.key(event));
    grid.addEventListener("click", (event) => this.click(event));
    grid.addEventListener("focusin", (event) => this.entered(event));
    grid.addEventListener("dragstart", (event) => this.drag(event));
    // One set of buttons for all tiles, which goes where the pointer is.
    this.deeds = h("div", { class: "deeds", "aria-hidden": "true" }, deed("similar", "similar", "deed.similar"), deed("plus", "plus", "deed.plus"), deed("minus", "minus", "deed.minus"));
    grid.addEventListener("pointerover", (event) => {
      const tile = event.target.closest(".tile");
      if (tile && this.deeds.parentElement !== tile) tile.append(this.deeds);
    });
    addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(grid);
    onLanguage(() => {
      translate(this.deeds);
      this.redraw();
    });
  }

  show(source) {
    const focused = this.grid.contains(document.activeElement);
    this.source = source;
    this.current = 0;
    this.redraw();
    if (focused) this.focus(0, false);
  }

  setSize(size) {
    this.size = size;
    this.redraw();
  }

  redraw() {
    const focused = this.grid.contains(document.activeElement);
    for (const row of this.rows.values()) this.drop(row);
    this.rows.clear();
    this.draw();
    if (focused) this.focus(this.current, false);
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  measure() {
    const width = this.grid.clientWidth;
    const gap = width < 480 ? Math.min(12, GAP[this.size]) : GAP[this.size];
    const least = width < 480 ? { small: 84, medium: 132, large: 240 }[this.size] : LEAST[this.size];
    const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
    const tile = (width - gap * (columns - 1)) / columns;
    const caption = this.size === "small" ? CAPTION[this.source.kind] - 8 : CAPTION[this.source.kind];
    return { width, gap, columns, tile, height: Math.round(tile + caption + gap) };
  }

  /** Makes the rows that should be there, and only those. */
  draw() {
    if (!this.source || this.grid.hidden || !this.grid.clientWidth) return;
    const layout = this.measure();
    const { columns, tile, gap, height } = layout;
    const count = this.source.items.length;
    const lines = Math.ceil(count / columns);
    const same = this.layout && ["columns", "tile", "height"].every((name) => this.layout[name] === layout[name]);
    if (!same) {
      for (const row of this.rows.values()) this.drop(row);
      this.rows.clear();
      this.layout = layout;
      this.grid.style.setProperty("--tile", `${tile}px`);
      this.grid.style.setProperty("--columns", columns);
      this.grid.style.setProperty("--gap", `${gap}px`);
    }
    this.grid.style.height = `${Math.max(0, lines * height - gap)}px`;
    this.grid.setAttribute("aria-colcount", columns);
    this.grid.setAttribute("aria-rowcount", this.source.done ? lines : -1);
    const top = -this.grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / height) - SPARE);
    const last = Math.min(lines - 1, Math.floor((top + innerHeight) / height) + SPARE);
    const focused = this.grid.contains(document.activeElement) ? Math.floor(this.current / columns) : -1;
    for (const [line, row] of this.rows) {
      if ((line < first || line > last) && line !== focused) {
        this.drop(row);
        this.rows.delete(line);
      }
    }
    for (let line = first; line <= last; line += 1) {
      const row = this.rows.get(line);
      if (!row) this.rows.set(line, this.row(line));
      else if (row.full < Math.min(columns, count - line * columns)) this.fill(row, line);
    }
    this.tabStop();
    if (!this.source.done && !this.source.failure && top + 3 * innerHeight > lines * height) this.actions.needMore();
  }

  row(line) {
    const element = h("div", { role: "row", class: "row", "aria-rowindex": line + 1 });
    element.style.transform = `translateY(${line * this.layout.height}px)`;
    const row = { element, full: 0, images: [], timer: 0 };
    this.fill(row, line);
    // In order of their place, as the order of reading is that of the document.
    const after = [...this.rows.keys()].filter((other) => other > line).sort((a, b) => a - b)[0];
    this.grid.insertBefore(element, after === undefined ? null : this.rows.get(after).element);
    return row;
  }

  fill(row, line) {
    const { columns, tile } = this.layout;
    const fresh = [];
    for (let column = row.full; column < columns; column += 1) {
      const place = line * columns + column;
      const item = this.source.items[place];
      if (!item) break;
      const cell = this.tile(item, place, column);
      row.element.append(cell.element);
      if (cell.image) fresh.push([cell.image, item]);
      row.full += 1;
    }
    row.images.push(...fresh.map(([image]) => image));
    const size = thumbnails.sizeFor(tile);
    row.timer = setTimeout(() => {
      for (const [image, item] of fresh) thumbnails.show(image, this.source.collection, item.key, size);
    }, this.quick() ? PAUSE : 0);
  }

  /** Whether the reader is flying past: far scrolled within a moment. */
  quick() {
    const now = performance.now();
    const fast = Math.abs(scrollY - (this.lastTop ?? scrollY)) / Math.max(1, now - (this.lastTime ?? 0)) > 4;
    this.lastTop = scrollY;
    this.lastTime = now;
    return fast;
  }

  drop(row) {
    clearTimeout(row.timer);
    for (const image of row.images) thumbnails.release(image);
    row.element.remove();
  }

  tile(item, place, column) {
    const title = titleOf(item, currentLanguage());
    const element = h("div", {
      role: "gridcell",
      class: "tile",
      tabindex: "-1",
      draggable: "true",
      "aria-colindex": column + 1,
      data: { place },
    });
    let image = null;
    if (item.modality === "image") {
      image = h("img", { alt: "", draggable: "false", decoding: "async" });
      const frame = h("div", { class: "picture" }, image);
      image.addEventListener("load", () => frame.classList.add("loaded"));
      image.addEventListener("error", () => frame.replaceChildren(missing()));
      element.append(frame);
    } else {
      element.append(h("div", { class: "picture words", text: excerpt(item, title) }));
    }
    element.append(h("div", { class: "title", text: title, title }));
    if (this.source.kind === "search") element.append(facts(item, this.source.state.mode));
    return { element, image };
  }

  /** The element of a tile, its row made if need be. */
  element(place) {
    const row = this.rows.get(Math.floor(place / this.layout.columns));
    return row?.element.querySelector(`[data-place="${place}"]`) ?? null;
  }

  tabStop() {
    for (const other of this.grid.querySelectorAll('.tile[tabindex="0"]')) other.tabIndex = -1;
    this.current = Math.min(this.current, Math.max(0, this.source.items.length - 1));
    const tile = this.element(this.current) ?? this.grid.querySelector(".tile");
    if (tile) tile.tabIndex = 0;
  }

  focus(place, scroll = true) {
    const count = this.source?.items.length ?? 0;
    if (!count || !this.layout) return false;
    const before = this.current;
    this.current = Math.max(0, Math.min(count - 1, place));
    const line = Math.floor(this.current / this.layout.columns);
    if (!this.rows.has(line)) this.rows.set(line, this.row(line));
    const tile = this.element(this.current);
    this.tabStop();
    tile?.focus({ preventScroll: true });
    if (scroll) this.reveal(line, this.current < before);
    return Boolean(tile);
  }

  reveal(line) {
    const { height, gap } = this.layout;
    const top = this.grid.getBoundingClientRect().top + line * height;
    const ceiling = Number.parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop) || 0;
    const floor = innerHeight - (Number.parseFloat(getComputedStyle(document.documentElement).scrollPaddingBottom) || 0);
    if (top < ceiling) scrollBy({ top: top - ceiling });
    else if (top + height - gap > floor) scrollBy({ top: top + height - gap - floor });
    this.draw();
  }

  place(element) {
    const tile = element.closest?.(".tile");
    return tile ? Number(tile.dataset.place) : -1;
  }

  entered(event) {
    const place = this.place(event.target);
    if (place < 0 || place === this.current) return;
    this.current = place;
    this.tabStop();
  }

  click(event) {
    const place = this.place(event.target);
    if (place < 0) return;
    const item = this.source.items[place];
    const wanted = event.target.closest(".deed")?.dataset.deed;
    if (wanted) this.act(wanted, item);
    else this.actions.open(place);
  }

  act(wanted, item) {
    if (wanted === "similar") this.actions.similar(item);
    else this.actions.add(item, wanted === "plus" ? 1 : -0.5);
  }

  drag(event) {
    const place = this.place(event.target);
    if (place < 0) return;
    event.dataTransfer.setData("application/x-crossmodal-item", String(this.source.items[place].key));
    event.dataTransfer.effectAllowed = "copy";
  }

  key(event) {
    const place = this.place(event.target);
    if (place < 0 || event.altKey || (event.metaKey && !event.key.startsWith("Arrow"))) return;
    const { columns, height } = this.layout;
    const page = columns * Math.max(1, Math.floor(innerHeight / height) - 1);
    const line = place - (place % columns);
    const end = this.source.items.length - 1;
    const moves = {
      ArrowRight: place + 1,
      ArrowLeft: place - 1,
      ArrowDown: Math.min(place + columns, Math.max(end, place)),
      ArrowUp: place - columns,
      PageDown: Math.min(place + page, end),
      PageUp: Math.max(place - page, place % columns),
      Home: event.ctrlKey ? 0 : line,
      End: event.ctrlKey ? end : Math.min(line + columns - 1, end),
    };
    const item = this.source.items[place];
    if (event.key in moves) {
      const next = moves[event.key];
      // Upwards from the first row leads back to the search field.
      if (next < 0) this.actions.leave();
      else this.focus(next);
    } else if (event.key === "Enter" || event.key === " ") this.actions.open(place);
    else if (event.key === "s") this.actions.similar(item);
    else if (event.key === "+") this.actions.add(item, 1);
    else if (event.key === "-") this.actions.add(item, -0.5);
    else if (event.key === "Delete") this.actions.remove(item);
    else return;
    event.preventDefault();
  }
}

function deed(name, drawing, key) {
  // Out of the order of tabs: the same is done by keys on the tile, and in the item's own window.
  const button = iconButton(drawing, key, null, { class: "quiet icon-only deed", tabindex: "-1" });
  button.dataset.deed = name;
  return button;
}

export function missing() {
  return h("div", { class: "missing" }, icon("broken"), h("span", { t: "picture.missing" }));
}

function excerpt(item, title) {
  const { text, transcript } = item.metadata ?? {};
  return typeof text === "string" ? text : typeof transcript === "string" ? transcript : title;
}

/** Cosines have three places; sums of reciprocal ranks are smaller, points of a text search larger. */
export function scoreText(score, mode) {
  return fixed(score, mode === "text" ? 1 : mode === "hybrid" ? 4 : 3);
}

/** Score, confidence and group of a hit. */
function facts(hit, mode) {
  const line = h("div", { class: "facts" }, h("span", { class: "visually-hidden", text: t("score") }), h("span", { class: "score", text: scoreText(hit.score, mode) }));
  if (hit.confidence !== null && hit.confidence !== undefined) line.append(meter(hit.confidence));
  if (hit.group) line.append(h("span", { class: "group", text: String(hit.group), title: String(hit.group) }));
  return line;
}

/** A quiet bar; app.js explains it when it is pointed at or its tile is focused. */
export function meter(confidence) {
  const fill = h("i");
  fill.style.width = `${Math.round(confidence * 100)}%`;
  const spoken = h("span", { class: "visually-hidden", text: t("confidence", { value: fixed(confidence, 2) }) });
  return h("span", { class: confidence >= 0.7 ? "meter sure" : "meter", data: { confidence } }, fill, spoken);
}
