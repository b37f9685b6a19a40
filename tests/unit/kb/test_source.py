"""FAQ files: what is taken, and what each bad file is told."""

import csv
import json
import re
from pathlib import Path

import pytest

from kb.errors import SourceError
from kb.source import MAX_CHARACTERS, read_faqs, write_faqs
from kb.types import Faq

GOOD = {"id": "a", "question": "How?", "answer": "So."}


def written(folder: Path, content: str | bytes, name: str = "faqs.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def line(**fields: object) -> str:
    return json.dumps({**GOOD, **fields}) + "\n"


def test_every_field_of_a_json_line_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, line(category="pay", paraphrases=["Which way?", "By what?"], source_url="https://x.org/a", more=1))
    assert read_faqs(path) == (Faq("a", "How?", "So.", "pay", ("Which way?", "By what?"), "https://x.org/a"),)


def test_what_a_json_line_leaves_out_is_none_or_empty(tmp_path: Path) -> None:
    path = written(tmp_path, line(category=None, paraphrases=None, source_url=""))
    assert read_faqs(path) == (Faq("a", "How?", "So."),)


def test_spaces_around_texts_and_repeated_paraphrases_are_dropped(tmp_path: Path) -> None:
    path = written(tmp_path, line(question="  How? ", category=" pay ", paraphrases=["b ", "b", " ", "c"]))
    assert read_faqs(path) == (Faq("a", "How?", "So.", "pay", ("b", "c")),)


def test_a_passage_without_a_question_and_an_intent_without_an_answer_are_faqs(tmp_path: Path) -> None:
    faqs = read_faqs(written(tmp_path, line(question="") + line(id="b", answer=None)))
    assert [(faq.question, faq.answer) for faq in faqs] == [("", "So."), ("How?", "")]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_blank_lines_and_either_line_ending_are_taken(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, ending.join(["", line().strip(), "", line(id="b").strip(), ""]))
    assert [faq.id for faq in read_faqs(path)] == ["a", "b"]


