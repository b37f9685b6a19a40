"""`fetchgate kb watch` as a process: an index folder in step with its FAQ file, whatever happens to either."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kb.folder import load_index
from service.cli.kb import app
from tests.conftest import ROOT
from tests.tiny_encoder import make_tiny_encoder

PAY = '{"id": "pay", "question": "How do I pay?", "answer": "By card."}\n'
SHIP = '{"id": "ship", "question": "Where to?", "answer": "To Norway."}\n'


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def file(encoder: Path, tmp_path: Path) -> Path:
    file = tmp_path / "faqs.jsonl"
    file.write_text(PAY)
    built = CliRunner().invoke(app, ["build", "--faqs", str(file), "--out", str(tmp_path / "kb"), "--embedder", str(encoder)])
    assert built.exit_code == 0, built.stderr
    return file


@contextmanager
def watching(file: Path, *options: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen([sys.executable, "-c", "from service.cli.main import main; main()", "kb", "watch", str(file), "--kb",
                                str(file.parent / "kb"), *options], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ids(file: Path) -> set[str]:
    return {faq.id for faq in load_index(file.parent / "kb")[2]}


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_change_is_saved_and_told_and_ctrl_c_ends_it(file: Path) -> None:
    file.write_text(PAY + SHIP)  # since the folder was built
    with watching(file, "--json") as process:
        first = json.loads(line(process))
        assert (first["faqs"], first["added"], first["replaced"], first["removed"]) == (2, 1, 0, 0)
        assert ids(file) == {"pay", "ship"}
        file.write_text(SHIP.replace("Norway", "Sweden"))
        second = json.loads(line(process))
        assert (second["faqs"], second["added"], second["replaced"], second["removed"]) == (1, 0, 1, 1)
        assert load_index(file.parent / "kb")[0].content_hash == second["version"]
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert error == f"interrupted; {file.parent / 'kb'} is whole\n"


def test_a_broken_file_is_told_with_line_and_field_and_the_folder_stays(file: Path) -> None:
    with watching(file) as process:
        assert line(process).endswith("added 0  replaced 0  removed 0\n")
        file.write_text(PAY + '{"id": "x", "question": 5, "answer": "y"}\n')
        assert process.stderr is not None
        assert process.stderr.readline() == f"error: {file}:2: question: expected text, got int '5'\n"
        assert ids(file) == {"pay"}
        file.write_text(SHIP)
        assert "added 1  replaced 0  removed 1" in line(process)
    assert ids(file) == {"ship"}


@pytest.mark.parametrize(("arguments", "says"), [
    (("none.jsonl", "--kb", "kb"), "none.jsonl: can't be read"),
    (("faqs.jsonl", "--kb", "none"), "fetchgate kb build"),
])
def test_what_is_not_there_is_one_line_and_exit_code_1(file: Path, arguments: tuple[str, ...], says: str) -> None:
    named = [str(file.parent / part) if not part.startswith("-") else part for part in arguments]
    result = CliRunner().invoke(app, ["watch", *named])
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert not (file.parent / "none").exists()


def test_a_watch_killed_at_any_moment_leaves_a_whole_folder(file: Path) -> None:
    for n in range(2):
        with watching(file) as process:
            line(process)
            file.write_text(PAY + "".join(SHIP.replace("ship", f"ship-{n}-{m}") for m in range(300)))
            if n % 2:
                line(process)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert len(ids(file)) in (1, 301)
