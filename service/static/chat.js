// The chat page: keeps the conversation, asks the server and shows what comes back.

import { ApiError, fetchKb, sendFeedback, streamAnswer } from "./api.js";
import {
  loadConversation, newAnswer, newConversation, onOtherTab, raterId, readItem, saveConversation, takeDetails, writeItem,
} from "./store.js";
import { applyTexts, currentLanguage, loadTexts, switchLanguage, t } from "./texts.js";
import { make } from "./richtext.js";
import { followEnd, toEnd, watchScrolling } from "./scroll.js";
import { savings, turnView } from "./view.js";

const KEY_ITEM = "fetchgate.api_key";
const SAVE_EVERY_MS = 400;

const byId = (id) => document.getElementById(id);
const log = byId("messages");
const composer = byId("composer");
const input = byId("composer-input");
const dialog = byId("key-dialog");

let conversation = loadConversation();
let previous = null; // The conversation left by "new conversation", for bringing it back.
let running = null; // {turn, controller} while an answer is on its way.
let views = new Map(); // turn → its view.
let kb = { faqs: null, examples: [] };
// In memory as well, for where storage is blocked.
let apiKey = readItem("sessionStorage", KEY_ITEM);

// ---------- Showing ----------

function showConversation() {
  // Not news for a screen reader: the live region rests while it is filled.
  log.setAttribute("aria-live", "off");
  views = new Map();
  log.replaceChildren();
  conversation.turns.forEach(appendTurn);
  showState();
  setTimeout(() => log.setAttribute("aria-live", "polite"), 300);
}

function appendTurn(turn) {
  const view = turnView(turn, () => retry(turn), (rating, comment) => rate(turn, rating, comment));
  views.set(turn, view);
  log.append(...view.elements);
}

/** Everything but the messages: the empty state, the counter and the buttons. */
function showState() {
  const empty = conversation.turns.length === 0;
  byId("empty").hidden = !empty;
  log.hidden = empty;
  byId("bring-back").hidden = !previous;
  byId("send").hidden = Boolean(running);
  byId("stop").hidden = !running;
  log.classList.toggle("is-running", Boolean(running));
  showSavings();
}

function showSavings() {
  const { saved, always, percent } = savings(conversation.turns);
  const total = t(saved < 0 ? "savings.extra" : "savings.saved", { count: Math.abs(saved) });
  byId("savings-total").textContent = percent ? `${total} ${t("savings.percent", { percent })}` : total;
  byId("savings-detail").hidden = !percent;
  byId("savings-detail").textContent = t("savings.detail", { used: always - saved, always });
}

function showKb() {
  byId("empty-intro").textContent = kb.faqs ? t("empty.intro_count", { count: kb.faqs }) : t("empty.intro");
  const buttons = kb.examples.map((example) => {
    const button = make("button", "example", example, { type: "button", dir: "auto", "data-testid": "example" });
    button.addEventListener("click", () => ask(example));
    return button;
  });
  byId("examples").replaceChildren(...buttons);
  byId("examples").hidden = buttons.length === 0;
}

function showTexts() {
  applyTexts();
  for (const part of byId("lang-switch").children) {
    part.classList.toggle("current", part.dataset.language === currentLanguage());
  }
  showKb();
  showConversation();
}

// ---------- Asking ----------

function ask(question) {
  if (running || !question.trim()) return;
  const turn = { question: question.trim(), answer: newAnswer() };
  conversation.turns.push(turn);
  appendTurn(turn);
  run(turn);
}

/** Asks the last question again, in place of its failed answer. */
function retry(turn) {
  if (running || turn !== conversation.turns.at(-1)) return;
  turn.answer = newAnswer();
  run(turn);
}

async function run(turn) {
  const mine = { turn, controller: new AbortController() };
  running = mine;
  updateTurn(turn);
  showState();
  toEnd();
  focusComposer();
  await receive(turn, mine.controller.signal);
  if (running === mine) running = null;
  if (!conversation.turns.includes(turn)) return; // Left by "new conversation".
  updateTurn(turn);
  showState();
  saveConversation(conversation);
  if (turn.answer.error?.kind === "key") askForKey(turn);
}

/** Fills the answer of the turn from the server; failures become part of the answer. */
async function receive(turn, signal) {
  const { answer } = turn;
  const request = { messages: messagesFor(turn), conversationId: conversation.id, apiKey, signal };
  saveConversation(conversation);
  try {
    for await (const chunk of streamAnswer(request)) {
      takeChunk(answer, chunk);
      scheduleUpdate(turn);
    }
    answer.status = "done";
    if (!answer.content.trim()) fail(answer, new ApiError("empty"));
  } catch (error) {
    if (signal.aborted) answer.status = "stopped";
    else fail(answer, error);
  }
}

/** The conversation up to this question. Questions that were never answered are left out. */
function messagesFor(turn) {
  const before = conversation.turns.slice(0, conversation.turns.indexOf(turn)).filter((past) => past.answer.content);
  const messages = before.flatMap(({ question, answer }) => [
    { role: "user", content: question },
    { role: "assistant", content: answer.content },
  ]);
  return [...messages, { role: "user", content: turn.question }];
}

