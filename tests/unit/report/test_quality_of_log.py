"""Quality from a live log: its words are those of the log's own readers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete

from chat.log.schema import conversations
from chat.log.store import SqlConversationLog
from chat.log.verdicts import both_arms
from evaluation.certify import Skips, harm_bound
from evaluation.stats import resampled
from report.curve import curve
from report.quality import guardrail
from report.source import open_log
from report.sums import ReportOptions
from report.wrong import wrong_answers
from tests.unit.report.filled import fill

OPTIONS = ReportOptions(resamples=500)


@pytest.fixture
def filled_log(tmp_path: Path) -> Iterator[SqlConversationLog]:
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        fill(log)
        yield log


def test_harm_is_that_of_the_logs_own_pairs_and_the_wrong_answer_can_be_read(filled_log: SqlConversationLog) -> None:
    with open_log(filled_log) as table, table.snapshot() as rows:
        found, wrong, over = guardrail(rows, OPTIONS), wrong_answers(rows, OPTIONS), curve(rows, OPTIONS)
    pairs = both_arms(filled_log, "llm:test")
    harms = np.array([float(bool(pair.fetch) and not pair.skip) for pair in pairs])
    skips = Skips(np.arange(len(pairs)), np.zeros(len(pairs), dtype=np.int64), harms)
    bound = harm_bound(skips, resampled(len(pairs), resamples=500))
    assert (found.skips, found.skips_judged, found.harmful_skips) == (36, 36, 1)
    assert found.harmful_share == bound.value == pytest.approx(1 / 36)
    assert found.harmful_upper_turns == bound.upper_turn
    assert found.harmful_upper == pytest.approx(bound.upper_conversation, abs=0.03), "which resample drew what depends on the order"
    assert {rate.group: (rate.judged, rate.good) for rate in found.rates} == {
        "FETCH": (72, 72), "NO_FETCH": (36, 35), "policy": (108, 107), "holdback": (12, 12)}
    assert found.verdict == "too_small"
    assert [one.turn_id for one in wrong] == ["turn-1-1"]
    assert wrong[0].query.startswith("I am [name], <script>")
    assert "asha" not in wrong[0].query.casefold()
    assert over is not None
    assert (over.turns, over.operating) == (36, over.points[-1])


def test_what_was_erased_is_in_no_figure(filled_log: SqlConversationLog) -> None:
    with open_log(filled_log) as table:
        with filled_log.writing("erasing") as connection:
            connection.execute(delete(conversations).where(conversations.c.id == "conversation-1"))
        table.refresh()
        with table.snapshot() as rows:
            found = guardrail(rows, OPTIONS)
            assert wrong_answers(rows, OPTIONS) == ()
    assert (found.skips, found.skips_judged, found.harmful_skips) == (35, 35, 0)
