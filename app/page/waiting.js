// What stands where an answer will be: how long it takes, what is waited for, a way out; or what went wrong.

import { el } from "./dom.js";
import { Problem } from "./service.js";

const QUICK_MS = 1500; // up to here nobody wants to read how long it takes
const WORDS = {
  loading: "It will be asked as soon as the models are there.",
  draining: "The service is stopping. This waits for the next one.",
  away: "The service does not answer. Trying again.",
  "failed to load": "The models failed to load. This waits until the service is started again.",
  key: "Waiting for the key.",
  busy: "The service is full. It will be asked again",
};

export function waitingBox(phrase, cancel) {
  const words = el("span", { class: "words" }, phrase);
  const more = el("span", { class: "hint", "aria-hidden": "true" });
  const hurry = el("button", { type: "button", class: "quiet", hidden: true }, "Ask now");
  const stop = el("button", { type: "button", class: "quiet", onclick: cancel }, "Cancel");
  const node = el("div", { class: "note wait" }, el("span", { class: "spin", "aria-hidden": "true" }), words, more, hurry, stop);
  const began = performance.now();
  let busy = false;
  const timer = setInterval(() => {
    const ms = performance.now() - began;
    if (!busy) more.textContent = ms > QUICK_MS ? `${Math.round(ms / 1000)} s` : "";
    if (!node.isConnected && ms > QUICK_MS) clearInterval(timer);
  }, 250);

  function tell({ kind, seconds, now }) {
    busy = kind === "busy";
    hurry.hidden = !busy;
    hurry.onclick = now;
    node.classList.toggle("warn", !["asking", "loading"].includes(kind));
    const said = WORDS[kind] ?? phrase;
    if (words.textContent !== said) words.textContent = said; // said once, not each second
    if (busy) more.textContent = `in ${seconds} s`;
  }
  return { node, tell };
}

export function problemBox(error, again) {
  const known = error instanceof Problem;
  return el(
    "div",
    { class: "note bad", role: "alert" },
    el("h3", {}, known ? error.title : "That did not work"),
    el("p", {}, error.message),
    error.requestId ? el("small", {}, `For the operator: request ${error.requestId}`) : null,
    el("div", { class: "end" }, el("button", { type: "button", onclick: again }, "Try again")),
  );
}