@pytest.mark.parametrize("name", ["faqs.jsonl", "FAQS.JSONL", "faqs.ndjson"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, name: str) -> None:
    assert read_faqs(written(tmp_path, b"\xef\xbb\xbf" + line().encode(), name))[0].id == "a"


@pytest.mark.parametrize("text", [
    "كيف أسترد أموالي؟", "איך מקבלים החזר?", "How? 🤷🏽‍♀️🇻🇳", "Làm sao để được hoàn tiền?", "一\u2028二", "a\u0301\u200d",
])
def test_any_script_and_emoji_come_through_both_formats_unchanged(tmp_path: Path, text: str) -> None:
    table = tmp_path / "faqs.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "question", "answer"], ["a", text, text]])
    assert read_faqs(table) == read_faqs(written(tmp_path, line(question=text, answer=text))) == (Faq("a", text, text),)


def test_a_csv_has_its_columns_by_name_in_any_order(tmp_path: Path) -> None:
    text = '\ufeffanswer,paraphrases,notes,question,id\r\n"So, and so.",Which way?| By what?,x,How?,a\r\n'
    path = written(tmp_path, text, "faqs.csv")
    assert read_faqs(path) == (Faq("a", "How?", "So, and so.", None, ("Which way?", "By what?")),)


def test_a_csv_row_without_id_gets_one_that_lasts_as_long_as_its_question(tmp_path: Path) -> None:
    before = read_faqs(written(tmp_path, "question,answer\nHow do I pay?,So.\nWhy?,Because.\n", "a.csv"))
    after = read_faqs(written(tmp_path, "question,answer\nWhy?,Because.\nHow do I pay?,Quite differently.\n", "b.csv"))
    assert {faq.id for faq in before} == {faq.id for faq in after}
    assert before[0].id == after[1].id
    assert re.fullmatch(r"how-do-i-pay-[0-9a-f]{6}", before[0].id)


def test_an_error_after_quoted_line_breaks_names_the_line_that_its_row_begins_on(tmp_path: Path) -> None:
    text = 'id,question,answer\na,"one\ntwo\nthree",So.\n\nb,"four\nfive","six\nseven"\nc d,Why?,\n'
    path = written(tmp_path, text, "faqs.csv")
    with pytest.raises(SourceError) as raised:
        read_faqs(path)
    assert str(raised.value).startswith(f"{path}:9: id: expected text without spaces")


def test_a_cell_with_line_breaks_keeps_them(tmp_path: Path) -> None:
    assert read_faqs(written(tmp_path, 'question,answer\nHow?,"1. Go\n2. Come"\n', "faqs.csv"))[0].answer == "1. Go\n2. Come"


def test_a_file_of_a_hundred_thousand_characters_in_a_cell_is_taken_and_one_more_is_not(tmp_path: Path) -> None:
    longest = "x" * MAX_CHARACTERS
    for name, text in (("a.csv", f"question,answer\nHow?,{longest}\n"), ("a.jsonl", line(answer=longest))):
        assert read_faqs(written(tmp_path, text, name))[0].answer == longest
        with pytest.raises(SourceError, match=r":\d: answer: expected at most 100,000 characters, got 100,001"):
            read_faqs(written(tmp_path, text.replace(longest, longest + "x"), name))


BAD_LINES = {
    "broken JSON": ('{"id": "a", "question": ', 2, "expected one JSON object, got text that doesn't parse"),
    "another JSON value": ("[1, 2]", 2, "expected one JSON object, got list"),
    "a number too long to parse": (f'{{"id": {"9" * 5000}}}', 2, "expected one JSON object, got text that doesn't parse"),
    "deeply nested JSON": ("[" * 100_000 + "]" * 100_000, 2, "expected one JSON object, got text that doesn't parse"),
    "an object as deep": ('{"id":' * 100_000 + "1" + "}" * 100_000, 2, "expected one JSON object, got text that doesn't parse"),
    "no id": ('{"question": "q", "answer": "a"}', 2, "id: expected this field"),
    "a blank id": (line(id=" \t"), 2, "id: expected this field"),
    "an id with spaces": (line(id="a b"), 2, "id: expected text without spaces, got 'a b'"),
    "an id that isn't text": (line(id=7), 2, "id: expected text, got int '7'"),
    "a duplicate id": (line(id="first"), 2, "id: 'first' stands on line 1 already"),
    "no question": ('{"id": "a", "answer": "x"}', 2, "question: expected this field, got only 'answer, id'"),
    "no answer": ('{"id": "a", "question": "x"}', 2, "answer: expected this field, got only 'id, question'"),
    "neither question nor answer": (line(question=" ", answer=None), 2, "question: expected a question or an answer"),
    "a question that isn't text": (line(question=["q"]), 2, "question: expected text, got list"),
    "an answer that isn't text": (line(answer={"a": 1}), 2, "answer: expected text, got dict"),
    "a category that isn't text": (line(category=1.5), 2, "category: expected text, got float '1.5'"),
    "paraphrases that are no list": (line(paraphrases={"a": 1}), 2, "paraphrases: expected a list of texts, got dict"),
    "a paraphrase that isn't text": (line(paraphrases=["b", 1]), 2, "paraphrases: expected text, got int '1'"),
    "a NUL in a text": (line(answer="a\0b"), 2, "answer: expected text, got a NUL byte"),
    "a NUL in a paraphrase": (line(paraphrases=["a\0b"]), 2, "paraphrases: expected text, got a NUL byte"),
    "half an emoji": (line(question="\ud83e"), 2, "question: expected text, got half of a surrogate pair"),
    "a megabyte": (line(answer="x" * 2**20), 2, "answer: expected at most 100,000 characters, got 1,048,576"),
    "a link that isn't http": (line(source_url="javascript:alert(1)"), 2, "source_url: expected http(s)://"),
    "binary rubbish": ("\0\1\2", 2, "expected one JSON object, got text that doesn't parse"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_json_line_is_named_by_file_line_and_field_and_nothing_is_loaded(tmp_path: Path, case: str) -> None:
    bad, number, expected = BAD_LINES[case]
    path = written(tmp_path, line(id="first") + bad.strip("\n") + "\n" + line(id="last"))
    with pytest.raises(SourceError) as raised:
        read_faqs(path)
    first, *_, last = str(raised.value).splitlines()
    assert first.startswith(f"{path}:{number}: {expected}")
    assert last.startswith("Nothing was loaded")


BAD_TABLES = {
    "no question column": ("id,answer\na,So.\n", 1, "question: expected this column in the header, got 'id, answer'"),
    "no answer column": ("question\nHow?\n", 1, "answer: expected this column in the header"),
    "columns by semicolon": ("id;question;answer\na;How?;So.\n", 1, "question: expected this column in the header"),
    "an empty file": ("", 1, "question: expected this column in the header, got ''"),
    "a column twice": ("question,answer,answer\nHow?,a,b\n", 1, "answer: expected one column of this name, got 2"),
    "a cell too many": ("question,answer\nHow?,So, and so.\n", 2, "answer: expected 2 cells, got 3; quote cells"),
    "a cell too few": ("question,answer,category\nHow?,So.\n", 2, "category: expected 3 cells, got 2"),
    "a quote left open": ('question,answer\nHow?,"So.\nWhy?,Because.\n', 2, "expected well-formed CSV, got unexpected end"),
    "text after a quote": ('question,answer\nHow?,"So" and so.\n', 2, "expected well-formed CSV"),
    "a megabyte": (f"question,answer\nHow?,{'x' * 2**20}\n", 2, "answer: expected at most 100,000 characters, got 1,048,576"),
    "a NUL": ("question,answer\nHow?,a\0b\n", 2, "answer: expected text, got a NUL byte"),
    "a NUL in a paraphrase": ("question,answer,paraphrases\nHow?,b,c|d\0\n", 2, "paraphrases: expected text, got a NUL byte"),
    "a duplicate id": ("id,question,answer\na,b,c\n\na,d,e\n", 4, "id: 'a' stands on line 2 already"),
    "the same question twice": ("question,answer\nb,c\nb,e\n", 3, "id: 'b-"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_csv_is_named_by_file_line_and_field_and_nothing_is_loaded(tmp_path: Path, case: str) -> None:
    text, number, expected = BAD_TABLES[case]
    path = written(tmp_path, text, "faqs.csv")
    limit = csv.field_size_limit()
    with pytest.raises(SourceError) as raised:
        read_faqs(path)
    assert str(raised.value).startswith(f"{path}:{number}: {expected}")
    assert csv.field_size_limit() == limit


def test_records_without_any_text_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (written(tmp_path, line() + line(id="b", question=" ", answer="\n") + line(id="c")),
                 written(tmp_path, "id,question,answer\na,How?,So.\n,,\nc,How?,So.\n", "faqs.csv")):
        caplog.clear()
        assert [faq.id for faq in read_faqs(path)] == ["a", "c"]
        assert f"{path}: 1 records with neither question nor answer are left out" in caplog.text


@pytest.mark.parametrize("name", ["faqs.jsonl", "faqs.csv"])
def test_a_byte_that_is_not_utf8_is_named_with_its_line_however_far_in(tmp_path: Path, name: str) -> None:
    lines = (f"a{n},How?,So.\n" if name.endswith("csv") else line(id=f"a{n}") for n in range(20_000))
    rows = b"id,question,answer\n" * name.endswith("csv") + "".join(lines).encode()
    number = rows.count(b"\n") + 1
    path = written(tmp_path, rows + b"caf\xe9\n" + rows, name)
    with pytest.raises(SourceError) as raised:
        read_faqs(path)
    assert str(raised.value).startswith(f"{path}:{number}: expected UTF-8 text, got byte 0xe9")


def test_utf16_is_named_as_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"faqs.csv:1: expected UTF-8 text, got byte 0xff"):
        read_faqs(written(tmp_path, "question,answer\n".encode("utf-16"), "faqs.csv"))


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_json_lines_file_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(SourceError, match=r"faqs.jsonl: expected at least one FAQ, got none"):
        read_faqs(written(tmp_path, content))


def test_a_table_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected at least one FAQ, got none"):
        read_faqs(written(tmp_path, "question,answer\n", "faqs.csv"))


def test_ten_errors_are_reported_together_and_the_rest_is_not_checked(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as raised:
        read_faqs(written(tmp_path, line(category=1) * 25))
    lines = str(raised.value).splitlines()
    assert [text.split(": ")[0].rsplit(":")[-1] for text in lines[:10]] == [str(n) for n in range(1, 11)]
    assert lines[10:] == ["… (more not checked)", "Nothing was loaded; mend these records and try again."]


def test_a_file_of_another_format_a_missing_one_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path, expected in (
        (written(tmp_path, "", "faqs.xlsx"), "expected a .jsonl or .csv file, got '.xlsx'"),
        (tmp_path / "faqs", "expected a .jsonl or .csv file, got 'no ending'"),
        (tmp_path / "none.jsonl", "can't be read (No such file or directory)"),
        (tmp_path, "expected a .jsonl or .csv file"),
    ):
        with pytest.raises(SourceError, match=re.escape(f"{path}: {expected}")):
            read_faqs(path)
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    with pytest.raises(SourceError, match="Is a directory"):
        read_faqs(folder)


def test_written_faqs_are_json_lines_that_people_can_read(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_faqs(path, (Faq("a", "Làm sao?", "So."), Faq("b", "", "x\ny", "pay", ("c",), "http://x.org")))
    assert path.read_text(encoding="utf-8").splitlines()[0] == '{"id": "a", "question": "Làm sao?", "answer": "So."}'
    assert read_faqs(path)[1] == Faq("b", "", "x\ny", "pay", ("c",), "http://x.org")
