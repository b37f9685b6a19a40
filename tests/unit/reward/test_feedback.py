"""Ratings to verdicts and pairs; which count, how much, and why the others don't."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.log.ratings import Rating
from reward.consensus import METHODS, Method, consensus, votes_of
from reward.feedback import RatedAnswer, ranked_pairs, verdict_of
from reward.sift import SiftConfig, Sifted, capped, sift

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def rating(turn_id: str = "t1", rater: str = "u1", *, seconds: float = 0, **fields: Any) -> Rating:
    said: dict[str, Any] = {"owner": "fg-1", "role": "user", "created_at": NOW + timedelta(seconds=seconds)}
    if not {"good", "stars", "ranking"} & set(fields):
        said["good"] = True
    return Rating(turn_id, rater=rater, **(said | fields))


def reasons(found: Sifted) -> list[tuple[str, str]]:
    return [(one.rating.rater, one.reason) for one in found.aside]


def paced(said: Iterable[tuple[str, str, bool]]) -> list[Rating]:
    """Ratings a minute apart."""
    return [rating(turn, rater, good=good, seconds=60 * n) for n, (turn, rater, good) in enumerate(said)]


@pytest.mark.parametrize(("fields", "verdict"), [
    ({"good": True}, True), ({"good": False}, False), ({"stars": 5}, True), ({"stars": 4}, True), ({"stars": 3}, None),
    ({"stars": 2}, False), ({"stars": 1}, False), ({"ranking": ("t1", "t2")}, None),
])
def test_a_rating_is_good_bad_or_neither(fields: dict[str, Any], verdict: bool | None) -> None:
    assert verdict_of(rating(**fields)) is verdict


def test_experts_weigh_more_than_users_and_the_latest_counts() -> None:
    said = [rating(good=False), rating(seconds=60), rating(rater="ann", owner="import", role="expert", seconds=90)]
    assert [(one.rating.rater, one.rating.good, one.weight) for one in sift(said).kept] == [("u1", True, 1.0), ("ann", True, 3.0)]


def test_one_keys_share_is_capped_and_few_keys_are_equal() -> None:
    loud = [rating(f"t{n}", f"u{n}", owner="fg-loud", seconds=60 * n) for n in range(100)]
    quiet = [rating(f"q{n}", "u", owner=f"fg-{n}", seconds=60 * n) for n in range(6)]
    weights = {key: sum(one.weight for one in sift([*loud, *quiet]).kept if one.rating.owner == key) for key in ("fg-loud", "fg-0")}
    assert weights == pytest.approx({"fg-loud": 2.0, "fg-0": 1.0})  # 2 of 8 is a quarter
    assert sum(one.weight for one in sift([*loud, quiet[0]]).kept) == pytest.approx(2.0)
    assert sum(one.weight for one in sift(loud).kept) == 100


@given(st.dictionaries(st.text(max_size=3), st.floats(0.01, 1e6), max_size=12), st.floats(0.01, 1))
def test_no_key_has_more_than_its_share(weights: dict[str, float], share: float) -> None:
    factors = capped(weights, share)
    left = {key: weights[key] * factors[key] for key in weights}
    assert all(0 < factor <= 1 for factor in factors.values())
    for weight in left.values():
        assert weight <= max(share, 1 / len(left)) * sum(left.values()) * (1 + 1e-6)
    for key, other in ((key, other) for key in weights for other in weights if weights[key] <= weights[other]):
        assert left[key] <= left[other] * (1 + 1e-6)


def test_a_burst_of_one_rater_is_set_aside_with_all_that_the_rater_said() -> None:
    said = [rating(f"t{n}", "bot", seconds=n) for n in range(21)] + [rating("late", "bot", seconds=9999), rating("t1", "u1", good=False)]
    found = sift(said)
    assert {reason for _, reason in reasons(found)} == {"burst"}
    assert len(found.aside) == 22
    assert [one.rating.rater for one in found.kept] == ["u1"]
    assert "more than 20 ratings of one rater within 60 s" in found.aside[0].detail
    assert reasons(sift([rating(f"t{n}", "bot", good=n % 2 == 0, seconds=n) for n in range(20)])) == []


def test_a_burst_of_a_keys_many_raters_sets_aside_what_falls_into_it() -> None:
    said = [rating(f"t{n}", f"u{n}", seconds=n / 10) for n in range(201)] + [rating("later", "u0", seconds=3600)]
    found = sift(said)
    assert len(found.aside) == 201
    assert [one.rating.turn_id for one in found.kept] == ["later"]


def test_replaced_ratings_still_tell_of_a_burst() -> None:
    said = [rating("t1", "bot", stars=1 + n % 5, seconds=n) for n in range(25)]
    assert [one.reason for one in sift(said).aside] == ["burst"]


def test_experts_who_were_imported_at_once_are_no_burst() -> None:
    said = [rating(f"t{n}", "ann", owner="import", role="expert", good=n % 3 > 0) for n in range(500)]
    assert sift(said).aside == ()


def test_a_key_cant_bring_a_crowd_to_one_answer() -> None:
    found = sift([rating("t1", f"u{n}", seconds=60 * n) for n in range(10)])
    assert reasons(found) == [(f"u{n}", "crowd") for n in range(3, 10)]


def test_who_changes_back_and_forth_is_set_aside_there_and_one_change_of_mind_isnt() -> None:
    said = paced([("t1", "a", True), ("t1", "a", False), ("t1", "a", True), ("t2", "a", True), ("t2", "a", False)])
    found = sift(said)
    assert [(one.rating.turn_id, one.reason) for one in found.aside] == [("t1", "contradictory")]
    assert [(one.rating.turn_id, one.rating.good) for one in found.kept] == [("t2", False)]


def test_rankings_both_ways_are_set_aside() -> None:
    said = [rating("t1", ranking=("t1", "t2", "t3")), rating("t2", ranking=("t2", "t1"), seconds=60),
            rating("t3", ranking=("t3", "t4"), seconds=120)]
    assert [(one.rating.turn_id, one.reason) for one in sift(said).aside] == [("t1", "contradictory"), ("t2", "contradictory")]


def test_a_rater_who_rates_everything_alike_is_set_aside_where_others_differ() -> None:
    others = [(f"t{n}", f"u{n % 4}", n % 2 == 0) for n in range(40)]
    alike = [(f"t{n}", "alike", True) for n in range(12)]
    found = sift(paced([*others, *alike]), SiftConfig(crowd=9))
    assert {one for one in reasons(found) if one[0] == "alike"} == {("alike", "alike")}
    assert "all 12 ratings are Good" in next(one.detail for one in found.aside if one.rating.rater == "alike")


def test_a_content_rater_among_content_raters_isnt_alike() -> None:
    """Where 19 in 20 answers please the others, twelve thumbs up are nothing."""
    others = [(f"t{n}", f"u{n % 4}", n % 20 != 7) for n in range(200)]
    found = sift(paced([*others, *((f"t{n}", "happy", True) for n in range(12))]), SiftConfig(crowd=9))
    assert ("happy", "alike") not in reasons(found)


@pytest.mark.parametrize("method", METHODS)
def test_who_rates_everything_alike_moves_no_consensus(method: Method) -> None:
    random = Random(1)
    honest = [(f"t{n}", f"u{k}", random.random() < (0.9 if n % 5 < 3 else 0.15)) for n in range(60) for k in range(3)]
    said = paced([*honest, *((f"t{n}", "alike", True) for n in range(60))])
    config = SiftConfig(crowd=9)
    with_it, without = (consensus(votes_of(sift(ratings, config).kept), method) for ratings in (said, said[: len(honest)]))
    assert with_it == without


def test_nothing_said_is_nothing_sifted() -> None:
    assert sift(()) == Sifted((), ())


ANSWERS = {name: RatedAnswer(name, "Late  fee?" if name == "a" else "late fee?", ("The fee is ₹450.",), text)
           for name, text in (("a", "₹450"), ("b", "₹500"), ("c", "I don't know"), ("same", "₹450"))}
ANSWERS["other"] = RatedAnswer("other", "lost card?", (), "Block it.")


def test_a_ranking_gives_all_its_pairs_with_margins_of_the_first() -> None:
    pairs = ranked_pairs([rating("a", ranking=("a", "b", "c"), strength="slightly")], ANSWERS.get)
    assert [(pair.chosen.turn_id, pair.rejected.turn_id, pair.margin) for pair in pairs] == [
        ("a", "b", pytest.approx(1 / 3)), ("a", "c", pytest.approx(1 / 3)), ("b", "c", None)]
    first, _, last = (pair.record for pair in pairs)
    assert {**first, "group": ""} == {"group": "", "prompt": "Late  fee?", "context": ["The fee is ₹450."], "chosen": "₹450",
                                      "rejected": "₹500", "margin": 0.3333}
    assert "margin" not in last
    assert first["group"] == last["group"]  # one question, however it was typed


@pytest.mark.parametrize(("strength", "margin"), [
    ("significantly", 1.0), ("better", 2 / 3), ("slightly", 1 / 3), ("unsure", 0.0), (None, None),
])
def test_margins_go_by_strength(strength: Any, margin: float | None) -> None:
    [pair] = ranked_pairs([rating("a", ranking=("b", "a"), strength=strength)], ANSWERS.get)
    assert pair.margin == margin


@pytest.mark.parametrize("other", ["other", "same", "erased"])
def test_what_cant_be_compared_gives_no_pair(other: str) -> None:
    assert ranked_pairs([rating("a", ranking=("a", other))], ANSWERS.get) == ()
