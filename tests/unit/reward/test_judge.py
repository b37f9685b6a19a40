"""Good or Bad by labels alone: one gold FAQ or all of them, none needed, nobody knows."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.judge import Case, Gold, ReferenceJudge

ids = st.lists(st.sampled_from("abcde"), unique=True, max_size=5).map(tuple)


def good(gold: Sequence[str] | None, used: Sequence[str], needs: Gold = "any") -> bool | None:
    (verdict,) = ReferenceJudge(needs).judge([Case("q", (), (), "a", tuple(used), None if gold is None else tuple(gold))])
    return None if verdict is None else verdict.good


@pytest.mark.parametrize(("used", "any_gold", "all_gold"), [
    ("", False, False), ("a", True, False), ("ab", True, True), ("abx", True, True), ("ax", True, False), ("x", False, False),
    ("aab", True, True),
])
def test_an_answer_is_good_when_it_rests_on_one_gold_faq_or_on_all(used: str, any_gold: bool, all_gold: bool) -> None:
    assert good("ab", used) is any_gold
    assert good("ab", used, "all") is all_gold


@pytest.mark.parametrize("needs", ["any", "all"])
def test_where_no_faq_is_needed_none_may_be_used(needs: Gold) -> None:
    assert good((), (), needs) is True
    assert good((), "x", needs) is False


@pytest.mark.parametrize("needs", ["any", "all"])
def test_nobody_knows_of_an_unlabelled_turn(needs: Gold) -> None:
    assert good(None, (), needs) is None
    assert good(None, "a", needs) is None


def test_verdicts_come_in_order_with_their_reasons() -> None:
    cases = [Case("q", (), (), "a", used, gold) for used, gold in ((("a",), ("a", "b")), ((), None), ((), ()), (("x",), ()))]
    verdicts = ReferenceJudge("all").judge(cases)
    assert [verdict and (verdict.good, verdict.reason) for verdict in verdicts] == [
        (False, "rests on 1 of 2 gold FAQs"), None, (True, "no FAQ is needed, and none was used"),
        (False, "no FAQ is needed, and an FAQ was used"),
    ]
    assert ReferenceJudge().judge([]) == ()


def test_the_version_says_how_gold_is_read() -> None:
    assert (ReferenceJudge().version, ReferenceJudge("all").version) == ("reference:any", "reference:all")


@given(gold=ids, used=ids, more=ids)
def test_all_is_never_easier_than_any_and_using_more_gold_never_hurts(
    gold: tuple[str, ...], used: tuple[str, ...], more: tuple[str, ...]
) -> None:
    assert not good(gold, used, "all") or good(gold, used)
    further = (*used, *(one for one in more if one in gold))
    for needs in ("any", "all"):
        assert not good(gold, used, needs) or good(gold, further, needs)
