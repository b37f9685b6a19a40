"""Is every claim of an answer in the FAQs that were shown? Claims, and how far each is from the FAQs: pure functions.

A claim is a sentence of the answer. It is laid beside the sentence, or two neighbouring ones, of a shown FAQ that has most of its
words; what it says and they don't is counted by kind: amounts, units, names, denials, opposites, other words. Each figure is 0 for a
claim that is an FAQ's own sentence and grows with what is added or changed; an answer's figure is that of its worst claim, so that
further text never makes an answer look better supported. Leaves out the encoder, weights and verdicts (`local_judge.py`).
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from chat.llm.wording import sentences
from kb.types import Faq
from reward.facts import OPPOSITES, Amount, Facts, facts

Floats = NDArray[np.float64]
MOST_CLAIMS = 60
"""Of one answer; a longer one isn't judged."""
MOST_SENTENCES = 60
"""Of one FAQ; the rest counts in its words as a whole."""
MOST_WINDOWS_READ = 8
"""Sentences or pairs of them whose facts a claim is laid beside; the others have fewer of its words."""
PAIR = 2.0
"""How much less two sentences must leave open than one to be preferred: more words hide more."""
CITATION = re.compile(r"\s*\[[^\[\]\n]{1,400}\]")
COURTESY = re.compile(
    r"^(?:sure|certainly|of course|absolutely|great question|happy to help|hello|hi|hey|thanks?(?: you)?(?: for \w+)*|good question|"
    r"(?:i )?hope (?:this|that|it) helps|(?:please )?(?:let me know|feel free|ask)\b[^.!?]{0,80}|you(?:'re| are) welcome|goodbye|alright|"
    r"is there anything else[^.!?]{0,60}|what would you like to know|(?:and )?take care|yes,? certainly|no problem|anything else)"
    r"[\s,.!?]*$", re.IGNORECASE)
"""A sentence that claims nothing."""
LEAD_IN = re.compile(r"^(?:sure|certainly|of course|absolutely|hello|hi|well|ok(?:ay)?|yes, certainly|in short|basically|"
                     r"(?:as per|according to|from|based on) (?:the|our) (?:faqs?|information|documents?)[^,:]{0,40})\s*[,:!–-]\s*",
                     re.IGNORECASE)
CONDITION = re.compile(r"\b(?:if|unless|except|only|but|provided|until|when|once|though|without|otherwise|not|after|from|before|within|"
                       r"as long as|up to|at least|at most)\b", re.IGNORECASE)
REFUSAL = re.compile(
    r"\b(?:i|we) (?:don'?t|do not|didn'?t|did not) (?:know|have (?:that|this|the|any|enough|specific|such)?\s*(?:\w+ )?"
    r"(?:information|answer|details))|"
    r"\b(?:can(?:'|no)t|unable to|could(?:n't| not)) (?:answer|help|find)\b|\bno information\b|"
    r"\b(?:faqs?|documents?|context|passages?|information|text|article)\b[^.]{0,40} (?:do(?:es)?n'?t|do(?:es)? not) "
    r"(?:say|mention|include|contain|provide|specify|state|answer|cover)|\bnot (?:mentioned|provided|specified|stated) in\b|"
    r"jaank?ari nahi|\bnahi pata\b|pata nahi|không (?:tìm thấy|biết)", re.IGNORECASE)
HEDGE = re.compile(r"\b(?:i think|i believe|i guess|probably|perhaps|maybe|might be|not (?:entirely |quite )?sure|as far as i know|"
                   r"possibly|shayad)\b", re.IGNORECASE)
FEATURES = (
    "amount_missing", "amount_elsewhere", "unit_changed", "amount_moved", "amount_owner", "denial", "opposite", "small_words",
    "name_missing", "name_elsewhere",
    "words_missing", "words_share", "words_elsewhere", "order", "distance", "condition_dropped", "cut_short", "off_the_point",
    "name_swapped", "word_swapped", "amount_order",
)
"""Names of the figures, in the order of every array here."""


@dataclass(frozen=True, slots=True)
class Window:
    """A sentence of an FAQ, or two neighbouring ones, with what it says."""

    faq: int
    """Position of the FAQ among those of the case."""
    sentences: tuple[int, ...]
    facts: Facts
    conditions: tuple[frozenset[str], ...]
    """Stems of each clause that begins with a condition or an exception."""


@dataclass(frozen=True)
class Evidence:
    """An FAQ, read once."""

    faq: Faq
    sentences: tuple[str, ...]

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """Its sentences, then its pairs of neighbours. The question counts as a sentence."""
        single = [(n,) for n in range(len(self.sentences))]
        pairs = [(n, n + 1) for n in range(1, len(self.sentences) - 1)]
        return tuple(Window(0, rows, facts(text), _conditions(text) if len(rows) == 1 else ())
                     for rows in (*single, *pairs) for text in [" ".join(self.sentences[n] for n in rows)])

    @cached_property
    def whole(self) -> Facts:
        """All that it says."""
        return facts(" ".join(self.sentences) if self.faq.answer else self.faq.question)


