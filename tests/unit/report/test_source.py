"""The tables of a report: what they hold, and that they follow a log that is written, and erased from, while it is read."""

import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sqlalchemy import insert

from chat import accounting
from chat.errors import LogError
from chat.log import schema
from chat.log.erasure import erase_conversation
from chat.log.export import export_parquet, export_ratings, export_verdicts
from chat.log.ratings import Rating, record_rating
from chat.log.records import row_of
from chat.log.sessions import import_sessions
from chat.log.verdicts import LoggedVerdict, record_verdicts
from chat.types import ALWAYS_FETCH, Action, Price
from report.bench import make_turns
from report.columns import BASELINES, MAX_BLOCKS
from report.errors import SourceError
from report.source import Snapshot, TurnTable, open_log, open_parquet
from tests.unit.report.logged import BEGAN, log_of, turn

VERDICT = LoggedVerdict("t1", BEGAN, Action.NO_FETCH, "j:1", False, "wrong", answer=None)
RATING = Rating("t1", "o", "ann", "user", BEGAN, good=True)


def the_turn(table: TurnTable) -> Mapping[str, object]:
    with table.snapshot() as snapshot:
        return {name: column.tolist()[0] for name, column in snapshot.arrays("SELECT * FROM turns").items()}


def ids(table: TurnTable) -> list[str]:
    with table.snapshot() as snapshot:
        return [row[0] for row in snapshot.rows("SELECT id FROM turns ORDER BY sequence")]


def written(path: Path, row: Mapping[str, object]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row)]), path)
    return path


def test_a_turn_is_there_with_what_a_report_sums(tmp_path: Path) -> None:
    late = turn(1, paid=60, costs={"paper": 140, ALWAYS_FETCH: 100}, minutes=16 * 60 - 1)
    with log_of(tmp_path, late) as log, open_log(log, {"f1": "opening"}) as table:
        row = the_turn(table)
    assert row["created_at"] == datetime(2026, 10, 1, 23, 59)
    assert row["day"] == datetime(2026, 10, 1)
    assert row["skip_score"] == pytest.approx(1 - 0.25 - 0.5 * 0.1)
    assert (row["input_tokens"], row["cf_paper_in"], row["cf_always_fetch_in"]) == (60, 140, 100)
    assert np.isnan(row["cf_frugal_in"])  # type: ignore[call-overload]
    assert (row["input_price"], row["cached_price"], row["currency"]) == (10.0, 10.0, "USD")
    assert (row["compute_ms"], row["category"], row["block"]) == (2.0, "opening", 0)
    assert not row["background"]
    assert not row["refused"]
    assert not row["degraded"]
    assert not row["holdback"]


def test_the_baselines_are_those_that_turns_are_logged_with() -> None:
    logged = {ALWAYS_FETCH, "paper", accounting.FRUGAL, accounting.REPEATS, accounting.ONE_FAQ, accounting.NO_HISTORY_FAQS,
              accounting.NO_FAQS, accounting.WITHOUT_REWRITE}
    assert set(BASELINES) == logged


def test_an_export_holds_the_same_rows_as_its_log(tmp_path: Path) -> None:
    with log_of(tmp_path, turn(1), turn(2, "c2", price=None), turn(3, policy="holdback", degraded=("x",))) as log:
        record_verdicts(log, [VERDICT])
        record_rating(log, RATING)
        export_parquet(log, tmp_path / "t.parquet")
        export_verdicts(log, tmp_path / "v.parquet")
        export_ratings(log, tmp_path / "r.parquet")
        exports = tmp_path / "t.parquet", tmp_path / "v.parquet", tmp_path / "r.parquet"
        with open_log(log) as live, open_parquet(*exports) as exported:
            for name in ("turns", "verdicts", "ratings"):
                with live.snapshot() as one, exported.snapshot() as other:
                    query = f"SELECT * FROM {name} ORDER BY ALL"
                    assert one.rows(query) == other.rows(query) != []


