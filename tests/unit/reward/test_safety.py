"""Harm beside quality: an unsafe answer is never Good, and no price of tokens makes it the better arm."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from chat.errors import FilterError
from chat.filters import PatternFilter
from chat.types import Refusal, Where
from reward.errors import ShapingInputError
from reward.judge import Case, ReferenceJudge, Verdict
from reward.safety import both_safe, with_safety
from reward.shaping import (
    FETCH,
    NO_FETCH,
    PRESETS,
    UNSAFE_GAP,
    BudgetRewards,
    FixedRewards,
    HedgedRewards,
    budget_rewards,
    fixed_rewards,
    floor,
    hedged_rewards,
    unsafe_at_floor,
)

NAN = math.nan
FILTER = PatternFilter()
LEAK = "The OTP is 482913 [otp]."


def case(answer: str, gold: tuple[str, ...] | None = ("otp",)) -> Case:
    return Case("what is it?", (), (), answer, ("otp",), gold)


class Opinionated:
    """A judge with one word on everything."""

    version = "opinion"

    def __init__(self, verdict: Verdict | None) -> None:
        self.verdict = verdict

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        return tuple(self.verdict for _ in cases)


class Down:
    """A filter that can't tell."""

    version = "down"

    def check(self, text: str, *, where: Where) -> Refusal | None:
        raise FilterError("down")


# The verdict


def test_a_judge_with_safety_says_both_in_order_and_what_is_unsafe_is_bad() -> None:
    judge = with_safety(ReferenceJudge(), FILTER)
    safe, unsafe, unlabelled = judge.judge([case("It is in the app [otp]."), case(LEAK), case("Yes.", None)])
    assert safe is not None
    assert (safe.good, safe.safe) == (True, True)
    assert unsafe is not None
    assert (unsafe.good, unsafe.safe) == (False, False)
    assert unsafe.reason == "unsafe: secrets; rests on 1 of 1 gold FAQs"
    assert unlabelled is None


def test_an_unsafe_answer_is_bad_even_where_its_quality_is_not_known() -> None:
    (verdict,) = with_safety(ReferenceJudge(), FILTER).judge([case(LEAK, None)])
    assert verdict == Verdict(False, "unsafe: secrets", safe=False, probability=0.0)


@pytest.mark.parametrize(("judge_says", "answer", "safe"), [
    (None, "Fine.", True), (True, "Fine.", True), (False, "Fine.", False), (True, LEAK, False), (False, LEAK, False), (None, LEAK, False),
])
def test_what_the_judge_or_the_filter_finds_unsafe_is_unsafe(judge_says: bool | None, answer: str, safe: bool) -> None:
    judge = with_safety(Opinionated(Verdict(True, "so", safe=judge_says, probability=0.9, hedged=True, quotes=("q",))), FILTER)
    (verdict,) = judge.judge([case(answer)])
    assert verdict is not None
    assert (verdict.good, verdict.safe, verdict.hedged, verdict.quotes) == (safe, safe, True, ("q",))
    assert verdict.probability == (0.9 if safe else 0.0)


def test_a_filter_that_cannot_tell_leaves_the_judges_word() -> None:
    for said in (None, True):
        (verdict,) = with_safety(Opinionated(Verdict(True, "so", safe=said)), Down()).judge([case(LEAK)])
        assert verdict is not None
        assert (verdict.good, verdict.safe) == (True, said)
    assert with_safety(Opinionated(None), Down()).judge([case(LEAK)]) == (None,)


def test_the_version_changes_with_the_judge_and_with_the_filter() -> None:
    versions = {with_safety(judge, one).version for judge in (ReferenceJudge(), ReferenceJudge("all")) for one in (FILTER, Down())}
    assert len(versions) == 4


@pytest.mark.parametrize("one", [True, False, None])
@pytest.mark.parametrize("other", [True, False, None])
def test_of_two_words_on_harm_the_worse_counts(one: bool | None, other: bool | None) -> None:
    expected = None if one is other is None else (one is not False and other is not False)
    assert both_safe(one, other) is expected


# The reward


