"""Imports point one way, and the tool that says so would notice if they didn't."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("kb", "chat", "policy", "reward", "evaluation", "report", "service")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the packages of this folder, whichever are installed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the code, to be spoilt."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "data", "static"))
    return tmp_path


def test_imports_point_one_way() -> None:
    found = lint_imports(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 broken" in found.stdout


@pytest.mark.parametrize(("module", "statement", "contract"), [
    ("chat/types.py", "import service.settings", "Imports point one way"),
    ("policy/rules.py", "import reward", "Imports point one way"),
    ("reward/__init__.py", "import policy.rules", "Imports point one way"),
    ("chat/prompt.py", "def late():\n    import torch", "neither torch nor FAISS"),
])
def test_an_import_against_the_layers_is_refused(tree: Path, module: str, statement: str, contract: str) -> None:
    with (tree / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{statement}\n")
    found = lint_imports(tree)
    assert found.returncode == 1, found.stdout + found.stderr
    broken = [line for line in found.stdout.splitlines() if line.rstrip().endswith("BROKEN")]
    assert len(broken) == 1
    assert contract in broken[0]
