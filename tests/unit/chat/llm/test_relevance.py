"""How well an FAQ answers: the score's parts, each on its own."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.llm import relevance
from chat.llm.relevance import Likeness, Standing, fit, shared_words, telling_sentences, trust

LIKE = Likeness(question=0.5, text=0.4, sentences=(0.1, 0.6, 0.2), shared_words=0.5, joined=0.3)
APART = Standing(fetched_rank=None, cited_before=False, first_before=False)
cosines = st.floats(-1, 1)


def test_the_direct_score_is_the_weighted_sum_with_the_best_sentence() -> None:
    assert LIKE.direct == pytest.approx(0.25 * 0.5 + 0.40 * 0.4 + 0.35 * 0.6 + 0.45 * 0.5)


def test_an_faq_without_sentences_is_scored_by_its_text() -> None:
    assert replace(LIKE, sentences=()).direct == pytest.approx(0.25 * 0.5 + (0.40 + 0.35) * 0.4 + 0.45 * 0.5)


@given(like=st.builds(Likeness, cosines, cosines, st.just(()), st.floats(0, 1), cosines), leaning=st.floats(0, 1))
def test_standing_never_lowers_a_score_or_trust(like: Likeness, leaning: float) -> None:
    best = Standing(fetched_rank=0, cited_before=True, first_before=True)
    positive = replace(like, joined=abs(like.joined))
    assert fit(positive, best, leaning) >= fit(positive, APART, leaning)
    assert trust(like, best, leaning, asks=True) >= trust(like, APART, leaning, asks=True) == like.direct


def test_what_was_said_before_counts_only_as_far_as_the_question_leans_on_it() -> None:
    cited = replace(APART, cited_before=True)
    assert fit(LIKE, cited, 0.0) == fit(LIKE, APART, 0.0) == LIKE.direct
    assert fit(LIKE, cited, 1.0) - fit(LIKE, APART, 1.0) == pytest.approx(relevance.CITED_BEFORE)
    assert trust(LIKE, cited, 1.0, asks=False) == LIKE.direct


def test_the_first_of_those_fetched_gains_most_and_the_third_nothing() -> None:
    gains = [fit(LIKE, Standing(rank, False, False), 0.0) - LIKE.direct for rank in (0, 1, 2, None)]
    assert gains == pytest.approx([relevance.FETCHED_FIRST, relevance.FETCHED_SECOND, 0.0, 0.0])


def test_one_shared_word_proves_little() -> None:
    assert shared_words(frozenset({"fee"}), frozenset({"fee", "late"})) == pytest.approx(1 / 3)
    assert shared_words(frozenset(), frozenset({"fee"})) == 0.0
    assert shared_words(frozenset("abcd"), frozenset("ab")) == 0.5


@given(st.lists(cosines, min_size=1, max_size=8))
def test_the_best_sentence_is_told_with_at_most_two_near_ones_in_order(scores: list[float]) -> None:
    told = telling_sentences(scores)
    assert list(told) == sorted(set(told))
    assert 1 <= len(told) <= 3
    assert max(scores) in [scores[n] for n in told]
    assert all(scores[n] >= max(scores) - relevance.SENTENCE_WITHIN for n in told)
