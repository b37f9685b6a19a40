// The client of the public API.

/** kind is the last part of an "error.…" text; wait is the server's Retry-After in seconds. */
export class ApiError extends Error {
  constructor(kind, { detail = "", wait = null } = {}) {
    super(detail || kind);
    Object.assign(this, { kind, detail, wait });
  }
}

// Relative to the page, so that it also works behind a path prefix.
const KB_URL = new URL("v1/kb", document.baseURI);
const CHAT_URL = new URL("v1/chat/completions", document.baseURI);
const FEEDBACK_URL = new URL("v1/feedback", document.baseURI);

/** What is known about the FAQs; the page does without when this fails. */
export async function fetchKb(apiKey) {
  try {
    const response = await fetch(KB_URL, { headers: authorization(apiKey) });
    const { faqs, examples } = response.ok ? await response.json() : {};
    return {
      faqs: Number.isInteger(faqs) ? faqs : null,
      examples: Array.isArray(examples) ? examples.filter((example) => typeof example === "string").slice(0, 4) : [],
    };
  } catch {
    return { faqs: null, examples: [] };
  }
}

/** Yields the chunks of an answer; throws ApiError, or AbortError once the signal is aborted. */
export async function* streamAnswer({ messages, conversationId, apiKey, signal }) {
  const response = await request({ messages, conversationId, apiKey, signal });
  let complete = false;
  for await (const data of readEvents(response.body, signal)) {
    if (data === "[DONE]") return;
    const chunk = parseChunk(data);
    complete ||= Boolean(chunk.choices?.[0]?.finish_reason);
    yield chunk;
  }
  if (!complete) throw new ApiError("interrupted");
}

/** Says what the reader thinks of an answer; throws ApiError when that isn't stored. */
export async function sendFeedback({ id, rating, comment, rater, apiKey }) {
  const headers = { ...authorization(apiKey), "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(FEEDBACK_URL, { method: "POST", headers, body: JSON.stringify({ id, rating, comment, rater }) });
  } catch {
    throw new ApiError("network");
  }
  if (!response.ok) throw await httpError(response);
}

function authorization(apiKey) {
  return { Authorization: `Bearer ${apiKey || "none"}` };
}

async function request({ messages, conversationId, apiKey, signal }) {
  const headers = { ...authorization(apiKey), "Content-Type": "application/json", "X-Conversation-Id": conversationId };
  const body = JSON.stringify({ model: "fetchgate", messages, stream: true, stream_options: { include_usage: true } });
  let response;
  try {
    response = await fetch(CHAT_URL, { method: "POST", headers, body, signal });
  } catch (error) {
    throw signal.aborted ? error : new ApiError("network");
  }
  if (!response.ok) throw await httpError(response);
  // A proxy's own page, say, can also come with status 200.
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new ApiError("server");
  return response;
}

async function httpError(response) {
  const body = await response.json().catch(() => null);
  const message = body?.error?.message;
  return new ApiError(errorKind(response.status), {
    detail: typeof message === "string" ? message : `HTTP ${response.status}`,
    wait: retryAfter(response.headers.get("Retry-After")),
  });
}

function errorKind(status) {
  const kinds = { 401: "key", 429: "busy", 503: "unavailable" };
  return kinds[status] ?? (status >= 500 ? "server" : "request");
}

/** Retry-After is a number of seconds or a date. */
function retryAfter(header) {
  if (!header) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : Math.ceil((Date.parse(header) - Date.now()) / 1000);
  return seconds > 0 ? seconds : null;
}

/** The data of each server-sent event; this API puts each on one line. Comment lines keep the connection alive. */
async function* readEvents(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  } catch (error) {
    throw signal.aborted ? error : new ApiError("interrupted");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseChunk(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new ApiError("stream");
  }
  if (chunk.error) throw new ApiError("stream", { detail: String(chunk.error.message ?? "") });
  return chunk;
}
