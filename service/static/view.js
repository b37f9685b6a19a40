// One turn of the conversation as elements: the question and the answer with all that belongs to it.

import { feedbackView } from "./feedback.js";
import { isWebAddress, make, numberCitations, outsideLink, showRichText } from "./richtext.js";
import { formatNumber, hasText, t } from "./texts.js";

/** Elements for a turn; update() shows its answer as it is now. onRetry asks the question again, onFeedback rates the answer. */
export function turnView(turn, onRetry, onFeedback) {
  const question = make("article", "message user", [
    make("span", "visually-hidden", t("message.user")),
    make("div", "bubble", turn.question, { dir: "auto" }),
  ], { "data-testid": "message-user" });
  const answer = make("article", "message assistant", [], { "data-testid": "message-assistant" });
  const update = answerUpdater(answer, turn, onRetry, onFeedback);
  update();
  return { elements: [question, answer], update };
}

function answerUpdater(article, turn, onRetry, onFeedback) {
  const body = make("div", "body");
  const rest = make("div", "rest");
  const feedback = feedbackView(turn, onFeedback);
  article.append(make("span", "visually-hidden", t("message.assistant")), body, rest, feedback.element);
  let shownRest = null;
  let shownStatus = null;

  return () => {
    const { answer } = turn;
    if (answer.status !== shownStatus) {
      // The article is marked busy while it grows and filled anew at the end, so that a screen
      // reader reads the answer once and whole.
      article.setAttribute("aria-busy", String(answer.status === "streaming"));
      body.replaceChildren();
      shownStatus = answer.status;
    }
    showBody(body, answer, (number) => showCitation(rest, number));
    // The rest is built anew only when it changes: an opened list stays open while text arrives.
    const { content, feedback: _, ...others } = answer;
    const key = JSON.stringify([others, content !== ""]);
    if (key !== shownRest) rest.replaceChildren(...restElements(answer, onRetry));
    shownRest = key;
    feedback.update();
  };
}

function showBody(body, answer, onChip) {
  const streaming = answer.status === "streaming";
  if (streaming && answer.content === "") {
    if (!body.querySelector(".typing")) body.replaceChildren(typingIndicator());
    return;
  }
  body.querySelector(".typing")?.remove();
  const numbered = numberCitations(answer.content, answer.citations);
  showRichText(body, answer.content, { numbered, streaming, onChip });
}

function typingIndicator() {
  const dots = [make("span"), make("span"), make("span")];
  return make("p", "typing", dots, { role: "img", "aria-label": t("message.writing"), "data-testid": "typing" });
}

function restElements(answer, onRetry) {
  const { status, degraded, truncated } = answer;
  const notes = degraded.map(degradedText).map((text) => make("p", "warning", text, { "data-testid": "degraded" }));
  if (truncated) notes.push(make("p", "note", t("message.truncated")));
  if (status === "error") notes.push(errorBox(answer.error, onRetry));
  if (status === "stopped") {
    notes.push(make("div", "note", [make("span", "", t("message.stopped")), retryButton(onRetry)]));
  }
  return [...notes, ...footerElements(answer)];
}

function degradedText(flag) {
  return hasText(`degraded.${flag}`) ? t(`degraded.${flag}`) : t("degraded.other", { flag });
}

function errorBox({ kind, detail, wait }, onRetry) {
  const lines = [make("p", "", hasText(`error.${kind}`) ? t(`error.${kind}`) : t("error.server"))];
  if (wait) lines.push(make("p", "", t("error.wait", { count: wait })));
  if (detail) lines.push(make("p", "detail", t("error.detail", { detail }), { dir: "auto" }));
  return make("div", "error", [...lines, retryButton(onRetry)], { "data-testid": "error" });
}

/** Only the last turn shows its button: see .retry in chat.css. */
function retryButton(onRetry) {
  const button = make("button", "retry", t("retry"), { type: "button", "data-testid": "retry" });
  button.addEventListener("click", onRetry);
  return button;
}

function footerElements(answer) {
  const reason = answer.reason && make("p", "reason", t("action.reason", { reason: answer.reason }), { dir: "auto", hidden: "" });
  const line = [];
  if (answer.action) line.push(actionBadge(answer, reason));
  if (answer.usage) line.push(usageLine(answer.usage));
  const citations = answer.citations?.length ? citationList(answer) : null;
  if (!line.length && !citations) return [];
  return [make("footer", "meta", [make("div", "meta-line", line), reason, citations].filter(Boolean))];
}

/** The reason is the badge's tooltip, and a click shows it where there is no pointer to hover with. */
function actionBadge({ action, reason }, reasonElement) {
  const key = `action.${action}`;
  const label = hasText(key) ? t(key) : action;
  const attributes = { "data-testid": "action-badge", "data-action": action };
  if (!reason) return make("span", "badge", label, attributes);
  const badge = make("button", "badge", label, { ...attributes, type: "button", title: reason, "aria-expanded": "false" });
  badge.addEventListener("click", () => {
    reasonElement.hidden = !reasonElement.hidden;
    badge.setAttribute("aria-expanded", String(!reasonElement.hidden));
  });
  return badge;
}

function usageLine({ input_tokens: input, output_tokens: output, saved_tokens: saved }) {
  const parts = [];
  if (input !== null) parts.push(t("usage.used", { count: input + (output ?? 0) }));
  if (saved === null) parts.push(t("usage.unknown"));
  else parts.push(t(saved < 0 ? "usage.extra" : "usage.saved", { count: Math.abs(saved) }));
  return make("span", "usage", parts.join(" · "), { "data-testid": "usage" });
}

function citationList({ content, citations }) {
  const numbered = [...numberCitations(content, citations).values()];
  const items = numbered.map(({ number, citation }) => make("li", "", citationEntry(citation), { "data-number": number, tabindex: "-1" }));
  const summary = make("summary", "", t("citation.list", { count: items.length }));
  return make("details", "citations", [summary, make("ol", "", items)], { "data-testid": "citations" });
}

function citationEntry({ question, source_url }) {
  const text = make("span", "", question, { dir: "auto" });
  return source_url && isWebAddress(source_url) ? outsideLink(source_url, text) : text;
}

/** Opens the list of citations at the entry that a chip stands for. */
function showCitation(rest, number) {
  rest.querySelector("details.citations")?.setAttribute("open", "");
  const entry = rest.querySelector(`li[data-number="${number}"]`);
  (entry?.querySelector("a") ?? entry)?.focus();
}

/** The conversation's saved tokens, over the turns for which both numbers are known. */
export function savings(turns) {
  const known = turns.map((turn) => turn.answer.usage)
    .filter((usage) => usage && usage.saved_tokens !== null && usage.always_fetch_input_tokens !== null);
  const saved = known.reduce((sum, usage) => sum + usage.saved_tokens, 0);
  const always = known.reduce((sum, usage) => sum + usage.always_fetch_input_tokens, 0);
  const percent = always > 0 ? formatNumber(Math.abs(saved) / always, { style: "percent", maximumFractionDigits: 0 }) : null;
  return { saved, always, percent };
}
