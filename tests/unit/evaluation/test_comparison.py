"""Gates side by side: the same turns from a graph as from single plays, thresholds at a harm, paired differences, folds as one."""

import numpy as np
import pytest

from chat.prompt import PromptSettings
from chat.types import Action
from evaluation.comparison import MULTIPLIER, against, gate_turns, merged, reward, threshold_at
from evaluation.rollout import play_by, replays
from evaluation.stats import resampled
from evaluation.tables import split_of
from evaluation.turns import Turns, turns_of
from policy.graph import NO_FETCH, walk
from tests.unit.evaluation.played import CAR, MIXED, SHOP, world

SESSIONS = (SHOP, CAR, MIXED)
SPLIT = split_of(SESSIONS, world(), PromptSettings(k=1), PromptSettings(k=1))
NEVER = np.zeros(len(SPLIT.graph.states), dtype=bool)


def short(query: str) -> bool:
    return len(query) < 20


SHORT = np.array([short(state.query) for state in SPLIT.graph.states])


def same(a: Turns, b: Turns) -> bool:
    names = ("conversations", "positions", "skipped", "static", "tokens", "good", "good_fetch", "good_skip")
    return a.count == b.count and a.labels == b.labels and all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in names)


def test_a_walk_of_the_graph_is_the_play_of_single_turns() -> None:
    plays = [play_by(replay, lambda state, fetch, skip: Action.NO_FETCH if short(state.query) else Action.FETCH)
             for replay in replays(SESSIONS, world())]
    assert same(gate_turns(SPLIT, SHORT), turns_of(plays))
    assert gate_turns(SPLIT, SHORT).skipped.any()


def test_always_fetching_in_the_frugal_setting_is_the_baseline_itself() -> None:
    turns = gate_turns(SPLIT, NEVER)
    assert np.array_equal(turns.tokens, SPLIT.frugal.tokens)
    assert np.array_equal(turns.good, SPLIT.frugal.good, equal_nan=True)
    assert reward(turns, SPLIT.frugal.tokens).tolist() == [0.0] * len(turns.tokens)


def test_a_harmful_skip_loses_the_multiplier() -> None:
    turns = gate_turns(SPLIT, ~NEVER)
    found, saved = reward(turns, SPLIT.frugal.tokens), 1 - turns.tokens / SPLIT.frugal.tokens
    assert np.array_equal(found == saved - MULTIPLIER, (turns.harm == 1) & turns.skipped)


def test_a_gate_against_itself_differs_by_exactly_nothing() -> None:
    one, weights = gate_turns(SPLIT, SHORT), resampled(len(SESSIONS), resamples=200)
    versus = against([one], [one], SPLIT.frugal, weights)
    for found in (versus.saving, versus.reward, versus.accuracy):
        assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_difference_is_that_of_the_two_savings() -> None:
    skipping, fetching = gate_turns(SPLIT, SHORT), gate_turns(SPLIT, NEVER)
    found = against([skipping], [fetching], SPLIT.frugal, resampled(len(SESSIONS), resamples=200)).saving
    assert found.value == pytest.approx(1 - skipping.tokens.sum() / SPLIT.frugal.tokens.sum())
    assert found.too_small, "three conversations are too few to trust"


def test_no_threshold_keeps_a_harm_that_every_skip_exceeds() -> None:
    graph = SPLIT.graph
    worst = np.where(graph.harm == 1, 1.0, 0.0)
    assert threshold_at(SPLIT, worst, 0.0) == np.inf
    assert not walk(graph, worst >= np.inf).actions.any()


def test_folds_become_one_set_of_conversations() -> None:
    parts = [split_of([session], world(), PromptSettings(k=1), PromptSettings(k=1)) for session in SESSIONS]
    turns = [gate_turns(part, np.array([short(state.query) for state in part.graph.states])) for part in parts]
    assert same(merged(turns), gate_turns(SPLIT, SHORT))


def test_the_graph_takes_the_action_that_it_is_told() -> None:
    walked = walk(SPLIT.graph, ~NEVER)
    assert (walked.actions == NO_FETCH).all()
