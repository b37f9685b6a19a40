"""What a sentence says that can be checked without a model: amounts with their units, names, what is denied, and its other words.

Two sentences that say the same in other words give nearly the same facts ("Rs. 500", "₹500" and "500 rupees" are one amount), and a
sentence in which one thing was changed gives a fact that the other hasn't. English, and what Hinglish shares with it. Leaves out
comparing an answer with FAQs (`support.py`).
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chat.llm.wording import NAMING_NOTHING

NEAR = 4
"""Words before a word within which a "not" denies it, and around an amount that tell what it is an amount of."""
STEM = 7
"""Letters by which words are compared once their endings are off."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEGATORS = _set("not no never cannot cant wont dont doesnt didnt isnt arent wasnt without neither nor none nothing nahi nahin mat nil "
                "shouldnt neednt couldnt wouldnt hasnt havent")
RELATIONS = _set("if unless only except before after until within least most minimum maximum above below over under more less fewer up "
                 "all any both always must may optional required first last once twice either instead half double free either")
"""Small words that turn what a sentence says: one that the FAQ hasn't is as grave as another noun."""
_OPPOSITES: Mapping[str, frozenset[str]] = {
    word: frozenset(others.split()) for word, others in {
        "before": "after", "after": "before", "within": "after beyond", "above": "below under", "below": "above over", "over": "under",
        "under": "over above", "more": "less fewer", "less": "more", "fewer": "more", "higher": "lower", "lower": "higher",
        "minimum": "maximum", "maximum": "minimum", "least": "most", "most": "least", "if": "unless", "unless": "if", "on": "off",
        "off": "on", "always": "never", "never": "always", "must": "may", "may": "must", "optional": "required", "required": "optional",
        "free": "charged paid", "first": "last", "last": "first", "increase": "decrease", "raise": "lower", "open": "close",
        "domestic": "international", "international": "domestic", "with": "without", "without": "with", "lost": "found",
        "allowed": "refused", "refused": "allowed", "accepted": "refused", "approved": "declined", "declined": "approved",
        "online": "offline", "abroad": "home", "start": "stop", "earliest": "latest", "latest": "earliest", "only": "also", "all": "none",
        "same": "different", "different": "same", "old": "new", "new": "old", "debit": "credit", "refunded": "charged",
        "every": "no", "once": "twice", "twice": "once", "early": "late", "late": "early", "shorter": "longer", "longer": "shorter",
        "yes": "no", "no": "yes", "until": "after from", "up": "down from", "except": "including",
        "monthly": "yearly", "yearly": "monthly", "weekly": "monthly", "daily": "monthly",
    }.items()
}
OPPOSITES: Mapping[str, frozenset[str]] = {
    word: _OPPOSITES.get(word, frozenset()) | {other for other, words in _OPPOSITES.items() if word in words}
    for word in {*_OPPOSITES, *(word for words in _OPPOSITES.values() for word in words)}
}
"""Both ways."""
ALIKE: Mapping[str, str] = {
    word: name for name, words in {
        "fee": "fee fees charge charges charged cost costs price billed", "email": "e-mail email mail",
        "get": "get gets receive receives obtain",
        "need": "need needs require requires required must", "use": "use uses used using", "month": "month months monthly",
        "year": "year years yearly annual annually", "day": "day days daily", "phone": "phone mobile", "allow": "allow allowed permitted",
        "start": "start starts begin begins", "end": "end ends finish finishes", "free": "free", "buy": "buy purchase purchases bought",
        "ask": "ask request requests asked", "give": "give gives given offer offers",
        "choose": "choose pick select chosen", "call": "call ring dial telephone", "take": "take takes taken took",
        "about": "about around approximately roughly", "once": "once", "also": "also too", "show": "show shows shown display displays",
        "open": "open opens", "tap": "tap press click", "person": "person people customer customers", "working": "working business",
        "lost": "lost", "example": "example instance",
        "spouse": "spouse husband wife", "refund": "refund refunds refunded reversed reverse reversal",
        "immediately": "immediately instantly straightaway",
        "expire": "expire expires expired expiry lapse lapses", "permit": "allow allowed permit permitted possible eligible",
        "mail": "mail post posted mailed send sends sent", "bring": "keep carry bring provide upload attach",
        "earn": "earn earns earned collect collects", "wait": "wait waits waiting", "switch": "switch turn toggle",
        "extra": "extra additional further more", "most": "most maximum max highest", "least": "least minimum min lowest smallest",
        "separate": "separate separately own different", "renew": "renew renews renewed renewal renewing",
        "stay": "stay stays remain remains",
        "change": "change changes changed changing", "receive": "receive arrive arrives arrived come comes reach reaches",
        "close": "close closes closed closing closure", "apply": "apply applies applied applying application applications",
        "convert": "convert converted converting conversion", "pay": "pay pays paid paying payment payments", "number": "number numbers",
        "withdraw": "withdraw withdrawal withdrawals withdrawing", "credit": "credit credited credits",
        "bill": "bill bills statement statements",
    }.items() for word in words.split()
}
NUMBER_WORDS: Mapping[str, float] = {
    word: float(n) for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
} | {"fifteen": 15.0, "twenty": 20.0, "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0, "ninety": 90.0, "hundred": 100.0}
SCALES: Mapping[str, float] = {"lakh": 1e5, "lakhs": 1e5, "lac": 1e5, "crore": 1e7, "crores": 1e7, "thousand": 1e3, "k": 1e3,
                               "million": 1e6, "billion": 1e9}
UNITS: Mapping[str, str] = {
    word: unit for unit, words in {
        "rupees": "₹ rs inr rupee rupees", "dollars": "$ usd us$ dollar dollars", "euros": "€ eur euro euros", "pounds": "£ gbp",
        "percent": "% percent pct", "days": "day days din", "hours": "hour hours hrs hr ghante", "minutes": "minute minutes min mins",
        "weeks": "week weeks hafte", "months": "month months mahine", "years": "year years yrs saal", "am": "am", "pm": "pm",
        "points": "point points", "seconds": "second seconds", "mb": "mb", "km": "km", "digits": "digit digits",
    }.items() for word in words.split()
}
TOKEN = re.compile(r"us\$|[₹$€£%]|\d+(?:,\d+)*(?:\.\d+)?|[^\W\d_]+(?:-[^\W\d_]+)*")
SPOKEN_UNITS = re.compile(r"\bper cent\b|\b(?:rs|no)\.(?=\s*\d)")
CLAUSE = re.compile(r"[.,;:!?()]\s|\n|\s(?:but|though|although|while|whereas)\s", re.IGNORECASE)
"""Where a clause ends: what is denied on one side isn't on the other."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A number in a sentence."""

    value: float
    unit: str
    """`rupees`, `days`, `working days`…; empty where there is none."""
    near: frozenset[str]
    """Stems of the words around it."""
    owner: str
    """The name that stands nearest to it; empty where there is none near."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one sentence says."""

    stems: frozenset[str]
    """Of words that name something, numbers left out."""
    pairs: frozenset[tuple[str, str]]
    """Neighbouring such stems, in their order."""
    amounts: tuple[Amount, ...]
    names: frozenset[str]
    """Words with a capital inside the sentence, all capitals or signs of an address: products, places, codes."""
    denied: frozenset[str]
    """Stems that stand after a "not"."""
    asserted: frozenset[str]
    """Stems that don't."""
    order: tuple[str, ...]
    """The same stems in their order, each as often as it comes."""
    clauses: tuple[tuple[frozenset[str], bool], ...]
    """The stems of each clause that has any, and whether a "not" stands in it."""
    small: tuple[str, ...]
    """Which of `RELATIONS` it has and which words that have an opposite, each as often as it comes."""
    negators: int
    values: frozenset[float]
    """Of its amounts."""
    units: tuple[str, ...]
    """Units without a number: "the year", "points"."""


def facts(text: str) -> Facts:
    """The checkable facts of a sentence, in time linear in its length."""
    said = _tokens(text)
    words = [token.lower() for token in said]
    stems = [stem(word) if _names_something(word) else "" for word in words]
    named = _names(text)
    kept = [one for one in stems if one]
    denied, asserted, clauses, negators = _polarity(text)
    amounts = tuple(_amounts(words, stems, named))
    return Facts(frozenset(kept), frozenset(pairwise(kept)), amounts, named, denied, asserted, tuple(kept),
                 clauses, tuple(word for word in words if word in RELATIONS or word in OPPOSITES), negators,
                 frozenset(amount.value for amount in amounts), _bare_units(words))


def _tokens(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).replace("’", "'").replace("'", "")
    lowered = SPOKEN_UNITS.sub(lambda match: "percent" if match[0].startswith("per") else "rs", plain.lower())
    return TOKEN.findall(lowered)


def _names_something(word: str) -> bool:
    return (word[0].isalpha() and word not in NAMING_NOTHING and word not in NEGATORS and word not in NUMBER_WORDS
            and word not in UNITS and word not in SCALES and len(word) > 1)


def stem(word: str) -> str:
    """A word without its ending; words that mean the same in a help desk are one."""
    if word in ALIKE:
        return ALIKE[word]
    for ending in ("ations", "ation", "ingly", "ings", "ing", "edly", "ies", "ed", "es", "ly", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)][:STEM]
    return word[:STEM]


