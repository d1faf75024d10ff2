// The service as the page knows it: what it serves, and one way to ask it, through all that may come between.

import { pause } from "./dom.js";

const KEY = "blip-serve-key";
const LOOK_AGAIN_MS = 1000;

export const service = { models: [], limits: {}, paths: new Set(), needsKey: false };
let key = stored();
let giveKey = null; // settles what waits for a key

export class Problem extends Error {
  constructor(status, { title, detail, request_id }) {
    super(detail || title || `The service answered with ${status}.`);
    this.title = title || "That did not work";
    this.requestId = request_id;
  }
}

// What to send: `fields` are [name, value] pairs of a form; `json` is sent instead where a form cannot hold it.
export function bodyOf({ fields, json }, picture) {
  if (json) return { body: JSON.stringify({ image: picture.base64, ...json }), headers: { "Content-Type": "application/json" } };
  const body = new FormData();
  body.append("image", picture.blob, picture.name);
  for (const [name, value] of fields) body.append(name, value);
  return { body, headers: {} };
}

// Asks until there is an answer: waits for models that load, for a key, and as long as a full service says.
// `tell` hears what is waited for: {kind: "asking" | "loading" | "draining" | "away" | "key" | "busy", seconds}.
// Throws Problem, or the signal's reason.
export async function ask(request, picture, signal, tell) {
  for (;;) {
    const began = performance.now();
    const { body, headers } = bodyOf(request, picture);
    tell({ kind: "asking" });
    let response;
    try {
      response = await fetch(request.path, { method: "POST", body, signal, headers: { ...headers, ...accepting(request), ...keyHeader() } });
    } catch (error) {
      signal.throwIfAborted();
      tell({ kind: "away" });
      await pause(LOOK_AGAIN_MS, signal);
      await untilReady(tell, signal);
      continue;
    }
    if (response.ok) {
      const json = await response.json();
      return { json, timing: timingOf(response), ms: performance.now() - began };
    }
    await waitFor(response, tell, signal);
  }
}

// After a refusal: returns when it is time to ask again. Throws Problem where asking again is no use.
async function waitFor(response, tell, signal) {
  const told = await response.json().catch(() => ({}));
  const after = Number(response.headers.get("Retry-After"));
  if (response.status === 401) {
    await askForKey(tell, signal, key ? "The service does not know this key." : "");
  } else if (response.status === 429 || (response.status === 503 && after)) {
    if ((await look())?.phase === "ready") await countDown(after || 1, tell, signal);
    await untilReady(tell, signal);
  } else {
    throw new Problem(response.status, told);
  }
}

async function countDown(after, tell, signal) {
  let now;
  const hurried = new Promise((resolve) => (now = resolve));
  for (let left = after; left > 0; left -= 1) {
    tell({ kind: "busy", seconds: left, now });
    if (await Promise.race([pause(1000, signal), hurried.then(() => true)])) return;
  }
}

// Resolves once requests are accepted. `/` tells where the service is without an error, and needs no key.
export async function untilReady(tell, signal) {
  for (;;) {
    const home = await look();
    if (home?.phase === "ready") return home;
    tell({ kind: home ? home.phase : "away" });
    await pause(LOOK_AGAIN_MS, signal);
  }
}

async function look() {
  try {
    const response = await fetch("./", { headers: { Accept: "application/json" }, cache: "no-store" });
    const home = await response.json();
    service.needsKey = home.needs_key;
    const prefix = home.models.slice(0, -"/models".length);
    service.paths = new Set(home.tasks.map((path) => path.slice(prefix.length + 1)));
    return home;
  } catch {
    return null;
  }
}

// The models and limits, once they are loaded and the key, if one is needed, is there.
export async function begin(tell) {
  await untilReady(tell);
  if (service.needsKey && !key) await askForKey(tell);
  for (;;) {
    const response = await fetch("models", { headers: keyHeader(), cache: "no-store" }).catch(() => null);
    if (response?.ok) {
      Object.assign(service, await response.json());
      return;
    }
    if (response) await waitFor(response, tell);
    else await untilReady(tell);
  }
}

// --- the key: in this tab's session alone ---

function askForKey(tell, signal, problem = "") {
  return new Promise((resolve, reject) => {
    const before = giveKey;
    giveKey = () => {
      before?.();
      resolve();
    };
    signal?.addEventListener("abort", () => reject(signal.reason));
    tell({ kind: "key", problem });
  });
}

export function useKey(value) {
  key = value;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // kept in this module alone
  }
  giveKey?.();
  giveKey = null;
}

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

const keyHeader = () => (key ? { Authorization: `Bearer ${key}` } : {});
const accepting = ({ accept }) => (accept ? { Accept: accept } : {});

// Server-Timing: {"decode": ms, ...}
function timingOf(response) {
  const parts = (response.headers.get("Server-Timing") ?? "").split(",");
  return Object.fromEntries(parts.map((part) => part.trim().split(";dur=")).filter((part) => part.length === 2).map(([name, ms]) => [name, Number(ms)]));
}
