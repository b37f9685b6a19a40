// What the reader thinks of an answer: two thumbs, and a comment for whoever wants to say more.

import { MAX_COMMENT_CHARS } from "./store.js";
import { make } from "./richtext.js";
import { hasText, t } from "./texts.js";

const THUMBS = {
  good: "M7 11v9H4v-9zM7 11l4-8a2 2 0 0 1 2 2v4h5.5a2 2 0 0 1 2 2.3l-1.2 7a2 2 0 0 1-2 1.7H7",
  bad: "M7 13V4H4v9zM7 13l4 8a2 2 0 0 0 2-2v-4h5.5a2 2 0 0 0 2-2.3l-1.2-7a2 2 0 0 0-2-1.7H7",
};
let forms = 0;

/** The part below an answer; onFeedback(rating, comment) sends it. It is updated in place: focus and a draft stay. */
export function feedbackView(turn, onFeedback) {
  const parts = feedbackParts();
  const { thumbs, toggle, form, comment } = parts;
  const current = () => turn.answer.feedback;
  let waiting = null; // said while another rating is on its way: the last of these goes next
  const send = (rating, text) => {
    if (current().status === "sending") waiting = [rating, text];
    else onFeedback(rating, text);
  };
  for (const [rating, button] of Object.entries(thumbs)) {
    button.addEventListener("click", () => {
      if (current().rating === rating && !waiting) return;
      if (rating === "bad" && form.hidden) {
        comment.value = current().comment;
        open(parts, true);
      }
      send(rating, current().comment);
    });
  }
  toggle.addEventListener("click", () => {
    comment.value = current().comment;
    open(parts, form.hidden);
    if (!form.hidden) comment.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    parts.submitted = true;
    send(waiting?.[0] ?? current().rating, comment.value.trim());
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    event.stopPropagation();
    open(parts, false);
    toggle.focus();
  });
  const update = () => {
    const next = waiting;
    if (next && current().status !== "sending") {
      waiting = null;
      onFeedback(...next);
    } else show(parts, turn.answer);
  };
  return { element: parts.element, update };
}

/** Whether an answer can be rated: it is whole or was stopped, and the server knows it. */
export function canBeRated({ id, status, content, degraded }) {
  return Boolean(id) && content !== "" && ["done", "stopped"].includes(status) && !degraded.includes("not_logged");
}

function feedbackParts() {
  const thumbs = { good: thumb("good"), bad: thumb("bad") };
  const formId = `feedback-${(forms += 1)}`;
  const toggle = make("button", "link-button", t("feedback.comment"), {
    type: "button", "aria-expanded": "false", "aria-controls": formId, "data-testid": "feedback-comment-toggle",
  });
  const said = make("span", "said", [], { "data-testid": "feedback-said" });
  const group = make("div", "thumbs", [...Object.values(thumbs), toggle, said], { role: "group", "aria-label": t("feedback.group") });
  const comment = make("textarea", "", [], {
    id: `${formId}-comment`, rows: "2", dir: "auto", maxlength: String(MAX_COMMENT_CHARS), "aria-describedby": `${formId}-hint`,
    "data-testid": "feedback-comment",
  });
  const form = make("form", "", [
    make("label", "", t("feedback.comment_label"), { for: `${formId}-comment` }),
    comment,
    make("div", "feedback-end", [
      make("span", "", t("feedback.hint"), { id: `${formId}-hint` }),
      make("button", "send-comment", t("feedback.send"), { type: "submit", "data-testid": "feedback-send" }),
    ]),
  ], { id: formId, hidden: "", "aria-live": "off" });
  return { element: make("div", "feedback", [group, form], { "data-testid": "feedback", hidden: "" }), thumbs, toggle, said, form, comment };
}

function thumb(rating) {
  const label = t(`feedback.${rating}`);
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  icon.setAttribute("viewBox", "0 0 24 24");
  icon.setAttribute("aria-hidden", "true");
  path.setAttribute("d", THUMBS[rating]);
  icon.append(path);
  return make("button", "thumb", icon, {
    type: "button", "aria-label": label, title: label, "aria-pressed": "false", "data-testid": `feedback-${rating}`,
  });
}

function open({ form, toggle }, wanted) {
  form.hidden = !wanted;
  toggle.setAttribute("aria-expanded", String(wanted));
}

function show(parts, answer) {
  const { element, thumbs, toggle, said, form } = parts;
  const { rating, status, error } = answer.feedback;
  element.hidden = !canBeRated(answer);
  for (const [name, button] of Object.entries(thumbs)) button.setAttribute("aria-pressed", String(name === rating));
  toggle.hidden = rating === null;
  if (status === "saved" && parts.submitted) {
    if (form.contains(document.activeElement)) toggle.focus();
    open(parts, false);
  }
  if (status !== "sending") parts.submitted = false;
  if (rating === null) open(parts, false);
  said.className = status === "failed" ? "said failed" : "said";
  said.textContent = words(status, error);
}

function words(status, error) {
  if (status === "idle") return "";
  if (status !== "failed") return t(`feedback.${status}`);
  const why = error.kind === "request" ? error.detail : hasText(`error.${error.kind}`) ? t(`error.${error.kind}`) : "";
  return [t("feedback.failed"), why].filter(Boolean).join(" ");
}
