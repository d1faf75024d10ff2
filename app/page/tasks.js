// The tabs: which endpoint each asks, what its form says, and how the answer is shown.

import { $, el, lines } from "./dom.js";
import { drawHeat } from "./heat.js";
import { drawBoxes, drawMasks, lay } from "./overlay.js";
import * as answers from "./answers.js";

// `path`: the endpoint. `task`: what a model must have for it, in /models. `read(model)`: the request, or what is missing
// in words. `show(json, request, sent)`: the answer's node.
export const tasks = {
  caption: {
    path: "caption",
    task: "caption",
    phrase: "Looking at the picture.",
    hint: "What the model sees in your picture will stand here.",
    read: () => {
      const sampling = $("how").value === "sample";
      const own = sampling ? { sample: "true", temperature: $("temperature").value, seed: $("seed").value } : { num_beams: $("num-beams").value };
      const number = $("num-captions").value;
      return form({ prompt: $("prompt").value, num_captions: number === "1" ? "" : number, max_new_tokens: $("max-new-tokens").value, ...own });
    },
    show: answers.caption,
  },
  match: {
    path: "match",
    task: "match",
    phrase: "Comparing picture and texts.",
    hint: "How well each text fits your picture will stand here.",
    read: () => form({ text: lines($("texts").value) }, "Write a text to compare the picture with.", "text"),
    show: (json, { fields }) => answers.match(json, textsOf(fields)),
  },
  classify: {
    path: "classify",
    task: "match",
    phrase: "Choosing among the labels.",
    hint: "Which label fits best will stand here.",
    read: () => {
      const labels = lines($("labels").value);
      return labels.length < 2 ? "Write at least two labels, one a line." : form({ label: labels, template: lines($("templates").value) });
    },
    show: answers.classes,
  },
  locate: {
    path: "localize",
    task: "localize",
    phrase: "Looking for it.",
    hint: "Where in your picture the words are will be shown in colours on it.",
    read: () => {
      return asJson(form({ text: $("target").value, tokens: "true" }, "Write what to look for.", "text"));
    },
    show: (json) => answers.located(json, (map) => lay("locate", () => drawHeat(map))),
  },
  segment: {
    path: "segment",
    task: "segment",
    phrase: "Cutting out.",
    hint: "The parts of your picture that the words name will be shown in colours on it.",
    read: () => asJson(form({ text: lines($("pieces").value) }, "Write what to cut out.", "text")),
    show: (json) => answers.segmented(json, (masks) => lay("segment", () => drawMasks(masks))),
  },
  detect: {
    path: "detect",
    task: "detect",
    phrase: "Looking for all of it.",
    hint: "What the words name will be framed in your picture.",
    read: () => asJson(form({ text: lines($("things").value), threshold: $("threshold").value }, "Write what to find.", "text")),
    show: (json, { fields }, { size }) => answers.detected(json, textsOf(fields), size, (boxes) => lay("detect", () => drawBoxes(boxes))),
  },
};

const textsOf = (fields) => fields.filter(([name]) => name === "text").map(([, text]) => text);

const asJson = (request) => (typeof request === "string" ? request : { ...request, accept: "application/json" });

// {name: text or texts} -> fields without what is empty.
export function form(values, missing, needed) {
  const fields = Object.entries(values).flatMap(([name, value]) => [value].flat().map((one) => [name, one.trim()]));
  const given = fields.filter(([, value]) => value);
  return missing && !given.some(([name]) => name === needed) ? missing : { fields: given, json: null };
}

export function withModel(request, path, model) {
  const named = { ...request, path };
  if (request.json) return { ...named, json: { model: model.name, ...request.json } };
  return { ...named, fields: [["model", model.name], ...request.fields] };
}

// What an example suggests, where the person has written nothing of their own.
export function suggest(example, ask) {
  fill($("texts"), example.texts);
  fill($("labels"), example.labels);
  fill($("templates"), ["{}"]);
  fill($("target"), [example.locate]);
  fill($("pieces"), example.things);
  fill($("things"), example.things);
  fill($("candidates"), example.candidates);
  fill($("compare-question"), example.questions.slice(0, 1));
  $("suggestions").replaceChildren(
    ...example.questions.map((question) => el("li", {}, el("button", { type: "button", onclick: () => ask(question) }, question))),
  );
}

export const unsuggest = () => $("suggestions").replaceChildren();

function fill(field, suggested) {
  if (field.value && field.value !== field.dataset.suggested) return;
  field.value = suggested.join("\n");
  field.dataset.suggested = field.value;
}
