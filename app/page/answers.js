// What the service answered, as bars and pictures: each function returns nodes.

import { bar, el, percent, row, seconds } from "./dom.js";
import { curl, python } from "./code.js";
import { shade } from "./overlay.js";

const MOST_ROWS = 12; // of a ranking; the rest is in the raw answer

const sureness = (confidence) => ["a guess", "unsure", "fairly sure", "sure"][[0.35, 0.6, 0.85].filter((least) => confidence >= least).length];

const sure = (confidence) => el("div", { class: "sure" }, bar(confidence), el("span", {}, `${sureness(confidence)}, ${percent(confidence)}`));

const sheet = (...children) => el("div", { class: "sheet" }, ...children);

const title = (text) => el("h2", { class: "small-title" }, text);

// `ranked`: [words, share in 0..1], best first.
function bars(ranked) {
  const rows = ranked.slice(0, MOST_ROWS).map(([words, share], place) => row(words, percent(share), place === 0 ? "best" : "", bar(share)));
  if (ranked.length > MOST_ROWS) rows.push(el("li", { class: "hint" }, `and ${ranked.length - MOST_ROWS} more, in the raw answer`));
  return el("ul", { class: "rows" }, ...rows);
}

export function caption({ captions: [{ text, confidence, alternatives }] }) {
  const others = alternatives.map((one) => row(one.text, percent(one.confidence), "", bar(one.confidence)));
  return sheet(
    el("div", { class: "told" }, el("p", { class: "said" }, text || "(nothing)"), sure(confidence)),
    others.length ? el("div", {}, title("Or"), el("ul", { class: "rows" }, ...others)) : null,
  );
}

export function answered({ answer, confidence, candidates, history_used: used }, numTurns) {
  const forgot = used !== undefined && used < numTurns ? el("p", { class: "hint" }, `Of what was said before, the last ${used} of ${numTurns} fitted.`) : null;
  const chosen = candidates && bars(candidates.map((one) => [one.answer, one.probability]));
  return el("div", { class: "answered" }, ...(chosen ? [chosen] : [el("p", { class: "said" }, answer || "(nothing)"), sure(confidence)]), forgot);
}

export function match({ scores: [scores] }, texts) {
  const fit = (one) => one.itm ?? one.itc; // a model may have no other
  const ranked = scores.map((one, at) => ({ ...one, text: texts[at] })).sort((one, other) => fit(other) - fit(one));
  if (ranked[0].itm === undefined) return nearness(ranked);
  const rows = ranked.map(({ text, itm, itc }) => row(text, `fits ${percent(itm)}`, itm >= 0.5 ? "fits" : "", bar(itm), ...(itc === undefined ? [] : [bar(itc, "scale")])));
  const legend = el(
    "p",
    { class: "legend" },
    el("span", {}, "Bar: the probability that it fits (ITM)."),
    ranked[0].itc === undefined ? null : el("span", {}, "Dot: how near text and picture are, −1 to 1 (ITC)."),
  );
  return sheet(el("ul", { class: "rows" }, ...rows), legend);
}

function nearness(ranked) {
  const rows = ranked.map(({ text, itc }, place) => row(text, itc.toFixed(3), place === 0 ? "best" : "", bar(itc, "scale")));
  const legend = el("p", { class: "legend" }, el("span", {}, "Dot: how near text and picture are, −1 to 1 (ITC). This model does not say whether they fit."));
  return sheet(el("ul", { class: "rows" }, ...rows), legend);
}

export const classes = ({ classes: [best] }) => sheet(bars(best.map(({ label, score }) => [label, score])));

// Buttons for what may be shown, [words, what]; the first is.
function chooser(options, show) {
  const buttons = options.map(([words, one]) => el("button", { type: "button", onclick: () => choose(one) }, words));
  function choose(one) {
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(options[at][1] === one)));
    show(one);
  }
  choose(options[0][1]);
  return el("div", { class: "chips" }, ...buttons);
}

function strength() {
  const range = el("input", { type: "range", min: 0, max: 100, value: 100, oninput: () => (document.getElementById("heat").style.opacity = range.value / 100) });
  return el("label", {}, "Strength of the colours ", range);
}

