"""Whether answers got worse: by hand on small logs."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from report.errors import ReportOptionError
from report.figures import Figure, Guardrail
from report.quality import guardrail, quality_verdict
from report.sums import ReportOptions
from tests.unit.report.judged_log import JUDGE, Row, both, opened, rating, turn, verdict

FEW = ReportOptions(resamples=400)


def guarded(folder: Path, turns: Sequence[Row], verdicts: Sequence[Row] = (), ratings: Sequence[Row] = (),
            options: ReportOptions = FEW) -> Guardrail:
    with opened(folder, turns, verdicts, ratings) as table, table.snapshot() as rows:
        return guardrail(rows, options)


def test_good_rates_are_of_the_answers_that_went_out(tmp_path: Path) -> None:
    turns = [turn("a"), turn("a", 1, "NO_FETCH"), turn("b", 0, "STATIC", policy="static"), turn("h", policy="holdback"),
             turn("x", background=True), turn("y", refusal="{}"), turn("z", input_tokens=None)]
    verdicts = [verdict("a-0", "FETCH", True), verdict("a-0", "NO_FETCH", False), verdict("a-1", "NO_FETCH", False),
                verdict("b-0", "STATIC", True), verdict("h-0", "FETCH", True),
                *(verdict(f"{name}-0", "FETCH", False) for name in "xyz")]
    found = guarded(tmp_path, turns, verdicts)
    assert {rate.group: (rate.judged, rate.good) for rate in found.rates} == {
        "FETCH": (1, 1), "NO_FETCH": (1, 0), "STATIC": (1, 1), "policy": (3, 2), "holdback": (1, 1)}
    assert found.judge == JUDGE
    assert (found.holdback_conversations, found.holdback_turns) == (1, 1)
    assert found.difference.value == pytest.approx(2 / 3 - 1)
    assert found.verdict == "too_small"


def test_a_missing_verdict_is_neither_good_nor_bad(tmp_path: Path) -> None:
    found = guarded(tmp_path, [turn("a"), turn("a", 1)], [verdict("a-0", "FETCH", None), verdict("a-1", "FETCH", True)])
    assert {(rate.group, rate.judged, rate.good) for rate in found.rates} == {("FETCH", 1, 1), ("policy", 1, 1)}


def test_peoples_word_is_that_of_most_raters(tmp_path: Path) -> None:
    ratings = [rating("a-0", "x", stars=5), rating("a-0", "y", good=True), rating("a-0", "z", stars=1), rating("a-1", "x", stars=2),
               rating("b-0", "x", stars=3), rating("c-0", "x", good=True), rating("c-0", "y", good=False)]
    found = guarded(tmp_path, [turn("a"), turn("a", 1), turn("b"), turn("c")], ratings=ratings)
    assert {(rate.group, rate.source, rate.judged, rate.good) for rate in found.rates} == {
        ("FETCH", "people", 2, 1), ("policy", "people", 2, 1)}
    assert (found.judge, found.verdict) == (None, "unknown")


def test_harm_is_a_bad_skip_whose_fetch_would_have_been_good(tmp_path: Path) -> None:
    turns = [turn("a", n, "NO_FETCH") for n in range(6)] + [turn("b", 0, "FETCH")]
    verdicts = [*both("a-0", fetch=True, skip=False), *both("a-1", fetch=False, skip=False), *both("a-2", fetch=True, skip=True),
                *both("a-3", fetch=None, skip=False), verdict("a-4", "NO_FETCH", False), *both("b-0", fetch=True, skip=False)]
    found = guarded(tmp_path, turns, verdicts, options=ReportOptions(resamples=400, budget=0.05))
    assert (found.skips, found.skips_judged, found.harmful_skips, found.budget) == (6, 4, 1, 0.05)
    assert found.harmful_share == pytest.approx(1 / 3)
    assert found.harmful_upper is not None
    assert found.harmful_upper >= 0.95, "one conversation is next to nothing, and a missing verdict counts as harm"
    assert found.harmful_upper_turns is not None
    assert 0.5 < found.harmful_upper_turns < 1


def test_no_harm_in_many_conversations_is_bounded_as_exactly(tmp_path: Path) -> None:
    turns = [turn(f"c{n}", position, "NO_FETCH") for n in range(60) for position in range(2)]
    verdicts = [word for row in turns for word in both(str(row["id"]), fetch=True, skip=True)]
    found = guarded(tmp_path, turns, verdicts)
    assert (found.harmful_skips, found.harmful_share) == (0, 0.0)
    assert found.harmful_upper == pytest.approx(1 - 0.05 ** (1 / 60))
    assert found.harmful_upper_turns == pytest.approx(1 - 0.05 ** (1 / 120))


def test_nothing_judged_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    found = guarded(tmp_path, [turn("a", 0, "NO_FETCH")])
    assert (found.skips, found.skips_judged, found.harmful_skips) == (1, 0, 0)
    assert found.harmful_share is found.harmful_upper is found.harmful_upper_turns is None
    assert (found.rates, found.saving_against_holdback, found.verdict) == ((), Figure(None), "unknown")


def test_the_saving_against_the_holdback_is_of_tokens_a_turn(tmp_path: Path) -> None:
    turns = [turn(f"p{n}", position, tokens=(60 + n % 3, 10)) for n in range(40) for position in range(2)]
    turns += [turn(f"h{n}", tokens=(140, 10), policy="holdback") for n in range(35)]
    found = guarded(tmp_path, turns).saving_against_holdback
    mean = sum(70 + n % 3 for n in range(40)) / 40
    assert found.value == pytest.approx(1 - mean / 150)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 - mean / 150 < found.high
    assert found.verdict == "better"


def test_a_policy_is_compared_with_the_whole_holdback(tmp_path: Path) -> None:
    turns = [turn("a", policy="p1"), turn("b", policy="p2"), turn("h", policy="holdback"), turn("g", owner="other", policy="holdback")]
    verdicts = [verdict(str(row["id"]), "FETCH", row["policy_version"] != "p2") for row in turns]
    found = guarded(tmp_path, turns, verdicts, options=ReportOptions(resamples=400, policy="p1", owner="o"))
    assert {(rate.group, rate.judged, rate.good) for rate in found.rates} == {("FETCH", 1, 1), ("policy", 1, 1), ("holdback", 1, 1)}
    assert found.holdback_turns == 1


def test_the_judge_is_the_one_asked_for_or_the_one_with_most_verdicts(tmp_path: Path) -> None:
    verdicts = [verdict("a-0", "FETCH", True, judge="llm:gpt"), verdict("a-0", "FETCH", False, judge="local:1"),
                verdict("a-1", "FETCH", False, judge="local:1")]
    with opened(tmp_path, [turn("a"), turn("a", 1)], verdicts) as table, table.snapshot() as rows:
        assert guardrail(rows, FEW).judge == "local:1"
        assert guardrail(rows, ReportOptions(resamples=400, judge="llm")).judge == "llm:gpt"
        with pytest.raises(ReportOptionError, match="got 'nobody'; there are those of llm:gpt, local:1"):
            guardrail(rows, ReportOptions(resamples=400, judge="nobody"))


@pytest.mark.parametrize(("figure", "said"), [
    (Figure(None), "unknown"), (Figure(0.0, None, None), "unknown"), (Figure(-0.3, -0.5, -0.1, "too_small"), "too_small"),
    (Figure(0.0, -0.009, 0.009, "unclear"), "kept"), (Figure(-0.005, -0.009, -0.001, "worse"), "kept"),
    (Figure(-0.03, -0.05, -0.001, "worse"), "worse"), (Figure(0.0, -0.05, 0.05, "unclear"), "unclear"),
])
def test_quality_is_kept_when_no_more_than_the_margin_can_be_lost(figure: Figure, said: str) -> None:
    assert quality_verdict(figure, 0.01) == said


def test_a_planted_loss_is_seen_and_none_is_not(tmp_path: Path) -> None:
    turns = [turn(f"p{n}") for n in range(400)] + [turn(f"h{n}", policy="holdback") for n in range(400)]
    (tmp_path / "lost").mkdir()
    worse = [verdict(str(row["id"]), "FETCH", n % 8 != 0 if n < 400 else n % 40 != 0) for n, row in enumerate(turns)]
    alike = [verdict(str(row["id"]), "FETCH", n % 40 != 0) for n, row in enumerate(turns)]
    lost = guarded(tmp_path / "lost", turns, worse)
    assert lost.verdict == "worse"
    assert lost.difference.value == pytest.approx(0.875 - 0.975)
    same = guarded(tmp_path, turns, alike, options=ReportOptions(resamples=400, margin=0.03))
    assert (same.verdict, same.difference.value) == ("kept", 0.0)


def test_with_more_conversations_than_blocks_a_block_is_a_trial(tmp_path: Path) -> None:
    turns = [turn(f"c{n}", 0, "NO_FETCH") for n in range(4200)]
    verdicts = [word for row in turns for word in both(str(row["id"]), fetch=True, skip=True)]
    with opened(tmp_path, turns, verdicts) as table, table.snapshot() as rows:
        found = guardrail(rows, ReportOptions(resamples=100))
        blocks = rows.rows("SELECT count(DISTINCT block) FROM turns")[0][0]
    assert (found.skips_judged, found.harmful_skips) == (4200, 0)
    assert blocks < 4096
    assert found.harmful_upper == pytest.approx(1 - 0.05 ** (1 / blocks))
    assert found.harmful_upper_turns == pytest.approx(1 - 0.05 ** (1 / 4200))