function takeChunk(answer, chunk) {
  const choice = chunk.choices?.[0];
  if (typeof chunk.id === "string") answer.id = chunk.id;
  if (typeof choice?.delta?.content === "string") answer.content += choice.delta.content;
  if (choice?.finish_reason === "length") answer.truncated = true;
  if (chunk.fetchgate) takeDetails(answer, chunk.fetchgate);
}

function fail(answer, error) {
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  answer.status = "error";
  answer.error = { kind: known ? error.kind : "server", detail: error.detail ?? "", wait: error.wait ?? null };
}

/** Shows a rating at once, and takes it back if the server doesn't keep it. */
async function rate(turn, rating, comment) {
  const { answer } = turn;
  const before = answer.feedback;
  answer.feedback = { rating, comment, status: "sending", error: null };
  updateTurn(turn);
  try {
    await sendFeedback({ id: answer.id, rating, comment, rater: raterId(), apiKey });
    answer.feedback = { ...answer.feedback, status: "saved" };
  } catch (error) {
    if (!(error instanceof ApiError)) console.error(error);
    answer.feedback = { ...before, status: "failed", error: { kind: error.kind ?? "server", detail: error.detail ?? "" } };
  }
  updateTurn(turn);
  if (conversation.turns.includes(turn) && !running) saveConversation(conversation);
}

function stop() {
  running?.controller.abort();
  focusComposer();
}

function updateTurn(turn) {
  views.get(turn)?.update();
  followEnd();
}

let updateScheduled = false;
let lastSaved = 0;

/** Tokens can come faster than the screen is drawn, and than storage should be written. */
function scheduleUpdate(turn) {
  if (Date.now() - lastSaved > SAVE_EVERY_MS) {
    lastSaved = Date.now();
    if (conversation.turns.includes(turn)) saveConversation(conversation);
  }
  if (updateScheduled) return;
  updateScheduled = true;
  requestAnimationFrame(() => {
    updateScheduled = false;
    updateTurn(turn);
  });
}

function changeConversation(next) {
  running?.controller.abort();
  running = null;
  conversation = next;
  saveConversation(conversation);
  showConversation();
  toEnd();
  focusComposer();
}

// ---------- The API key ----------

let turnWaitingForKey = null;

function askForKey(turn) {
  turnWaitingForKey = turn;
  byId("key-refused").hidden = !apiKey;
  byId("key-input").value = "";
  if (!dialog.open) dialog.showModal();
}

async function useKey() {
  apiKey = byId("key-input").value;
  writeItem("sessionStorage", KEY_ITEM, apiKey);
  dialog.close();
  retry(turnWaitingForKey);
  kb = await fetchKb(apiKey);
  showKb();
}

function setUpDialog() {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey();
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", focusComposer);
}

// ---------- The composer ----------

function focusComposer() {
  // On a touch screen this would raise the keyboard over the answer; there the focus stays where it is.
  if (!matchMedia("(pointer: coarse)").matches) input.focus({ preventScroll: true });
}

function setComposer(text) {
  input.value = text;
  fitComposer();
}

/** The height follows the text; chat.css sets the limit. */
function fitComposer() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

function send() {
  if (running || !input.value.trim()) return;
  const question = input.value;
  setComposer("");
  ask(question);
}

function onComposerKey(event) {
  // Enter that ends the composition of a letter or word (Vietnamese, Chinese …) does not send.
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    send();
  } else if (event.key === "ArrowUp" && input.value === "" && conversation.turns.length) {
    event.preventDefault();
    setComposer(conversation.turns.at(-1).question);
  }
}

function onEscape(event) {
  if (event.key !== "Escape" || event.isComposing || dialog.open) return;
  if (byId("savings").open) byId("savings").open = false;
  else if (running) stop();
}

function setUpControls() {
  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  input.addEventListener("keydown", onComposerKey);
  input.addEventListener("input", fitComposer);
  addEventListener("resize", fitComposer);
  document.addEventListener("keydown", onEscape);
  document.addEventListener("click", ({ target }) => {
    if (!byId("savings").contains(target)) byId("savings").open = false;
  });
  byId("stop").addEventListener("click", stop);
  byId("bring-back").addEventListener("click", () => {
    const back = previous;
    previous = null;
    changeConversation(back);
  });
  byId("new-chat").addEventListener("click", startNewConversation);
  byId("lang-switch").addEventListener("click", () => {
    switchLanguage();
    showTexts();
  });
}

function startNewConversation() {
  if (running) running.turn.answer.status = "stopped";
  if (conversation.turns.length) previous = conversation;
  changeConversation(newConversation());
}

// ---------- Start ----------

async function start() {
  setUpControls();
  setUpDialog();
  await loadTexts();
  showTexts();
  watchScrolling(focusComposer);
  toEnd();
  fitComposer();
  focusComposer();
  addEventListener("pagehide", () => running && saveConversation(conversation));
  onOtherTab((other) => {
    if (running) return;
    conversation = other;
    showConversation();
  });
  kb = await fetchKb(apiKey);
  showKb();
}

start();
