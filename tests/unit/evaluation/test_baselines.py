"""Scores against the rules that they stand for, regressions against closed forms, plans against every sequence of actions."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.types import Action, Evidence, State
from evaluation.baselines import (
    HIGHEST,
    LEXICAL,
    LOWEST,
    AlwaysScore,
    EvidenceScore,
    GateScore,
    NeverScore,
    PreviousQueryScore,
    QueryEmbeddingScore,
    WordListScore,
    best_plan,
    cheap_features,
    fit_logistic,
    fit_query_embedding,
    oracle_needed,
    oracle_useful,
)
from evaluation.errors import EvaluationError
from policy.encoding import EVIDENCE
from policy.graph import END, FETCH, NO_FETCH, Bools, Floats, StateGraph, walk
from policy.rules import AlwaysFetch, EvidenceRule, NeverFetch
from tests.fakes import HashEmbedder

BARE = Evidence(top1_similarity=None, margin=None, top1_in_prompt=False, turns_since_fetch=None)
NAN = float("nan")
INFINITE = float("inf")
cosines = st.one_of(st.floats(-1.0, 1.0), st.sampled_from([-1.0, -0.0, 0.0, 0.32, 0.5, 1.0]))
evidences = st.builds(Evidence, top1_similarity=st.none() | cosines, margin=st.none(), top1_in_prompt=st.booleans(),
                      turns_since_fetch=st.none(), previous_similarity=st.none() | cosines)
states = st.builds(State, previous_queries=st.just(()), previous_actions=st.just(()), query=st.text(max_size=20),
                   evidence=st.none() | evidences)


def state(query: str = "late fee", evidence: Evidence | None = BARE, before: Sequence[str] = ()) -> State:
    return State(tuple(before), (Action.FETCH,) * len(before), query, evidence)


def graph(costs: Sequence[tuple[float, float]], good: Sequence[tuple[float, float]], *, successors: Sequence[tuple[int, int]] | None = None,
          starts: Sequence[int] | None = None, decided: Sequence[bool] | None = None, read: Sequence[State] | None = None) -> StateGraph:
    """Without successors, each state is a conversation of one turn."""
    n = len(costs)
    return StateGraph(
        states=tuple([state()] * n if read is None else read),
        successors=np.array([(END, END)] * n if successors is None else successors, dtype=np.int64).reshape(-1, 2),
        starts=np.array(range(n) if starts is None else starts, dtype=np.int64),
        conversations=np.zeros(n, dtype=np.int64), turns=np.zeros(n, dtype=np.int64),  # nothing here reads them
        decided=np.array([True] * n if decided is None else decided, dtype=bool),
        tokens=np.array(costs, dtype=float).reshape(-1, 2), good=np.array(good, dtype=float).reshape(-1, 2),
    )


def skipped(policy: AlwaysFetch | NeverFetch | EvidenceRule, read: Sequence[State]) -> list[bool]:
    return [policy.decide(one).action is Action.NO_FETCH for one in read]


@settings(deadline=None)
@given(st.lists(states, max_size=8), cosines)
def test_the_evidence_score_skips_just_where_the_rule_does(read: list[State], threshold: float) -> None:
    equal = state(evidence=replace(BARE, top1_similarity=threshold))  # just as similar as asked isn't below it
    near = [state(evidence=replace(BARE, top1_similarity=float(np.nextafter(threshold, side)))) for side in (-2.0, 2.0)]
    skips = EvidenceScore().scores([*read, equal, *near]) >= EvidenceScore.threshold(threshold)
    assert skips.tolist() == skipped(EvidenceRule(threshold), [*read, equal, *near])
    assert skips[-3:].tolist() == [False, True, False]


@settings(deadline=None)
@given(st.lists(states, max_size=8), st.floats(LOWEST, HIGHEST, exclude_min=True))
def test_always_and_never_do_as_their_rules_at_any_threshold(read: list[State], threshold: float) -> None:
    assert (AlwaysScore().scores(read) >= threshold).tolist() == skipped(AlwaysFetch(), read)
    assert (NeverScore().scores(read) >= threshold).tolist() == skipped(NeverFetch(), read)


@settings(deadline=None)
@given(st.lists(states, max_size=8))
def test_every_score_is_a_number_within_the_bounds(read: list[State]) -> None:
    gates: list[GateScore] = [AlwaysScore(), NeverScore(), EvidenceScore(), PreviousQueryScore(), WordListScore()]
    for gate in gates:
        found = gate.scores(read)
        assert found.shape == (len(read),)
        assert found.dtype == np.float64
        assert ((found >= LOWEST) & (found <= HIGHEST)).all()
    assert len({gate.name for gate in gates}) == len(gates)


def test_evidence_ranks_what_is_in_the_prompt_first_and_the_unknown_last() -> None:
    read = [state(evidence=None), state(evidence=replace(BARE, top1_similarity=0.9)), state(evidence=replace(BARE, top1_similarity=0.2)),
            state(), state(evidence=replace(BARE, top1_similarity=0.9, top1_in_prompt=True))]
    assert EvidenceScore().scores(read).tolist() == [LOWEST, -0.9, -0.2, HIGHEST, HIGHEST]


def test_the_previous_query_scores_by_its_cosine_and_lowest_when_there_is_none() -> None:
    read = [state(evidence=replace(BARE, previous_similarity=-0.5)), state(), state(evidence=None)]
    assert PreviousQueryScore().scores(read).tolist() == [-0.5, LOWEST, LOWEST]


@pytest.mark.parametrize(("query", "score"), [
    ("hello", 1.0), ("thanks a lot!", 1.0), ("theek hai", 1.0), ("ok bye", 1.0), ("shukriya bhai", 1.0),
    ("is that per month?", 0.5), ("uska fee kitna hai", 0.5), ("and the same for the gold card?", 0.5),
    ("ok and the late fee?", 0.0), ("late fee", 0.0), ("is it possible that you waive the late fee which I was charged last month", 0.0),
])
def test_the_word_list_knows_small_talk_and_what_points_back(query: str, score: float) -> None:
    assert WordListScore().scores([state(query, replace(BARE, prompt_faqs=3), before=["fees"])]).tolist() == [score]


@pytest.mark.parametrize("evidence", [BARE, None])
def test_what_points_back_to_no_faq_in_the_prompt_is_fetched_for(evidence: Evidence | None) -> None:
    assert WordListScore().scores([state("is that per month?", evidence)]).tolist() == [0.0]


def test_cheap_features_are_the_evidence_and_the_words() -> None:
    found = cheap_features([state("is it waived?", before=["fee", "late fee"]), state("thanks")])
    assert found.shape == (2, len(EVIDENCE) + len(LEXICAL))
    assert found[:, len(EVIDENCE) :].tolist() == [[1, 1, 0, 2], [0, 0, 1, 0]]
    assert cheap_features([]).shape == (0, len(EVIDENCE) + len(LEXICAL))


def labelled(similarities: Sequence[float], harmful: Sequence[bool]) -> StateGraph:
    """Turns that differ in top-1 similarity alone; skipping is harmful in some, good in the others."""
    read = [state(evidence=replace(BARE, top1_similarity=one)) for one in similarities]
    return graph([(9, 1)] * len(read), [(1, 0 if harm else 1) for harm in harmful], read=read)


def test_logistic_regression_learns_where_a_skip_does_no_harm() -> None:
    fitted = fit_logistic(labelled([0.1, 0.2, 0.3, 0.6, 0.7, 0.8], [False] * 3 + [True] * 3))
    low, middle, high = fitted.scores([state(evidence=replace(BARE, top1_similarity=one)) for one in (0.0, 0.45, 0.9)])
    assert 0 < high < middle < low < 1
    assert middle == pytest.approx(0.5)  # by symmetry


def test_logistic_regression_on_what_tells_nothing_gives_the_share_of_harmless_skips() -> None:
    fitted = fit_logistic(labelled([0.5] * 8, [False] * 6 + [True] * 2))
    assert fitted.scores([state(evidence=replace(BARE, top1_similarity=0.5))])[0] == pytest.approx(0.75, abs=1e-4)


def test_logistic_regression_leaves_out_static_turns_and_those_without_a_verdict() -> None:
    plain = labelled([0.1, 0.2, 0.7, 0.8], [False, False, True, True])
    more = labelled([0.1, 0.2, 0.7, 0.8, 0.9, 0.9, 0.9], [False, False, True, True, False, False, False])
    more.decided[4] = False
    more.good[5, NO_FETCH] = NAN
    more.good[6, FETCH] = NAN
    expected, found = fit_logistic(plain), fit_logistic(more)
    assert found.bias == expected.bias
    assert (found.weights == expected.weights).all()


def test_a_smaller_c_trusts_the_features_less() -> None:
    told = labelled([0.1, 0.2, 0.3, 0.6, 0.7, 0.8], [False] * 3 + [True] * 3)
    read = [state(evidence=replace(BARE, top1_similarity=one)) for one in (0.1, 0.8)]
    wide, narrow = (np.ptp(fit_logistic(told, c=c).scores(read)) for c in (1.0, 0.01))
    assert narrow < wide


@pytest.mark.parametrize("harmful", [[True, True], [False, False], []])
def test_logistic_regression_refuses_states_that_are_all_alike(harmful: list[bool]) -> None:
    with pytest.raises(EvaluationError, match="all alike"):
        fit_logistic(labelled([0.5] * len(harmful), harmful))


def test_a_query_embedding_tells_thanks_from_questions() -> None:
    talk, questions = ["thanks", "thanks a lot", "many thanks"], ["late fee", "what is the late fee", "fee when late"]
    read = [state(query) for query in [*talk, *questions]]
    fitted = fit_query_embedding(read, np.array([True] * 3 + [False] * 3), HashEmbedder(), 10.0)
    told, asked = fitted.scores([state("thanks so much"), state("is there a late fee")])
    assert told > 0.5 > asked
    assert (fitted.scores(read) == fit_query_embedding(read, np.array([True] * 3 + [False] * 3), HashEmbedder(), 10.0).scores(read)).all()
    assert fitted.scores([]).shape == (0,)


def test_a_query_embedding_scores_by_the_logistic_function_of_its_weights() -> None:
    encoder = HashEmbedder()
    fitted = QueryEmbeddingScore(np.linspace(-1, 1, encoder.dimension), 0.5, encoder)
    logit = encoder.embed(["late fee"])[0].astype(float) @ fitted.weights + 0.5
    assert fitted.scores([state("late fee")])[0] == pytest.approx(1 / (1 + np.exp(-logit)))


def test_a_query_embedding_refuses_targets_that_are_alike_or_too_few() -> None:
    with pytest.raises(EvaluationError, match="all alike"):
        fit_query_embedding([state(), state("thanks")], np.array([True, True]), HashEmbedder(), 1.0)
    with pytest.raises(ValueError, match="one for each of 2 states"):
        fit_query_embedding([state(), state("thanks")], np.array([True]), HashEmbedder(), 1.0)


VERDICTS = [(1, 1), (1, 0), (0, 0), (0, 1), (1, NAN), (NAN, 1), (NAN, 0), (NAN, NAN)]
"""All that there are, of FETCH and of NO_FETCH."""


def test_the_oracles_skip_by_the_verdicts_and_fetch_without() -> None:
    known = graph([(9, 1)] * len(VERDICTS), VERDICTS)
    assert oracle_needed(known).tolist() == [True, False, False, True, False, True, False, False]
    assert oracle_useful(known).tolist() == [True, False, True, True, False, False, False, False]


def test_nothing_is_planned_where_an_faq_answers_by_itself() -> None:
    static = graph([(0, 0)], [(1, 1)], decided=[False])
    assert not oracle_needed(static).any()
    assert not oracle_useful(static).any()
    assert not best_plan(static, price=0).any()


def test_a_skip_is_planned_when_it_saves_more_than_the_price_of_its_harm() -> None:
    harmful = graph([(9, 1)], [(1, 0)])
    assert [best_plan(harmful, price=price).tolist() for price in (7.9, 8.0, INFINITE)] == [[True], [False], [False]]


def test_a_harmless_skip_that_costs_a_later_turn_more_is_not_planned() -> None:
    # a fetch now lets the next turn be skipped without harm; a skip now makes skipping it harmful
    known = graph([(9, 5), (9, 1), (9, 1)], [(0, 0), (1, 1), (1, 0)], successors=[(1, 2), (END, END), (END, END)], starts=[0])
    assert best_plan(known, price=INFINITE).tolist() == [False, True, False]
    assert oracle_useful(known)[0]
    assert best_plan(known, price=1).tolist() == [True, True, True]


def test_a_price_of_bad_answers_counts_those_that_are_no_harmful_skips_too() -> None:
    # after a skip the next turn is Bad whatever is done
    known = graph([(9, 1), (9, 1), (9, 1)], [(1, 1), (1, 1), (0, 0)], successors=[(1, 2), (END, END), (END, END)], starts=[0])
    assert best_plan(known, price=INFINITE).tolist() == [True, True, True]
    assert best_plan(known, price=INFINITE, bad_price=9).tolist() == [False, True, True]


@pytest.mark.parametrize(("price", "bad_price"), [(-1.0, 0.0), (NAN, 0.0), (1.0, -1.0), (1.0, NAN), (1.0, INFINITE)])
def test_a_price_that_is_none_is_refused(price: float, bad_price: float) -> None:
    with pytest.raises(ValueError, match="expected 0 <= price"):
        best_plan(graph([(9, 1)], [(1, 0)]), price=price, bad_price=bad_price)


def every_cost(known: StateGraph, start: int, price: float, bad_price: float) -> list[float]:
    """The slow twin: what each sequence of actions costs from a conversation's start, those left out that skip without a verdict."""
    found = []
    for actions in product((FETCH, NO_FETCH), repeat=len(known.states)):
        node, cost = start, 0.0
        for action in actions:
            if node == END:
                break
            if action == NO_FETCH and known.decided[node]:
                harm = known.harm[node]
                cost += INFINITE if np.isnan(harm) else price if harm else 0.0
            cost += known.tokens[node, action] + bad_price * float(known.good[node, action] == 0)
            node = known.successors[node, action]
        found.append(cost)
    return found