// `show` draws a map over the picture.
export function located({ text, itm, map, tokens }, show) {
  const maps = [["all of it", map], ...(tokens ?? []).map((one) => [one.token.replace(/^##/, "…"), one.map])];
  const where = el("p", {});
  const chips = chooser(maps, (one) => {
    where.textContent = `Most of the heat is ${placeOf(one)}.`;
    show(one);
  });
  return sheet(
    el("div", { class: "told" }, el("p", { class: "said" }, text), where),
    el("ul", { class: "rows" }, row("Does it fit the picture at all?", percent(itm), "fits", bar(itm))),
    maps.length > 2 ? el("div", {}, title("Word by word"), chips) : null,
    strength(),
  );
}

function signed(words, kind) {
  const sign = el("i", { class: "key-sign" });
  sign.style.background = shade(kind);
  return el("span", {}, sign, words);
}

// `show` draws masks over the picture.
export function segmented({ segments }, show) {
  const masks = segments.map(({ mask }, kind) => [mask, kind]);
  const chips = chooser([["all of it", masks], ...segments.map(({ text }, kind) => [text, [masks[kind]]])], show);
  const rows = segments.map(({ text, score }, kind) => row(signed(text, kind), percent(score), "best", bar(score)));
  return sheet(el("ul", { class: "rows" }, ...rows), segments.length > 1 ? el("div", {}, title("One by one"), chips) : null, strength());
}

// `size`: of the picture that was sent. `show` draws boxes over it.
export function detected({ detections }, texts, [width, height], show) {
  show(detections.map(({ text, score, box: [left, top, right, bottom] }) => [`${text} ${percent(score)}`, texts.indexOf(text), [left / width, top / height, right / width, bottom / height]]));
  if (!detections.length) return sheet(el("p", {}, "Nothing of it was found: a lower least score may find more."));
  const rows = detections.slice(0, MOST_ROWS).map(({ text, score }) => row(signed(text, texts.indexOf(text)), percent(score), "best", bar(score)));
  return sheet(el("ul", { class: "rows" }, ...rows), detections.length > MOST_ROWS ? el("p", { class: "hint" }, `and ${detections.length - MOST_ROWS} more, in the picture`) : null);
}

// The hottest patch, in words.
function placeOf(map) {
  const flat = map.flat();
  const at = flat.indexOf(Math.max(...flat));
  const third = (place, length) => Math.min(2, Math.floor((3 * (place + 0.5)) / length));
  const down = ["at the top", "in the middle", "at the bottom"][third(Math.floor(at / map[0].length), map.length)];
  const across = ["left", "", "right"][third(at % map[0].length, map[0].length)];
  return down === "in the middle" && across ? `in the middle, ${across}` : `${down} ${across}`.trim();
}

// --- every model ---

const STAGES = [
  ["words", ["score", "generate"]],
  ["picture", ["decode", "preprocess", "encode"]],
  ["waiting", ["queue"]],
];

export function modelCard(model) {
  const told = el("div", { class: "rows" });
  const times = el("div", {});
  const total = {};
  const node = sheet(el("h3", {}, model.name, el("small", {}, model.note ?? "")), told, times);
  return {
    node,
    wait: (...nodes) => times.replaceChildren(...nodes),
    add(words, { text, confidence }, timing) {
      told.append(el("div", { class: "told" }, el("p", { class: "hint" }, words), el("p", { class: "said" }, text || "(nothing)"), sure(confidence)));
      for (const [stage, ms] of Object.entries(timing)) total[stage] = (total[stage] ?? 0) + ms;
    },
    get ms() {
      return total.total ?? 0;
    },
    // How long it took, beside the slowest of all.
    time(slowest) {
      const parts = STAGES.map(([, names], at) => {
        const part = el("i", { class: `stage-${at}` });
        part.style.setProperty("--value", names.reduce((sum, name) => sum + (total[name] ?? 0), 0) / slowest);
        return part;
      });
      times.replaceChildren(el("div", { class: "took" }, el("span", {}, `Took ${seconds(total.total)}`), el("div", { class: "stages", "aria-hidden": "true" }, ...parts)));
    },
  };
}

export function timesLegend() {
  const keys = STAGES.map(([words], at) => el("span", {}, el("i", { class: `key-sign stage-${at}` }), words));
  return el("p", { class: "legend" }, "Time for", ...keys, el("span", {}, "A picture that a model knows already is not read again."));
}

// --- below each answer: by whom, how fast, and how a program would ask ---

export function foot(request, sent, { json, ms }) {
  const save = el("a", { href: URL.createObjectURL(sent.blob), download: sent.name }, "Save the picture as it was sent");
  const shrunk = sent.shrunk ? ` (made smaller: ${sent.shrunk})` : "";
  return el(
    "div",
    { class: "foot" },
    el("span", { class: "by" }, `${json.model}, ${seconds(ms)}`),
    el("details", {}, el("summary", {}, "As code"), code("curl", curl(request, sent)), code("Python", python(request, sent)), el("p", {}, save, shrunk)),
    el("details", {}, el("summary", {}, "Raw JSON"), code("The answer", JSON.stringify(json, null, 2))),
  );
}

function code(name, text) {
  const pre = el("pre", { tabindex: "0", "aria-label": name }, text);
  const copy = el("button", { type: "button", class: "quiet", "aria-label": `Copy: ${name}` }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre); // a page that is not secure has no clipboard: Ctrl+C
      copy.textContent = "Selected";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return el("div", { class: "code" }, el("div", { class: "code-head" }, name, copy), pre);
}
