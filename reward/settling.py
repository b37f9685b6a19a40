"""Does an FAQ settle the query, given what was said before? Figures of one query beside several FAQs: pure functions.

The judge sees what a reader doesn't: the other ways in which an FAQ is asked. A query that leans on the one before is read together
with it as well. Leaves out the encoder, weights and verdicts (`local_judge.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chat.llm import wording
from chat.llm.relevance import shared_words
from chat.llm.smalltalk import smalltalk_reply
from chat.types import PastTurn
from kb.embedder import Vectors
from kb.types import Faq, Hit

Floats = NDArray[np.float64]
MOST_ASKINGS = 12
"""Other ways to ask an FAQ that are read."""
MOST_SENTENCES = 40
MOST_LETTERS = 2_000
"""Of a query; the rest isn't read."""
LEANS_FROM = 0.1
"""Leaning from which the query before is read along."""
FEATURES = (
    "asked", "text", "sentence", "words", "words_answer", "spelling", "joined_asked", "joined_sentence", "joined_words", "leaning",
    "cited_before", "cited_and_leaning", "cited_earlier", "shown_before", "rank", "margin_asked", "margin_all", "margin_words", "asks",
    "smalltalk", "names", "best_asked", "joined_and_leaning", "shown_and_leaning", "asked_before", "asked_before_and_leaning",
    "asked_earlier", "rank_before", "rank_before_and_leaning", "rank_earlier", "found", "found_joined", "found_rank", "found_margin",
    "found_best", "confidence", "found_and_leaning",
)
FOUND = FEATURES.index("found")
"""The figures from here on are what the knowledge base's own search says; 0 without one."""
"""Names of the figures, in the order of every array here."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A query, read once."""

    query: str
    joined: str | None
    """With the query before it; None: it stands alone, or there is none."""
    leaning: float
    before: tuple[str, ...] = ()
    """The query before, and the one before that."""

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """The texts whose vectors `figures` takes: query, joined, one before, two before; the query in the place of what isn't there."""
        before = (*self.before, self.query, self.query)
        return self.query, self.joined or self.query, before[0], before[1]


@dataclass(frozen=True, slots=True)
class Found:
    """What the knowledge base's own search says about the FAQs of a case."""

    similarities: tuple[float | None, ...]
    joined: tuple[float | None, ...]
    """Of the query and the one before taken together; () without one before."""
    hits: tuple[Hit, ...]
    """Best first."""


@dataclass(frozen=True, slots=True)
class Known:
    """An FAQ, read once."""

    faq: Faq
    askings: tuple[str, ...]
    """The question and the other ways to ask it; the passage itself where there is no question."""
    sentences: tuple[str, ...]
    words: frozenset[str]
    """What its question, askings and answer name."""
    answer_words: frozenset[str]
    spelling: tuple[frozenset[str], ...]
    """Character triples of each asking."""

    @property
    def passages(self) -> tuple[str, ...]:
        """The texts whose vectors `figures` takes, in order: askings, the whole, sentences."""
        return (*self.askings, self.faq.text[:4000], *self.sentences)


def known(faq: Faq) -> Known:
    """An FAQ as it is compared with queries; one that is huge, up to a bound."""
    askings = tuple(text[:MOST_LETTERS] for text in (faq.question, *faq.paraphrases[:MOST_ASKINGS]) if text.strip())
    answer = faq.answer[:40_000]
    sentences = tuple(sentence[:MOST_LETTERS] for sentence in wording.sentences(answer)[:MOST_SENTENCES])
    answer_words = wording.named(answer)
    return Known(faq, askings or (faq.text[:MOST_LETTERS],), sentences, answer_words.union(*map(wording.named, askings)), answer_words,
                 tuple(map(_triples, askings)))


def asking(query: str, history: Sequence[PastTurn]) -> Asking:
    """A query, with the one before where it leans on that."""
    text = query[:MOST_LETTERS]
    leaning = wording.leaning(text) if history else 0.0
    before = tuple(turn.query[:MOST_LETTERS] for turn in reversed(history[-2:]))
    return Asking(text, f"{before[0]} {text}" if before and before[0].strip() and leaning >= LEANS_FROM else None, leaning, before)


