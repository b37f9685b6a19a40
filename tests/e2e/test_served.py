"""`fetchgate serve` as a process, with everything real: encoder, index, extractive answerer, SQLite log."""

import contextlib
import json
import logging
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest
from typer.testing import CliRunner

from chat.log.store import SqlConversationLog
from kb.source import read_faqs
from service.cli.main import app
from service.wiring import SHIPPED_FAQS
from tests.real_service import FETCHGATE, real_service, service_process

QUESTION = "How much is the late payment fee?"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("served")
    with real_service(folder) as url:
        yield url, folder


def fetchgate(folder: Path, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FETCHGATE_")}
    return subprocess.run([*FETCHGATE, *arguments], cwd=folder, input=stdin, capture_output=True, text=True, timeout=120, check=False,
                          env={**inherited, "COLUMNS": "300", "FETCHGATE_HOLDBACK": "0", "FETCHGATE_DATA_DIR": str(folder), **env})


def test_a_follow_up_is_answered_from_the_faq_that_was_fetched_before(served: tuple[str, Path]) -> None:
    url, folder = served
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as sdk:
        first = sdk.chat.completions.create(model="fetchgate", messages=[{"role": "user", "content": QUESTION}])
        said = first.choices[0].message.content or ""
        second = sdk.chat.completions.create(model="fetchgate", messages=[
            {"role": "user", "content": QUESTION}, {"role": "assistant", "content": said},
            {"role": "user", "content": "can you reverse it?"}])
    assert "₹450" in said
    assert "[fee-late]" in said
    assert "[fee-late]" in (second.choices[0].message.content or "")
    turn = SqlConversationLog(str(folder / "log.db")).turn("local", second.id)
    assert turn is not None
    assert turn.state.previous_queries == (QUESTION,)


def test_the_logged_tokens_are_those_that_the_client_was_told(served: tuple[str, Path]) -> None:
    url, folder = served
    answer = httpx.post(f"{url}/v1/chat/completions", timeout=60,
                        json={"model": "fetchgate", "messages": [{"role": "user", "content": "hello there"}]}).json()
    turn = SqlConversationLog(str(folder / "log.db")).turn("local", answer["id"])
    assert turn is not None
    assert (turn.usage.input_tokens, turn.usage.output_tokens) == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
    assert answer["fetchgate"]["usage"]["saved_tokens"] == turn.saved_tokens
    assert {other.baseline for other in turn.counterfactuals} == {
        "always_fetch", "paper", "frugal", "repeats", "one_faq", "no_history_faqs", "no_faqs"}


def test_an_answer_is_rated_and_the_rating_exported(served: tuple[str, Path]) -> None:
    url, folder = served
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as sdk:
        done = sdk.chat.completions.create(model="fetchgate", messages=[{"role": "user", "content": QUESTION}])
        sdk.post("/feedback", body={"id": done.id, "rating": 5, "comment": "nhanh"}, cast_to=dict)
    said = fetchgate(folder, "feedback", "export", "-", "--db", str(folder / "log.db"))
    [rating] = [json.loads(line) for line in said.stdout.splitlines()]
    assert (rating["id"], rating["rating"], rating["comment"], rating["owner"]) == (done.id, 5, "nhanh", "local")


def test_a_recount_of_what_was_served_agrees_and_one_with_other_settings_does_not(served: tuple[str, Path]) -> None:
    url, folder = served
    for query in (QUESTION, "thanks!"):
        httpx.post(f"{url}/v1/chat/completions", timeout=60, json={"model": "fetchgate", "messages": [{"role": "user", "content": query}]})
    ask = ["report", "recount", "--json", "--db", str(folder / "log.db")]
    found = CliRunner().invoke(app, ask, env={"FETCHGATE_DATA_DIR": str(folder)})
    done = json.loads(found.stdout)
    assert (found.exit_code, done["differing"]) == (0, []), found.output
    assert done["agreed"] >= 2
    other = CliRunner().invoke(app, [*ask, "--policy", "always"], env={"FETCHGATE_DATA_DIR": str(folder)})
    assert (other.exit_code, bool(json.loads(other.stdout)["differing"])) == (1, True)


def test_kill_9_in_mid_stream_loses_no_answered_turn(tmp_path: Path, helpdesk_index: Path) -> None:
    with service_process(tmp_path, "--kb", str(helpdesk_index)) as (url, process, _):
        answered = [httpx.post(f"{url}/v1/chat/completions", timeout=60,
                               json={"model": "fetchgate", "messages": [{"role": "user", "content": f"{QUESTION} {n}"}]}).json()["id"]
                    for n in range(3)]
        with (
            contextlib.suppress(httpx.HTTPError),  # how the stream ends when its server is killed
            httpx.stream("POST", f"{url}/v1/chat/completions", timeout=60,
                         json={"model": "fetchgate", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}) as stream,
        ):
            lines = stream.iter_lines()
            next(lines)
            process.kill()
            list(lines)
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        assert all(log.turn("local", turn_id) is not None for turn_id in answered)


def test_the_terminal_chat_reads_questions_and_prints_json(tmp_path: Path, helpdesk_index: Path) -> None:
    done = fetchgate(tmp_path, "chat", "--json", "--kb", str(helpdesk_index), stdin=f"{QUESTION}\n/new\nthanks!\n")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["cited"] == ["fee-late"]
    assert second["cited"] == []


def test_a_csv_of_ones_own_is_indexed_and_answered_from(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text('question,answer\nWhen are you open?,We are open from 9 to 5.\nDo you ship?,"Yes, to Norway."\n')
    done = fetchgate(tmp_path, "chat", "--json", "--faqs", "my.csv", stdin="when are you open?\n")
    assert json.loads(done.stdout)["answer"].startswith("We are open from 9 to 5.")


def test_the_shipped_help_desk_is_what_is_served_by_default(served: tuple[str, Path]) -> None:
    url, _ = served
    assert httpx.get(f"{url}/v1/kb").json()["faqs"] == len(read_faqs(SHIPPED_FAQS))


def test_a_process_that_can_not_start_says_why_in_a_line_and_exits_with_1(tmp_path: Path) -> None:
    done = fetchgate(tmp_path, "serve", "--port", "0", "--faqs", "missing.csv")
    assert done.returncode == 1, done.stderr
    assert "missing.csv" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Undoes what the command makes of this process's logging."""
    root, loggers = logging.getLogger(), [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    handlers, levels = root.handlers[:], {one: one.level for one in (root, *loggers)}
    yield
    root.handlers[:] = handlers
    for one, level in levels.items():
        one.setLevel(level)


@pytest.mark.usefixtures("logging_as_it_was")
@pytest.mark.parametrize(("arguments", "env", "says"), [
    (("--faqs", "bad.csv"), {}, "bad.csv:1: question: expected this column"),
    (("--kb", "nowhere"), {}, "fetchgate kb build"),
    (("--kb", "damaged"), {}, "build the index anew"),
    (("--policy", "psychic"), {}, "policy: expected always, never, evidence, demo or a policy folder"),
    (("--kb", "INDEX", "--llm", "openai"), {}, "FETCHGATE_LLM_MODEL"),
    (("--kb", "INDEX", "--llm", "local", "--model", "./none"), {}, "./none"),
    (("--llm", "psychic"), {}, "llm"),
    (("--host", "0.0.0.0"), {}, "fetchgate keys create"),
    ((), {"FETCHGATE_K": "0"}, "FETCHGATE_K"),
    ((), {"FETCHGATE_API_KEYS": "plain-key"}, "fetchgate keys create"),
    (("--kb", "INDEX"), {"FETCHGATE_DATABASE": "not-a-database.db"}, "not-a-database.db"),
    ((), {"FETCHGATE_PRICES": "bad.csv"}, "bad.csv"),
    (("--embedder", "./no-such-encoder"), {}, "no-such-encoder"),
])
def test_a_start_that_can_not_succeed_says_why(
    tmp_path: Path, helpdesk_index: Path, arguments: tuple[str, ...], env: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command in this process, as importing everything takes a process of its own seconds each time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("question;answer\na;b\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    (tmp_path / "not-a-database.db").write_text("some text " * 1000)
    given = [str(helpdesk_index) if one == "INDEX" else one for one in arguments]
    done = CliRunner().invoke(app, ["serve", "--port", "0", *given], env={"FETCHGATE_DATA_DIR": str(tmp_path), "COLUMNS": "300", **env})
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), "nothing else may come through"
    assert says in done.stderr


def test_a_locked_database_is_told_to_the_client_and_the_answer_still_comes(tmp_path: Path, helpdesk_index: Path) -> None:
    with real_service(tmp_path, "--kb", str(helpdesk_index)) as url:
        ask = {"model": "fetchgate", "messages": [{"role": "user", "content": QUESTION}]}
        assert httpx.post(f"{url}/v1/chat/completions", json=ask, timeout=60).json()["fetchgate"]["degraded"] == []
        holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        try:
            locked = httpx.post(f"{url}/v1/chat/completions", json=ask | {"temperature": 0}, timeout=60).json()
        finally:
            holder.execute("ROLLBACK")
            holder.close()
        assert "₹450" in locked["choices"][0]["message"]["content"]
        assert locked["fetchgate"]["degraded"] == ["not_logged"]
        after = httpx.post(f"{url}/v1/chat/completions", json=ask | {"temperature": 0.1}, timeout=60).json()
        assert after["fetchgate"]["degraded"] == []
