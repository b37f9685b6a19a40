// Turns the text of an answer into elements: paragraphs, "- " lists, links and citation chips.

import { t } from "./texts.js";

// Something in brackets (whether it names FAQs is seen later), or a web address.
const INLINE = /(\[[^[\]\n]{1,400}\])|(https?:\/\/[^\s<>"[\]]+)/g;
// The beginning of a citation that may still be on its way.
const OPEN_CITATION = /\[[^[\]\n]{0,100}$/;
const LIKELY_ID = /^(?=.*[\d-])[\p{L}\p{N}_.:-]+$/u;
const LIST_ITEM = /^\s*[-*•]\s+/;

/** An element with class, children (strings become text) and attributes. */
export function make(tag, className, children = [], attributes = {}) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...[children].flat());
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export function isWebAddress(text) {
  try {
    return ["http:", "https:"].includes(new URL(text).protocol);
  } catch {
    return false;
  }
}

export function outsideLink(address, children) {
  const newTab = make("span", "visually-hidden", ` ${t("citation.new_tab")}`);
  return make("a", "", [children, newTab].flat(), { href: address, target: "_blank", rel: "noopener noreferrer" });
}

/**
 * Numbers the cited FAQs in the order of the text: Map of id to {number, citation}.
 * The list of citations arrives only at the end; until then one word with a digit or a hyphen
 * counts as an id.
 */
export function numberCitations(content, citations) {
  const known = citations && new Map(citations.map((citation) => [citation.id, citation]));
  const numbered = new Map();
  const add = (id) => numbered.has(id) || numbered.set(id, { number: numbered.size + 1, citation: known?.get(id) });
  for (const [, bracket] of content.matchAll(INLINE)) {
    if (bracket) citedIds(bracket).filter((id) => (known ? known.has(id) : LIKELY_ID.test(id))).forEach(add);
  }
  known?.forEach((_, id) => add(id));
  return numbered;
}

/** Shows content in body; blocks that stay the same keep their elements, so that a selection in them stays. */
export function showRichText(body, content, { numbered, streaming, onChip }) {
  const blocks = splitBlocks(streaming ? content.replace(OPEN_CITATION, "") : content);
  blocks.forEach((block, index) => {
    const old = body.children[index];
    if (old?.shownText === block) return;
    const element = blockElement(block, numbered, onChip);
    element.shownText = block;
    if (old) old.replaceWith(element);
    else body.append(element);
  });
  while (body.children.length > blocks.length) body.lastChild.remove();
}

/** Paragraphs are split at blank lines, and where a list begins or ends. */
function splitBlocks(content) {
  const blocks = [];
  let lastKind = "blank";
  for (const line of content.split("\n")) {
    const kind = line.trim() === "" ? "blank" : LIST_ITEM.test(line) ? "list" : "text";
    if (kind !== "blank" && kind === lastKind) blocks[blocks.length - 1] += `\n${line}`;
    else if (kind !== "blank") blocks.push(line);
    lastKind = kind;
  }
  return blocks;
}

function blockElement(block, numbered, onChip) {
  const lines = block.split("\n");
  if (LIST_ITEM.test(block)) {
    const items = lines.map((line) => make("li", "", inline(line.replace(LIST_ITEM, ""), numbered, onChip), { dir: "auto" }));
    return make("ul", "", items, { dir: "auto" });
  }
  const parts = lines.flatMap((line, index) => [...(index ? [make("br")] : []), ...inline(line, numbered, onChip)]);
  return make("p", "", parts, { dir: "auto" });
}

function inline(text, numbered, onChip) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, bracket, address] = match;
    const shown = bracket ? chips(bracket, numbered, onChip) : webLink(address);
    // The chips follow their sentence without a gap.
    const before = text.slice(end, match.index);
    parts.push(bracket && shown[0] !== bracket ? before.trimEnd() : before, ...shown);
    end = match.index + whole.length;
  }
  return [...parts, text.slice(end)].filter((part) => part !== "");
}

/** What [a] or [a, b] can name; an id may itself hold a comma, so the whole counts as well. */
function citedIds(bracket) {
  const inside = bracket.slice(1, -1);
  return [...new Set([inside, ...inside.split(/[,;]/)].map((id) => id.trim()))];
}

function chips(bracket, numbered, onChip) {
  const ids = citedIds(bracket);
  if (!ids.some((id) => numbered.has(id))) return [bracket];
  return ids.filter((id) => numbered.has(id)).map((id) => chip(numbered.get(id), onChip));
}

function chip({ number, citation }, onChip) {
  const label = citation ? t("citation.chip", { number, question: citation.question }) : t("citation.chip_plain", { number });
  // Without its question a chip leads nowhere.
  const button = make(citation ? "button" : "span", "chip", String(number), { "data-testid": "citation-chip" });
  if (!citation) return make("sup", "", [make("span", "visually-hidden", label), button]);
  button.type = "button";
  button.title = citation.question;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => onChip(number));
  return make("sup", "", button);
}

/** Punctuation at the end belongs to the sentence, a closing bracket only if it was opened in the address. */
function webLink(text) {
  let address = text.replace(/[.,;:!?'…]+$/u, "");
  if (address.endsWith(")") && !address.includes("(")) address = address.replace(/\)+[.,;:!?'…]*$/u, "");
  if (!isWebAddress(address)) return [text];
  return [outsideLink(address, address), text.slice(address.length)];
}
