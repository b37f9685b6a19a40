"""`fetchgate kb`: data on standard output, one line for what goes wrong, the exit codes, and Ctrl-C."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli.kb import app
from tests.tiny_encoder import make_tiny_encoder

ROOT = Path(__file__).parents[4]
FAQS = """{"id": "pay", "question": "How do I pay?", "answer": "By card.", "category": "billing", "paraphrases": ["payment"]}
{"id": "refund", "question": "How do I get a refund?", "answer": "Within 30 days.", "category": "billing"}
{"id": "hours", "question": "", "answer": "Nine to five,\\non \\u001b[31mweekdays."}
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def kb(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kb")
    (folder / "faqs.jsonl").write_text(FAQS)
    result = run("build", "--faqs", folder / "faqs.jsonl", "--out", folder / "kb", "--embedder", encoder, "--json")
    assert result.exit_code == 0, result.stderr
    return folder / "kb"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_build_prints_counts_seconds_and_version(encoder: Path, kb: Path, tmp_path: Path) -> None:
    out = ("build", "--faqs", kb.parent / "faqs.jsonl", "--out", tmp_path / "new", "--embedder", encoder)
    plain, with_json = run(*out), run(*out, "--json", "--index", "hnsw", "--max-tokens", 8)
    assert (plain.exit_code, with_json.exit_code) == (0, 0)
    printed = json.loads(with_json.stdout)
    assert (printed["faqs"], printed["vectors"], printed["index"]) == (3, 4, "hnsw")
    assert printed["seconds"] > 0
    assert printed["version"] == json.loads(run("info", "--kb", tmp_path / "new", "--json").stdout)["version"]
    assert re.fullmatch(r"version +[0-9a-f]{12}\nfaqs +3\nvectors +4\nindex +flat\nseconds +[\d.]+\n", plain.stdout)
    assert all("is nearly the same as" in line for line in (plain.stderr + with_json.stderr).splitlines())  # the tiny encoder sees little


def test_a_search_prints_hits_best_first_one_a_line(kb: Path) -> None:
    result = run("search", "payment", "--kb", kb, "-k", 2)
    first, _ = result.stdout.splitlines()
    assert re.match(r"0\.\d{3}  pay  How do I pay\?", first)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_search_as_json_holds_whole_faqs(kb: Path) -> None:
    hits = json.loads(run("search", "payment", "--kb", kb, "--json").stdout)
    assert [set(hit) for hit in hits] == [{"id", "similarity", "confidence", "alone", "question", "answer", "category", "source_url"}] * 3
    assert (hits[0]["id"], hits[0]["answer"], hits[0]["alone"]) == ("pay", "By card.", "never")


def test_texts_cannot_steer_the_terminal(kb: Path) -> None:
    lines = run("search", "nine to five on weekdays", "--kb", kb).stdout.splitlines()
    assert len(lines) == 3
    assert any(line.endswith("hours  Nine to five, on  [31mweekdays.") for line in lines)


def test_a_search_above_every_similarity_finds_nothing_and_says_so_aside(kb: Path) -> None:
    result = run("search", "xyz", "--kb", kb, "--min-similarity", 1)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no FAQ is that similar\n")
    assert run("search", "xyz", "--kb", kb, "--min-similarity", 1, "--json").stdout == "[]\n"


def test_info_says_what_the_folder_holds(encoder: Path, kb: Path) -> None:
    printed = json.loads(run("info", "--kb", kb, "--json").stdout)
    assert printed["categories"] == {"billing": 2, "(none)": 1}
    assert (printed["faqs"], printed["vectors"], printed["dimension"], printed["max_tokens"]) == (3, 4, 16, 256)
    assert printed["model"] == str(encoder)
    assert printed["encoder"].startswith("tiny@")
    assert printed["bytes"] == sum(path.stat().st_size for path in kb.iterdir() if "-" in path.name)
    assert "categories  billing 2, (none) 1\n" in run("info", "--kb", kb).stdout


def test_an_encoder_given_by_a_relative_path_is_found_from_anywhere(
    encoder: Path, kb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(encoder.parent)
    assert run("build", "--faqs", kb.parent / "faqs.jsonl", "--out", tmp_path / "new", "--embedder", "tiny").exit_code == 0
    monkeypatch.chdir("/")
    assert run("search", "payment", "--kb", tmp_path / "new").exit_code == 0


def test_what_goes_wrong_is_one_line_and_exit_code_1(encoder: Path, kb: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "question": 1, "answer": "b"}\n')
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("")
    good = kb.parent / "faqs.jsonl"
    for arguments, expected in (
        (("build", "--faqs", tmp_path / "none.jsonl", "--out", tmp_path / "x"), "none.jsonl: can't be read"),
        (("build", "--faqs", good, "--out", tmp_path / "x", "--embedder", "/no/such"), "/no/such: expected a folder"),
        (("build", "--faqs", good, "--out", tmp_path / "taken", "--embedder", encoder), "expected an empty folder or an index"),
        (("search", "pay", "--kb", tmp_path / "none"), "expected an index folder with manifest.json"),
        (("info", "--kb", tmp_path / "none"), "expected an index folder with manifest.json"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert re.fullmatch(rf"error: .*{re.escape(expected)}.*\n", result.stderr), result.stderr
    bad = run("build", "--faqs", tmp_path / "bad.jsonl", "--out", tmp_path / "x")
    assert bad.exit_code == 1
    assert bad.stderr.splitlines()[0].endswith("bad.jsonl:1: question: expected text, got int '1'")
    assert not (tmp_path / "x").exists()


def test_a_damaged_folder_is_one_line_and_exit_code_1(kb: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(kb, tmp_path / "kb")
    next(folder.glob("rows-*")).write_text("[]")
    for arguments in (("info",), ("search", "pay")):
        result = run(*arguments, "--kb", folder)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert "expected content with SHA-256" in result.stderr


@pytest.mark.parametrize("arguments", [
    ("build",), ("build", "--faqs", "x"), ("build", "--faqs", "x", "--out", "y", "--max-tokens", 0),
    ("build", "--faqs", "x", "--out", "y", "--index", "annoy"), ("search", "--kb", "x"), ("search", "pay"),
    ("search", "pay", "--kb", "x", "-k", 0), ("search", "pay", "--kb", "x", "--min-similarity", 2), ("info",),
])
def test_a_command_that_is_misused_says_how_to_use_it_and_exits_2(arguments: tuple[object, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


def test_ctrl_c_in_mid_build_leaves_the_old_folder_whole_and_exits_130(encoder: Path, kb: Path, tmp_path: Path) -> None:
    """A real process on a real terminal: the interrupt comes once the bar shows passages embedded."""
    folder = shutil.copytree(kb, tmp_path / "kb")
    before = contents(folder)
    many = tmp_path / "many.csv"
    many.write_text("question,answer\n" + "".join(f"Question {n}?,{'word ' * 40}{n}\n" for n in range(60_000)))
    terminal, process_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from service.cli.main import main; main()", "kb", "build", "--faqs", str(many),
         "--out", str(folder), "--embedder", str(encoder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=process_end, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(process_end)
    try:
        shown = _read_until(terminal, rb"embedding passages .*[1-9]\d*/60000.*\d/s.*\d:\d\d:\d\d")
        process.send_signal(signal.SIGINT)
        shown += _read_until(terminal, None)
    finally:
        os.close(terminal)
        process.kill()  # a no-op for one that has ended
        out, _ = process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert shown.decode().splitlines()[-1].endswith(f"interrupted; {folder} is as it was\x1b[0m")
    assert "Traceback" not in shown.decode()
    assert contents(folder) == before


def _read_until(terminal: int, pattern: bytes | None) -> bytes:
    """What the terminal shows up to this pattern; None: to its end."""
    shown = b""
    while pattern is None or not re.search(pattern, shown):
        ready, _, _ = select.select([terminal], [], [], 100)
        assert ready, f"nothing more after {shown!r}"
        try:
            more = os.read(terminal, 4096)
        except OSError:  # the process has closed its end
            more = b""
        if not more:
            assert pattern is None, f"expected {pattern!r}, got {shown!r}"
            return shown
        shown += more
    return shown