def _names(text: str) -> frozenset[str]:
    """Capitalised words that don't open a sentence, all-capitals anywhere, and mail addresses and sites."""
    found = set()
    opening = True
    for part in text.split():
        word = part.strip("\"'“”‘’()[],;:!?.")
        if word and ("@" in word or "." in word.strip(".") or (word[0].isalpha() and any(c.isupper() for c in word)
                                                              and (not opening or not word[1:].islower()))):
            found.add(word.lower().removesuffix("'s").removesuffix("’s"))
        opening = part.endswith((".", "!", "?", ":", ">"))
    return frozenset(name for name in found if len(name) > 1 and any(c.isalpha() for c in name)
                     and name not in NAMING_NOTHING and name.strip(".") not in UNITS)


def _polarity(text: str) -> tuple[frozenset[str], frozenset[str], tuple[tuple[frozenset[str], bool], ...], int]:
    """Stems that a negator of their clause stands closely before, those without, the clauses, and the number of negators."""
    denied: set[str] = set()
    asserted: set[str] = set()
    clauses: list[tuple[frozenset[str], bool]] = []
    negators = 0
    for clause in CLAUSE.split(text):
        since, here, turned = NEAR + 1, set(), 0
        for word in _tokens(clause):
            if word in NEGATORS:
                turned, since = turned + 1, 0
            elif _names_something(word):
                since += 1
                bare = stem(word)
                here.add(bare)
                (denied if since <= NEAR else asserted).add(bare)
        negators += turned
        if here:
            clauses.append((frozenset(here), turned > 0))
    return frozenset(denied), frozenset(asserted), tuple(clauses), negators


