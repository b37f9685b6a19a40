// One turn as a row of the list, and with all that is known of it.

import { make } from "./richtext.js";

const ACTIONS = { FETCH: "fetched", NO_FETCH: "skipped", STATIC: "by an FAQ" };
const number = new Intl.NumberFormat("en");
const show = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? number.format(value) : String(value));
const verdict = (good) => (good === null ? "–" : good ? "Good" : "Bad");
const time = (text) => text.slice(0, 16).replace("T", " ");

/** A row of the list; the button opens the turn. */
export function turnRow(turn, button) {
  const cell = (label, content, className = "") => make("td", className, content, { "data-label": label });
  return make("tr", "", [
    make("th", "", button, { scope: "row" }),
    cell("Time (UTC)", time(turn.created_at)),
    cell("Action", (ACTIONS[turn.action] ?? turn.action) + (turn.counted ? "" : ", not counted")),
    cell("Tokens", show(turn.tokens), "number"),
    cell("Saved", show(turn.saved_tokens), "number"),
    cell("Answer", verdict(turn.good)),
  ]);
}

const COUNTED_BY = {
  server: "the server", model: "the model's own tokenizer", local: "FetchGate's own tokenizer", none: "nobody, as no LLM was called",
};

/** All that is known of a turn, as elements. */
export function turnDetails(turn) {
  const { line, inside } = turn;
  const told = [
    ["Asked", line.query],
    ["Before", turn.previous_queries.join("\n")],
    ["Answered", turn.answer],
    ["Action", `${ACTIONS[line.action] ?? line.action}: ${turn.reason}`],
    ["Policy", line.policy_version],
    ["Conversation", `${line.conversation_id}, turn ${line.position + 1}, key ${line.owner}`],
    ["Time", `${time(line.created_at)} UTC`],
    ["FAQs shown", turn.shown.join(", ")],
    ["FAQs cited", turn.cited.join(", ")],
    ["Tokens", `${show(turn.input_tokens)} in (${show(turn.cached_input_tokens)} cached), ${show(turn.output_tokens)} out, counted by ${COUNTED_BY[turn.usage_source] ?? turn.usage_source}`],
    ["Cost", turn.cost === null ? "" : `${turn.cost.toPrecision(3)} ${turn.currency}`],
    ["Model", `${turn.model}; prompt ${turn.prompt_version}; FAQs ${turn.kb_version}`],
    ["Marked", turn.notes.join(", ")],
    ["Took", Object.entries(turn.latency_ms).map(([stage, ms]) => `${stage} ${ms.toFixed(0)} ms`).join(", ")],
    ["Rated", turn.ratings.map((rating) => `${rating.role}: ${rating.stars === null ? verdict(rating.good) : `${rating.stars} of 5`}`).join("; ")],
    ["P(fetch)", inside ? `${inside.fetch_probability.toFixed(3)} ± ${inside.uncertainty.toFixed(3)}` : ""],
    ["Found", inside ? inside.similarities.map(([id, similarity]) => `${id} ${similarity.toFixed(3)}`).join(", ") : ""],
  ].filter(([, text]) => text);
  return [
    make("dl", "", told.flatMap(([name, text]) => [make("dt", "", name), make("dd", "", text, { dir: "auto" })])),
    ...table("What it would have cost", ["Setting", "Input", "Output", "Saved"],
      turn.counterfactuals.map((one) => [one.baseline, one.input_tokens, one.output_tokens, one.saved_tokens])),
    ...table("Verdicts", ["Answer", "Judge", "Verdict", "Why"],
      turn.verdicts.map((one) => [`${ACTIONS[one.arm] ?? one.arm}${one.answer === null ? "" : `: ${one.answer}`}`, one.judge, verdict(one.good), one.reason])),
  ];
}

function table(caption, names, rows) {
  if (rows.length === 0) return [];
  const numbers = rows[0].map((value) => (typeof value === "number" ? "number" : ""));
  const head = make("tr", "", names.map((name, index) => make("th", numbers[index], name, { scope: "col" })));
  const body = rows.map(([first, ...others]) => make("tr", "", [
    make("th", "", first, { scope: "row" }),
    ...others.map((value, index) => make("td", numbers[index + 1], show(value), { "data-label": names[index + 1] })),
  ]));
  return [make("table", "", [make("caption", "", caption), make("thead", "", head), make("tbody", "", body)])];
}
