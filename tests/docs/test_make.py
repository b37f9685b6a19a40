"""The Makefile sets everything up, in order and once, and says so where Python is too old."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BEFORE_311 = "import sys; sys.version_info = (3, 10, 14, 'final', 0); exec(sys.argv[1])"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What `make run` reads, in a folder where nothing was made yet."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name not in ("MFLAGS", "PYTHON")}
    before = f"{path}{os.pathsep}" if path else ""
    return subprocess.run(["make", "-C", str(folder), *arguments], env={**kept, "PATH": f"{before}{kept['PATH']}", "LC_ALL": "C"},
                          capture_output=True, text=True, timeout=60, check=False)


def steps(folder: Path, target: str) -> list[str]:
    """The commands that make would run."""
    planned = make(folder, "--dry-run", "--no-print-directory", target)
    assert planned.returncode == 0, planned.stderr
    return planned.stdout.splitlines()


def pretend_installed(tree: Path, *stamps: str) -> None:
    """As if the environment had been made."""
    (tree / ".venv/bin").mkdir(parents=True)
    (tree / ".venv/bin/python").touch()
    for stamp in stamps:
        (tree / ".venv" / stamp).touch()


def place(found: list[str], *words: str) -> int:
    """Where the one command stands that has these words."""
    [at] = [n for n, step in enumerate(found) if all(word in step for word in words)]
    return at


def test_run_makes_the_environment_installs_what_is_locked_and_serves_in_this_order(tree: Path) -> None:
    found = steps(tree, "run")
    order = [place(found, "version_info"), place(found, "-m venv .venv"), place(found, "pip install", "-r requirements.lock"),
             place(found, "pip install", "--no-deps", "--editable ."), place(found, "fetchgate serve")]
    assert order == sorted(order)
    assert order[-1] == len(found) - 1, "serving is the last thing"
    assert not any("requirements-dev.lock" in step for step in found), "serving needs no development tools"


def test_the_second_run_only_serves(tree: Path) -> None:
    pretend_installed(tree, ".installed")
    assert steps(tree, "run") == [".venv/bin/fetchgate serve"]


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_file_is_installed_before_serving(tree: Path, changed: str) -> None:
    pretend_installed(tree, ".installed")
    made = (tree / ".venv/.installed").stat().st_mtime
    os.utime(tree / changed, (made + 10, made + 10))
    found = steps(tree, "run")
    assert place(found, "-r requirements.lock") < place(found, "fetchgate serve")
    assert not any("-m venv" in step for step in found)


def test_the_tests_are_run_after_ruff_mypy_and_the_layers(tree: Path) -> None:
    pretend_installed(tree, ".installed", ".installed-dev")
    assert [step.split()[0].rpartition("/")[2] for step in steps(tree, "test")] == ["ruff", "mypy", "lint-imports", "python"]
    assert steps(tree, "check") == steps(tree, "test")


def test_a_python_older_than_3_11_is_refused_with_word_of_what_to_do(tree: Path) -> None:
    folder = tree / "bin"
    folder.mkdir()
    old = folder / "python3"
    old.write_text(f"#!/bin/sh\n[ \"$1\" = -c ] || exit 99\nexec '{sys.executable}' -c \"{BEFORE_311}\" \"$2\"\n", encoding="utf-8")
    old.chmod(0o755)
    refused = make(tree, "run", path=folder)
    assert refused.returncode == 2
    assert "FetchGate needs Python 3.11 or later; set PYTHON=" in refused.stderr
    assert not (tree / ".venv").exists()


def test_where_no_python_is_found_the_same_is_said(tree: Path) -> None:
    refused = make(tree, "run", "PYTHON=no-such-python")
    assert refused.returncode == 2
    assert "FetchGate needs Python 3.11 or later; set PYTHON=" in refused.stderr
    assert not (tree / ".venv").exists()