def test_an_older_export_lacks_columns_and_what_they_say_is_unknown(tmp_path: Path) -> None:
    old = {"sequence": 1, "id": "t1", "owner": "o", "conversation_id": "c1", "position": 0, "created_at": BEGAN, "source": "chat",
           "action": "FETCH", "policy_version": "p1", "input_tokens": 5, "output_tokens": 1,
           "counterfactuals": '[{"baseline": "paper", "input_tokens": 9, "output_tokens": 1}, {"baseline": "new", "input_tokens": 1}]'}
    with open_parquet(written(tmp_path / "old.parquet", old)) as table:
        row = the_turn(table)
    assert (row["input_tokens"], row["cf_paper_in"], row["cf_paper_out"]) == (5, 9, 1)
    assert np.isnan(row["cf_always_fetch_in"])  # type: ignore[call-overload]
    assert not row["background"]
    assert not row["refused"]


def test_a_file_that_is_no_export_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="none named sequence, owner"):
        open_parquet(written(tmp_path / "other.parquet", {"id": "t1"}))
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(SourceError, match="expected tables as the log exports them"):
        open_parquet(tmp_path / "text.parquet")
    with pytest.raises(SourceError, match="expected a Parquet file, got none"):
        open_parquet(tmp_path / "nothing.parquet")


def test_a_refresh_reads_what_came_since(tmp_path: Path) -> None:
    with log_of(tmp_path, turn(1)) as log, open_log(log) as table:
        assert not table.refresh()
        log.append(turn(2, "c0"))
        assert table.refresh()
        assert ids(table) == ["t1", "t2"]
        with table.snapshot() as snapshot:  # blocks are numbered anew, by owner and id
            assert snapshot.rows("SELECT conversation_id, block FROM turns ORDER BY block") == [("c0", 0), ("c1", 1)]


def test_the_latest_word_of_a_judge_and_of_a_rater_counts(tmp_path: Path) -> None:
    with log_of(tmp_path, turn(1)) as log, open_log(log) as table:
        record_verdicts(log, [VERDICT, LoggedVerdict("t1", BEGAN, Action.FETCH, "j:1", True, "right")])
        record_rating(log, RATING)
        table.refresh()
        record_verdicts(log, [LoggedVerdict("t1", BEGAN, Action.NO_FETCH, "j:1", True, "on second thoughts")])
        record_rating(log, Rating("t1", "o", "ann", "user", BEGAN, good=False))
        assert table.refresh()
        with table.snapshot() as snapshot:
            assert snapshot.rows("SELECT arm, good FROM verdicts ORDER BY arm") == [("FETCH", True), ("NO_FETCH", True)]
            assert snapshot.rows("SELECT rater, good FROM ratings") == [("ann", False)]


def test_what_was_erased_is_gone_after_a_refresh(tmp_path: Path) -> None:
    with log_of(tmp_path, turn(1), turn(2, "c2"), turn(3)) as log, open_log(log) as table:
        record_verdicts(log, [VERDICT])
        table.refresh()
        assert erase_conversation(log, "o", "c1")
        assert table.refresh()
        assert ids(table) == ["t2"]
        with table.snapshot() as snapshot:
            assert snapshot.rows("SELECT * FROM verdicts") == []
        assert not table.refresh()


def test_a_turn_that_is_stored_late_under_an_earlier_number_is_not_missed(tmp_path: Path) -> None:
    """As when two processes write to PostgreSQL, and the one that drew the smaller number commits last."""
    with log_of(tmp_path, turn(1)) as log, open_log(log) as table:
        for number, sequence in ((3, 9), (2, 5)):
            with log.writing("storing out of order") as connection:
                connection.execute(insert(schema.turns).values(**row_of(turn(number)), sequence=sequence, position=number))
            assert table.refresh()
        assert ids(table) == ["t1", "t2", "t3"]


def test_a_snapshot_stays_as_it_is_while_the_table_is_refreshed(tmp_path: Path) -> None:
    with log_of(tmp_path, turn(1)) as log, open_log(log) as table:
        with table.snapshot() as before:
            assert before.rows("SELECT count(*) FROM turns") == [(1,)]
            log.append(turn(2))
            table.refresh()
            assert before.rows("SELECT count(*) FROM turns") == [(1,)]
        assert ids(table) == ["t1", "t2"]