def arm(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def rewards(preset: FixedRewards | HedgedRewards | BudgetRewards, good_skip: float, good_fetch: float, skip_tokens: float,
            fetch_tokens: float, multiplier: float) -> NDArray[np.float64]:
    """(1, 2) by any preset."""
    skip, fetch, no = arm(good_skip), arm(good_fetch), arm(0.0)
    match preset:
        case FixedRewards():
            return fixed_rewards(preset, good_skip=skip)
        case HedgedRewards():
            return hedged_rewards(preset, good_skip=skip, good_fetch=fetch, hedged_skip=no, hedged_fetch=no, unknown_skip=no,
                                  unknown_fetch=no, skip_tokens=arm(skip_tokens), fetch_tokens=arm(fetch_tokens))
        case BudgetRewards():
            return budget_rewards(preset, good_skip=skip, good_fetch=fetch, skip_tokens=arm(skip_tokens), fetch_tokens=arm(fetch_tokens),
                                  baseline_tokens=arm(1_000), multiplier=multiplier)


verdict = st.sampled_from([0.0, 1.0, NAN])
tokens = st.floats(0, 1e7)


@given(name=st.sampled_from(sorted(PRESETS)), price=st.floats(0, 1e6), good_skip=verdict, good_fetch=verdict, skip_tokens=tokens,
       fetch_tokens=tokens, multiplier=st.floats(0, 100), unsafe=st.sampled_from([FETCH, NO_FETCH]))
def test_no_price_of_tokens_no_saving_and_no_verdict_makes_an_unsafe_arm_the_better_one(
    name: str, price: float, good_skip: float, good_fetch: float, skip_tokens: float, fetch_tokens: float, multiplier: float, unsafe: int
) -> None:
    preset = HedgedRewards(token_price=price) if name == "hedged" else PRESETS[name]
    before = rewards(preset, good_skip, good_fetch, skip_tokens, fetch_tokens, multiplier)
    safe = [arm(0.0 if unsafe == column else 1.0) for column in (FETCH, NO_FETCH)]
    after = unsafe_at_floor(preset, before, safe_fetch=safe[FETCH], safe_skip=safe[NO_FETCH])
    bad, other = after[0, unsafe], after[0, 1 - unsafe]
    assert bad <= floor(preset)
    assert other == before[0, 1 - unsafe] or (np.isnan(other) and np.isnan(before[0, 1 - unsafe]))
    if not np.isnan(other):
        assert bad < other
        assert bad <= other - UNSAFE_GAP * 0.99


def test_without_the_floor_a_price_of_tokens_would_buy_the_unsafe_arm() -> None:
    """The test above can fail: here the unsafe skip is Bad, the safe fetch is Good, and tokens decide for the skip."""
    preset = HedgedRewards(token_price=1.0)
    before = rewards(preset, 0.0, 1.0, 100, 90_000, 0.0)
    assert before[0, NO_FETCH] > before[0, FETCH]
    after = unsafe_at_floor(preset, before, safe_skip=arm(0.0), safe_fetch=arm(1.0))
    assert after[0, NO_FETCH] < after[0, FETCH]


def test_safe_and_unknown_change_nothing_and_two_unsafe_arms_earn_the_same() -> None:
    preset = PRESETS["kulkarni2024"]
    before = np.array([[0.1, 2.0], [0.1, -1.0], [0.1, 2.0], [0.1, NAN]])
    after = unsafe_at_floor(preset, before, safe_skip=arm(1.0, NAN, 0.0, 0.0), safe_fetch=arm(NAN, 1.0, 0.0, 0.0))
    np.testing.assert_array_equal(after, [[0.1, 2.0], [0.1, -1.0], [-1.0, -1.0], [-1.0, -1.0]])


def test_the_floor_is_what_the_worst_answer_earns_its_tokens_apart() -> None:
    assert [floor(PRESETS[name]) for name in ("kulkarni2024", "symmetric", "hedged")] == [-1.0, -1.0, -4.0]
    assert floor(BudgetRewards(budget=0.1, step=1.0, cap=10.0)) == pytest.approx(-9.0)


def test_rewards_of_other_turns_are_refused() -> None:
    with pytest.raises(ShapingInputError, match="expected one row a turn"):
        unsafe_at_floor(PRESETS["budget"], np.zeros((3, 2)), safe_skip=arm(1.0), safe_fetch=arm(1.0))
