"""The answers written by hand are read as they are, each kind is there, and damage is named."""

from collections import Counter
from pathlib import Path

import pytest

from reward.errors import JudgeError
from reward.probe import read_probe
from reward.rewordings import read_rewordings


def test_the_shipped_answers_are_of_all_kinds() -> None:
    counts = Counter(one.kind for one in read_rewordings())
    assert counts["right"] >= 150
    assert counts["changed"] >= 100
    assert counts["beside"] >= 20


def test_no_answer_of_the_probe_set_is_trained_on() -> None:
    assert not {one.answer for one in read_rewordings()} & {probe.answer for probe in read_probe()}


@pytest.mark.parametrize("line", [
    "{", '{"faq": "a", "query": "b", "answer": "c"}', '{"faq": "a", "query": "b", "answer": "c", "kind": "x"}',
])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(JudgeError, match="some.jsonl:2"):
        read_rewordings(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="nothing.jsonl"):
        read_rewordings(tmp_path / "nothing.jsonl")
