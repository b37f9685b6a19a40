"""A judge other than the labels' in training: asked once and together, believed as far as it agrees, and refused where it doesn't."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from evaluation.graph import state_graph
from evaluation.rollout import replays
from evaluation.trainers_judge import RememberingJudge, foreseen, trust
from evaluation.training import GateConfig, GateData, prepared
from kb.embedder import EmbedderConfig, load_embedder
from kb.retriever import FaqRetriever
from policy.graph import StateGraph
from reward.errors import JudgeRefusedError
from reward.judge import Case, ReferenceJudge, Verdict
from tests.conversation import FAQS
from tests.unit.evaluation.played import CAR, MIXED, SHOP, world

SESSIONS = (SHOP, CAR, MIXED)


@dataclass
class Counting:
    """The labels' judge, wrong where it is told to be, that counts how often and about what it is asked."""

    wrong: bool = False
    silent: bool = False
    version: str = "counting"
    calls: list[int] = field(default_factory=list)

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        self.calls.append(len(cases))
        if self.silent:
            return (None,) * len(cases)
        words = ReferenceJudge().judge(cases)
        return tuple(word and replace(word, good=word.good != self.wrong) for word in words)


def laid_out(judge: object) -> StateGraph:
    return state_graph(replays(SESSIONS, replace(world(), judge=judge)))  # type: ignore[arg-type]


def test_a_case_is_judged_once_and_its_verdict_remembered_missing_ones_too() -> None:
    judge = Counting(silent=True)
    remembering = RememberingJudge(judge)
    case = Case("a", (), (), "b", ())
    assert remembering.judge([case, case]) == (None, None)
    assert remembering.judge([case]) == (None,)
    assert judge.calls == [1]


def test_all_that_replays_ask_is_judged_in_one_call_and_the_verdicts_are_the_same() -> None:
    judge = Counting()
    known = foreseen(judge, SESSIONS, world())
    graph = laid_out(known)
    assert len(judge.calls) == 1, "nothing was left to ask while the replays were laid out"
    np.testing.assert_array_equal(graph.good, laid_out(ReferenceJudge()).good)
    assert judge.calls[0] < graph.good.size, "the same question is asked once"


def test_a_judge_that_says_what_the_labels_say_has_kappa_1_and_overlooks_what_so_few_cases_can_not_rule_out() -> None:
    labelled = laid_out(ReferenceJudge())
    found = trust(laid_out(Counting()), labelled, "counting", "reference:any")
    assert found.agreement.kappa.value == 1.0
    known = labelled.good[~np.isnan(labelled.good)]
    bad, good = int((known == 0).sum()), int((known == 1).sum())
    missed, denied = 1 - 0.025 ** (1 / bad), 1 - 0.025 ** (1 / good)  # exact upper bounds where none was seen
    assert found.false_good_rate == pytest.approx(1 - (1 - missed) * (1 - denied))


def gate_data(judge: Counting | None, minimum: float | None) -> GateData:
    retriever = FaqRetriever.build(load_embedder(EmbedderConfig()), FAQS)
    return GateData((SHOP, MIXED), (CAR,), (SHOP,), replace(world(), retriever=retriever), retriever, judge, minimum)


def test_training_takes_the_judges_verdicts_and_keeps_the_labels_for_measuring() -> None:
    data = gate_data(Counting(wrong=True), None)
    by_labels, by_judge = (prepared(one, GateConfig()) for one in (replace(data, judge=None), data))
    expected = by_labels.graphs["train"].good
    np.testing.assert_array_equal(by_judge.graphs["train"].good, 1.0 - expected)
    np.testing.assert_array_equal(by_judge.graphs["train"].tokens, by_labels.graphs["train"].tokens)
    assert by_judge.frugal == by_labels.frugal
    assert by_labels.trust is None
    assert by_judge.trust is not None
    assert by_judge.trust.agreement.kappa.value < 0


def test_a_judge_that_contradicts_the_labels_or_never_tells_is_refused_with_how_to_go_on() -> None:
    for judge in (Counting(wrong=True), Counting(silent=True)):
        with pytest.raises(JudgeRefusedError, match="--force-judge"):
            prepared(gate_data(judge, 0.6), GateConfig())
