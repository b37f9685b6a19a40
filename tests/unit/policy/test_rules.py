"""The rule policies, branch by branch."""

import pytest

from chat.types import Action, Decision, Evidence, State
from policy.rules import DEFAULT_MIN_SIMILARITY, AlwaysFetch, EvidenceRule, NeverFetch


def state(top1: float | None = 0.9, *, in_prompt: bool = False) -> State:
    return State(("before",), (Action.FETCH,), "now", Evidence(top1, None, in_prompt, 0))


BLIND = State((), (), "now", None)


@pytest.mark.parametrize("seen", [state(), state(None), state(0.9, in_prompt=True), BLIND])
def test_always_and_never_do_as_they_say_whatever_they_see(seen: State) -> None:
    assert AlwaysFetch().decide(seen) == Decision(Action.FETCH, 1.0, 0.0, 1.0, "rule:always", "always fetches")
    assert NeverFetch().decide(seen) == Decision(Action.NO_FETCH, 0.0, 0.0, 1.0, "rule:never", "never fetches")


def test_the_evidence_rule_skips_when_nothing_is_similar_enough() -> None:
    decision = EvidenceRule(0.5).decide(state(0.49))
    assert (decision.action, decision.fetch_probability) == (Action.NO_FETCH, 0.0)
    assert decision.reason == "no FAQ is similar enough to help"


def test_the_evidence_rule_skips_when_nothing_was_found() -> None:
    assert EvidenceRule(-1.0).decide(state(None)).reason == "no FAQ is similar enough to help"
    assert EvidenceRule(-1.0).decide(state(None)).action is Action.NO_FETCH


def test_the_evidence_rule_skips_what_the_conversation_holds_already() -> None:
    decision = EvidenceRule(0.5).decide(state(0.9, in_prompt=True))
    assert (decision.action, decision.reason) == (Action.NO_FETCH, "the best FAQ is in the conversation already")


def test_the_evidence_rule_fetches_what_is_new_and_similar() -> None:
    decision = EvidenceRule(0.5).decide(state(0.9))
    assert (decision.action, decision.fetch_probability) == (Action.FETCH, 1.0)
    assert decision.reason == "the best FAQ is new to the conversation"


def test_the_evidence_rule_fetches_without_evidence() -> None:
    decision = EvidenceRule(0.5).decide(BLIND)
    assert (decision.action, decision.reason) == (Action.FETCH, "no evidence from retrieval, so it fetches to be safe")


@pytest.mark.parametrize(("threshold", "top1", "action"), [
    (0.5, 0.5, Action.FETCH),
    (0.0, 0.0, Action.FETCH),
    (0.0, -0.01, Action.NO_FETCH),
    (0.0, 0.01, Action.FETCH),
    (-1.0, -1.0, Action.FETCH),
    (DEFAULT_MIN_SIMILARITY, DEFAULT_MIN_SIMILARITY - 0.01, Action.NO_FETCH),
])
def test_a_similarity_at_the_threshold_reaches_it_and_zero_counts_as_set(threshold: float, top1: float, action: Action) -> None:
    assert EvidenceRule(threshold).decide(state(top1)).action is action


def test_a_similarity_of_zero_is_a_similarity_and_not_nothing_found() -> None:
    assert EvidenceRule(-0.5).decide(state(0.0)).action is Action.FETCH


def test_the_version_names_the_rule_and_its_threshold() -> None:
    assert EvidenceRule().version == f"rule:evidence-{DEFAULT_MIN_SIMILARITY:g}"
    assert EvidenceRule(0.0).version == "rule:evidence-0"
    assert EvidenceRule(0.4).version != EvidenceRule(0.41).version
    assert EvidenceRule(0.4).decide(BLIND).policy_version == "rule:evidence-0.4"
