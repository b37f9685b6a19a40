"""Is every claim of an answer in the FAQs that were shown? How far each claim is from them: pure functions.

A claim is a sentence of the answer (`claims.py`). It is laid beside the sentence, or two neighbouring ones, of a shown FAQ that has most
of its words. Two heads of figures come of it. *Contradiction*: what the claim changes, by kind: amounts, units, names, denials, opposites;
most of these count as far as claim and sentence are about the same thing, by the share of words that they have in common, so that free
wording isn't taken for a change. *Support*: how much of the claim the FAQs don't have, by words, pairs of words and meaning. Each figure
is 0 for a claim that is an FAQ's own sentence and grows with what is added or changed. An answer has each figure of its worst claim, so
that further text hides no fault, and the mean over claims of those of support, which long answers in other words are told apart by.
Leaves out the encoder, weights and verdicts (`local_judge.py`).
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
from reward.facts import OPPOSITES, Amount, Facts, facts, stem

Floats = NDArray[np.float64]
MOST_CLAIMS = 60
"""Of one answer; a longer one isn't judged."""
MOST_SENTENCES = 60
"""Of one FAQ; the rest counts in its words as a whole."""
MOST_WINDOWS_READ = 4
"""Sentences or pairs of them whose facts a claim is laid beside; the others have fewer of its words."""
PAIR = 2.0
"""How much less two sentences must leave open than one to be preferred: more words hide more."""
ASKED = 0.3
"""What a word of the query counts in finding the sentence, beside one of the claim: an answer of two words says the rest with it."""
ALIGNED_FROM, ALIGNED = 0.2, 0.6
"""Shares of a claim's words in the sentence at which changes begin to count, and count in full."""
QUOTED_FROM, QUOTED = 0.6, 0.85
"""Shares from which a claim is taken for a part of the sentence in nearly its own words: only such a claim can be cut short."""
SAME_FROM, SAME = 0.75, 0.9
"""Dice coefficients of their words from which claim and sentence are taken for the same sentence: a change in one says more than a
difference in free wording, and has its own figures."""
UNALIGNED = frozenset({"amount_missing", "unit_changed", "amount_owner", "name_missing"})
"""Changes that are told without the sentence."""
CONDITION = re.compile(r"\b(?:if|unless|except|only|but|provided|until|when|once|though|without|otherwise|not|after|from|before|within|"
                       r"as long as|up to|at least|at most)\b", re.IGNORECASE)
CHANGES = (
    "amount_missing", "amount_elsewhere", "unit_changed", "amount_moved", "amount_owner", "denial", "negators", "polarity", "opposite",
    "small_words", "name_missing", "name_elsewhere", "name_swapped", "word_swapped", "amount_order",
)
LEFT_OUT = ("condition_dropped", "cut_short")
LACKS = ("words_missing", "words_share", "words_elsewhere", "order", "pairs", "distance")
OF_CLAIM = (*CHANGES, *(f"loose_{name}" for name in CHANGES), *LEFT_OUT, *LACKS)
"""Names of a claim's figures."""
MEANS = ("words_share", "words_elsewhere", "order", "pairs", "distance")
CONTRADICTION = (*CHANGES, *(f"loose_{name}" for name in CHANGES), *LEFT_OUT, "off_the_point", "yes_no")
SUPPORT = ("words_share", "distance", "apart", "apart_words", *(f"mean_{name}" for name in MEANS))
FEATURES = (*CONTRADICTION, *SUPPORT)
"""Names of an answer's figures, in the order of every array here: those of the head for contradiction, then of the one for support."""
CLOSE, FREE = 0.02, 0.08
"""Shares of unseen word pairs, mean over claims, up to which an answer is in the FAQs' own words, and from which it is in free ones."""
UNRELATED = 0.95
"""Share of its words that its sentence hasn't from which a claim is of something else: it doesn't tell how free the others' words are, so
that praise and chatter put no answer in a milder light."""
QUIET, LIVELY = 0.1, 0.3
"""The same for the claim in the middle, by which it is told whether one can stand apart."""
_UNALIGNED = np.array([name in UNALIGNED for name in CHANGES])
_MEANS = [OF_CLAIM.index(name) for name in MEANS]
_AT = {name: n for n, name in enumerate(OF_CLAIM)}


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
    """Of `OF_CLAIM`, shape (22,). `distance` is 1 for a claim in other words and 0 for an FAQ's own, until the encoder has said more."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a case's claims may rest on: the FAQs shown, and what the customer said."""

    shown: tuple[Evidence, ...]
    query: Facts
    stems: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    values: frozenset[float]
    names: frozenset[str]
    name_stems: frozenset[str]


