"""The pages that define things keep up with the code: docs/metrics.md names every figure, docs/equations.md functions that exist."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pytest

from chat.prompt import PromptSettings
from evaluation import command
from evaluation.command import GateRun, evaluate_gate
from evaluation.gate import figures, measure
from policy.checkpoint import SkipCertificate
from policy.rules import NeverFetch
from policy.train import Epoch
from tests.conftest import ROOT
from tests.unit.evaluation.played import CAR, SHOP, world

METRICS = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
EQUATIONS = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")


def keys(found: Mapping[str, Any]) -> set[str]:
    """All keys of nested figures; the slices' own names are data."""
    names = set(found)
    for name, value in found.items():
        if isinstance(value, Mapping):
            inner = {key: one for label in value.values() for key, one in label.items()} if name == "slices" else value
            names |= keys(inner)
    return names


def undefined(names: set[str], page: str) -> set[str]:
    """Names that stand in no code span of the page."""
    return names - set(re.findall(r"`([\w-]+)`", page))


def section(title: str) -> str:
    """A section of the metrics page."""
    return METRICS.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_figure_of_a_gate_is_defined() -> None:
    found = figures(measure((SHOP, CAR), world(), [NeverFetch()], PromptSettings(k=1)))
    assert {"harmful_skip", "upper_turn", "too_small", "useless_fetch"} <= keys(found)
    assert undefined(keys(found), METRICS) == set()


def printed_keys() -> Iterator[str]:
    """Keys that are written out in the object that `evaluate_gate` returns, and in its settings."""
    with open(command.__file__, encoding="utf-8") as file:
        module = ast.parse(file.read())
    for function in module.body:
        if isinstance(function, ast.FunctionDef) and function.name in (evaluate_gate.__name__, "_shown"):
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
                    yield from (key.value for key in node.value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def test_everything_else_that_the_command_prints_is_defined() -> None:
    found = set(printed_keys())
    assert {"dataset", "policy_versions", "frugal_chosen_on", "slices", "faq_turns"} <= found
    assert undefined(found | {"oracle_needed", "oracle_useful", "saving", "accuracy"}, section("`evaluate gate`")) == set()
    assert {one.name for one in fields(GateRun)} >= {"reader", "gold", "seeds"}


@pytest.mark.parametrize(("defined", "title"), [(Epoch, "Training, epoch by epoch"), (SkipCertificate, "Certificate")])
def test_every_field_that_is_logged_is_defined(defined: type, title: str) -> None:
    assert undefined({one.name for one in fields(defined)}, section(title)) == set()


def test_a_figure_without_a_definition_is_noticed() -> None:
    assert keys({"a": 1, "b": {"c": None}, "slices": {"faq": {"d": 1, "e": {"f": 0}}}}) == {"a", "b", "c", "slices", "d", "e", "f"}
    assert undefined({"a", "saving", "b-c"}, "`a` saving, `x = b-c`") == {"saving", "b-c"}


def missing_code(page: str) -> list[str]:
    """References `file:name` of a page to what isn't at the top of that file."""
    found = re.findall(r"`([\w/]+\.py):(\w+)`", page)
    return [f"{file}:{name}" for file, name in found if name not in _top_names(file)]


def _top_names(file: str) -> set[str]:
    path = ROOT / file
    module = ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    names = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [target for node in module.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in module.body if isinstance(node, ast.AnnAssign)]
    return names | {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_function_that_the_equations_name_is_there() -> None:
    assert EQUATIONS.count(".py:") > 40
    assert missing_code(EQUATIONS) == []


def test_a_function_that_is_gone_is_noticed() -> None:
    page = "`evaluation/stats.py:share` `evaluation/stats.py:RESAMPLES` `evaluation/stats.py:sharing` `evaluation/none.py:share`"
    assert missing_code(page) == ["evaluation/stats.py:sharing", "evaluation/none.py:share"]
