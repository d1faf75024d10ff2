// The few words with which the other modules speak to the document. Text is only ever set as text.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  return share < 1 && share > 0.99 ? "> 99 %" : `${Math.round(100 * share)} %`;
}

export const seconds = (ms) => (ms < 995 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`);

// `value` in 0..1, or -1..1 for a scale with its zero in the middle. The number stands beside it: it is hidden from readers.
export function bar(value, kind = "bar") {
  const inner = el("i");
  inner.style.setProperty("--value", value);
  return el("div", { class: kind, "aria-hidden": "true" }, inner);
}

export function row(words, share, kind, ...more) {
  const node = el("li", { class: `row ${kind}` }, el("span", {}, words), el("span", { class: "share" }, share));
  node.append(...more);
  return node;
}

// Resolves after so many milliseconds; rejects with the signal's reason.
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
