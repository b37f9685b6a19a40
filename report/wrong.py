"""The wrong answers that the gate caused, to read: skips whose answer is Bad and whose fetch would have been Good, without what tells
who asked.

Leaves out how often that happens (`quality.py`) and what is taken out of texts (`redact.py`).
"""

from datetime import UTC

from report.figures import WrongAnswer
from report.judged import BOTH_ARMS, by, judge_of
from report.redact import redact_together
from report.source import Snapshot
from report.sums import COUNTED, ReportOptions, scope

MOST_SHOWN = 20


def wrong_answers(rows: Snapshot, options: ReportOptions, limit: int = MOST_SHOWN) -> tuple[WrongAnswer, ...]:
    """The latest first; a turn that was erased meanwhile is left out. Raises: ReportOptionError as `judge_of`."""
    if (judge := judge_of(rows, options)) is None:
        return ()
    scoped = by(scope(options).and_(f"{COUNTED} AND action = 'NO_FETCH' AND fetch_good AND NOT skip_good"), judge)
    found = rows.rows(f"SELECT id, created_at, fetch_answer, skip_reason FROM {BOTH_ARMS} WHERE {scoped.where} "
                      "ORDER BY created_at DESC, sequence DESC LIMIT ?", (*scoped.params, limit))
    said = rows.texts([turn_id for turn_id, *_ in found])
    shown = []
    for turn_id, created_at, fetched, reason in found:
        if turn_id in said:
            query, answer, other, why = redact_together([said[turn_id][0], said[turn_id][1] or "", fetched or "", reason or ""])
            shown.append(WrongAnswer(turn_id, created_at.replace(tzinfo=UTC), query, answer, None if fetched is None else other, why))
    return tuple(shown)
