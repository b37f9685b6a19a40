"""The notebooks are to be read: numbered, without definitions, and stored with what they show. That they run is nbmake's to test."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kb.source import read_faqs
from policy.rules import EvidenceRule
from service.wiring import SHIPPED_FAQS
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
STALE = "run `.venv/bin/python notebooks/refresh.py`"
JSON = dict[str, Any]


def cells(path: Path, kind: str) -> list[JSON]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: JSON) -> str:
    return "".join(cell["source"])


def shown(path: Path) -> str:
    """All that the stored results say."""
    return json.dumps([cell["outputs"] for cell in cells(path, "code")], ensure_ascii=False)


def test_each_has_a_number_of_its_own() -> None:
    assert NOTEBOOKS
    numbers = [int(path.name[:2]) for path in NOTEBOOKS]
    assert numbers == sorted(set(numbers))
    assert all(path.name[2] == "_" for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_defines_nothing_and_says_what_it_does(path: Path) -> None:
    trees = [compile(source(cell), path.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT) for cell in cells(path, "code")]
    assert [node for tree in trees for node in ast.walk(tree) if isinstance(node, DEFINITIONS)] == []
    assert source(cells(path, "markdown")[0]).startswith(f"# {int(path.name[:2])}. ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_with_its_results_run_top_to_bottom(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), STALE
    assert all(cell["outputs"] for cell in code), STALE
    assert {output["output_type"] for cell in code for output in cell["outputs"]} <= {"execute_result", "display_data"}, STALE


def test_the_results_of_one_turn_are_of_the_policy_and_the_faqs_that_serve_now() -> None:
    assert f"{len(read_faqs(SHIPPED_FAQS))} FAQs, policy `{EvidenceRule().version}`" in shown(NOTEBOOKS[0]), STALE
    [total] = re.findall(r"Saved in total: (\d+) of \d+ tokens", shown(NOTEBOOKS[0]))
    assert int(total) > 0
