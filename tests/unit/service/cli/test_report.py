"""`fetchgate report`: the same figures on the terminal, as JSON and as files; comparisons; prices; misuse that says what would do."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chat.log.export import export_parquet
from chat.log.store import SqlConversationLog
from service.cli.main import app
from tests.unit.report.filled import fill
from tests.unit.report.made import HOSTILE


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.db"
    with SqlConversationLog(str(path)) as log:
        fill(log)
    return path


def report(*arguments: object) -> Result:
    """Runs the command; intervals are coarse, as no test here is about them."""
    if arguments[0] != "prices":
        arguments = (*arguments, "--resamples", 100)
    return CliRunner().invoke(app, ["report", *map(str, arguments)], env={"COLUMNS": "140"})


def test_the_terminal_shows_saving_interval_and_quality(db: Path) -> None:
    done = report("savings", "--db", db)
    assert done.exit_code == 0, done.stderr
    assert "saved against frugal" in done.stdout
    assert "39.4 %" in done.stdout
    assert "A real saving" in done.stdout
    assert "harmful skips" in done.stdout


def test_json_and_files_hold_the_same_report(db: Path, tmp_path: Path) -> None:
    done = report("savings", "--db", db, "--json", "--out", tmp_path / "report.json", "--month", 1000, "--policy", "gate:1")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == done.stdout
    found = json.loads(done.stdout)
    assert (found["scope"]["turns"], found["scope"]["policy"], found["forecast"]["turns_a_month"]) == (60, "gate:1", 1000)


def test_the_page_of_a_log_escapes_what_people_wrote(db: Path, tmp_path: Path) -> None:
    done = report("savings", "--db", db, "--out", tmp_path / "report.html")
    assert done.exit_code == 0, done.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert HOSTILE not in page
    assert "Asha" not in page


def test_an_export_gives_the_figures_of_its_log(db: Path, tmp_path: Path) -> None:
    with SqlConversationLog(str(db)) as log:
        export_parquet(log, tmp_path / "turns.parquet")
    live, exported = (json.loads(report("savings", *source, "--json").stdout)
                      for source in (("--db", db), ("--turns", tmp_path / "turns.parquet")))
    assert live["against"] == exported["against"]
    assert live["parts"] == exported["parts"]


def test_prices_of_ones_own_reprice_and_rates_change_the_currency(db: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"version": "mine", "currency": "EUR", "models": {"scripted": {"input": 1, "output": 1}}}', encoding="utf-8")
    own = json.loads(report("savings", "--db", db, "--prices", prices, "--json").stdout)["money"]
    assert own["currency"] == "EUR"
    assert own["price_versions"] == ["own"]
    paid = [json.loads(report("savings", "--db", db, *more, "--json").stdout)["money"]["actual"]
            for more in ((), ("--currency", "EUR", "--rate", "USD=0.5"))]
    assert paid[1] == pytest.approx(paid[0] / 2)


def test_topics_come_from_the_faqs_that_are_given(db: Path, tmp_path: Path) -> None:
    (tmp_path / "faqs.jsonl").write_text('{"id": "fee-late", "question": "Late fee?", "answer": "450.", "category": "fees"}\n', "utf-8")
    found = json.loads(report("savings", "--db", db, "--kb", tmp_path / "faqs.jsonl", "--category", "fees", "--json").stdout)
    assert [(cut["group"], cut["turns"]) for cut in found["by_category"]] == [("fees", 108)]
    assert "cached_prefix" in [one["name"] for one in found["alternatives"]]


def test_two_policies_are_compared_as_json_and_as_a_page(db: Path, tmp_path: Path) -> None:
    done = report("compare", "policy:gate:0", "policy:gate:1", "--db", db, "--json", "--out", tmp_path / "c.html")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["a"]["policy"], found["b"]["policy"]) == ("gate:0", "gate:1")
    assert (found["a"]["turns"], found["b"]["turns"]) == (48, 60)
    assert found["figures"]
    assert "Token savings compared" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_two_periods_are_compared_on_the_terminal(db: Path) -> None:
    done = report("compare", "2026-10-01..2026-10-02", "2026-10-03..2026-10-04", "--db", db)
    assert done.exit_code == 0, done.stderr
    assert "B less A" in done.stdout
    assert "may be the traffic" in done.stderr


def test_the_price_table_is_shown_with_its_date_and_what_it_lacks(db: Path) -> None:
    done = report("prices", "--db", db)
    assert done.exit_code == 0, done.stderr
    for said in ("gpt-4o-mini", "USD per million tokens", "list prices", "no price: scripted"):
        assert said in done.stdout
    assert json.loads(report("prices", "--json").stdout)["unknown_models"] == []


@pytest.mark.parametrize(("arguments", "said"), [
    (("savings", "--from", "october"), "expected a day like 2026-10-01"),
    (("savings", "--from", "2026-10-02", "--to", "2026-09-02"), "expected a time after"),
    (("savings", "--rate", "USD"), "expected a rate like USD=0.92"),
    (("savings", "--verdicts", "v.parquet"), "expected --turns beside"),
    (("savings", "--turns", "nowhere.parquet"), "expected a Parquet file"),
    (("savings", "--out", "report.pdf"), "expected a file ending in .html"),
    (("savings", "--price-as", "gpt-99"), "expected a model of the price table"),
    (("compare", "october", "november"), "expected `policy:VERSION`"),
])
def test_misuse_says_what_would_do(db: Path, arguments: tuple[str, ...], said: str) -> None:
    done = report(*arguments, *(() if "--turns" in arguments else ("--db", db)))
    assert done.exit_code in (1, 2)
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_an_empty_log_has_a_report(db: Path, tmp_path: Path) -> None:
    with SqlConversationLog(str(tmp_path / "empty.db")):
        pass
    done = report("savings", "--db", tmp_path / "empty.db", "--out", tmp_path / "empty.html")
    assert done.exit_code == 0, done.stderr
    assert "There is nothing to report on yet" in (tmp_path / "empty.html").read_text(encoding="utf-8")


def test_a_log_can_be_copied_and_gives_the_same_bytes(db: Path, tmp_path: Path) -> None:
    shutil.copy(db, tmp_path / "copy.db")
    tables = []
    for path in (db, tmp_path / "copy.db"):
        assert report("savings", "--db", path, "--out", tmp_path / "r.csv").exit_code == 0
        tables.append([line for line in (tmp_path / "r.csv").read_text(encoding="utf-8").splitlines() if not line.startswith("made_at")])
    assert tables[0] == tables[1]
