"""The gates that a learned one must beat, each as a score: the higher, the rather it skips.

A gate skips where its score reaches a threshold, so that all gates can be compared at equal harm; `always` and `never` are points of
that scale. The oracles beside them know the verdicts: references, not gates. Leaves out choosing thresholds, figures, and the learned
gate (`policy/`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nextafter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from chat.llm.smalltalk import smalltalk_reply
from chat.llm.wording import POINTING, words
from chat.types import State
from evaluation.errors import EvaluationError
from kb.embedder import Embedder
from policy.graph import FETCH, NO_FETCH, Bools, Floats, StateGraph

LOWEST, HIGHEST = -2.0, 2.0
"""Beyond every cosine and probability; finite, so that thresholds can be quantiles of scores."""
SHORT = 8
"""Words of the longest message that the word list takes for one that leans on what was said before."""
LEXICAL = ("question_mark", "points", "small_talk", "previous_queries")
"""Names of the features of words, in their order; how many words there are is among the evidence features."""


class GateScore(Protocol):
    """Says how much a state asks for NO_FETCH."""

    @property
    def name(self) -> str: ...

    def scores(self, states: Sequence[State]) -> Floats:
        """Higher: rather skip. Shape (B,), without nan; the same state always gets the same score."""


@dataclass(frozen=True, slots=True)
class AlwaysScore:
    """Always fetches, at any threshold above `LOWEST`."""

    name: str = "always"

    def scores(self, states: Sequence[State]) -> Floats:
        return np.full(len(states), LOWEST)


@dataclass(frozen=True, slots=True)
class NeverScore:
    """Never fetches, at any threshold up to `HIGHEST`."""

    name: str = "never"

    def scores(self, states: Sequence[State]) -> Floats:
        return np.full(len(states), HIGHEST)


@dataclass(frozen=True, slots=True)
class EvidenceScore:
    """`EvidenceRule` at every `min_similarity`: first where the best FAQ is in the prompt or nothing was found, then the less similar."""

    name: str = "evidence"

    def scores(self, states: Sequence[State]) -> Floats:
        return np.array([_evidence_score(state) for state in states], dtype=float)

    @staticmethod
    def threshold(min_similarity: float) -> float:
        """The threshold at which it skips just where `EvidenceRule(min_similarity)` does: the rule needs a similarity below, not equal."""
        return nextafter(-min_similarity, inf)


@dataclass(frozen=True, slots=True)
class PreviousQueryScore:
    """The cosine to the query before: a follow-up resembles what it follows. Lowest where there is none."""

    name: str = "previous_query"

    def scores(self, states: Sequence[State]) -> Floats:
        cosines = [None if state.evidence is None else state.evidence.previous_similarity for state in states]
        return np.array([LOWEST if cosine is None else cosine for cosine in cosines], dtype=float)


@dataclass(frozen=True, slots=True)
class WordListScore:
    """1 for pure small talk, 0.5 for a short message that points back while FAQs stand in the prompt, 0 for the rest.

    Small talk is what the extractive answerer takes for it: greetings, thanks, nods and goodbyes in English, romanised Hindi and
    Vietnamese (`chat/llm/smalltalk.py`); the words that point back ("it", "that", "same", "uska") are `POINTING`.
    """

    name: str = "word_list"

    def scores(self, states: Sequence[State]) -> Floats:
        return np.array([_word_score(state) for state in states], dtype=float)


@dataclass(frozen=True, slots=True, eq=False)
class LogisticScore:
    """P(skipping does no harm) by logistic regression on the cheap features, with the standardisation in its weights."""

    weights: Floats
    """Shape (E,)."""
    bias: float
    name: str = "logistic"

    def scores(self, states: Sequence[State]) -> Floats:
        return _probabilities(cheap_features(states), self.weights, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class QueryEmbeddingScore:
    """P(target) by logistic regression on the query's embedding alone: what an encoder tells without training it."""

    weights: Floats
    """Shape (D,)."""
    bias: float
    embedder: Embedder
    name: str = "query_embedding"

    def scores(self, states: Sequence[State]) -> Floats:
        return _probabilities(_query_vectors(states, self.embedder), self.weights, self.bias)


def fit_logistic(graph: StateGraph, *, c: float = 1.0) -> LogisticScore:
    """Fitted to skip where that does no harm, on the states of which that is known; `c` is the inverse of the penalty.

    Raises: EvaluationError when skipping harms in none of them, or in all.
    """
    used = np.flatnonzero(graph.decided & ~np.isnan(graph.harm))
    return LogisticScore(*_fit(cheap_features([graph.states[n] for n in used]), graph.harm[used] == 0, c, standardise=True))


