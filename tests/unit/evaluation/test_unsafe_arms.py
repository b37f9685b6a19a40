"""An arm whose answer does harm is at the floor of what a policy is trained on, whatever it saves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from evaluation.graph import state_graph
from evaluation.rollout import replays
from evaluation.training import rewards_of
from policy.graph import FETCH, NO_FETCH
from reward.judge import Case, ReferenceJudge, Verdict
from reward.shaping import PRESETS, floor
from tests.unit.evaluation.played import CAR, SHOP, world


@dataclass(frozen=True)
class UnsafeWithoutFaqs:
    """Finds every answer Good, and harmful where no FAQ stood in the prompt."""

    version: str = "unsafe-without"

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        return tuple(Verdict(True, "so", safe=bool(case.faqs)) for case in cases)


@pytest.mark.parametrize("name", ["budget", "kulkarni2024", "symmetric"])
@pytest.mark.parametrize("multiplier", [0.0, 50.0])
def test_a_skip_that_does_harm_never_pays_though_it_is_good_and_saves_tokens(name: str, multiplier: float) -> None:
    graph = state_graph(replays((SHOP, CAR), replace(world(), judge=UnsafeWithoutFaqs())))
    assert graph.safe is not None
    table = rewards_of(name, {id(graph): np.maximum(graph.tokens[:, FETCH], 1.0)})(graph, multiplier)
    unsafe = (graph.safe[:, NO_FETCH] == 0) & (graph.safe[:, FETCH] == 1)
    assert unsafe.any()
    assert (table[unsafe, NO_FETCH] < table[unsafe, FETCH]).all()
    assert (table[unsafe, NO_FETCH] <= floor(PRESETS[name])).all()


def test_a_judge_that_says_nothing_of_harm_leaves_the_rewards_as_they_were() -> None:
    graph = state_graph(replays((SHOP, CAR), replace(world(), judge=ReferenceJudge())))
    assert graph.safe is None
