// The client of the report's API.

/** message says what the server said; status is null when it couldn't be reached; wait is its Retry-After in seconds. */
export class ReportError extends Error {
  constructor(message, { status = null, wait = null } = {}) {
    super(message);
    Object.assign(this, { status, wait });
  }
}

// Relative to the page, so that it also works behind a path prefix.
const REPORT_URL = new URL("v1/report/", document.baseURI);

/** The report as a part of a page. */
export function fetchPart(asked, apiKey, signal) {
  const whole = new URLSearchParams(asked);
  whole.set("format", "html");
  return fetchReport(whole, apiKey, signal, "savings", "text");
}

/** What stands at a path of the report, as `json`, `text` or `blob`; throws ReportError, or AbortError once the signal is aborted. */
export async function fetchReport(asked, apiKey, signal, path = "savings", kind = "json") {
  const address = new URL(path, REPORT_URL);
  address.search = asked.toString();
  let response;
  try {
    response = await fetch(address, { headers: { Authorization: `Bearer ${apiKey || "none"}` }, signal });
  } catch (error) {
    throw signal?.aborted ? error : new ReportError("the server can't be reached");
  }
  if (!response.ok) throw await refused(response);
  return response[kind]();
}

async function refused(response) {
  const body = await response.json().catch(() => null);
  const said = body?.error?.message;
  const wait = Number(response.headers.get("Retry-After")) || null;
  return new ReportError(typeof said === "string" ? said : `HTTP ${response.status}`, { status: response.status, wait });
}
