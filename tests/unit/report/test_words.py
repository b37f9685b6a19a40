"""Figures in words: units, intervals, unknowns, verdicts."""

from dataclasses import replace

import pytest

from report import words
from report.figures import Figure, Verdict
from tests.unit.report.made import UNKNOWN, figure, made_report


@pytest.mark.parametrize(("value", "shown"), [(0.3548, "35.5 %"), (-0.0061, "−0.6 %"), (0.0, "0.0 %"), (-0.0001, "0.0 %"), (None, "–")])
def test_a_share_is_in_per_cent(value: float | None, shown: str) -> None:
    assert words.share(value) == shown


def test_a_difference_of_shares_is_in_points_with_its_sign() -> None:
    assert [words.points(value) for value in (0.0047, -0.0091, 0.0)] == ["+0.5 points", "−0.9 points", "0.0 points"]


@pytest.mark.parametrize(("value", "shown"),
                         [(28412.3, "28,412 USD"), (44.8, "44.80 USD"), (0.2874, "0.2874 USD"), (0.000045, "0.000045 USD"),
                          (-3.0, "−3.00 USD"), (0.0, "0.00 USD"), (None, "–")])
def test_small_amounts_keep_their_digits(value: float | None, shown: str) -> None:
    assert words.money(value, "USD") == shown


def test_an_interval_says_its_unit_once_and_its_ends_have_as_many_digits() -> None:
    assert words.interval(figure(0.3548, 0.0183)) == "33.7 to 37.3 %"
    assert words.interval(Figure(-0.0101, -0.0104, -0.009796, "worse"), "money", "USD") == "−0.0104 to −0.0098 USD"
    assert words.interval(Figure(1.0)) == words.interval(UNKNOWN) == "–"
    assert words.interval(Figure(283.8, 268.6, 299.0), "count") == "269 to 299"


def test_a_report_without_turns_claims_nothing() -> None:
    assert words.saving_verdict(None) == "There is nothing to report on yet."
    assert words.certainty(None) == ("Not known", "open")


@pytest.mark.parametrize(("verdict", "said", "look"), [("better", "real saving", "good"), ("worse", "cost more", "bad"),
                                                       ("unclear", "can't be told", "open"), ("too_small", "Too few", "open")])
def test_each_verdict_of_a_saving_is_said(verdict: Verdict, said: str, look: str) -> None:
    head = made_report().against[0]
    told = replace(head, saving=replace(head.saving, verdict=verdict))
    assert said in words.saving_verdict(told)
    assert words.certainty(told)[1] == look


def test_harm_is_held_against_its_budget() -> None:
    quality = made_report().quality
    assert "within the budget of 5.0 %" in words.harm(quality)
    assert "above the budget of 4.0 %" in words.harm(replace(quality, budget=0.04))
    assert "budget" not in words.harm(replace(quality, budget=None))
    assert "aren't known" in words.harm(replace(quality, skips_judged=0))
    assert words.harm(replace(quality, skips=0)) == "No fetch was skipped."


def test_a_simpler_way_that_wins_is_said_and_the_floor_is_none() -> None:
    [said] = words.winners(made_report().alternatives, "USD")
    assert said.startswith("One FAQ in place of three: that would have saved another 4.2 % of the money.")


def test_a_comparison_shows_shares_as_shares_and_rounding_as_nothing() -> None:
    assert words.compared("saving of tokens", figure(0.31, 0.02)) == ("31.0 %", "29.0 to 33.0 %")
    assert words.compared("Good answers, share", figure(0.045, 0.028), difference=True) == ("+4.5 points", "+1.7 to +7.3 points")
    assert words.compared("tokens a turn", figure(267.25, 5.5)) == ("267", "262 to 273")
    assert words.compared("money a turn", Figure(-1.1e-16)) == ("0", "–")
    assert words.compared("tokens a turn", UNKNOWN) == ("–", "–")