def ground(shown: Sequence[Evidence], query: Facts) -> Ground:
    """The FAQs of a case, with all that they say together."""
    whole = [one.whole for one in shown]
    names = frozenset[str]().union(*(one.names for one in whole))
    return Ground(tuple(shown), query, frozenset[str]().union(*(one.stems for one in whole)),
                  frozenset[tuple[str, str]]().union(*(one.pairs for one in whole)),
                  frozenset(amount.value for one in whole for amount in one.amounts),
                  names, frozenset(stem(name) for name in names))


def lay_beside(claim: str, on: Ground, said: frozenset[str]) -> Claim:
    """A claim beside the sentences of the shown FAQs that are most like it. `said` holds the stems of the whole answer.

    Where several are alike, the one that leaves least open counts.
    """
    told = facts(claim)
    ranked = _likest(told, on)
    if not ranked:
        return Claim(claim, None, (), _unfounded(told, on))
    compared = [(_figures(told, claim, on, position, window, said), position, window) for position, window in ranked]
    best = min(compared, key=lambda one: float(one[0] @ _RANK) + PAIR * (len(one[2].sentences) - 1))  # of equals the likest
    return Claim(claim, best[1], best[2].sentences, best[0])


def together(found: Sequence[Claim]) -> Floats:
    """An answer's figures, of `FEATURES`; `off_the_point` and `yes_no` are still 0.

    Where the answer is close to the FAQs' own words, a change counts at its worst claim, and so does a claim that stands apart from the
    others in what it has of the FAQs; the freer the words, the more only means over claims count.
    """
    if not found:
        return np.zeros(len(FEATURES))
    figures = np.stack([claim.figures for claim in found])
    count, middle, near = len(CHANGES), (len(found) - 1) // 2, related(found)
    order = np.sort(figures[near, _AT["order"]])
    close = 1.0 - _ramp(float(order.mean()), CLOSE, FREE)
    quiet = 1.0 - _ramp(float(order[(len(order) - 1) // 2]), QUIET, LIVELY)
    tight, loose = figures[:, :count], figures[:, count : 2 * count]
    left_out = figures[:, 2 * count : 2 * count + len(LEFT_OUT)].max(axis=0)
    lacks = figures[:, [_AT["words_share"], _AT["distance"]]]
    apart = lacks.max(axis=0) - np.sort(lacks, axis=0)[middle]
    worst = tight.max(axis=0) * close
    free = np.minimum(1.0, (loose + tight * (1.0 - close)).sum(axis=0) / len(order))
    worst[_AT["amount_missing"]] = (tight + loose)[:, _AT["amount_missing"]].max() * quiet
    return np.concatenate([worst, free, left_out * close, [0.0, 0.0],
                           lacks.max(axis=0) * quiet, apart[::-1] * quiet, figures[:, _MEANS].mean(axis=0)])


def related(found: Sequence[Claim]) -> NDArray[np.bool_]:
    """Which claims are about what the FAQs say; all of them where none is."""
    near = np.array([claim.figures[_AT["words_elsewhere"]] < UNRELATED for claim in found], dtype=bool)
    return near if near.any() else ~near


def claims_figures(found: Sequence[str], shown: Sequence[Evidence], query: Facts, answer: str) -> Floats:
    """The figures of an answer's claims together, by words alone."""
    stems, on = facts(answer).stems, ground(shown, query)
    return together([lay_beside(claim, on, stems) for claim in found])


def _likest(told: Facts, on: Ground) -> list[tuple[int, Window]]:
    """Windows that share most words with the claim, best first, each with its FAQ's position."""
    scored, said = [], {amount.value for amount in told.amounts}
    for position, one in enumerate(on.shown):
        for order, window in enumerate(one.windows):
            there = window.facts
            shared = len(told.stems & there.stems) + 0.5 * len(said & there.values)
            if shared:
                shared += ASKED * len((on.query.stems - told.stems) & there.stems)
                scored.append((shared / (len(there.stems) + 8) ** 0.5, -position, -order, position, window))
    scored.sort(key=lambda one: one[:3], reverse=True)
    return [(position, window) for *_, position, window in scored[:MOST_WINDOWS_READ]]


def _unfounded(told: Facts, on: Ground) -> Floats:
    """The figures of a claim that no FAQ has a word of."""
    values = on.values | {amount.value for amount in on.query.amounts}
    missing = told.stems - on.query.stems
    found = {"amount_missing": _count(sum(a.value not in values for a in told.amounts), 2),
             "name_missing": _count(len(told.names - on.query.names), 2), "words_missing": _count(len(missing), 6),
             "words_share": len(missing) / max(3, len(told.stems)), "words_elsewhere": 1.0, "order": 1.0, "pairs": 1.0, "distance": 1.0}
    return np.array([found.get(name, 0.0) for name in OF_CLAIM])


def _figures(told: Facts, claim: str, on: Ground, position: int, window: Window, said: frozenset[str]) -> Floats:
    one, there = on.shown[position], window.facts
    shared = told.stems & there.stems
    share = len(shared) / max(1, len(told.stems))
    aligned, quoted = _ramp(share, ALIGNED_FROM, ALIGNED), _ramp(share, QUOTED_FROM, QUOTED)
    missing, not_there = told.stems - on.stems - on.query.stems, told.stems - there.stems - on.query.stems
    order = len(told.pairs - there.pairs) / max(4, len(told.pairs))
    verbatim = claim in one.sentences or (not told.stems - there.stems and not missing and order == 0.0)
    same = _ramp(2 * len(shared) / max(1, len(told.stems) + len(there.stems)), SAME_FROM, SAME)
    changes = _changes(told, there, shared, one.whole, on)
    return np.concatenate([
        changes * same,
        changes * (1.0 - same) * np.where(_UNALIGNED, 1.0, aligned),
        [
            _dropped(told, one, window, said) * quoted,
            _cut(told, one, window, said) * quoted * (1.0 - order),
            _count(len(missing), 6),
            len(missing) / max(3, len(told.stems)),
            len(not_there) / max(3, len(told.stems)),
            order,
            len(told.pairs - on.pairs) / max(4, len(told.pairs)),
            0.0 if verbatim else 1.0,
        ],
    ])


def _changes(told: Facts, there: Facts, shared: frozenset[str], whole: Facts, on: Ground) -> Floats:
    """What a claim changes of a sentence, by `CHANGES`."""
    more, fewer = Counter(told.small) - Counter(there.small), Counter(there.small) - Counter(told.small)
    strange = told.names - there.names - on.query.names - there.stems
    known_names = {name for name in told.stems & on.name_stems if name not in there.stems and name not in on.query.stems}
    return np.array([
        *_amounts(told, there, whole, on),
        _count(_denials(told, there), 1),
        float(told.negators != there.negators),
        _turned(told, there, shared),
        _count(sum(bool(OPPOSITES.get(word, frozenset()) & fewer.keys()) for word in more), 1),
        _count(len(more), 3),
        _count(len(strange - on.names - on.stems), 1),
        _count(len(strange & on.names) + len(known_names), 1),
        _count(_swaps([w for w in told.order if w in told.names], [w for w in there.order if w in there.names]), 1),
        _count(_swaps(told.order, there.order), 2),
        _out_of_order([a.value for a in told.amounts], [a.value for a in there.amounts]),
    ])


def _ramp(value: float, start: float, full: float) -> float:
    return min(1.0, max(0.0, (value - start) / (full - start)))


def _amounts(told: Facts, there: Facts, whole: Facts, on: Ground) -> tuple[float, float, float, float, float]:
    """missing, elsewhere, unit changed, moved, owner."""
    missing = elsewhere = changed = owner = 0
    moved = 0.0
    asked = {amount.value for amount in on.query.amounts}
    left = Counter(other.value for other in there.amounts)
    for amount in told.amounts:
        in_faq = [other for other in whole.amounts if other.value == amount.value]
        owner += _owned_by_another(amount, in_faq, whole, on.query)
        left[amount.value] -= 1
        if left[amount.value] < 0:
            known = bool(in_faq) or amount.value in asked
            missing += not known and amount.value not in on.values
            elsewhere += known or amount.value in on.values
            changed += bool(in_faq) and not any(_same_unit(amount, other) for other in in_faq)
            continue
        alike = [other for other in there.amounts if other.value == amount.value]
        changed += not any(_same_unit(amount, other) for other in alike)
        if amount.near:
            moved = max(moved, min(1 - len(amount.near & other.near) / len(amount.near) for other in alike))
    more, fewer = Counter(told.units) - Counter(there.units), Counter(there.units) - Counter(told.units)
    changed += bool(more) and bool(fewer)
    return _count(missing, 1), _count(elsewhere, 1), _count(changed, 1), moved, _count(owner, 1)


def _owned_by_another(amount: Amount, alike: Sequence[Amount], whole: Facts, query: Facts) -> bool:
    """The FAQ has the amount beside other names only than the claim, or where the claim has none, than the query.

    A name of the query counts where the FAQ has another amount of the unit beside it: Gold's fee, when Classic's was asked.
    """
    owners = {other.owner for other in alike}
    if not owners or "" in owners:
        return False
    if amount.owner:
        return amount.owner not in owners
    asked = {other.owner for other in whole.amounts if other.owner and _same_unit(amount, other)
             and (other.owner in query.names or stem(other.owner) in query.stems)}
    return bool(asked) and not owners & asked


def _turned(told: Facts, there: Facts, shared: frozenset[str]) -> float:
    """Share of the shared words that stand in a clause with a "not" on one side and only in clauses without on the other."""
    if not shared or not (told.negators or there.negators):
        return 0.0
    turned = sum({no for stems, no in told.clauses if one in stems}.isdisjoint({no for stems, no in there.clauses if one in stems})
                 for one in shared)
    return turned / len(shared)


def _swaps(told: Sequence[str], there: Sequence[str]) -> int:
    """Words that a claim has more often than the sentence, as far as it has as many others less often: those put in their place."""
    more, fewer = Counter(told) - Counter(there), Counter(there) - Counter(told)
    kept = len(told) - more.total()
    return min(more.total(), fewer.total()) if kept >= max(1, more.total()) else 0


def _out_of_order(told: Sequence[float], there: Sequence[float]) -> float:
    """Twice the share of a claim's amounts that don't stand in the sentence's order, at most 1: what is beside the longest common run."""
    shared = [value for value in told if value in there][:20]
    if len(shared) < 2:
        return 0.0
    longest = SequenceMatcher(None, shared, list(there)[:40], autojunk=False)
    return min(1.0, 2.0 * (1.0 - sum(block.size for block in longest.get_matching_blocks()) / len(shared)))


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


_OF_RANK = {"amount_missing": 2.0, "amount_elsewhere": 1.0, "unit_changed": 1.0, "amount_moved": 0.5, "amount_owner": 1.0, "denial": 1.0,
            "negators": 0.5, "polarity": 0.5, "opposite": 1.0, "small_words": 0.5,
            "name_missing": 2.0, "name_elsewhere": 0.5, "name_swapped": 1.0,
            "word_swapped": 0.5, "amount_order": 0.5, "condition_dropped": 0.1, "cut_short": 0.3, "words_missing": 1.0, "words_share": 1.0,
            "words_elsewhere": 4.0, "order": 1.0}
_RANK = np.array([_OF_RANK.get(name.removeprefix("loose_"), 0.0) for name in OF_CLAIM])
"""By which the window is chosen that leaves least open."""
