"""How well an FAQ answers a question, from similarities and words: pure functions and the constants that they hang on.

The constants were chosen on the help desk's train split (`evaluation/data/helpdesk`), each turn with its FAQs fetched and again
with those of the history alone, for the share of turns that are answered right: an FAQ that settles the question is cited, or
nothing when none does. Near them the share is flat. Similarities are cosines of the default encoder; another one wants other
thresholds. Leaves out embedding (`vectors.py`) and words (`wording.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUESTION_WEIGHT, TEXT_WEIGHT, SENTENCE_WEIGHT = 0.25, 0.40, 0.35
"""Of the similarity to the FAQ's question, to its whole text and to its nearest sentence."""
SHARED_WORDS_WEIGHT = 0.45
"""Of the share of the question's words that the FAQ has too: without it, 5 points fewer turns are answered right."""
FETCHED_FIRST, FETCHED_SECOND = 0.10, 0.08
"""What the best two of the FAQs fetched for this question gain: the search knows paraphrases, which the prompt leaves out."""
CITED_BEFORE, SHOWN_FIRST_BEFORE, JOINED_WEIGHT = 0.25, 0.20, 0.60
"""What a question that leans on the one before adds: for the FAQ that was cited then, for the one that stood first then, and
per similarity of the FAQ to both questions read together."""
LEANS_FROM = 0.1
"""Leaning below which both questions aren't read together: it would hardly count, and costs an embedding."""
CITED_AND_ASKED = 0.25
"""Trust that a message which asks, and leans on what was said, gains when it picks the FAQ that was cited."""
ANSWER_FROM = 0.38
"""Trust from which an FAQ is the answer. Of the train turns with their FAQs fetched, 70 % of those that an FAQ settles are
answered with it and 79 % of the others with none; 0.34 makes it 72 and 66 %, 0.42 64 and 84 %."""
SECOND_FROM = 0.5
"""The same for each half of a message that asks two things. Not tuned: no session asks so."""
FEWEST_WORDS = 3
"""A question that names fewer things counts as naming so many: one word in common proves little."""
WHOLE_FROM = 0.6
"""Similarity to the FAQ's own question from which its whole answer is given. Chosen by reading."""
SHORT_ANSWER = 3
"""Answers of at most so many sentences are given whole."""
MOST_SENTENCES = 3
SENTENCE_WITHIN = 0.15
"""Sentences this close to the best one go along with it. Chosen by reading."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """An FAQ beside a question."""

    question: float
    """Cosine with the FAQ's question (its whole text, if it has none)."""
    text: float
    """Cosine with question and answer together."""
    sentences: tuple[float, ...]
    """Cosine with each sentence of the answer."""
    shared_words: float
    """Share of what the question names that the FAQ's text has too, in [0, 1]."""
    joined: float
    """Cosine of the FAQ's whole text with the question before and this one read together; 0 when they weren't."""

    @property
    def direct(self) -> float:
        """How well the FAQ answers the question on its own."""
        nearest = max(self.sentences, default=self.text)
        similarity = QUESTION_WEIGHT * self.question + TEXT_WEIGHT * self.text + SENTENCE_WEIGHT * nearest
        return similarity + SHARED_WORDS_WEIGHT * self.shared_words


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an FAQ stands in the conversation."""

    fetched_rank: int | None
    """0: first of those fetched for this question; None: it is from an earlier turn."""
    cited_before: bool
    """The answer that this question follows cites it."""
    first_before: bool
    """It stood first among the FAQs of that answer's turn."""


def fit(like: Likeness, stands: Standing, leaning: float) -> float:
    """The score by which FAQs are ranked; `leaning` in [0, 1] is how far the question leans on the one before."""
    rank_gain = {0: FETCHED_FIRST, 1: FETCHED_SECOND}.get(-1 if stands.fetched_rank is None else stands.fetched_rank, 0.0)
    before = CITED_BEFORE * stands.cited_before + SHOWN_FIRST_BEFORE * stands.first_before + JOINED_WEIGHT * like.joined
    return like.direct + rank_gain + leaning * before


def trust(like: Likeness, stands: Standing, leaning: float, *, asks: bool) -> float:
    """How sure it is that the best FAQ answers at all; compared with `ANSWER_FROM`."""
    return like.direct + CITED_AND_ASKED * leaning * (stands.cited_before and asks)


def shared_words(named: frozenset[str], faq_words: frozenset[str]) -> float:
    """Share of what a question names that an FAQ has too."""
    return len(named & faq_words) / max(FEWEST_WORDS, len(named))


def telling_sentences(scores: Sequence[float]) -> tuple[int, ...]:
    """Which sentences to give, in their order: the best and at most two more that are nearly as good."""
    ranked: NDArray[np.intp] = np.argsort(-np.asarray(scores), kind="stable")[:MOST_SENTENCES]
    return tuple(sorted(int(n) for n in ranked if scores[n] >= scores[ranked[0]] - SENTENCE_WITHIN))
