"""`fetchgate log label`, as it is typed: on imported sessions with the embedded answerer, and with an LLM judge over HTTP."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chat.log.store import SqlConversationLog
from chat.log.verdicts import latest_verdicts
from chat.types import Action
from service.cli.main import app
from tests.unit.chat.llm.raw_server import Request, raw_server

FAQS = [
    {"id": "pay", "question": "How do I pay my bill?", "answer": "By card or bank transfer."},
    {"id": "refund", "question": "How do I get a refund?", "answer": "Ask within 30 days."},
    {"id": "hours", "question": "When are you open?", "answer": "Nine to five on weekdays."},
]
SESSIONS: list[dict[str, Any]] = [
    {"id": "one", "turns": [{"query": "How do I pay my bill?", "gold": ["pay"], "kind": "faq"},
                            {"query": "thanks", "gold": [], "kind": "smalltalk"},
                            {"query": "How do I get a refund?", "gold": ["refund"], "kind": "faq"}]},
    {"id": "two", "turns": [{"query": "When are you open?", "gold": ["hours"], "kind": "faq"},
                            {"query": "and then", "gold": None, "kind": "chat"}]},
]
PRICES = {"version": "1", "currency": "USD", "models": {"m": {"input": 10, "output": 100}}}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the FAQs, made once, with the packaged encoder."""
    folder = tmp_path_factory.mktemp("shop")
    faqs = lines(folder / "faqs.jsonl", FAQS)
    assert run("kb", "build", "--faqs", faqs, "--out", folder / "kb").exit_code == 0
    return folder / "kb"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log with the sessions in it."""
    monkeypatch.setenv("FETCHGATE_DATA_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("FETCHGATE_POLICY", "always")
    database = tmp_path / "log.db"
    sessions = lines(tmp_path / "sessions.jsonl", SESSIONS)
    assert run("log", "import", sessions, "--db", database).exit_code == 0
    return database


@contextmanager
def judging(reply: dict[str, Any]) -> Iterator[tuple[str, list[Request]]]:
    """A server in a thread that gives every case this verdict: its address, and what it was asked."""
    ready, over = threading.Event(), threading.Event()
    served: list[Any] = []

    async def answer(request: Request) -> None:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(reply)}}
        await request.refuse(200, {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                                   "usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}})

    async def serve() -> None:
        async with raw_server(answer) as server:
            served.append(server)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield served[0].base_url, served[0].requests
    finally:
        over.set()
        thread.join()


def test_imported_sessions_are_answered_and_judged_by_their_labels(database: Path, shop: Path) -> None:
    command = ("log", "label", "--judge", "reference", "--both-arms", 1, "--kb", shop, "--db", database, "--json")
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert {name: found[name] for name in ("judge", "turns", "good", "bad", "written", "passed_over", "missing", "cost", "stopped")} == {
        "judge": "reference:any", "turns": 4, "good": 6, "bad": 2, "written": 8, "passed_over": {"no gold label": 1}, "missing": {},
        "cost": 0.0, "stopped": None}
    assert found["both_arms"] == {"turns": 4, "known": 4, "harm_if_skipped": 2}
    assert found["harmful_skip"] is None, "nobody skipped: these turns weren't served"
    with SqlConversationLog(str(database)) as log:
        verdicts = {(one.turn_id, one.arm): one for one in latest_verdicts(log)}
    assert verdicts["import:one:0", Action.FETCH].answer == "By card or bank transfer. [pay]"
    assert (verdicts["import:one:0", Action.NO_FETCH].input_tokens or 0) < (verdicts["import:one:0", Action.FETCH].input_tokens or 0)
    assert json.loads(run(*command).stdout)["turns"] == 0


def test_the_local_judge_needs_no_key_and_no_network(database: Path, shop: Path) -> None:
    result = run("log", "label", "--both-arms", 1, "--kb", shop, "--db", database, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["judge"].startswith("local:")
    assert found["turns"] == 5
    assert found["good"] + found["bad"] + sum(found["missing"].values()) == 10
    assert found["good"] > 0
    assert found["bad"] > 0


def test_an_llm_judge_is_paid_by_the_price_table_and_stops_at_its_budget(
    database: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prices.json").write_text(json.dumps(PRICES))
    monkeypatch.setenv("FETCHGATE_PRICES", str(tmp_path / "prices.json"))
    monkeypatch.setenv("FETCHGATE_JUDGE_API_KEY", "sk-judge")
    with judging({"quotes": [], "reason": "So it is.", "hedged": False, "safe": True, "verdict": "bad"}) as (url, requests):
        command = ("log", "label", "--judge", "llm", "--judge-model", "m", "--judge-base-url", url, "--both-arms", 0, "--kb", shop,
                   "--db", database, "--json")
        poor = run(*command, "--budget", 0.07, "--concurrency", 1)
        asked = len(requests)
        rest = run(*command)
    assert poor.exit_code == 0, poor.stderr
    first, second = json.loads(poor.stdout), json.loads(rest.stdout)
    assert (first["stopped"], first["currency"], first["failed"]) == ("the budget is used up", "USD", {"the budget is used up": 1})
    assert asked == 1, "a second prompt, and the longest reply to it, may cost more than what is left"
    assert "stopped: the budget is used up" in poor.stderr
    assert first["cost"] == pytest.approx(0.015 * asked)
    assert (second["bad"], second["stopped"], len(requests)) == (5 - asked, None, 5)
    assert (second["judge_input_tokens"], second["judge_output_tokens"]) == (1000 * (5 - asked), 50 * (5 - asked))
    assert requests[0].headers["authorization"] == "Bearer sk-judge"
    assert cached(tmp_path) == 5
    assert "Erase one of import with its 3 turns?" in run("log", "erase", "one", "--db", database).stderr  # and nobody says yes
    assert cached(tmp_path) == 5
    erased = run("log", "erase", "one", "--db", database, "--yes")
    assert "erased 3 turns and 3 cached judgements" in erased.stderr
    assert cached(tmp_path) == 2
    with SqlConversationLog(str(database)) as log:
        assert {row["conversation_id"] for row in log.rows()} == {"two"}
        assert len(list(latest_verdicts(log))) == 2
    assert run("log", "erase", "one", "--db", database, "--yes").exit_code == 1


def cached(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "var" / "judgements.db")) as database:
        return int(database.execute("SELECT count(*) FROM judgements").fetchone()[0])


def test_an_estimate_asks_nobody_and_prints_a_table(database: Path, shop: Path) -> None:
    result = run("log", "label", "--estimate", "--local-seconds", "0.004", "--votes", 3, "--kb", shop, "--db", database)
    assert result.exit_code == 0, result.stderr
    assert "10,000 verdicts by local" in result.stdout
    assert "no money, 40 s" in result.stdout
    assert "10,000 verdicts by gpt-4o " in result.stdout
    found = json.loads(run("log", "label", "--estimate", "--kb", shop, "--db", database, "--json").stdout)
    assert found["verdicts"] == 10_000
    assert {cost["judge"] for cost in found["costs"]} >= {"local", "gpt-4o", "gpt-4.1-nano"}
    with SqlConversationLog(str(database)) as log:
        assert list(latest_verdicts(log)) == []


@pytest.mark.parametrize(("options", "told"), [
    (["--judge", "llm"], "judge model: expected a model's name"),
    (["--judge", "llm", "--judge-model", "unheard-of", "--budget", "1"], "expected a model whose price is known, got 'unheard-of'"),
    (["--db", "none.db"], "none.db: expected a conversation log, got no such file"),
])
def test_what_can_not_be_done_is_one_line_and_exits_with_1(database: Path, shop: Path, options: list[str], told: str) -> None:
    result = run("log", "label", "--kb", shop, "--db", database, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr


@pytest.mark.parametrize("options", [["--judge", "nobody"], ["--both-arms", "2"], ["--votes", "0"], ["--limit", "0"],
                                     ["--judge", "reference", "--budget", "1"], ["--votes", "3"]])
def test_misuse_exits_with_2(database: Path, options: list[str]) -> None:
    result = run("log", "label", "--db", database, *options)
    assert (result.exit_code, result.stdout) == (2, "")
