"""Walks, values and curves on graphs small enough to count by hand, and against a recursion that goes through them one by one."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chat.types import State
from policy.graph import END, FETCH, NO_FETCH, Curve, StateGraph, action_values, curve, walk

NAN = math.nan
BLANK = State((), (), "", None)


def graph(successors: Sequence[tuple[int, int]], *, starts: Sequence[int] = (0,), turns: Sequence[int] | None = None,
          decided: Sequence[bool] | None = None, tokens: Sequence[tuple[float, float]] | None = None,
          good: Sequence[tuple[float, float]] | None = None, conversations: Sequence[int] | None = None) -> StateGraph:
    n = len(successors)
    return StateGraph(
        (BLANK,) * n, np.array(successors, dtype=np.int64).reshape(-1, 2), np.array(starts, dtype=np.int64),
        np.array([0] * n if conversations is None else conversations, dtype=np.int64),
        np.array(range(n) if turns is None else turns, dtype=np.int64), np.array([True] * n if decided is None else decided, dtype=bool),
        np.array([(10.0, 4.0)] * n if tokens is None else tokens, dtype=float).reshape(-1, 2),
        np.array([(1.0, 1.0)] * n if good is None else good, dtype=float).reshape(-1, 2),
    )


def diamond() -> StateGraph:
    """Two turns: the second differs by what was done in the first. A second conversation of one turn stands behind."""
    return graph([(1, 2), (END, END), (END, END), (END, END)], starts=(0, 3), turns=(0, 1, 1, 0), conversations=(0, 0, 0, 1))


def random_graph(seed: int) -> StateGraph:
    """Conversations of up to four turns, each turn with one to three states."""
    rng = np.random.default_rng(seed)
    successors: list[tuple[int, int]] = []
    starts, turns, conversations = [], [], []
    for number in range(int(rng.integers(1, 4))):
        starts.append(len(successors))
        width = 1
        length = int(rng.integers(1, 5))
        for turn in range(length):
            following = int(rng.integers(1, 4))
            first = len(successors) + width
            for _ in range(width):
                pair = (END, END) if turn + 1 == length else (first + int(rng.integers(following)), first + int(rng.integers(following)))
                successors.append(pair)
                turns.append(turn)
                conversations.append(number)
            width = following
    n = len(successors)
    return graph(successors, starts=starts, turns=turns, conversations=conversations, decided=(rng.random(n) < 0.8).tolist(),
                 tokens=rng.integers(1, 50, (n, 2)).tolist(), good=rng.choice([0.0, 1.0, NAN], (n, 2)).tolist())


def values_by_recursion(made: StateGraph, rewards: NDArray[np.float64], skips: NDArray[np.float64], gamma: float, node: int) -> list[float]:
    """Q of one state, by going to the end of its conversation along both actions."""
    found = []
    for action in (FETCH, NO_FETCH):
        after = int(made.successors[node, action])
        value = 0.0
        if after != END:
            fetch, skip = values_by_recursion(made, rewards, skips, gamma, after)
            chance = skips[after] if made.decided[after] else 0.0
            value = (1.0 - chance) * fetch + chance * skip
        found.append(float(rewards[node, action]) + gamma * value)
    return found


def path(made: StateGraph, skips: NDArray[np.bool_], start: int) -> list[tuple[int, int]]:
    """(state, action) from a start on."""
    action = NO_FETCH if skips[start] and made.decided[start] else FETCH
    after = int(made.successors[start, action])
    return [(start, action), *(() if after == END else path(made, skips, after))]


# walking


def test_a_walk_goes_where_its_actions_lead_conversation_after_conversation() -> None:
    fetching, skipping = (walk(diamond(), np.full(4, skips)) for skips in (False, True))
    assert (fetching.nodes.tolist(), fetching.actions.tolist()) == ([0, 1, 3], [FETCH] * 3)
    assert (skipping.nodes.tolist(), skipping.actions.tolist()) == ([0, 2, 3], [NO_FETCH] * 3)
    assert fetching.starts.tolist() == [True, False, True]


def test_where_an_faq_answers_by_itself_no_action_is_taken() -> None:
    made = graph([(1, 2), (END, END), (END, END)], turns=(0, 1, 1), decided=(False, True, True))
    for found in (walk(made, np.ones(3, dtype=bool)), walk(made, np.ones(3), np.random.default_rng(0))):
        assert (found.nodes.tolist(), found.actions.tolist()) == ([0, 1], [FETCH, NO_FETCH])


def test_a_walk_by_chance_skips_as_often_as_its_probability_says() -> None:
    """10,000 walks: by Hoeffding a share is off by more than 0.04 with a chance below 3e-14; the seed is fixed."""
    made, rng = diamond(), np.random.default_rng(0)
    probs = np.array([0.3, 0.9, 0.5, 0.0])
    walks = [walk(made, probs, rng) for _ in range(10_000)]
    first = np.array([one.actions[0] for one in walks])
    second = np.array([one.actions[1] for one in walks])
    assert first.mean() == pytest.approx(0.3, abs=0.04)
    assert second[first == FETCH].mean() == pytest.approx(0.9, abs=0.04)
    assert second[first == NO_FETCH].mean() == pytest.approx(0.5, abs=0.04)
    assert {int(one.actions[2]) for one in walks} == {FETCH}, "a probability of 0 is never taken"


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), choices=st.integers(0, 2**40))
def test_a_walk_is_each_conversations_path(seed: int, choices: int) -> None:
    made = random_graph(seed)
    skips = np.array([bool(choices >> n & 1) for n in range(len(made.states))])
    found = walk(made, skips)
    expected = [step for start in made.starts for step in path(made, skips, int(start))]
    assert list(zip(found.nodes.tolist(), found.actions.tolist(), strict=True)) == expected
    assert made.turns[found.nodes[found.starts]].tolist() == [0] * len(made.starts)
    certain = walk(made, skips.astype(float), np.random.default_rng(seed))
    assert (certain.nodes.tolist(), certain.actions.tolist()) == (found.nodes.tolist(), found.actions.tolist())


# values


def test_the_value_of_a_chain_is_the_geometric_sum() -> None:
    made = graph([(1, 1), (2, 2), (3, 3), (END, END)])
    rewards = np.tile([1.0, 1.0], (4, 1))
    found = action_values(made, rewards, np.full(4, 0.3), 0.5)
    assert found[:, FETCH].tolist() == [1.875, 1.75, 1.5, 1.0]
    assert np.array_equal(found[:, FETCH], found[:, NO_FETCH])


def test_a_choice_is_worth_what_it_brings_and_what_the_policy_does_after_it() -> None:
    rewards = np.array([[1.0, 2.0], [10.0, 0.0], [0.0, 4.0], [5.0, 6.0]])
    found = action_values(diamond(), rewards, np.array([0.5, 0.1, 0.75, 0.5]), 0.5)
    # V(1) = 0.9 * 10, V(2) = 0.75 * 4
    assert found.tolist() == [[1.0 + 0.5 * 9.0, 2.0 + 0.5 * 3.0], [10.0, 0.0], [0.0, 4.0], [5.0, 6.0]]


def test_a_static_answer_is_worth_what_its_fetch_column_says() -> None:
    made = graph([(1, 1), (END, END)], decided=(True, False))
    rewards = np.array([[0.0, 0.0], [3.0, 99.0]])
    assert action_values(made, rewards, np.ones(2), 1.0)[0].tolist() == [3.0, 3.0]


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.0, 1.0))
def test_values_are_those_of_going_through_every_path(seed: int, gamma: float) -> None:
    made = random_graph(seed)
    rng = np.random.default_rng(seed)
    rewards, skips = rng.normal(size=(len(made.states), 2)), rng.random(len(made.states))
    expected = [values_by_recursion(made, rewards, skips, gamma, node) for node in range(len(made.states))]
    assert action_values(made, rewards, skips, gamma) == pytest.approx(np.array(expected), abs=1e-9)


def test_the_mean_return_of_many_walks_approaches_the_value() -> None:
    """20,000 returns within [0, 3]: by Hoeffding off by more than 0.06 with a chance below 3e-7; the seed is fixed."""
    made = diamond()
    rewards = np.array([[1.0, 0.5], [2.0, 0.0], [1.0, 1.5], [0.0, 0.0]])
    skips, rng = np.array([0.4, 0.7, 0.2, 0.5]), np.random.default_rng(1)
    found = action_values(made, rewards, skips, 1.0)
    exact = 0.6 * found[0, FETCH] + 0.4 * found[0, NO_FETCH]
    totals = [sum(rewards[one.nodes[:2], one.actions[:2]]) for one in (walk(made, skips, rng) for _ in range(20_000))]
    assert np.mean(totals) == pytest.approx(exact, abs=0.06)


# harm and curves


def test_harm_is_a_bad_answer_that_a_fetch_would_have_made_good() -> None:
    pairs = [(1.0, 0.0), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (NAN, 0.0), (1.0, NAN), (NAN, NAN)]
    harm = graph([(END, END)] * 7, good=pairs).harm
    assert harm[:4].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert np.isnan(harm[4:]).all()


def flat(good: Sequence[tuple[float, float]], decided: Sequence[bool] | None = None) -> StateGraph:
    """Conversations of one turn."""
    n = len(good)
    return graph([(END, END)] * n, starts=range(n), turns=[0] * n, conversations=range(n), good=good, decided=decided)


def test_a_curve_counts_tokens_skips_and_harm_at_each_threshold() -> None:
    # skipping saves 6 of 10 tokens of one turn in four
    made = flat([(1.0, 1.0), (1.0, 0.0), (1.0, 1.0), (NAN, NAN)])
    found = curve(made, np.array([0.9, 0.7, 0.5, 0.3]), thresholds=4)
    assert found.thresholds == pytest.approx([0.3, 0.5, 0.7, 0.9])
    assert found.savings == pytest.approx([0.6, 0.45, 0.3, 0.15])
    assert found.skips.tolist() == [4, 3, 2, 1]
    assert found.harms == pytest.approx([1 / 3, 1 / 3, 1 / 2, 0.0])


def test_a_static_turn_is_never_a_skip_and_its_score_makes_no_threshold() -> None:
    found = curve(flat([(1.0, 1.0), (1.0, 1.0)], decided=[True, False]), np.array([0.4, 0.8]))
    assert (found.thresholds.tolist(), found.skips.tolist()) == ([0.4], [1])


def test_where_no_turn_is_decided_there_is_nothing_to_save() -> None:
    found = curve(flat([(1.0, 1.0)], decided=[False]), np.array([0.4]))
    assert found.thresholds.tolist() == []
    assert found.best(0.5) == (0.0, math.inf)


def test_equal_scores_are_one_threshold() -> None:
    found = curve(flat([(1.0, 1.0)] * 3), np.full(3, 0.5))
    assert (found.thresholds.tolist(), found.skips.tolist()) == ([0.5], [3])


def test_the_best_threshold_keeps_the_budget_with_enough_skips() -> None:
    found = Curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.4, 0.3, 0.1]),
                  np.array([90, 60, 30, 10]), np.array([0.2, 0.05, 0.04, 0.0]))
    assert found.best(0.05) == (0.4, 0.2)
    assert found.best(0.04) == (0.3, 0.3)
    assert found.best(0.01) == (0.0, math.inf), "ten skips are too few to choose by"
    assert found.best(0.01, least_skips=5) == (0.1, 0.4)
    assert found.best(1.0) == (0.5, 0.1)


def test_a_threshold_that_costs_tokens_is_none() -> None:
    found = Curve(np.array([0.1]), np.array([-0.2]), np.array([90]), np.array([0.0]))
    assert found.best(1.0) == (0.0, math.inf)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_curve_is_the_walks_at_its_thresholds(seed: int) -> None:
    made = random_graph(seed)
    scores = np.random.default_rng(seed).random(len(made.states)).round(1)
    found = curve(made, scores, thresholds=5)
    assert np.isfinite(found.savings).all()
    for threshold, saving, skips, harm in zip(found.thresholds, found.savings, found.skips, found.harms, strict=True):
        steps = [step for start in made.starts for step in path(made, scores >= threshold, int(start))]
        always = [step for start in made.starts for step in path(made, scores > 2.0, int(start))]
        spent, most = (sum(made.tokens[node, action] for node, action in taken) for taken in (steps, always))
        skipped = [node for node, action in steps if action == NO_FETCH]
        known = [made.harm[node] for node in skipped if not math.isnan(made.harm[node])]
        assert saving == pytest.approx(1.0 - spent / most)
        assert skips == len(skipped)
        assert harm == pytest.approx(float(np.mean(known)) if known else 0.0)


@pytest.mark.parametrize(("name", "shape"), [("successors", (2, 3)), ("tokens", (3, 2)), ("good", (2,)), ("decided", (3,)), ("turns", (1,)),
                                             ("conversations", (2, 1))])
def test_arrays_that_do_not_fit_the_states_are_refused(name: str, shape: tuple[int, ...]) -> None:
    arrays = {
        "successors": np.full((2, 2), END), "starts": np.array([0]), "conversations": np.zeros(2, dtype=np.int64),
        "turns": np.zeros(2, dtype=np.int64), "decided": np.ones(2, dtype=bool), "tokens": np.ones((2, 2)), "good": np.ones((2, 2)),
    }
    arrays[name] = np.zeros(shape)
    with pytest.raises(ValueError, match=f"{name}: expected shape"):
        StateGraph((BLANK, BLANK), **arrays)
