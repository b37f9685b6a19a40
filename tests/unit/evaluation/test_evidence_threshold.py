"""The sweep's replay and figures, on a conversation small enough to work out by hand."""

import math

import numpy as np
import pytest

from evaluation.datasets import LabelledTurn, Session
from evaluation.evidence_threshold import (
    REFERENCE,
    Outcome,
    Row,
    choose,
    outcomes,
    replay_pairs,
    row,
    slices,
)
from evaluation.stats import Share, resampled, share
from kb.types import Faq
from tests.fakes import FakeRetriever

LATE, LOST = Faq("late", "late fee", "450"), Faq("lost", "card is lost", "Block it")
LOUNGE = Faq("lounge", "airport lounge visits", "4")
FAQS = (LATE, LOST, LOUNGE, Faq("z1", "zz", "z"), Faq("z2", "yy", "y"))


def session(*turns: tuple[str, tuple[str, ...] | None], name: str = "s") -> Session:
    return Session(name, tuple(LabelledTurn(query, None, gold, "faq" if gold else "smalltalk", None) for query, gold in turns))


def played(threshold: float, *turns: tuple[str, tuple[str, ...] | None]) -> tuple[Outcome, ...]:
    return outcomes(replay_pairs([session(*turns)], FakeRetriever(FAQS)), threshold)


def outcome(conversation: int = 0, *, skipped: bool = False, harmful: bool = False) -> Outcome:
    return Outcome(conversation, LabelledTurn("q", None, ("late",), "faq", None), skipped or harmful, not harmful, True, harmful)


def figures(threshold: float, skipped: float, added: float) -> Row:
    some = Share(skipped, skipped, skipped)
    return Row(threshold, some, some, Share(added, added, added), some, some)


def test_a_question_whose_faq_is_in_the_prompt_is_skipped_without_harm() -> None:
    first, second = played(REFERENCE, ("late fee", ("late",)), ("late fee when", ("late",)))
    assert (first.skipped, first.useless) == (False, False)
    assert (second.skipped, second.harmful) == (True, False)


def test_a_fetch_that_brings_nothing_that_is_needed_is_useless() -> None:
    (thanks,) = played(REFERENCE, ("thanks card", ()))
    assert thanks.useless
    (missed,) = played(REFERENCE, ("lost", ("z2",)))
    assert not missed.good_fetching
    assert missed.useless


def test_a_skip_is_harmful_when_a_fetch_would_have_shown_a_gold_faq() -> None:
    (harmed,) = played(0.99, ("my late fee", ("late",)))
    assert harmed.skipped
    assert harmed.harmful
    assert harmed.harmful_for_all


def test_a_skip_is_harmless_when_no_faq_is_needed_or_a_fetch_would_not_show_it() -> None:
    needless, hopeless = played(0.99, ("hello late", ()), ("lost", ("z2",)))
    assert needless.skipped
    assert hopeless.skipped
    assert not needless.harmful
    assert not hopeless.harmful


def test_a_reader_who_needs_all_gold_is_harmed_where_one_who_needs_any_is_not() -> None:
    far = FakeRetriever([LATE, *(Faq(f"z{n}", f"zz{n}", "z") for n in range(3)), LOST])
    turns = (("late fee", ("late",)), ("late fee lost", ("late", "lost")))
    last = outcomes(replay_pairs([session(*turns)], far), REFERENCE)[-1]
    assert last.skipped
    assert not last.harmful
    assert last.harmful_for_all


def test_each_threshold_has_a_transcript_of_its_own() -> None:
    turns = (("my late fee", ("late",)), ("late fee", ("late",)))
    assert [o.skipped for o in played(REFERENCE, *turns)] == [False, True]
    assert [o.skipped for o in played(0.7, *turns)] == [True, False]


def test_faqs_leave_the_prompt_after_two_turns() -> None:
    turns = (("late fee", ("late",)), ("airport lounge", ("lounge",)), ("card is lost", ("lost",)), ("late fee", ("late",)))
    fakes = FakeRetriever([LATE, LOST, LOUNGE, *(Faq(f"late{n}", "late fee card is lost airport lounge", "x") for n in range(3))])
    assert outcomes(replay_pairs([session(*turns)], fakes), REFERENCE)[-1].skipped is False


def test_an_unlabelled_turn_is_played_and_has_no_outcome() -> None:
    found = played(REFERENCE, ("late fee", None), ("late fee", ("late",)))
    assert [o.skipped for o in found] == [True]


def test_outcomes_know_their_conversation() -> None:
    two = [session(("late fee", ("late",)), name=name) for name in "ab"]
    assert [o.conversation for o in outcomes(replay_pairs(two, FakeRetriever(FAQS)), REFERENCE)] == [0, 1]


def test_resamples_draw_as_many_conversations_as_there_are_and_depend_on_the_seed_alone() -> None:
    weights = resampled(7, resamples=50, seed=3)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == resampled(7, resamples=50, seed=3)).all()
    assert (weights != resampled(7, resamples=50, seed=4)).any()


def test_conversations_that_agree_leave_no_doubt_and_no_conversations_no_share() -> None:
    found = share(np.array([1, 2, 3]), np.array([2, 4, 6]), resampled(3, resamples=100))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    assert math.isnan(share(np.array([0]), np.array([0]), resampled(1, resamples=10)).value)


def test_an_interval_is_near_the_normal_one_for_many_single_turn_conversations() -> None:
    # 400 conversations of one turn, 30 % of them skipped: the normal interval's half width is 1.96 * sqrt(p(1-p)/n)
    part = np.array([1] * 120 + [0] * 280)
    found = share(part, np.ones_like(part), resampled(400))
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - half, abs=0.006)
    assert found.high == pytest.approx(0.3 + half, abs=0.006)


def test_turns_of_one_conversation_widen_the_interval() -> None:
    alone = share(np.array([1, 0] * 50), np.ones(100, dtype=np.int64), resampled(100))
    clustered = share(np.array([10, 0] * 5), np.full(10, 10), resampled(10))
    assert alone.value == clustered.value == 0.5
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_a_row_compares_with_the_reference_on_the_same_resamples() -> None:
    some = [outcome(0, harmful=True), outcome(0, skipped=True), outcome(1), outcome(1)]
    found = row(0.3, some, some, resampled(2, resamples=200))
    assert found.skipped.value == 0.5
    assert found.harmful.value == 0.25
    assert (found.added_harm.low, found.added_harm.value, found.added_harm.high) == (0, 0, 0)
    assert found.useless.value == 1.0


def test_the_row_that_skips_most_within_the_slack_is_chosen() -> None:
    rows = [figures(REFERENCE, 0.1, 0.0), figures(0.2, 0.3, 0.005), figures(0.3, 0.3, 0.004), figures(0.4, 0.5, 0.006)]
    assert choose(rows).min_similarity == 0.2
    assert choose(rows, slack=0.01).min_similarity == 0.4
    assert choose(rows, slack=0.0).min_similarity == REFERENCE


def test_slices_are_kinds_and_hinglish() -> None:
    said = [("ood", "hinglish"), ("ood", None), ("faq", None)]
    parts = slices([Outcome(0, LabelledTurn("q", None, (), kind, language), False, True, True, False) for kind, language in said])
    assert {name: len(part) for name, part in parts.items()} == {"faq": 1, "ood": 2, "(Hinglish)": 1}
