"""Saving and harm over the skip threshold."""

from pathlib import Path

import numpy as np
import pytest

from report.curve import curve, thresholds
from report.figures import Curve
from report.sums import ReportOptions
from tests.unit.report.judged_log import Row, opened, turn, verdict

FEW = ReportOptions(resamples=200)


def drawn(folder: Path, turns: list[Row], verdicts: list[Row]) -> Curve | None:
    with opened(folder, turns, verdicts) as table, table.snapshot() as rows:
        return curve(rows, FEW)


def arms(turn_id: str, taken: str, *, fetch: bool | None, skip: bool | None, other: tuple[int, int]) -> list[Row]:
    """Words on both arms, with the tokens of the one that wasn't taken."""
    return [verdict(turn_id, arm, good, tokens=None if arm == taken else other) for arm, good in (("FETCH", fetch), ("NO_FETCH", skip))]


def test_each_point_is_what_its_threshold_would_have_done(tmp_path: Path) -> None:
    turns = [turn("a", 0, "NO_FETCH", (40, 10), score=0.9), turn("a", 1, "NO_FETCH", (50, 10), score=0.7),
             turn("b", 0, "FETCH", (110, 10), score=0.5), turn("b", 1, "FETCH", (100, 10), score=0.3)]
    verdicts = [*arms("a-0", "NO_FETCH", fetch=True, skip=True, other=(140, 10)),
                *arms("a-1", "NO_FETCH", fetch=True, skip=False, other=(90, 10)),
                *arms("b-0", "FETCH", fetch=True, skip=True, other=(60, 10)),
                *arms("b-1", "FETCH", fetch=False, skip=False, other=(40, 10))]
    found = drawn(tmp_path, turns, verdicts)
    assert found is not None
    assert found.turns == 4
    assert [point.threshold for point in found.points] == pytest.approx([1.0, 0.9, 0.7, 0.5, 0.3])
    assert [point.skip_rate for point in found.points] == [0, 0.25, 0.5, 0.75, 1]
    always = 150 + 100 + 120 + 110
    costs = [always, 50 + 100 + 120 + 110, 50 + 60 + 120 + 110, 50 + 60 + 70 + 110, 50 + 60 + 70 + 50]
    assert [point.saving.value for point in found.points] == pytest.approx([1 - cost / always for cost in costs])
    assert [point.harmful.value for point in found.points] == [0, 0, 0.25, 0.25, 0.25]
    assert [point.accuracy for point in found.points] == [0.75, 0.75, 0.5, 0.5, 0.5]
    assert found.operating == found.points[2]


def test_what_the_policy_did_is_shown_though_no_threshold_does_it(tmp_path: Path) -> None:
    """Exploration, or another policy's threshold."""
    turns = [turn("a", 0, "NO_FETCH", (40, 10), score=0.2), turn("b", 0, "FETCH", (110, 10), score=0.8)]
    verdicts = [*arms("a-0", "NO_FETCH", fetch=True, skip=False, other=(140, 10)),
                *arms("b-0", "FETCH", fetch=True, skip=True, other=(60, 10))]
    found = drawn(tmp_path, turns, verdicts)
    assert found is not None
    assert found.operating is not None
    assert found.operating.threshold == pytest.approx(0.2)
    assert (found.operating.skip_rate, found.operating.accuracy) == (0.5, 0.5)
    assert found.operating.saving.value == pytest.approx(1 - 170 / 270)
    assert found.operating not in found.points


def test_a_call_that_rewrote_the_query_is_in_neither_arm(tmp_path: Path) -> None:
    turns = [turn("a", 0, "NO_FETCH", (70, 15), score=0.9, costs={"without_rewrite": (40, 10)})]
    found = drawn(tmp_path, turns, arms("a-0", "NO_FETCH", fetch=True, skip=True, other=(90, 10)))
    assert found is not None
    assert found.points[-1].saving.value == pytest.approx(0.5)


def test_a_turn_counts_only_with_a_verdict_and_tokens_of_both_arms(tmp_path: Path) -> None:
    turns = [turn("a", n, "NO_FETCH", score=0.9) for n in range(4)] + [turn("a", 4, "STATIC"), turn("h", policy="holdback")]
    verdicts = [*arms("a-0", "NO_FETCH", fetch=None, skip=True, other=(9, 9)),
                *arms("a-1", "NO_FETCH", fetch=True, skip=None, other=(9, 9)),
                verdict("a-2", "FETCH", True), verdict("a-2", "NO_FETCH", True), verdict("a-3", "NO_FETCH", True),
                *arms("h-0", "FETCH", fetch=True, skip=True, other=(9, 9))]
    assert drawn(tmp_path, turns, verdicts) is None


def test_where_nothing_was_skipped_today_is_the_first_point(tmp_path: Path) -> None:
    found = drawn(tmp_path, [turn("a", score=0.4)], arms("a-0", "FETCH", fetch=True, skip=True, other=(50, 10)))
    assert found is not None
    assert found.operating == found.points[0]
    assert found.points[0].skip_rate == 0


def test_thresholds_go_from_none_skipped_to_all_and_are_few() -> None:
    many = thresholds(np.random.default_rng(0).random(5000))
    assert len(many) <= 41
    assert many[0] == 1.0
    assert list(many) == sorted(set(many), reverse=True)
    skipped = [int((np.random.default_rng(0).random(5000) >= level).sum()) for level in many]
    assert skipped[0] == 0
    assert skipped[-1] == 5000
    assert max(np.diff(skipped)) <= 130
    assert thresholds(np.array([1.0, 0.5, 0.5])) == (1.0, 0.5)