def evidence(faq: Faq) -> Evidence:
    """An FAQ's question and the sentences of its answer; one that is huge, up to a bound."""
    read = tuple(sentence[:2000] for sentence in sentences(faq.answer[:40_000])[:MOST_SENTENCES])
    return Evidence(faq, (faq.question[:2000], *read))


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim beside the FAQs."""

    text: str
    faq: int | None
    """The FAQ that it was laid beside; None: no FAQ has a word of it."""
    sentences: tuple[int, ...]
    figures: Floats
    """Of `FEATURES`, shape (21,). `distance` is 1 for a claim in other words and 0 for an FAQ's own, until the encoder has said more;
    `off_the_point` is 0 until then."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, taken apart."""

    claims: tuple[str, ...]
    """Sentences that claim something: without citations, courtesies, lead-ins, questions and refusals."""
    refuses: bool
    """It says that it doesn't know."""
    hedged: bool


def taken_apart(answer: str) -> Said:
    """What an answer claims, and whether it says that it doesn't know or isn't sure."""
    found, refuses = [], False
    for sentence in sentences(CITATION.sub("", answer)):
        for part in re.split(r"(?<=[!])\s+", sentence):
            bare = LEAD_IN.sub("", part.strip()).strip(" -*•\t")
            if REFUSAL.search(bare):
                refuses = True
            elif bare and not bare.endswith("?") and not COURTESY.match(bare) and any(c.isalnum() for c in bare):
                found.append(bare)
    return Said(tuple(found), refuses, HEDGE.search(answer) is not None)


def lay_beside(claim: str, shown: Sequence[Evidence], query: Facts, said: frozenset[str]) -> Claim:
    """A claim beside the sentences of the shown FAQs that are most like it. `said` holds the stems of the whole answer.

    Where several are alike, the one that leaves least open counts.
    """
    told = facts(claim)
    ranked = _likest(told, shown)
    if not ranked:
        return Claim(claim, None, (), _unfounded(told, query))
    compared = [(figures, faq, window) for faq, window in ranked
                for figures in [_figures(told, claim, shown[faq], window, query, said)]]
    best = min(compared, key=lambda one: float(one[0] @ _RANK) + PAIR * (len(one[2].sentences) - 1))  # of equals the likest
    return Claim(claim, best[1], best[2].sentences, best[0])


def worst(found: Sequence[Claim]) -> Floats:
    """Each figure of an answer's worst claim in it, shape (21,); zeros without claims."""
    return np.max([claim.figures for claim in found], axis=0) if found else np.zeros(len(FEATURES))


def claims_figures(found: Sequence[str], shown: Sequence[Evidence], query: Facts, answer: str) -> Floats:
    """The figures of an answer's claims together, by words alone."""
    stems = facts(answer).stems
    return worst([lay_beside(claim, shown, query, stems) for claim in found])


def _likest(told: Facts, shown: Sequence[Evidence]) -> list[tuple[int, Window]]:
    """Windows that share most words with the claim, best first, each with its FAQ's position."""
    scored = []
    for position, one in enumerate(shown):
        for order, window in enumerate(one.windows):
            values = {amount.value for amount in told.amounts} & {amount.value for amount in window.facts.amounts}
            shared = len(told.stems & window.facts.stems) + 0.5 * len(values)
            if shared:
                scored.append((shared / (len(window.facts.stems) + 8) ** 0.5, -position, -order, position, window))
    scored.sort(key=lambda one: one[:3], reverse=True)
    return [(position, window) for *_, position, window in scored[:MOST_WINDOWS_READ]]


def _unfounded(told: Facts, query: Facts) -> Floats:
    """The figures of a claim that no FAQ has a word of."""
    figures = np.zeros(len(FEATURES))
    values = {amount.value for amount in query.amounts}
    figures[[FEATURES.index(name) for name in ("words_share", "words_elsewhere", "order", "distance")]] = 1.0
    figures[FEATURES.index("words_missing")] = _count(len(told.stems - query.stems), 6)
    figures[FEATURES.index("amount_missing")] = _count(sum(a.value not in values for a in told.amounts), 2)
    figures[FEATURES.index("name_missing")] = _count(len(told.names - query.names), 2)
    return figures


def _figures(told: Facts, claim: str, one: Evidence, window: Window, query: Facts, said: frozenset[str]) -> Floats:
    there, whole = window.facts, one.whole
    amounts = _amounts(told, there, whole, query)
    missing = told.stems - whole.stems - query.stems
    words = _swaps(told.order, there.order)
    more, fewer = Counter(told.small) - Counter(there.small), Counter(there.small) - Counter(told.small)
    not_there = told.stems - there.stems
    order = len(told.pairs - there.pairs) / max(4, len(told.pairs))
    verbatim = claim in one.sentences or (not not_there and not missing and order == 0.0)
    return np.array([
        *amounts,
        _count(_denials(told, there), 1),
        _count(sum(bool(OPPOSITES.get(word, frozenset()) & fewer.keys()) for word in more), 1),
        _count(len(more), 3),
        _count(len(told.names - whole.names - whole.stems - query.names), 1),
        _count(len(told.names - there.names), 1) if told.names <= whole.names else 0.0,
        _count(len(missing), 6),
        len(missing) / max(3, len(told.stems)),
        len(not_there) / max(3, len(told.stems)),
        order,
        0.0 if verbatim else 1.0,
        _dropped(told, one, window, said),
        _cut(told, one, window, said),
        0.0,
        _count(_swaps([w for w in told.order if w in told.names], [w for w in there.order if w in there.names]), 1),
        _count(words, 3),
        _out_of_order([a.value for a in told.amounts], [a.value for a in there.amounts]),
    ])


