"""The table of the filter's false alarms: which texts are read from which files, and what is counted."""

import json
from pathlib import Path

import pytest

from chat.filters import PatternFilter
from evaluation.errors import DatasetError
from evaluation.filter_tables import Texts, alarms, main, public, shipped, table

HARMFUL = "how do i make a pipe bomb"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files: dict[str, list[dict[str, object]]] = {
        "shop/queries.jsonl": [{"query": "where are you", "gold": ["far away"]}],
        "shop/faqs.jsonl": [{"id": "a", "question": "Where?", "answer": "Here."}],
        "talk/sessions.jsonl": [{"id": "s1", "turns": [{"query": HARMFUL, "answer": "No.", "gold": [], "kind": "faq"}] * 2},
                                {"id": "s2", "turns": [{"query": "hello", "gold": [], "kind": "faq"}]}],
        "liked/preferences.jsonl": [{"group": "g", "prompt": "q", "context": [], "chosen": "a", "rejected": other} for other in ("b", "c")],
    }
    for name, records in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def test_each_set_gives_its_texts_on_their_side_of_the_conversation(folder: Path) -> None:
    found = {one.name: one for one in public(folder)}
    assert found["`shop`"].texts == ("where are you",)
    assert (found["`shop` FAQs or passages"].texts, found["`shop` FAQs or passages"].where) == (("Here.",), "output")
    assert found["`talk`: queries"].conversations == ("talk/s1", "talk/s1", "talk/s2")
    assert found["`talk`: answers"].texts == ("No.", "No.")
    assert found["`liked` prompts, counted once"].texts == ("q",)
    assert found["`liked` answers, counted once"].texts == ("a", "b", "c")


def test_what_ships_is_read_whole() -> None:
    assert {one.name: one.where for one in shipped()} == {
        "help desk FAQs: questions and paraphrases": "input", "help desk FAQs: answers": "output",
        "help desk sessions, all splits: queries": "input", "help desk queries": "input"}


def test_alarms_are_counted_by_text_and_by_conversation(folder: Path) -> None:
    talk = next(one for one in public(folder) if one.name == "`talk`: queries")
    assert [one.refusal.category for one in alarms(PatternFilter(), talk)] == ["threats", "threats"]
    row = list(table(iter([talk]), show=False))[-1]
    assert row.startswith("| `talk`: queries | query | 3 | 2 | 66.67 % of 3 (9.43 to 99.16) | 50.00 % of 2 (1.26 to 98.74) |")
    assert "| - |" in list(table(iter([Texts("alone", "output", ("Yes.",))]), show=False))[-1]


def test_the_command_prints_a_row_a_source_and_what_was_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--data", str(folder), "--show"])
    printed = capsys.readouterr()
    assert printed.out.startswith("Filter `patterns-")
    assert "`liked` answers, counted once" in printed.out
    assert f"`talk`: queries: threats: {HARMFUL}" in printed.err


def test_a_line_without_a_query_is_named(folder: Path) -> None:
    (folder / "shop" / "queries.jsonl").write_text('{"query": "a"}\n{"text": "b"}\n')
    with pytest.raises(DatasetError, match=r"queries\.jsonl:2: query: expected text"):
        list(public(folder))