def _amounts(words: Sequence[str], stems: Sequence[str], names: frozenset[str]) -> list[Amount]:
    found: list[Amount] = []
    pending: list[int] = []
    for n in range(len(words)):
        value = _value(words, n)
        if value is None:
            continue
        unit = _unit(words, n)
        around = range(max(0, n - NEAR), min(len(words), n + NEAR + 1))
        found.append(Amount(value, unit, frozenset(stems[m] for m in around if stems[m]), _owner(words, n, names)))
        if unit and pending and n - pending[-1] <= 3:  # "5 to 7 days": the first number's unit is the second's
            first = found[-2]
            found[-2] = Amount(first.value, unit, first.near, first.owner)
        pending = [n] if not unit else []
    return found


def _value(words: Sequence[str], n: int) -> float | None:
    word = words[n]
    value = float(word.replace(",", "")) if word[0].isdigit() else NUMBER_WORDS.get(word)
    if value is None or (word == "one" and not _unit(words, n)):
        return None
    return value * SCALES.get(words[n + 1], 1.0) if n + 1 < len(words) else value


def _unit(words: Sequence[str], n: int) -> str:
    """The unit that stands before the number or after it."""
    if n and words[n - 1] in ("₹", "$", "€", "£", "us$", "rs", "inr", "usd"):
        return UNITS[words[n - 1]]
    after = n + 1
    while after < len(words) and (words[after] in SCALES or words[after] in ("working", "business", "calendar")):
        after += 1
    if after >= len(words) or words[after] not in UNITS:
        return ""
    return f"working {UNITS[words[after]]}" if words[after - 1] in ("working", "business") else UNITS[words[after]]


def _bare_units(words: Sequence[str]) -> tuple[str, ...]:
    beside = [_value(words, n) is not None or word in SCALES or word in ("working", "business") for n, word in enumerate(words)]
    return tuple(UNITS[word] for n, word in enumerate(words)
                 if word in UNITS and not (n and beside[n - 1]) and not (n + 1 < len(words) and beside[n + 1]))


def _owner(words: Sequence[str], n: int, names: frozenset[str]) -> str:
    """The name nearest to the word at n, up to NEAR + 1 words off; of two at one distance the later."""
    for distance in range(1, NEAR + 2):
        for m in (n + distance, n - distance):
            if 0 <= m < len(words) and words[m] in names:
                return words[m]
    return ""