def _amounts(told: Facts, there: Facts, whole: Facts, query: Facts) -> tuple[float, float, float, float, float]:
    """missing, elsewhere, unit changed, moved, owner."""
    missing = elsewhere = changed = 0
    moved = owner = 0.0
    left = Counter(other.value for other in there.amounts)
    for amount in told.amounts:
        alike = [other for other in there.amounts if other.value == amount.value]
        left[amount.value] -= 1
        if left[amount.value] < 0:
            in_faq = [other for other in whole.amounts if other.value == amount.value]
            asked = any(other.value == amount.value for other in query.amounts)
            missing += not in_faq and not asked
            elsewhere += bool(in_faq) or asked
            changed += bool(in_faq) and not any(_same_unit(amount, other) for other in in_faq)
            continue
        changed += not any(_same_unit(amount, other) for other in alike)
        if amount.near:
            moved = max(moved, min(1 - len(amount.near & other.near) / len(amount.near) for other in alike))
        if amount.owner:
            owned = {other.owner for other in alike}
            owner += bool(owned - {""}) and amount.owner not in owned
    return _count(missing, 1), _count(elsewhere, 1), _count(changed, 1), moved, _count(owner, 1)


def _swaps(told: Sequence[str], there: Sequence[str]) -> int:
    """Words that a claim has more often than the sentence, as far as it has as many others less often: those put in their place."""
    more, fewer = Counter(told) - Counter(there), Counter(there) - Counter(told)
    kept = len(told) - more.total()
    return min(more.total(), fewer.total()) if kept >= max(1, more.total()) else 0


def _out_of_order(told: Sequence[float], there: Sequence[float]) -> float:
    """Share of a claim's amounts that don't stand in the sentence's order: what is beside its longest common run."""
    shared = [value for value in told if value in there][:20]
    if len(shared) < 2:
        return 0.0
    longest = SequenceMatcher(None, shared, list(there)[:40], autojunk=False)
    return 1.0 - sum(block.size for block in longest.get_matching_blocks()) / len(shared)


def _same_unit(a: Amount, b: Amount) -> bool:
    """Whether two amounts may be of one unit; a bare number agrees with any."""
    return a.unit == b.unit or not a.unit or not b.unit


def _denials(told: Facts, there: Facts) -> int:
    """Words that one denies and the other asserts, and a claim's "not" more or less than the sentence's over the same words."""
    common = told.stems & there.stems
    turned = {stem for stem in common if (stem in told.denied - told.asserted and stem in there.asserted - there.denied)
              or (stem in told.asserted - told.denied and stem in there.denied - there.asserted)}
    return len(turned)


def _dropped(told: Facts, one: Evidence, window: Window, said: frozenset[str]) -> float:
    """Share of a sentence's conditions of which the answer has next to nothing, though it has the rest."""
    conditions = [clause for n in window.sentences for clause in one.windows[n].conditions if len(clause) >= 2]
    if not conditions or len(told.stems & window.facts.stems) < 3:
        return 0.0
    return sum(len(clause & said) / len(clause) < 0.4 for clause in conditions) / len(conditions)


def _cut(told: Facts, one: Evidence, window: Window, said: frozenset[str]) -> float:
    """Share of the sentence's words that the answer leaves out, of the sentence that it leaves out least of."""
    fewest = min(2, len(told.stems))
    parts = [one.windows[n].facts.stems for n in window.sentences if len(told.stems & one.windows[n].facts.stems) >= fewest]
    return min((1 - len(stems & said) / len(stems) for stems in parts if stems), default=0.0)


def _conditions(text: str) -> tuple[frozenset[str], ...]:
    """Stems of the clauses that begin with a condition or an exception, up to the next mark."""
    clauses = []
    for part in re.split(r"[,;:()]\s", text):
        match = CONDITION.search(part)
        if match is not None:
            clauses.append(facts(part[match.start():]).stems)
    return tuple(clauses)


def _count(number: float, most: int) -> float:
    """A count as a figure in [0, 1] that grows less the larger it is."""
    return math.sqrt(min(number, most) / most)


_RANK = np.array([2.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.5, 2.0, 0.5, 1.0, 1.0, 2.0, 0.5, 0.0, 0.1, 0.3, 0.0, 1.0, 0.5, 0.5])
"""By which the window is chosen that leaves least open."""
