// The words of the page in the reader's language.

import { readItem, writeItem } from "./store.js";

const STORAGE_KEY = "fetchgate.language";
let texts = { en: {}, vi: {} };
let language = "en";

export async function loadTexts() {
  const response = await fetch(new URL("texts.json", import.meta.url));
  texts = await response.json();
  const remembered = readItem("localStorage", STORAGE_KEY);
  const preferred = navigator.language?.startsWith("vi") ? "vi" : "en";
  language = Object.hasOwn(texts, remembered) ? remembered : preferred;
}

export function currentLanguage() {
  return language;
}

export function switchLanguage() {
  language = language === "en" ? "vi" : "en";
  writeItem("localStorage", STORAGE_KEY, language);
}

export function formatNumber(number, options) {
  return new Intl.NumberFormat(language, options).format(number);
}

export function hasText(key) {
  return Object.hasOwn(texts[language], key);
}

/** The text of a key; {name} is filled from values, and a number in `count` picks the plural form. */
export function t(key, values = {}) {
  const entry = texts[language][key] ?? texts.en[key] ?? key;
  const text = typeof entry === "string" ? entry : pluralForm(entry, values.count);
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name] ?? whole;
    return typeof value === "number" ? formatNumber(value) : value;
  });
}

function pluralForm(forms, count) {
  return forms[new Intl.PluralRules(language).select(count)] ?? forms.other;
}

/** Fills every data-text and data-text-NAME of the document. */
export function applyTexts() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of [...element.attributes]) {
      if (name === "data-text") element.textContent = t(value);
      else if (name.startsWith("data-text-")) element.setAttribute(name.slice("data-text-".length), t(value));
    }
  }
}
