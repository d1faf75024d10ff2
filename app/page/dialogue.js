// The tab Ask: a thread of questions and answers about one picture; of some models, a dialogue.

import { $, el, lines } from "./dom.js";
import { answered } from "./answers.js";
import { service } from "./service.js";

let turns = []; // {question, answer}: answered ones, oldest first

export function canTalk(model) {
  return Boolean(model?.tasks.vqa?.history);
}

export function setUpThread(model) {
  $("dialogue-box").hidden = !canTalk(model);
}

export function forget() {
  turns = [];
  $("start-over").hidden = true;
}

export const ask = {
  path: "vqa",
  task: "vqa",
  phrase: "Thinking about it.",
  hint: "Ask anything about the picture.",
  read(model) {
    const questions = lines($("question").value);
    if (!questions.length) return "Write a question.";
    const choosing = $("choosing").checked;
    const candidates = choosing ? lines($("candidates").value) : [];
    if (choosing && candidates.length < 2) return "Write at least two possible answers, one a line.";
    const history = canTalk(model) && $("dialogue").checked ? turns.slice(-service.limits.max_items) : [];
    const fields = [...questions.map((one) => ["question", one]), ...candidates.map((one) => ["candidates", one])];
    const json = history.length ? { question: questions, ...(candidates.length ? { candidates } : {}), history } : null;
    return { questions, fields, json };
  },
  // The questions are in the thread at once; what comes back fills them in, or takes them out again.
  begin({ questions }, box) {
    const nodes = questions.map((question) => el("div", { class: "turn" }, el("p", { class: "asked" }, question)));
    box.querySelector(".empty")?.remove();
    box.querySelector(".note.bad")?.remove();
    box.append(...nodes);
    $("question").value = "";
    for (const chip of $("suggestions").children) if (questions.includes(chip.textContent)) chip.hidden = true;
    $("form-ask").scrollIntoView({ block: "nearest" });
    return nodes;
  },
  end({ questions, json: asked }, nodes, json, box) {
    box.querySelector(".foot")?.remove();
    json.answers.forEach((one, at) => {
      nodes[at].append(answered(one, asked?.history.length ?? 0));
      turns.push({ question: questions[at], answer: one.answer });
    });
    turns = turns.filter(({ answer }) => answer);
    $("start-over").hidden = false;
    requestAnimationFrame(() => $("form-ask").scrollIntoView({ block: "nearest" }));
  },
  undo({ questions }, nodes) {
    nodes.forEach((node) => node.remove());
    if (!$("question").value) $("question").value = questions.join("\n");
  },
};
