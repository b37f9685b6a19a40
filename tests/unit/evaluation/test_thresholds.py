"""Thresholds certified on hand-made graphs, whose harm is known."""

from dataclasses import replace

import numpy as np

from chat.types import State
from evaluation.thresholds import certified_skips, graph_skips
from policy.graph import END, StateGraph


def graph(conversations: int, harmful: int, labelled: bool = True) -> StateGraph:
    """Conversations of one turn; skipping is harmful in the last ones, and their scores are the lowest."""
    good = np.ones((conversations, 2))
    good[conversations - harmful :, 1] = 0.0
    if not labelled:
        good[:] = np.nan
    return StateGraph(tuple(State((), (), f"q{n}", None) for n in range(conversations)), np.full((conversations, 2), END),
                      np.arange(conversations), np.arange(conversations), np.zeros(conversations, dtype=np.int64),
                      np.ones(conversations, dtype=bool), np.tile([10.0, 4.0], (conversations, 1)), good)


def test_skips_that_never_harm_are_certified_once_there_are_enough() -> None:
    found = certified_skips(graph(100, 0), np.linspace(1.0, 0.0, 100), budget=0.05)
    assert found.threshold == 0.0
    assert found.bound is not None
    assert found.bound.upper_conversation <= 0.05


def test_the_threshold_stops_before_the_harm() -> None:
    scores = np.linspace(1.0, 0.0, 200)
    found = certified_skips(graph(200, 100), scores, budget=0.05)
    assert found.threshold is not None
    assert scores[110] < found.threshold <= scores[58], "59 harmless skips certify 5 %, and the harm begins at the hundredth"


def test_too_few_conversations_say_how_many_more_are_needed() -> None:
    found = certified_skips(graph(20, 0), np.linspace(1.0, 0.0, 20), budget=0.05)
    assert found.threshold is None
    assert found.more_needed == 59 - 20


def test_unlabelled_turns_are_no_trials() -> None:
    assert len(graph_skips(graph(30, 0, labelled=False), np.ones(30, dtype=bool)).harms) == 0


def test_a_graph_without_a_decision_certifies_nothing() -> None:
    one = graph(30, 0)
    assert certified_skips(replace(one, decided=np.zeros(30, dtype=bool)), np.ones(30), budget=0.5).threshold is None


def test_what_a_judge_may_overlook_and_can_not_tell_counts_against_its_skips() -> None:
    scores = np.linspace(1.0, 0.0, 100)
    plain, doubted = (certified_skips(graph(100, 0), scores, budget=0.05, false_good_rate=rate) for rate in (0.0, 0.3))
    assert plain.bound is not None
    assert doubted.bound is not None
    assert doubted.bound.upper_conversation == plain.bound.upper_conversation / 0.7
    unjudged = graph(100, 0, labelled=False)
    assert len(graph_skips(unjudged, scores >= 0.0).harms) == 0
    assert certified_skips(unjudged, scores, budget=0.05, unjudged_is_harm=True).threshold is None
    assert np.isnan(graph_skips(unjudged, scores >= 0.0, unjudged_is_harm=True).harms).all(), "missing, which the bound counts as harm"
