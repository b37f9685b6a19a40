"""Files of preferences: what is read, what is refused and where, and splits that keep a group together."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.errors import PreferenceError
from reward.preferences import (
    Answer,
    Judged,
    Preference,
    all_pairs,
    place,
    read_judged,
    read_preferences,
    split,
    write_preferences,
)

GOOD = {"group": "g", "prompt": "How much?", "context": ["₹99 a month."], "chosen": "₹99.", "rejected": "₹9."}
PAIRS = tuple(Preference(f"g{n // 2}", f"Question {n}?", (), "Yes.", "No.") for n in range(200))


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records), encoding="utf-8")
    return path


def test_pairs_are_read_in_file_order_with_and_without_a_margin(tmp_path: Path) -> None:
    lines(tmp_path / "preferences.jsonl", GOOD | {"margin": 1, "annotator": "ignored"}, "", GOOD | {"group": "h", "margin": None}, GOOD)
    pair = Preference("g", "How much?", ("₹99 a month.",), "₹99.", "₹9.", 1.0)
    found = read_preferences(tmp_path)
    assert [(one.group, one.margin) for one in found] == [("g", 1.0), ("h", None), ("g", None)]
    assert found[0] == pair
    assert found[0].answers == (Answer(pair.prompt, pair.context, "₹99."), Answer(pair.prompt, pair.context, "₹9."))
    assert read_preferences(tmp_path / "preferences.jsonl") == found


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n" + json.dumps(GOOD).encode())
    assert len(read_preferences(path)) == 2


def test_judged_answers_are_read_from_a_folder(tmp_path: Path) -> None:
    lines(tmp_path / "judged.jsonl", {"group": "g", "prompt": "p", "context": [], "answer": "a", "good": False})
    (found,) = read_judged(tmp_path)
    assert found == Judged("g", "p", (), "a", good=False)
    assert found.answers == (Answer("p", (), "a"),)


@pytest.mark.parametrize(("change", "told"), [
    ({"group": ""}, "group: expected text, got ''"),
    ({"prompt": 3}, "prompt: expected text, got 3"),
    ({"chosen": None}, "chosen: expected text, got None"),
    ({"rejected": ["a"]}, "rejected: expected text, got ['a']"),
    ({"rejected": "₹99."}, "rejected: expected another answer than the chosen one"),
    ({"context": "₹99"}, "context: expected a list of texts"),
    ({"context": [1]}, "context: expected a list of texts"),
    ({"margin": -1}, "margin: expected a number from 0"),
    ({"margin": True}, "margin: expected a number from 0"),
    ({"margin": "large"}, "margin: expected a number from 0"),
    ({"margin": float("nan")}, "margin: expected a number from 0"),
    ({"margin": float("inf")}, "margin: expected a number from 0"),
    ({"margin": 10**400}, "margin: expected a number from 0"),
])
def test_a_bad_field_is_named_with_file_and_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path = lines(tmp_path / "pairs.jsonl", GOOD, "", GOOD | change)
    with pytest.raises(PreferenceError) as error:
        read_preferences(path)
    assert str(error.value).startswith(f"{path}:3: {told}")


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_field_is_named(tmp_path: Path, name: str) -> None:
    path = lines(tmp_path / "pairs.jsonl", {key: value for key, value in GOOD.items() if key != name})
    with pytest.raises(PreferenceError, match=rf":1: {name}: expected .*no such field"):
        read_preferences(path)


@pytest.mark.parametrize("good", [1, "true", None])
def test_good_is_true_or_false(tmp_path: Path, good: object) -> None:
    path = lines(tmp_path / "judged.jsonl", {"group": "g", "prompt": "p", "context": [], "answer": "a", "good": good})
    with pytest.raises(PreferenceError, match=":1: good: expected true or false"):
        read_judged(path)


@pytest.mark.parametrize("text", ["{", "[1]", '"pair"', "[" * 100_000])
def test_a_line_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PreferenceError, match=":2: expected one JSON object"):
        read_preferences(lines(tmp_path / "pairs.jsonl", GOOD, text))


def test_up_to_ten_bad_records_are_told_together(tmp_path: Path) -> None:
    path = lines(tmp_path / "pairs.jsonl", *[GOOD | {"chosen": ""}] * 30)
    with pytest.raises(PreferenceError) as error:
        read_preferences(path)
    assert str(error.value).count(": chosen: ") == 10
    assert "more not checked" in str(error.value)


def test_files_that_are_empty_absent_or_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PreferenceError, match="at least one record"):
        read_preferences(lines(tmp_path / "empty.jsonl", "", " "))
    with pytest.raises(PreferenceError, match="can't be read"):
        read_preferences(tmp_path / "absent.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(GOOD, ensure_ascii=False).encode() + b"\n\xe9\n")
    with pytest.raises(PreferenceError, match="expected UTF-8 text, got byte 0xe9"):
        read_preferences(tmp_path / "latin.jsonl")


@pytest.mark.parametrize("text", ["₹99 a month", "two\nlines", "a\u2028b\x85c\x0cd", 'quotes "here"', "half a pair \ud83d"])
def test_what_is_written_reads_back_as_it_was(tmp_path: Path, text: str) -> None:
    pairs = (Preference(text, text, (text, ""), text, f"not {text}", 2 / 3), Preference("g", "p", (), "a", "b"))
    write_preferences(tmp_path / "pairs.jsonl", pairs)
    assert read_preferences(tmp_path / "pairs.jsonl") == pairs


def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(PreferenceError, match="can't be written"):
        write_preferences(tmp_path / "absent" / "pairs.jsonl", PAIRS)


def test_a_swapped_pair_keeps_all_but_the_order() -> None:
    pair = Preference("g", "p", ("c",), "a", "b", 0.5)
    assert pair.swapped == Preference("g", "p", ("c",), "b", "a", 0.5)
    assert pair.swapped.swapped == pair


def test_four_ranked_answers_make_six_pairs_each_better_before_each_worse() -> None:
    pairs = all_pairs("g", "p", ["c"], ["1", "2", "3", "4"])
    assert [(one.chosen, one.rejected) for one in pairs] == [("1", "2"), ("1", "3"), ("1", "4"), ("2", "3"), ("2", "4"), ("3", "4")]
    assert {(one.group, one.prompt, one.context) for one in pairs} == {("g", "p", ("c",))}
    assert all_pairs("g", "p", [], ["1"]) == ()


@settings(max_examples=25)
@given(share=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_no_group_stands_on_both_sides_of_a_split(share: float, seed: int) -> None:
    kept, held = split(PAIRS, share, seed)
    assert not {one.group for one in kept} & {one.group for one in held}
    assert sorted((*kept, *held), key=PAIRS.index) == list(PAIRS)
    assert list(held) == sorted(held, key=PAIRS.index)


def test_a_split_holds_out_about_its_share_and_another_seed_other_groups() -> None:
    many = [Preference(f"g{n}", "p", (), "a", "b") for n in range(2000)]
    held = [{one.group for one in split(many, 0.2, seed)[1]} for seed in (0, 1)]
    assert [len(groups) for groups in held] == pytest.approx([400, 400], abs=80)
    assert len(held[0] & held[1]) < 160
    assert split(many, 0.0)[1] == ()
    assert split(many, 1.0)[0] == ()


def test_a_group_falls_on_the_same_side_whatever_else_the_file_holds() -> None:
    held = {one.group for one in split(PAIRS, 0.3)[1]}
    assert {one.group for one in split(PAIRS[:50], 0.3)[1]} == held & {one.group for one in PAIRS[:50]}
    assert place("g", 0) == pytest.approx(0.6001465, abs=1e-6)  # of `printf "0\0g" | sha256sum`
    assert 0 <= place("half a pair \ud83d", 0) < 1
