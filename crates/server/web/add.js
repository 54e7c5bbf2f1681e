// Adding pictures: chosen, dropped or whole folders of them; sent in batches, each a job whose progress is followed.

import * as api from "/assets/api.js";
import { $, h } from "/assets/dom.js";
import { hush, number, onLanguage, say, sayAttribute, t } from "/assets/i18n.js";
import { announce, explain, notice, tell } from "/assets/notices.js";
import { pictureByName } from "/assets/pictures-kept.js";
import { state } from "/assets/state.js";

/** A batch is one request and one job: small enough that progress shows and a broken connection costs little. */
const BATCH_FILES = 48;
const BATCH_BYTES = 32_000_000;

let dialog;
/** What is being added now, or was last: `{collection, total, sent, done, ...}`. */
let work = null;
let onAdded;

/** `added(collection)` is told when something has been added. */
export function initAdd({ added }) {
  onAdded = added;
  dialog = $("#add");
  $("#add-files").addEventListener("click", () => $("#files").click());
  $("#add-folder").addEventListener("click", () => $("#folder").click());
  for (const id of ["#files", "#folder"]) {
    $(id).addEventListener("change", (event) => {
      addFiles([...event.target.files]);
      event.target.value = "";
    });
  }
  const area = $("#add-area");
  area.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", async (event) => {
    event.preventDefault();
    area.classList.remove("over");
    addFiles(await filesOf(event.dataTransfer));
  });
  $("#add-paths").addEventListener("submit", (event) => {
    event.preventDefault();
    const path = $("#add-path").value.trim();
    if (path) addPath(path);
  });
  $("#add-cancel").addEventListener("click", cancel);
  $("#add-close").addEventListener("click", () => dialog.close());
  $("#add-button").addEventListener("click", openAdd);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  addEventListener("beforeunload", (event) => working() && event.preventDefault());
  onLanguage(draw);
  draw();
}

export function openAdd() {
  say($("#add-title"), "add.title", { collection: state.collection });
  if (!dialog.open) dialog.showModal();
  draw();
}

const working = () => work !== null && !work.over;

/** Files of a drop, folders included, however deep. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else {
      const reader = entry.createReader();
      for (;;) {
        // A reader hands out a hundred at a time, and an empty list at the end.
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!some.length) break;
        for (const one of some) await walk(one);
      }
    }
  };
  for (const entry of entries) await walk(entry);
  return found;
}

function begin(total) {
  work = {
    collection: state.collection, total, batchBefore: 0, sent: 0, done: 0, over: false, stop: new AbortController(), job: null,
    counts: { embedded: 0, reused: 0, unchanged: 0 }, now: {}, skipped: [], error: null, phase: "sending",
  };
  if (!dialog.open) openAdd();
  draw();
}

export async function addFiles(files) {
  if (working()) return notice("add.wait");
  if (!files.length || !state.collection) return;
  const pictures = files.filter(pictureByName);
  begin(pictures.length);
  for (const file of files) {
    if (!pictureByName(file) && !file.name.startsWith(".")) work.skipped.push({ path: file.webkitRelativePath || file.name, reason: null });
  }
  const mine = work;
  await finish(mine, async () => {
    for (const batch of batches(pictures)) {
      mine.phase = "sending";
      const size = batch.reduce((sum, file) => sum + file.size, 0);
      const job = await again(mine, () => api.upload(mine.collection, batch, {
        signal: mine.stop.signal,
        onSent: (sent) => {
          mine.sent = Math.min(1, sent / size) * batch.length;
          draw();
        },
      }));
      await follow(mine, job);
      mine.batchBefore += batch.length;
      mine.sent = 0;
      if (mine.failed) return;
    }
  });
}

async function addPath(path) {
  if (working()) return notice("add.wait");
  begin(0);
  const mine = work;
  await finish(mine, async () => follow(mine, await api.addPaths(mine.collection, [path])));
}

/** A busy server says when to come back; that is no reason to give up. */
async function again(mine, send) {
  for (;;) {
    try {
      return await send();
    } catch (error) {
      if (error.status !== 429) throw error;
      mine.phase = "waiting";
      draw();
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(1, error.retryAfter)));
      mine.stop.signal.throwIfAborted();
      mine.phase = "sending";
    }
  }
}

