"""Rule policies: the baselines of every comparison, and what serves until a learned gate beats them.

A rule is sure of itself: uncertainty 0, behavior_prob 1. Leaves out exploration and everything that learns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chat.ports import Policy
from chat.types import Action, Decision, State

DEFAULT_MIN_SIMILARITY = 0.24
"""Cosine below which a fetch is taken to bring nothing; chosen by `python -m evaluation.evidence_threshold` (docs/results.md)."""


@dataclass(frozen=True, slots=True)
class AlwaysFetch:
    """FETCH on every turn: what retrieval-augmented chat does without a gate."""

    version: str = "rule:always"

    def decide(self, state: State) -> Decision:
        return _certain(Action.FETCH, "always fetches", self.version)


@dataclass(frozen=True, slots=True)
class NeverFetch:
    """NO_FETCH on every turn: the floor of cost and of quality."""

    version: str = "rule:never"

    def decide(self, state: State) -> Decision:
        return _certain(Action.NO_FETCH, "never fetches", self.version)


@dataclass(frozen=True, slots=True)
class EvidenceRule:
    """Skips when fetching would bring nothing: the best FAQ is in the prompt already, or nothing is similar enough."""

    min_similarity: float = DEFAULT_MIN_SIMILARITY
    """Cosine in [-1, 1]; a top-1 similarity below it is no reason to fetch."""

    @property
    def version(self) -> str:
        return f"rule:evidence-{self.min_similarity:g}"

    def decide(self, state: State) -> Decision:
        evidence = state.evidence
        if evidence is None:
            return _certain(Action.FETCH, "no evidence from retrieval, so it fetches to be safe", self.version)
        if evidence.top1_similarity is None or evidence.top1_similarity < self.min_similarity:
            return _certain(Action.NO_FETCH, "no FAQ is similar enough to help", self.version)
        if evidence.top1_in_prompt:
            return _certain(Action.NO_FETCH, "the best FAQ is in the conversation already", self.version)
        return _certain(Action.FETCH, "the best FAQ is new to the conversation", self.version)


RULES: Mapping[str, Callable[[], Policy]] = MappingProxyType({"always": AlwaysFetch, "never": NeverFetch, "evidence": EvidenceRule})
"""The rules by the names that they are asked for by."""


def _certain(action: Action, reason: str, version: str) -> Decision:
    probability = 1.0 if action is Action.FETCH else 0.0
    return Decision(action, probability, uncertainty=0.0, behavior_prob=1.0, policy_version=version, reason=reason)
