"""What the README and the docs show works: Python blocks run against a real service, command lines parse.

A ```python block is a script of its own; http://127.0.0.1:8000 in it becomes the started service. In a ```console block each
line that begins with `$ ` is a command: `fetchgate …` must take its options, `make …` must have that target.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.docs import variable
from service.settings import Settings
from tests.conftest import ROOT
from tests.real_service import real_service

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
SHOWN_URL = "http://127.0.0.1:8000"
FENCED = re.compile(r"^(?P<fence>`{3,})(?P<language>[\w-]+)[^\n]*\n(?P<text>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
ENDS_COMMAND = {"|", "||", "&", "&&", ";", "<", ">", ">>"}
VARIABLES = {variable(name) for name in Settings.model_fields}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks that name a language."""
    for found in FENCED.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found["language"], found["text"])


def blocks(language: str) -> list[Block]:
    every = [block for page in PAGES for block in blocks_of(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))]
    return [block for block in every if block.language == language]


def commands(text: str) -> list[list[list[str]]]:
    """For each line after a `$`, its simple commands in words; a backslash at the end joins lines."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.startswith("$ "):
            lexer = shlex.shlex(line[2:], posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            found.append(split(list(lexer)))
    return found


def split(words: list[str]) -> list[list[str]]:
    """Words of a line as its commands; what stands after a redirection is a file, not a command."""
    found: list[list[str]] = [[]]
    for word in words:
        if word in ENDS_COMMAND:
            found.append([word] if word.endswith((">", "<")) else [])
        else:
            found[-1].append(word)
    return [command for command in found if command and command[0] not in ENDS_COMMAND]


def wrong_with(command: list[str]) -> str:
    """What is wrong with a command that is ours; empty when nothing is."""
    variables = [word.partition("=")[0] for word in command if re.match(r"[A-Z_]+=", word)]
    unknown = [name for name in variables if name.startswith("FETCHGATE_") and name not in VARIABLES]
    if unknown:
        return f"no such settings: {unknown}"
    program, *arguments = [word for word in command if not re.match(r"[A-Z_]+=", word)] or [""]
    if Path(program).name == "fetchgate":
        done = CliRunner().invoke(app, [*arguments, "--help"])
        return "" if done.exit_code == 0 else f"{shlex.join(command)}: {done.output or done.exception}"
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        missing = [target for target in arguments if "=" not in target and not re.search(rf"^{re.escape(target)}:", makefile, re.M)]
        return f"no such targets: {missing}" if missing else ""
    return ""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_service(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_python_block_runs_against_a_real_service(block: Block, url: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(block.text.replace(SHOWN_URL, url), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "utf-8"}, capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{block}:\n{done.stderr}"


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_the_command_lines_of_a_console_block_are_ours(block: Block) -> None:
    assert [wrong for line in commands(block.text) for command in line if (wrong := wrong_with(command))] == [], str(block)


def test_the_readme_shows_a_command_and_an_openai_client() -> None:
    assert any("fetchgate" in block.text or "make run" in block.text for block in blocks("console") if block.page == "README.md")
    assert any("openai" in block.text and SHOWN_URL in block.text for block in blocks("python") if block.page == "README.md")


def test_blocks_are_found_by_their_language_and_line() -> None:
    page = "# A\n\n```python\nprint(1)\n```\n\n````console\n$ make\n```\n$ still\n````\n```\nno language\n```\n"
    assert list(blocks_of("p", page)) == [Block("p", 3, "python", "print(1)\n"), Block("p", 7, "console", "$ make\n```\n$ still\n")]


def test_command_lines_are_split_where_a_shell_would() -> None:
    text = "$ fetchgate log export - | head -3  # look\noutput\n$ A=1 fetchgate serve \\\n    --port 9 > 'my log' &\n"
    assert commands(text) == [[["fetchgate", "log", "export", "-"], ["head", "-3"]], [["A=1", "fetchgate", "serve", "--port", "9"]]]


@pytest.mark.parametrize("line", ["fetchgate fetch", "fetchgate serve --colour red", "make coffee", "FETCHGATE_COLOUR=red fetchgate serve"])
def test_a_command_line_that_is_not_ours_is_noticed(line: str) -> None:
    [[command]] = commands(f"$ {line}")
    assert wrong_with(command)
