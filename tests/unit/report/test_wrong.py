"""The wrong answers that the gate caused."""

from pathlib import Path

from report.sums import ReportOptions
from report.wrong import wrong_answers
from tests.unit.report.judged_log import both, opened, turn, verdict


def test_they_are_the_harmful_skips_the_latest_first_without_who_asked(tmp_path: Path) -> None:
    turns = [turn("a", 0, "NO_FETCH", minutes=1, query="I am John Smith, jo@example.com", answer="Dear John, <b>no</b>."),
             turn("a", 1, "NO_FETCH", minutes=3), turn("a", 2, "NO_FETCH", minutes=2), turn("b", 0, "FETCH", minutes=4)]
    verdicts = [verdict("a-0", "FETCH", True, tokens=(90, 9), answer="Yes, John."),
                verdict("a-0", "NO_FETCH", False, reason="It says John."),
                *both("a-1", fetch=True, skip=False), *both("a-2", fetch=False, skip=False), *both("b-0", fetch=True, skip=False)]
    with opened(tmp_path, turns, verdicts) as table, table.snapshot() as rows:
        later, earlier = wrong_answers(rows, ReportOptions())
        assert wrong_answers(rows, ReportOptions(), limit=1) == (later,)
    assert (later.turn_id, later.fetched_answer) == ("a-1", None)
    assert (earlier.turn_id, earlier.created_at.isoformat()) == ("a-0", "2026-10-01T08:01:00+00:00")
    assert (earlier.query, earlier.answer) == ("I am [name], [e-mail]", "Dear [name], <b>no</b>.")
    assert (earlier.fetched_answer, earlier.reason) == ("Yes, [name].", "It says [name].")


def test_without_a_judge_there_are_none(tmp_path: Path) -> None:
    with opened(tmp_path, [turn("a", 0, "NO_FETCH")]) as table, table.snapshot() as rows:
        assert wrong_answers(rows, ReportOptions()) == ()