def test_a_log_that_is_written_while_it_is_read_loses_nothing(tmp_path: Path) -> None:
    with log_of(tmp_path) as log, open_log(log) as table:
        def write() -> None:
            for number in range(60):
                log.append(turn(number, f"c{number % 5}"))

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            table.refresh()
            seen = ids(table)
            assert seen == [f"t{number}" for number in range(len(seen))]
        writer.join()
        table.refresh()
        assert len(ids(table)) == 60


def test_a_read_that_fails_leaves_the_tables_as_they_were(tmp_path: Path) -> None:
    with log_of(tmp_path, turn(1)) as log, open_log(log) as table:
        log.append(turn(2))
        log.close()
        with pytest.raises(LogError):
            table.refresh()
        assert ids(table) == ["t1"]


def test_many_conversations_share_blocks_and_each_stays_whole(tmp_path: Path) -> None:
    make_turns(tmp_path / "many.parquet", 4 * (MAX_BLOCKS + 900))
    with open_parquet(tmp_path / "many.parquet") as table, table.snapshot() as snapshot:
        blocks, spread = snapshot.rows("SELECT count(DISTINCT block), max(block) - min(block) FROM turns")[0]
        assert MAX_BLOCKS * 0.6 < blocks <= MAX_BLOCKS
        assert spread < MAX_BLOCKS
        assert snapshot.rows("SELECT max(n) FROM (SELECT count(DISTINCT block) AS n FROM turns GROUP BY owner, conversation_id)") == [(1,)]


def test_imported_sessions_are_counted_and_are_no_turns(tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").write_text('{"id": "s1", "turns": [{"query": "a", "gold": [], "kind": "faq"}]}\n')
    with log_of(tmp_path, turn(1)) as log:
        import_sessions(log, [tmp_path / "sessions.jsonl"])
        with open_log(log) as table, table.snapshot() as snapshot:
            assert snapshot.imported == 1
            assert snapshot.rows("SELECT id FROM turns") == [("t1",)]


def test_texts_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    with log_of(tmp_path, turn(1, query="<b>where?</b>"), turn(2)) as log:
        export_parquet(log, tmp_path / "t.parquet")
        with open_log(log) as live, open_parquet(tmp_path / "t.parquet") as exported:
            for table in (live, exported):
                with table.snapshot() as snapshot:
                    assert snapshot.texts(["t1", "gone"]) == {"t1": ("<b>where?</b>", "!")}
                    assert snapshot.texts([]) == {}


def test_nothing_is_left_of_a_table_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with log_of(tmp_path, turn(1)) as log:
        export_parquet(log, tmp_path / "t.parquet")
    with open_parquet(tmp_path / "t.parquet"):
        assert [*(tmp_path / "temporary").iterdir()]
    assert not [*(tmp_path / "temporary").iterdir()]
    with pytest.raises(SourceError):
        open_parquet(written(tmp_path / "other.parquet", {"id": "t1"}))
    assert not [*(tmp_path / "temporary").iterdir()]


def test_a_query_that_fails_is_told_in_words(tmp_path: Path) -> None:
    with log_of(tmp_path) as log, open_log(log) as table, table.snapshot() as snapshot:
        assert isinstance(snapshot, Snapshot)
        with pytest.raises(SourceError, match="reading the turns of a report"):
            snapshot.rows("SELECT nothing FROM turns")


def test_prices_that_say_nothing_of_cached_input_take_it_as_other_input(tmp_path: Path) -> None:
    cheaper = Price(10.0, 2.5, 20.0, "USD", "x")
    with log_of(tmp_path, turn(1, price=cheaper)) as log, open_log(log) as table:
        assert the_turn(table)["cached_price"] == 2.5


def test_days_are_those_of_utc(tmp_path: Path) -> None:
    with log_of(tmp_path, turn(1, minutes=16 * 60)) as log, open_log(log) as table, table.snapshot() as snapshot:
        assert snapshot.rows("SELECT day, created_at FROM turns") == [(date(2026, 10, 2), datetime(2026, 10, 2))]
        assert BEGAN.tzinfo is UTC
