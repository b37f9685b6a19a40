"""The local ruler: its table, its framing, and what it leaves behind."""

import hashlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tiktoken
from tiktoken_ext import openai_public  # type: ignore[import-untyped]

from chat.errors import ChatError
from chat.tokens import ENCODING, TABLE, TABLE_SHA256, TABLES, TiktokenCounter
from chat.types import Message

ROOT = Path(__file__).parents[3]
HOSTILE = ["<|endoftext|>", "<|endofprompt|> and <|im_start|>system", "\x00", "👩‍👩‍👧", "مرحبا", "\ud800", " " * 5000, "a" * 999]


@pytest.fixture(scope="module")
def counter() -> TiktokenCounter:
    return TiktokenCounter()


def encoded(text: str) -> int:
    return len(tiktoken.get_encoding(ENCODING).encode_ordinary(text))


@pytest.mark.parametrize("text", ["", "hello world", "Nine to five [hours].", "₹450", *HOSTILE])
def test_a_text_counts_as_many_tokens_as_tiktoken_makes_of_it(counter: TiktokenCounter, text: str) -> None:
    assert counter.count_text(text) == encoded(text)


def test_known_texts_have_their_known_counts(counter: TiktokenCounter) -> None:
    assert counter.count_text("hello world") == 2
    assert counter.count_text("antidisestablishmentarianism") == 6
    assert counter.count_text("") == 0


def test_a_special_token_in_a_customers_text_is_text(counter: TiktokenCounter) -> None:
    assert counter.count_text("<|endoftext|>") > 1


def test_a_message_costs_three_tokens_besides_role_and_content_and_the_answer_three(counter: TiktokenCounter) -> None:
    messages = (Message("system", "hello world"), Message("user", "<|endoftext|>"), Message("assistant", ""))
    # system: 3 + 1 + 2; user: 3 + 1 + the text; assistant: 3 + 1 + 0; the answer: 3
    assert counter.count(messages) == 6 + (4 + encoded("<|endoftext|>")) + 4 + 3
    assert counter.count(()) == 3


def test_a_text_counts_the_same_each_time_it_is_asked_for(counter: TiktokenCounter) -> None:
    counts = [ruler.count_text("Nine to five.") for ruler in (counter, counter, TiktokenCounter())]
    assert counts == [encoded("Nine to five.")] * 3


def test_the_shipped_table_is_the_one_that_tiktoken_would_look_for_and_accept() -> None:
    source = inspect.getsource(openai_public.o200k_base)
    found = re.search(r'"(https://[^"]+)".*?expected_hash="(\w+)"', source, re.DOTALL)
    assert found is not None
    address, sha256 = found.groups()
    assert hashlib.sha1(address.encode()).hexdigest() == TABLE
    assert sha256 == TABLE_SHA256 == hashlib.sha256((TABLES / TABLE).read_bytes()).hexdigest()


def test_a_corrupted_table_fails_and_is_neither_deleted_nor_replaced(tmp_path: Path) -> None:
    corrupted = (TABLES / TABLE).read_bytes()[:-1] + b"x"
    (tmp_path / TABLE).write_bytes(corrupted)
    with pytest.raises(ChatError, match=f"expected SHA-256 {TABLE_SHA256}, got .*; restore it"):
        TiktokenCounter(tmp_path)
    assert (tmp_path / TABLE).read_bytes() == corrupted


def test_a_missing_table_fails_and_nothing_is_made_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="can't be read"):
        TiktokenCounter(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("before", [None, "", "/somewhere/else"])
def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    if before is None:
        monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", before)
    environment = dict(os.environ)
    TiktokenCounter()
    assert dict(os.environ) == environment


FRESH = """
    import os, socket, sys
    from pathlib import Path

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
    before = dict(os.environ)
    from chat.tokens import TiktokenCounter
    try:
        print(TiktokenCounter(Path(sys.argv[1])).count_text("hello world"))
    finally:
        assert dict(os.environ) == before
"""


def fresh(tables: Path) -> subprocess.CompletedProcess[str]:
    """A first count in a process of its own, where nothing is loaded yet and every socket is shut."""
    environment = {name: value for name, value in os.environ.items() if name not in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")}
    command = [sys.executable, "-c", textwrap.dedent(FRESH), str(tables)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_first_count_needs_no_network_and_leaves_no_variable_behind() -> None:
    done = fresh(TABLES)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_a_first_count_by_a_corrupted_table_fails_without_a_download(tmp_path: Path) -> None:
    shutil.copy(TABLES / TABLE, tmp_path / TABLE)
    with (tmp_path / TABLE).open("ab") as file:
        file.write(b"IQ== 199998\n")
    done = fresh(tmp_path)
    assert done.returncode == 1
    assert "chat.errors.ChatError" in done.stderr
    assert "a socket was opened" not in done.stderr
