// What the browser keeps: the conversation, the language and (for this tab only) the API key.
// Storage can be switched off, full or hold anything: nothing here throws.

const CONVERSATION_KEY = "fetchgate.conversation";
const RATER_KEY = "fetchgate.rater";
const STATUSES = ["done", "stopped", "error"];
export const MAX_COMMENT_CHARS = 4000;

/** kind is "localStorage" or "sessionStorage"; even naming a blocked storage can throw. */
export function readItem(kind, key) {
  try {
    return window[kind].getItem(key);
  } catch {
    return null;
  }
}

export function writeItem(kind, key, value) {
  try {
    window[kind].setItem(key, value);
  } catch {
    // The page works without: it only forgets on reload.
  }
}

export function newConversation() {
  return { id: newId(), turns: [] };
}

export function newAnswer() {
  return {
    status: "streaming", content: "", action: null, reason: "",
    citations: null, usage: null, degraded: [], truncated: false, error: null,
    // The id by which the server knows the answer, and what the reader thinks of it: idle, sending, saved or failed.
    id: null, feedback: { rating: null, comment: "", status: "idle", error: null },
  };
}

/** Tells the readers of this page apart where they share an API key; random, and of no other use. */
export function raterId() {
  const kept = readItem("localStorage", RATER_KEY);
  if (/^browser-[0-9a-f-]{36}$/.test(kept)) return kept;
  const made = `browser-${newId()}`;
  writeItem("localStorage", RATER_KEY, made);
  return made;
}

export function saveConversation(conversation) {
  writeItem("localStorage", CONVERSATION_KEY, JSON.stringify(conversation));
}

export function loadConversation() {
  try {
    return checkedConversation(JSON.parse(readItem("localStorage", CONVERSATION_KEY)));
  } catch {
    return newConversation();
  }
}

/** Calls back with the conversation when another tab has written a complete one. */
export function onOtherTab(callback) {
  addEventListener("storage", ({ key, newValue }) => {
    if (key === CONVERSATION_KEY && newValue && !newValue.includes('"status":"streaming"')) callback(loadConversation());
  });
}

/** A version 4 UUID; crypto.randomUUID is missing where the page is served over plain HTTP. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function checkedConversation(stored) {
  const turns = stored.turns.filter((turn) => typeof turn?.question === "string");
  return {
    id: /^[0-9a-f-]{36}$/.test(stored.id) ? stored.id : newId(),
    turns: turns.map(({ question, answer }) => ({ question, answer: checkedAnswer(answer ?? {}) })),
  };
}

function checkedAnswer(stored) {
  const answer = newAnswer();
  // A stored "streaming" means that the page was left in mid-stream.
  const finished = STATUSES.includes(stored.status);
  answer.status = finished ? stored.status : "error";
  answer.content = text(stored.content);
  answer.error = answer.status === "error" ? checkedError(finished ? stored.error : { kind: "interrupted" }) : null;
  answer.truncated = stored.truncated === true;
  answer.id = text(stored.id) || null;
  if (["good", "bad"].includes(stored.feedback?.rating)) {
    const comment = text(stored.feedback.comment).slice(0, MAX_COMMENT_CHARS);
    answer.feedback = { rating: stored.feedback.rating, comment, status: "idle", error: null };
  }
  takeDetails(answer, stored);
  return answer;
}

/** Copies what the server says about a turn into the answer, as far as it is well-formed. */
export function takeDetails(answer, details) {
  if (typeof details.action === "string") answer.action = details.action;
  if (typeof details.reason === "string") answer.reason = details.reason;
  if (Array.isArray(details.degraded)) answer.degraded = details.degraded.filter((flag) => typeof flag === "string");
  if (Array.isArray(details.citations)) answer.citations = details.citations.filter(isCitation).map(checkedCitation);
  if (details.usage && typeof details.usage === "object") answer.usage = checkedUsage(details.usage);
}

function isCitation(citation) {
  return typeof citation?.id === "string";
}

function checkedCitation({ id, question, source_url }) {
  return { id, question: text(question) || id, source_url: typeof source_url === "string" ? source_url : null };
}

function checkedUsage(usage) {
  const names = ["input_tokens", "output_tokens", "always_fetch_input_tokens", "saved_tokens"];
  return Object.fromEntries(names.map((name) => [name, Number.isFinite(usage[name]) ? usage[name] : null]));
}

function checkedError(error) {
  return {
    kind: text(error?.kind) || "server",
    detail: text(error?.detail),
    wait: Number.isFinite(error?.wait) ? error.wait : null,
  };
}

function text(value) {
  return typeof value === "string" ? value : "";
}