def figures(asked: Asking, history: Sequence[PastTurn], faqs: Sequence[Known], cosines: Sequence[Vectors],
    found: Found | None = None) -> Floats:
    """Of each FAQ, shape (FAQs, features). `cosines[n]`: of FAQ n's passages with `asked.texts`, shape (passages, 4)."""
    if not faqs:
        return np.zeros((0, len(FEATURES)))
    named, joined_named = wording.named(asked.query), wording.named(asked.joined or "")
    letters, joined = _triples(asked.query), asked.joined is not None
    columns: dict[str, Floats] = {name: np.zeros(len(faqs)) for name in FEATURES}
    for n, (one, near) in enumerate(zip(faqs, cosines, strict=True)):
        ways = len(one.askings)
        best, sentence = near[:ways].max(axis=0), near[ways + 1 :].max(axis=0) if one.sentences else near[ways]
        for name, value in (("asked", best[0]), ("text", near[ways, 0]), ("sentence", sentence[0]),
                            ("words", shared_words(named, one.words)), ("words_answer", shared_words(named, one.answer_words)),
                            ("spelling", max((_alike(letters, other) for other in one.spelling), default=0.0)),
                            ("joined_asked", best[1] * joined), ("joined_sentence", sentence[1] * joined),
                            ("joined_words", shared_words(joined_named, one.words) * joined),
                            ("asked_before", best[2] * (len(asked.before) > 0)), ("asked_earlier", best[3] * (len(asked.before) > 1))):
            columns[name][n] = value
    columns |= _standing(history, [one.faq.id for one in faqs]) | _searched(found, [one.faq.id for one in faqs])
    columns["margin_asked"], columns["margin_words"] = _margin(columns["asked"]), _margin(columns["words"])
    columns["margin_all"] = _margin(columns["asked"] + columns["text"] + columns["sentence"] + columns["words"])
    for name, whole in (("leaning", asked.leaning), ("asks", wording.asks(asked.query)), ("best_asked", columns["asked"].max()),
                        ("smalltalk", smalltalk_reply(asked.query) is not None), ("names", min(8, len(named)) / 8)):
        columns[name][:] = whole
    for name, of in (("cited_and_leaning", "cited_before"), ("joined_and_leaning", "joined_asked"), ("shown_and_leaning", "shown_before"),
                     ("asked_before_and_leaning", "asked_before"), ("rank_before_and_leaning", "rank_before"), ("found_and_leaning",
                     "found")):
        columns[name] = columns[of] * asked.leaning
    return np.stack([columns[name] for name in FEATURES], axis=1)


def _standing(history: Sequence[PastTurn], ids: Sequence[str]) -> dict[str, Floats]:
    """What the exchanges before say about each FAQ."""
    cited = [set(turn.cited) for turn in history]
    fetched = {faq.id for turn in history for faq in turn.fetched}
    new = [one for one in ids if one not in fetched]
    hits = [[faq.id if faq is not None else "" for faq in turn.hits] for turn in history]
    return {
        "cited_before": np.array([float(bool(cited) and one in cited[-1]) for one in ids]),
        "cited_earlier": np.array([float(any(one in some for some in cited[:-1])) for one in ids]),
        "shown_before": np.array([float(one in fetched) for one in ids]),
        "rank": np.array([_rank(new, one) for one in ids]),
        "rank_before": np.array([_rank(hits[-1], one) if hits else 0.0 for one in ids]),
        "rank_earlier": np.array([_rank(hits[-2], one) if len(hits) > 1 else 0.0 for one in ids]),
    }


def _searched(found: Found | None, ids: Sequence[str]) -> dict[str, Floats]:
    if found is None:
        return {}
    alone = np.array([0.0 if one is None else one for one in found.similarities])
    hits = [hit.faq.id for hit in found.hits]
    top = found.hits[0] if found.hits else None
    whole = np.ones(len(ids))
    return {
        "found": alone, "found_joined": np.array([0.0 if one is None else one for one in found.joined]) if found.joined else alone * 0,
        "found_rank": np.array([_rank(hits, one) for one in ids]), "found_margin": _margin(alone),
        "found_best": whole * (top.similarity if top else 0.0), "confidence": whole * ((top.confidence if top else None) or 0.0),
    }


def _rank(ranked: Sequence[str], one: str) -> float:
    """1 for the first, a half for the second…, 0 for one that isn't there."""
    return 1.0 / (1 + ranked.index(one)) if one in ranked else 0.0


def _margin(values: Floats) -> Floats:
    """How far each is above the best of the others; above 0 where it is alone."""
    if len(values) == 1:
        return values.copy()
    order = np.sort(values)
    best = np.where(values == order[-1], order[-2], order[-1])
    margin: Floats = values - best
    return margin


def _triples(text: str) -> frozenset[str]:
    plain = f" {' '.join(wording.words(text))} "
    return frozenset(plain[n : n + 3] for n in range(len(plain) - 2))


def _alike(a: frozenset[str], b: frozenset[str]) -> float:
    """Cosine of two sets."""
    return len(a & b) / max(1.0, math.sqrt(len(a) * len(b)))
