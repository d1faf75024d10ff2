// The page: puts its parts together, and keeps what was asked in the address.

import { $, el } from "./dom.js";
import { begin, ask as askService, service, useKey } from "./service.js";
import * as pictures from "./picture.js";
import * as tabs from "./tabs.js";
import { ask, forget, setUpThread } from "./dialogue.js";
import { foot, modelCard, timesLegend } from "./answers.js";
import { form, suggest, tasks, unsuggest, withModel } from "./tasks.js";
import { lift, showLaid } from "./overlay.js";
import { problemBox, waitingBox } from "./waiting.js";
import { restore, store } from "./address.js";

const compare = { path: "caption", task: "caption", hint: "What each model says about your picture will stand here, one below the other." };
const all = { caption: tasks.caption, ask, match: tasks.match, classify: tasks.classify, locate: tasks.locate, segment: tasks.segment, detect: tasks.detect, compare };
const running = {}; // by tab: what cancels it
const wished = restore();
let ready = null; // resolves when the models are known
let offered = []; // the examples
let own = wished.model; // the model that the person chose, or the address

const box = (tab) => $(`answer-${tab}`);

// --- models ---

const can = (model, { task }) => Boolean(model.tasks[task]);
const isServed = (tab) => service.paths.has(all[tab].path) && (!service.models.length || service.models.some((model) => can(model, all[tab])));
const model = () => service.models.find(({ name }) => name === $("model").value);

// The models that know what the picture shows, or the first example where the picture is none.
const knowing = () => (pictures.picture()?.example ?? offered[0])?.models ?? [];

function showModels() {
  $("model").replaceChildren(...service.models.map(({ name }) => el("option", { value: name }, name)));
  const tab = tabs.show(isServed);
  fitModel(tab, own, ...knowing());
  choose(tab);
}

// Chooses the first that can do what the tab asks: of `first`, what is chosen, the person's own choice, those that know the
// picture, or all.
function fitModel(tab, ...first) {
  const select = $("model");
  const able = service.models.filter((one) => can(one, all[tab])).map(({ name }) => name);
  for (const option of select.options) option.disabled = !able.includes(option.value);
  select.value = [...first, select.value, own, ...knowing(), ...able].find((name) => able.includes(name));
  select.disabled = tab === "compare" || select.options.length < 2;
  const note = tab === "compare" ? "" : (model()?.note ?? "");
  $("model-note").textContent = note && `${note[0].toUpperCase()}${note.slice(1)}.`;
  $("model-note").hidden = !note;
  setUpThread(model());
}

function choose(tab) {
  tabs.choose(tab);
  if (service.models.length) fitModel(tab);
  showLaid(tab);
  remember();
}

function remember() {
  store({ tab: tabs.chosen(), model: service.models.length > 1 ? $("model").value : wished.model, example: pictures.picture() ? pictures.picture().example?.name : wished.example });
}

// --- asking ---

async function run(tab) {
  running[tab]?.abort();
  const answer = box(tab);
  if (!pictures.picture()) {
    answer.replaceChildren(el("p", { class: "empty" }, "First a picture: choose, drop or paste one."));
    return;
  }
  const control = new AbortController();
  running[tab] = control;
  const waiting = waitingBox(all[tab].phrase ?? "Asking every model.", () => control.abort());
  const task = all[tab];
  try {
    if (!service.models.length) await loaded(waiting, answer, control.signal);
    if (tab === "compare") await runCompare(answer, control);
    else await runTask(tab, task, answer, waiting, control.signal);
  } catch (error) {
    if (running[tab] !== control) return; // another has taken its place
    waiting.node.remove();
    if (!control.signal.aborted) answer.append(problemBox(error, () => run(tab)));
    else if (!answer.childElementCount) showHint(tab);
  } finally {
    answer.removeAttribute("aria-busy");
  }
}

async function loaded(waiting, answer, signal) {
  answer.replaceChildren(waiting.node);
  waiting.tell({ kind: "loading" });
  await Promise.race([ready, new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))]);
}

async function runTask(tab, task, answer, waiting, signal) {
  const read = task.read(model());
  if (typeof read === "string") {
    answer.querySelectorAll(".empty, .note, .sheet, .foot").forEach((node) => node.remove());
    answer.append(el("p", { class: "empty" }, read));
    return;
  }
  lift(tab);
  const request = withModel(read, task.path, model());
  const begun = task.begin?.(request, answer);
  answer.setAttribute("aria-busy", "true");
  if (begun) answer.append(waiting.node);
  else answer.replaceChildren(waiting.node);
  try {
    const sent = await pictures.prepared();
    const result = await askService(request, sent, signal, hear(waiting));
    signal.throwIfAborted();
    waiting.node.remove();
    if (begun) task.end(request, begun, result.json, answer);
    else answer.append(task.show(result.json, request, sent));
    answer.append(foot(request, sent, result));
  } catch (error) {
    task.undo?.(request, begun);
    throw error;
  }
}