@st.composite
def graphs(draw: st.DrawFn) -> StateGraph:
    """One or two conversations of up to three turns, in which what follows depends on the last action."""
    successors: list[tuple[int, int]] = []
    starts: list[int] = []
    for _ in range(draw(st.integers(1, 2))):
        first, turns = len(successors), draw(st.integers(1, 3))
        starts.append(first)
        for turn in range(turns):
            after = first + 2 * turn + 1
            successors += [(END, END) if turn == turns - 1 else (after, after + 1)] * (1 if turn == 0 else 2)
    n = len(successors)
    costs = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=n, max_size=n))
    good = draw(st.lists(st.sampled_from(VERDICTS), min_size=n, max_size=n))
    decided = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=n, max_size=n))
    for node in range(n):
        if not decided[node]:  # a static answer costs and brings the same, and leads to the same
            costs[node], good[node], successors[node] = (costs[node][0],) * 2, (good[node][0],) * 2, (successors[node][0],) * 2
    return graph(costs, good, successors=successors, starts=starts, decided=decided)


def cost(known: StateGraph, skips: Bools, price: float, bad_price: float = 0.0) -> float:
    """Of a walk by these skips."""
    walked = walk(known, skips)
    harm: Floats = np.where(walked.actions == NO_FETCH, known.harm[walked.nodes], 0.0)
    bad = known.good[walked.nodes, walked.actions] == 0
    return float((known.tokens[walked.nodes, walked.actions] + np.where(harm == 1, price, 0.0) + bad_price * bad).sum())


@settings(max_examples=200, deadline=None)
@given(graphs(), st.sampled_from([0.0, 1.0, 7.0, INFINITE]), st.sampled_from([0.0, 5.0]))
def test_the_best_plan_costs_as_little_as_the_best_of_all_sequences(known: StateGraph, price: float, bad_price: float) -> None:
    skips = best_plan(known, price=price, bad_price=bad_price)
    assert not (skips & (np.isnan(known.harm) | ~known.decided)).any()
    assert cost(known, skips, price, bad_price) == sum(min(every_cost(known, start, price, bad_price)) for start in known.starts)


@settings(deadline=None)
@given(graphs())
def test_no_gate_without_harm_saves_more_than_the_best_plan(known: StateGraph) -> None:
    ceiling = cost(known, best_plan(known, price=INFINITE), INFINITE)
    assert ceiling <= cost(known, oracle_useful(known), INFINITE)
    assert ceiling <= cost(known, oracle_needed(known) & ~np.isnan(known.harm), INFINITE)
