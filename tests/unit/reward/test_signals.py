"""Implicit signals: what fires them, and what only looks like it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from reward.signals import Exchange, Kind, says_thanks, says_wrong, signals
from tests.fakes import HashEmbedder

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def conversation(*queries: str, apart: float = 30) -> list[Exchange]:
    return [Exchange(f"t{n}", query, NOW + timedelta(seconds=apart * n)) for n, query in enumerate(queries)]


def fired(*queries: str, embed: bool = False, apart: float = 30) -> list[tuple[Kind, str, int]]:
    found = signals(conversation(*queries, apart=apart), embed=HashEmbedder().embed if embed else None)
    return [(one.kind, one.turn_id, one.polarity) for one in found]


@pytest.mark.parametrize("text", [
    "That's wrong", "that’s wrong!", "no, that is not right", "This is incorrect.", "wrong", "Wrong answer", "your answer is wrong",
    "that's not what I asked", "you didn't answer my question", "You misunderstood", "that didn't help", "but that is wrong, it was 500",
    "galat hai", "yeh galat hai", "ye to galat hai yaar", "galat jawab", "maine ye nahi pucha", "sahi nahi hai", "aap galat bata rahe ho",
    "sai rồi", "Sai rồi!", "kho\u0302ng \u0111u\u0301ng", "không đúng", "câu trả lời sai", "nhầm rồi", "tôi không hỏi cái đó",
])
def test_these_say_that_the_answer_is_wrong(text: str) -> None:
    assert says_wrong(text)


@pytest.mark.parametrize("text", [
    "what is wrong with my card?", "there is a wrong charge on my bill", "if i press the wrong one?", "they billed the wrong amount",
    "is that right?", "what happens if my PIN is wrong", "that is what i asked for, great", "that's what I wanted to know",
    "galat transaction hua hai",
    "galat amount kata hai card se", "mera card galat number dikha raha", "tôi nhập sai mã PIN", "nếu nhập sai thì sao?",
    "this is the wrong card number",
    "one digit of the card no was wrong", "why is my address not correct on the statement", "không đúng hạn thì bị phạt bao nhiêu?", "",
])
def test_these_dont(text: str) -> None:
    assert not says_wrong(text)


@pytest.mark.parametrize(("text", "said"), [
    ("thanks!", True), ("ok thank you so much", True), ("thx", True), ("shukriya", True), ("cảm ơn bạn", True),
    ("thankfully it came", False),
    ("is there a thanksgiving offer", False), ("party", False),
])
def test_thanks(text: str, said: bool) -> None:
    assert says_thanks(text) is said


def test_the_same_question_again_speaks_against_the_first_answer() -> None:
    for embed in (False, True):
        assert fired("how much is the late fee?", "how much is the late fee then?", "thanks", embed=embed) == [
            ("asked_again", "t0", -1), ("thanked", "t1", 1)]
        assert ("asked_again", "t0", -1) not in fired("how much is the late fee?", "and if I lose my card abroad?", embed=embed)


def test_the_same_question_much_later_is_a_new_one() -> None:
    assert fired("how much is the late fee?", "how much is the late fee?", "thanks", apart=3600) == [("thanked", "t1", 1)]


def test_thanks_said_twice_ask_nothing_again() -> None:
    assert fired("late fee?", "thanks a lot", "thanks a lot") == [("thanked", "t0", 1), ("thanked", "t1", 1)]


def test_leaving_counts_once_time_has_passed_and_not_after_thanks() -> None:
    said = conversation("how much is the late fee?")
    assert signals(said, now=NOW + timedelta(minutes=5)) == ()
    [left] = signals(said, now=NOW + timedelta(minutes=31))
    assert (left.kind, left.turn_id, left.polarity) == ("left", "t0", -1)
    assert left.weight < 0.1, "most who leave have what they came for"
    assert fired("late fee?", "thanks!") == [("thanked", "t0", 1)]


def test_wrong_is_about_the_turn_before() -> None:
    assert fired("late fee?", "and for gold?", "that's wrong", "thanks")[0] == ("said_wrong", "t1", -1)


def test_one_turn_and_none() -> None:
    def never(texts: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError("one query is near nothing")

    assert [one.kind for one in signals([Exchange("t0", "hi there")], embed=never)] == ["left"]
    assert signals(()) == ()