async function runCompare(answer, { signal, abort }) {
  const question = $("compare-question").value.trim();
  const cards = [];
  const grid = el("div", { class: "cards" });
  answer.replaceChildren(grid);
  for (const one of service.models) {
    const asked = [];
    if (one.tasks.caption) asked.push(["caption", form({}), "It shows", (json) => json.captions[0]]);
    if (one.tasks.vqa && question) asked.push(["vqa", form({ question }), question, ({ answers: [told] }) => ({ text: told.answer, confidence: told.confidence })]);
    if (!asked.length) continue;
    const card = modelCard(one);
    const waiting = waitingBox(`Asking ${one.name}.`, () => running.compare.abort());
    grid.append(card.node);
    card.wait(waiting.node);
    for (const [path, fields, words, told] of asked) {
      const { json, timing } = await askService(withModel(fields, path, one), await pictures.prepared(), signal, hear(waiting));
      card.add(words, told(json), timing);
    }
    card.wait();
    cards.push(card);
    for (const each of cards) each.time(Math.max(...cards.map(({ ms }) => ms)));
  }
  answer.append(timesLegend());
}

// The box tells what is waited for; the key is asked for above the tabs.
function hear(waiting) {
  return (told) => {
    waiting.tell(told);
    if (told.kind === "key") showKey(told);
  };
}

function showKey({ problem }) {
  $("key-form").hidden = false;
  $("key-problem").textContent = problem ?? "";
  $("key-problem").hidden = !problem;
  $("key").focus();
}

const showHint = (tab) => box(tab).replaceChildren(el("p", { class: "empty" }, all[tab].hint));

// --- the picture ---

function changed(picture) {
  for (const tab of Object.keys(all)) {
    running[tab]?.abort();
    running[tab] = null;
    showHint(tab);
  }
  const tab = tabs.chosen();
  if (picture?.example && picture.example.name !== wished.example) {
    if (!picture.example.models.includes(own)) own = null;
    if (service.models.length) fitModel(tab, own, ...knowing());
  }
  wished.example = undefined;
  lift(...Object.keys(all));
  forget();
  if (picture?.example) suggest(picture.example, askQuestion);
  else unsuggest();
  remember();
  if (picture && (tab === "caption" || tab === "compare" || isWritten(tab))) run(tab);
}

// Whether the form of the tab says what to ask.
const isWritten = (tab) => service.models.length > 0 && typeof all[tab].read(model()) !== "string";

function askQuestion(question) {
  $("question").value = question;
  run("ask");
}

// --- setting up ---

function setUpForms() {
  for (const tab of Object.keys(all)) {
    showHint(tab);
    $(`form-${tab}`).addEventListener("submit", (event) => {
      event.preventDefault();
      remember();
      run(tab);
    });
  }
  $("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("form-ask").requestSubmit();
  });
  document.addEventListener("input", () => {
    showOptions();
    remember();
  });
  $("start-over").addEventListener("click", () => {
    running.ask?.abort();
    forget();
    showHint("ask");
    $("question").focus();
  });
  $("model").addEventListener("change", () => {
    own = $("model").value;
    fitModel(tabs.chosen());
    remember();
  });
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    $("key-form").hidden = true;
    useKey($("key").value.trim());
    $("key").value = "";
  });
}

function showOptions() {
  for (const node of document.querySelectorAll("[data-how]")) node.hidden = node.dataset.how !== $("how").value;
  $("candidates-box").hidden = !$("choosing").checked;
}

function notice({ kind, problem }) {
  const words = {
    loading: "The models are loading. You can choose a picture meanwhile; this page goes on by itself.",
    draining: "The service is stopping. This page goes on when the next one is there.",
    away: "The service does not answer. Trying again every second.",
    "failed to load": "The models failed to load: the service's log says why.",
  };
  if (service.paths.size) choose(tabs.show(isServed));
  if (kind === "key") showKey({ problem });
  $("notice").hidden = !words[kind];
  $("notice").textContent = words[kind] ?? "";
  $("notice").classList.toggle("warn", kind !== "loading");
}

async function start() {
  setUpForms();
  showOptions();
  pictures.setUp(changed);
  tabs.setUp(choose);
  if (wished.tab in all) choose(wished.tab);
  window.addEventListener("hashchange", () => location.reload()); // a link to another form: ours changes nothing silently
  ready = loadAll();
  ready.catch((error) => ($("notice").replaceChildren(problemBox(error, () => location.reload())), ($("notice").hidden = false)));
}

async function loadAll() {
  offered = await pictures.offerExamples().catch(() => []);
  await begin(notice);
  $("notice").hidden = true;
  showModels();
  const again = offered.find(({ name }) => name === wished.example);
  if (again && !pictures.picture()) pictures.takeExample(again);
}

start();