async function follow(mine, job) {
  mine.job = job.id;
  mine.phase = "working";
  const last = await api.followJob(job.id, (now) => {
    mine.now = now.progress ?? {};
    mine.queued = now.state === "queued";
    if (mine.total < (mine.now.total ?? 0)) mine.total = mine.now.total;
    draw();
  }, mine.stop.signal);
  for (const name of Object.keys(mine.counts)) mine.counts[name] += last.progress?.[name] ?? 0;
  mine.skipped.push(...(last.skipped ?? []));
  mine.done += last.progress?.done ?? 0;
  mine.now = {};
  mine.job = null;
  if (last.state === "failed") {
    mine.failed = true;
    mine.error = ["add.failed", { message: last.error?.message ?? last.error ?? "" }];
  }
  if (last.state === "cancelled") mine.stop.abort();
  if (mine.counts.embedded + mine.counts.reused > 0) onAdded(mine.collection);
}

async function finish(mine, doing) {
  try {
    await doing();
  } catch (error) {
    if (error.name !== "AbortError") mine.error = explain(error);
  }
  mine.over = true;
  mine.cancelled = mine.stop.signal.aborted;
  onAdded(mine.collection);
  draw();
  const added = mine.counts.embedded + mine.counts.reused;
  if (!dialog.open) notice("add.done", { n: added }, mine.error ? "bad" : "plain");
  else announce("add.done", { n: added });
}

function* batches(files) {
  let batch = [];
  let size = 0;
  for (const file of files) {
    if (batch.length && (batch.length >= BATCH_FILES || size + file.size > BATCH_BYTES)) {
      yield batch;
      [batch, size] = [[], 0];
    }
    batch.push(file);
    size += file.size;
  }
  if (batch.length) yield batch;
}

async function cancel() {
  if (!working()) return;
  const { job } = work;
  // The job ends by itself once it has heard; only sending is broken off here.
  if (!job) return work.stop.abort();
  work.phase = "cancelling";
  draw();
  try {
    await api.cancelJob(job);
  } catch (error) {
    tell(error);
  }
}

function share() {
  if (!work.total) return null;
  const inBatch = work.phase === "sending" || work.phase === "waiting" ? work.sent * 0.3 : work.sent * 0.3 + (work.now.done ?? 0) * 0.7;
  return Math.min(1, (work.batchBefore + inBatch) / work.total);
}

function draw() {
  const box = $("#add-work");
  const button = $("#add-button");
  button.classList.toggle("working", working());
  sayAttribute(button, "aria-label", working() ? "add.buttonWorking" : "add.button");
  box.hidden = !work;
  $("#add-area").hidden = working();
  $("#add-more").hidden = working();
  $("#add-cancel").hidden = !working();
  if (!work) return;
  const bar = $("#add-progress");
  const part = work.over ? 1 : share();
  if (part === null) bar.removeAttribute("value");
  else bar.value = part;
  bar.hidden = work.over && !work.total;
  button.style.setProperty("--done", part ?? 0);
  const done = work.done + (work.now.done ?? 0);
  const line = $("#add-state");
  if (work.error) say(line, ...work.error);
  else if (work.over) say(line, work.cancelled ? "add.cancelled" : "add.done", { n: work.counts.embedded + work.counts.reused });
  else if (work.phase === "working" && work.queued) say(line, "add.queued");
  else say(line, `add.${work.phase}`, { n: done, total: work.total });
  line.classList.toggle("bad", Boolean(work.error));
  const all = Object.fromEntries(Object.keys(work.counts).map((name) => [name, work.counts[name] + (work.now[name] ?? 0)]));
  const rest = [all.reused && t("add.reused", { n: all.reused }), all.unchanged && t("add.unchanged", { n: all.unchanged })].filter(Boolean);
  hush($("#add-counts"), rest.join(" · "));
  drawSkipped();
}

function drawSkipped() {
  const box = $("#add-skipped");
  box.hidden = !work.skipped.length;
  if (box.hidden) return;
  say($("summary", box), "add.skipped", { n: work.skipped.length });
  const list = $("ul", box);
  if (list.childElementCount === Math.min(200, work.skipped.length) && list.dataset.language === document.documentElement.lang) return;
  list.dataset.language = document.documentElement.lang;
  list.replaceChildren(...work.skipped.slice(0, 200).map(({ path, reason }) => h("li", {}, h("span", { class: "path", text: path }), h("span", { class: "reason", text: reason ?? t("add.notPicture") }))));
  if (work.skipped.length > 200) list.append(h("li", { text: `+ ${number(work.skipped.length - 200)}` }));
}