def fit_query_embedding(states: Sequence[State], targets: Bools, embedder: Embedder, c: float) -> QueryEmbeddingScore:
    """Fitted to tell states with the target (a harmless skip, or that no FAQ is needed) from those without.

    Shapes: targets (B,), one for each state. `c` is the inverse of the penalty; vectors have length 1, so it wants to be 1 or more.
    Raises: EvaluationError when all targets are alike.
    """
    if np.shape(targets) != (len(states),):
        raise ValueError(f"targets: expected one for each of {len(states)} states, got shape {np.shape(targets)}")
    return QueryEmbeddingScore(*_fit(_query_vectors(states, embedder), targets, c, standardise=False), embedder)


def cheap_features(states: Sequence[State]) -> Floats:
    """The evidence features and those of `LEXICAL`; shape (B, E)."""
    from policy.encoding import evidence_features  # brings torch

    lexical = [_lexical_row(state) for state in states]
    return np.concatenate([evidence_features(states), np.array(lexical, dtype=float).reshape(len(states), len(LEXICAL))], axis=1)


def oracle_needed(graph: StateGraph) -> Bools:
    """Skips where that is Good: no FAQ is needed, or one that is needed is in the prompt. Without a verdict it fetches; shape (N,)."""
    skips: Bools = graph.decided & (graph.good[:, NO_FETCH] == 1)
    return skips


def oracle_useful(graph: StateGraph) -> Bools:
    """Skips where a fetch would not make a Bad answer Good. Where a verdict is missing it fetches; shape (N,)."""
    skips: Bools = graph.decided & (graph.harm == 0)
    return skips


def best_plan(graph: StateGraph, *, price: float, bad_price: float = 0.0) -> Bools:
    """The skips that cost each conversation least, later turns included: tokens + price * harmful skips; shape (N,).

    With an infinite price it never skips harmfully, and no gate that doesn't saves more. A skip can also cost a later turn its FAQ, which
    is no harmful skip when a fetch then doesn't find it either: `bad_price`, tokens for each Bad answer of any kind, counts that too.
    Where a verdict is missing it fetches. Exact, by one pass from the last state back (successors stand behind their states).
    """
    if isnan(price) or price < 0 or not 0 <= bad_price < inf:
        raise ValueError(f"expected 0 <= price and 0 <= bad_price < inf, got {price} and {bad_price}")
    costs = graph.tokens + bad_price * (graph.good == 0)
    costs[:, NO_FETCH] += np.select([np.isnan(graph.harm), graph.harm == 1], [inf, price], 0.0)
    costs[~graph.decided, NO_FETCH] = inf
    skips = np.zeros(len(graph.states), dtype=bool)
    following = np.zeros(len(graph.states) + 1)  # the last one is END's
    for node in range(len(graph.states) - 1, -1, -1):
        totals = costs[node] + following[graph.successors[node]]
        skips[node] = totals[NO_FETCH] < totals[FETCH]
        following[node] = totals.min()
    return skips


def _evidence_score(state: State) -> float:
    found = state.evidence
    if found is None:
        return LOWEST
    return HIGHEST if found.top1_similarity is None or found.top1_in_prompt else -found.top1_similarity


def _word_score(state: State) -> float:
    if smalltalk_reply(state.query) is not None:
        return 1.0
    leans = len(words(state.query)) <= SHORT and _points(state.query)
    return 0.5 if leans and state.evidence is not None and state.evidence.prompt_faqs > 0 else 0.0


def _lexical_row(state: State) -> tuple[float, ...]:
    small_talk = smalltalk_reply(state.query) is not None
    return float("?" in state.query), float(_points(state.query)), float(small_talk), float(len(state.previous_queries))


def _points(text: str) -> bool:
    return not POINTING.isdisjoint(words(text))


def _query_vectors(states: Sequence[State], embedder: Embedder) -> Floats:
    return embedder.embed([state.query for state in states]).astype(np.float64)


def _fit(features: Floats, targets: NDArray[np.bool_], c: float, *, standardise: bool) -> tuple[Floats, float]:
    """Weights and bias, to be used on the features as they are."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(targets)) < 2:
        raise EvaluationError(f"expected states with the target and states without, got {len(targets)} that are all alike; "
                              "give more labelled conversations")
    scaler = StandardScaler(with_mean=standardise, with_std=standardise).fit(features)
    model = LogisticRegression(C=c, max_iter=5000).fit(scaler.transform(features), targets)
    weights = model.coef_[0] / (scaler.scale_ if standardise else 1.0)
    return weights, float(model.intercept_[0] - (weights @ scaler.mean_ if standardise else 0.0))


def _probabilities(features: Floats, weights: Floats, bias: float) -> Floats:
    found: Floats = expit(features @ weights + bias)
    return found
