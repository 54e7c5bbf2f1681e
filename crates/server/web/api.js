// The routes of the server that the page uses, the API key, and what goes wrong on the way.

const KEY = "crossmodal.key";

/** `code` is one of docs/http.md, or `unreachable` when no answer came at all. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    Object.assign(this, { name: "ApiError", status, code, retryAfter });
  }
}

let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // Without storage the key is asked for once a page.
}

/** Set by app.js: asks the reader for a key (`wrong` if one was refused) and answers with it, or null. */
let ask = async () => null;
/** Set by app.js: told after each request whether the server is there. */
let heard = () => {};
let asking = null;

export function connect({ askForKey, onContact }) {
  ask = askForKey;
  heard = onContact;
}

export const hasKey = () => key !== null;

export function setKey(next) {
  key = next || null;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // See above.
  }
}

function authorise(headers = {}) {
  return key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
}

/** Several requests may be refused at once; one question serves them all. */
function newKey(refused) {
  if (key !== refused) return Promise.resolve(key);
  asking ??= ask(refused !== null).then((given) => {
    asking = null;
    if (given) setKey(given);
    return given;
  });
  return asking;
}

async function failureOf(response) {
  let code = "internal";
  let message = `${response.status} ${response.statusText}`.trim();
  try {
    const { error } = await response.json();
    code = error.code ?? code;
    message = error.message ?? message;
  } catch {
    // Not from our server, a proxy's page perhaps: the status has to do.
  }
  return new ApiError(response.status, code, message, Number(response.headers.get("Retry-After")) || 0);
}

/** The response to a request, whatever it takes to be let in. Throws ApiError, or AbortError when `signal` says so. */
export async function request(path, { method = "GET", json, body, signal, headers = {}, priority } = {}) {
  for (;;) {
    const used = key;
    let response;
    try {
      response = await fetch(path, {
        method,
        signal,
        priority,
        headers: authorise(json === undefined ? headers : { ...headers, "Content-Type": "application/json" }),
        body: json === undefined ? body : JSON.stringify(json),
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      const failure = new ApiError(0, "unreachable", String(error.message));
      heard(failure);
      throw failure;
    }
    heard(null);
    if (response.ok) return response;
    const failure = await failureOf(response);
    if (failure.status !== 401 || signal?.aborted || !(await newKey(used))) throw failure;
  }
}

const answer = async (path, options) => (await request(path, options)).json();
const inside = (collection, rest = "") => `/v1/collections/${encodeURIComponent(collection)}${rest}`;

export const models = async () => (await answer("/v1/models")).data;
export const version = () => answer("/v1/version");
export const collections = async () => (await answer("/v1/collections")).collections;
export const createCollection = (name, model) => answer("/v1/collections", { method: "POST", json: model ? { name, model } : { name } });
export const deleteCollection = (name) => request(inside(name), { method: "DELETE" });
export const search = (name, json, signal) => answer(inside(name, "/search"), { method: "POST", json, signal });
export const classify = (json, signal) => answer("/v1/classify", { method: "POST", json, signal });
export const item = (name, of, signal) => answer(inside(name, `/items/${of}`), { signal });
export const deleteItem = (name, of) => request(inside(name, `/items/${of}`), { method: "DELETE" });
export const job = (id) => answer(`/v1/jobs/${encodeURIComponent(id)}`);
export const cancelJob = (id) => request(`/v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
export const addPaths = (name, paths) => answer(inside(name, "/items"), { method: "POST", json: { paths } });

export function items(name, { limit, after, filter }, signal) {
  const fields = new URLSearchParams({ limit });
  if (after !== undefined) fields.set("after", after);
  if (filter) fields.set("filter", filter);
  return answer(inside(name, `/items?${fields}`), { signal });
}

/** `{state: "ready", ...}` or `{state: "computing", progress}`. */
export const map = (name, limit, signal) => answer(inside(name, `/map?limit=${limit}`), { signal });

export const thumbnailAddress = (name, of, size) => inside(name, `/items/${of}/thumbnail?size=${size}`);
export const fileAddress = (name, of) => inside(name, `/items/${of}/file`);

/** Sends files; fetch can't tell how far an upload has come, so this is the older way. Answers with the job. */
export function upload(name, files, { onSent, signal }) {
  const form = new FormData();
  for (const file of files) form.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open("POST", inside(name, "/items"));
    for (const [header, value] of Object.entries(authorise())) call.setRequestHeader(header, value);
    call.upload.onprogress = (event) => onSent(event.loaded, event.total);
    call.onload = async () => {
      heard(null);
      if (call.status >= 200 && call.status < 300) return resolve(JSON.parse(call.responseText));
      const headers = { "Retry-After": call.getResponseHeader("Retry-After") ?? "" };
      reject(await failureOf(new Response(call.responseText, { status: call.status, statusText: call.statusText, headers })));
    };
    call.onerror = () => {
      const failure = new ApiError(0, "unreachable", "the connection broke");
      heard(failure);
      reject(failure);
    };
    call.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => call.abort(), { once: true });
    call.send(form);
  });
}

/**
 * Follows a job to its end, calling `onProgress` with it, and answers with its last state. Read with fetch: EventSource
 * can't send a key. If the stream breaks, the job is asked for instead.
 */
export async function followJob(id, onProgress, signal) {
  try {
    const response = await request(`/v1/jobs/${encodeURIComponent(id)}/events`, { signal, headers: { Accept: "text/event-stream" } });
    for await (const { event, data } of eventsOf(response.body)) {
      const state = JSON.parse(data);
      onProgress(state);
      if (event === "end") return state;
    }
  } catch (error) {
    if (error.name === "AbortError" || (error instanceof ApiError && error.status >= 400 && error.status < 500)) throw error;
  }
  for (let misses = 0; ; ) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    signal?.throwIfAborted();
    try {
      const state = await job(id);
      misses = 0;
      onProgress(state);
      if (!["queued", "running"].includes(state.state)) return state;
    } catch (error) {
      if (error.status >= 400 || ++misses > 30) throw error;
    }
  }
}

/** Server-sent events of a body, as the HTML standard frames them. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value.replaceAll("\r\n", "\n");
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const found = { event: "message", data: "" };
      for (const line of rest.slice(0, end).split("\n")) {
        const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
        if (field === "event") found.event = text;
        if (field === "data") found.data += (found.data && "\n") + text;
      }
      rest = rest.slice(end + 2);
      if (found.data) yield found;
    }
  }
}
