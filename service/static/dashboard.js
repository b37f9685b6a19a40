// The dashboard: asks for the report of the turns that the form names, shows it, and leads down to single turns.

import { fetchPart, fetchReport, ReportError } from "./reports.js";
import { make } from "./richtext.js";
import { readItem, writeItem } from "./store.js";
import { turnDetails, turnRow } from "./turnview.js";

const KEY_ITEM = "fetchgate.api_key"; // The chat page's, so that one key serves both.
const REFRESH_MS = 60_000;
const FIELDS = ["from", "to", "policy", "owner", "category", "month"];
const CHOICES = { policies: "by_policy", owners: "by_owner", categories: "by_category" };

const byId = (id) => document.getElementById(id);
const form = byId("filters");
const shown = byId("report");

// In memory as well, for where storage is blocked.
let apiKey = readItem("sessionStorage", KEY_ITEM);
let html = ""; // What is shown, to leave it alone when nothing has changed.
let running = null; // The controller of the request that is on its way.
let next = null; // Where the next page of turns begins.

// ---------- The report ----------

function filters() {
  const data = new FormData(form);
  return new URLSearchParams(FIELDS.map((name) => [name, String(data.get(name) ?? "").trim()]).filter(([, value]) => value));
}

/** Shows the report of what the form names; quietly: without a sign when nothing has changed. */
async function show({ quietly = false } = {}) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  if (!quietly) say("Computing…");
  shown.setAttribute("aria-busy", String(!quietly));
  try {
    const [part, report] = [await fetchPart(filters(), apiKey, mine.signal), await fetchReport(filters(), apiKey, mine.signal)];
    if (part !== html || !quietly) showReport(part, report);
    if (!quietly || next === null) await showTurns();
    say("");
  } catch (error) {
    if (running === mine) fail(error);
  } finally {
    if (running === mine) {
      running = null;
      shown.setAttribute("aria-busy", "false");
    }
  }
}

function showReport(part, report) {
  html = part;
  const open = new Map([...shown.querySelectorAll("details")].map((details) => [details.querySelector("summary").textContent, details.open]));
  // The server escapes every text in it, and the page's policy lets no script in it run.
  shown.innerHTML = part;
  for (const details of shown.querySelectorAll("details")) {
    details.open = open.get(details.querySelector("summary").textContent) ?? details.open;
  }
  for (const turn of shown.querySelectorAll("[data-turn]")) turn.replaceWith(turnButton(turn.dataset.turn, turn.textContent, "turn"));
  showChoices(report);
  byId("downloads").hidden = false;
  byId("turns").hidden = false;
}

/** What was ever seen in a cut can be chosen, also while the report is of one part. */
function showChoices(report) {
  for (const [id, cut] of Object.entries(CHOICES)) {
    const known = new Set([...byId(id).children].map((option) => option.value));
    const names = report[cut].map((row) => row.group).filter((name) => !known.has(name));
    byId(id).append(...names.map((name) => make("option", "", [], { value: name })));
  }
}

function say(text) {
  byId("state").textContent = text;
  byId("state").classList.remove("failed");
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ReportError)) console.error(error);
  if (error.status === 401) askForKey();
  const wait = error.wait ? ` It can be tried again in ${error.wait} s.` : "";
  byId("state").textContent = `The report can't be shown: ${error.message}${wait}`;
  byId("state").classList.add("failed");
}

// ---------- Turns ----------

async function showTurns() {
  next = null;
  byId("turn-rows").replaceChildren();
  await moreTurns();
}

async function moreTurns() {
  const asked = filters();
  asked.delete("month");
  asked.set("show", byId("turns-show").value);
  if (next !== null) asked.set("before", String(next));
  const page = await fetchReport(asked, apiKey, null, "turns");
  byId("turn-rows").append(...page.turns.map((turn) => turnRow(turn, turnButton(turn.id, turn.query || turn.id, "turn-button"))));
  next = page.next;
  byId("more").hidden = next === null;
  byId("no-turns").hidden = byId("turn-rows").children.length > 0;
}

function turnButton(id, text, className) {
  const button = make("button", className, text, { type: "button", dir: "auto", "data-testid": "turn" });
  button.addEventListener("click", () => openTurn(id));
  return button;
}

async function openTurn(id) {
  try {
    const turn = await fetchReport(new URLSearchParams(), apiKey, null, `turns/${encodeURIComponent(id)}`);
    byId("turn-body").replaceChildren(...turnDetails(turn));
    if (!byId("turn-dialog").open) byId("turn-dialog").showModal();
  } catch (error) {
    fail(error);
  }
}

// ---------- Files ----------

async function save({ format, name }) {
  try {
    const asked = filters();
    asked.set("format", format);
    const file = await fetchReport(asked, apiKey, null, "savings", "blob");
    const address = URL.createObjectURL(file);
    const link = make("a", "", [], { href: address, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  } catch (error) {
    fail(error);
  }
}

// ---------- The API key ----------

function askForKey() {
  byId("key-refused").hidden = !apiKey;
  byId("key-input").value = "";
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
}

function useKey() {
  apiKey = byId("key-input").value;
  writeItem("sessionStorage", KEY_ITEM, apiKey);
  byId("key-dialog").close();
  show();
}

// ---------- Start ----------

/** The form and the address say the same, so that an address can be sent to somebody. */
function readAddress() {
  const asked = new URLSearchParams(location.search);
  for (const name of FIELDS) form.elements[name].value = asked.get(name) ?? "";
}

function writeAddress() {
  const asked = filters().toString();
  history.replaceState(null, "", asked ? `?${asked}` : location.pathname);
}

function submit(event) {
  event.preventDefault();
  writeAddress();
  show();
}

function start() {
  readAddress();
  form.addEventListener("submit", submit);
  byId("reset").addEventListener("click", (event) => {
    for (const name of FIELDS) form.elements[name].value = "";
    submit(event);
  });
  byId("turns-show").addEventListener("change", () => showTurns().catch(fail));
  byId("more").addEventListener("click", () => moreTurns().catch(fail));
  byId("turn-close").addEventListener("click", () => byId("turn-dialog").close());
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey();
  });
  for (const button of byId("downloads").querySelectorAll("button")) button.addEventListener("click", () => save(button.dataset));
  setInterval(() => document.hidden || running || document.querySelector("dialog[open]") || show({ quietly: true }), REFRESH_MS);
  show();
}

start();
