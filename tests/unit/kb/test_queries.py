"""Labelled queries: what is written comes back, and a bad record is named by file, line and field."""

import json
from pathlib import Path

import pytest

from kb.errors import SourceError
from kb.queries import LabelledQuery, read_queries, with_queries, write_queries
from kb.types import Faq

IDS = ("pay", "refund", "ship")


def written(folder: Path, *records: object) -> Path:
    path = folder / "queries.jsonl"
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records), encoding="utf-8")
    return path


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    queries = (
        LabelledQuery("Can I pay\nby card?", ("pay",)),
        LabelledQuery("pay and refund? \u2028 \x85", ("refund", "pay"), ("ship",), "en"),
        LabelledQuery("Đổi trả thế nào? 🤷", (), ("pay",), "vi"),
        LabelledQuery("the weather", ()),
        LabelledQuery("only wrong", None, ("ship", "pay")),
    )
    write_queries(tmp_path / "q.jsonl", queries)
    assert read_queries(tmp_path / "q.jsonl", IDS) == queries


def test_the_conversation_of_a_query_is_not_written(tmp_path: Path) -> None:
    write_queries(tmp_path / "q.jsonl", [LabelledQuery("and gold?", ("pay",), conversation="c1", previous="before", known=("ship",))])
    assert read_queries(tmp_path / "q.jsonl", IDS) == (LabelledQuery("and gold?", ("pay",)),)


def test_a_good_answer_settles_with_what_it_cites_and_a_bad_one_tells_what_is_wrong(tmp_path: Path) -> None:
    path = written(tmp_path, {"query": "card?", "cited": ["pay", "ship"], "good": True, "language": "en"},
                   {"query": "card?", "cited": ["refund"], "good": False})
    assert read_queries(path, IDS) == (LabelledQuery("card?", ("pay", "ship"), (), "en"), LabelledQuery("card?", None, ("refund",)))


def test_what_is_not_labelled_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, {"query": "a", "gold": None}, {"query": "b", "cited": ["pay"], "good": None},
                   {"query": "c", "cited": [], "good": True}, {"query": "d", "gold": None, "wrong": ["pay"]}, {"query": "e", "gold": []})
    assert read_queries(path, IDS) == (LabelledQuery("d", None, ("pay",)), LabelledQuery("e", ()))


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"query": "a", "gold": ["pay"]}\r\n\n  \n{"query": "b", "gold": []}')
    assert [query.query for query in read_queries(path, IDS)] == ["a", "b"]


@pytest.mark.parametrize(("record", "message"), [
    ("{", "expected one JSON object, got text that doesn't parse"),
    ("[" * 100_000, "expected one JSON object, got text that doesn't parse"),
    ("[]", "expected one JSON object, got list"),
    ({"gold": []}, "query: expected a text, got None"),
    ({"query": " \n", "gold": []}, r"query: expected a text, got ' \\n'"),
    ({"query": 7, "gold": []}, "query: expected a text, got 7"),
    ({"query": "a"}, "gold: expected this field, or `good` and `cited`"),
    ({"query": "a", "gold": "pay"}, "gold: expected a list of FAQ ids, got str"),
    ({"query": "a", "gold": [7]}, "gold: expected FAQ ids, got 7"),
    ({"query": "a", "gold": ["gone"]}, "gold: expected ids of the knowledge base's FAQs, got 'gone', which it lacks; use the FAQ file"),
    ({"query": "a", "gold": [], "wrong": {"pay": 1}}, "wrong: expected a list of FAQ ids, got dict"),
    ({"query": "a", "gold": [], "wrong": ["gone"]}, "wrong: expected ids of the knowledge base's FAQs, got 'gone', which it lacks"),
    ({"query": "a", "gold": ["pay"], "wrong": ["pay"]}, "wrong: expected FAQs that aren't gold, got 'pay', which is both"),
    ({"query": "a", "gold": [], "language": 1}, "language: expected a text, got 1"),
    ({"query": "a", "cited": ["pay"], "good": "yes"}, "good: expected true, false or null, got 'yes'"),
    ({"query": "a", "cited": ["pay"], "good": 1}, "good: expected true, false or null, got 1"),
    ({"query": "a", "cited": "pay", "good": True}, "cited: expected a list of FAQ ids, got str"),
    ({"query": "a", "cited": ["gone"], "good": False}, "cited: expected ids of the knowledge base's FAQs, got 'gone', which it lacks"),
])
def test_a_bad_record_is_named_by_file_line_and_field(tmp_path: Path, record: object, message: str) -> None:
    path = written(tmp_path, {"query": "fine", "gold": ["pay"]}, "", record)
    with pytest.raises(SourceError, match=f"^{path}:3: {message}(.|\n)*Nothing was loaded"):
        read_queries(path, IDS)


def test_ten_bad_records_are_named_and_no_more(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as raised:
        read_queries(written(tmp_path, *[{"query": "", "gold": []}] * 30), IDS)
    assert str(raised.value).count("queries.jsonl:") == 10


@pytest.mark.parametrize("content", [b"", b"\n \n", b'{"query": "a", "gold": null}'])
def test_a_file_without_a_labelled_query_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="expected at least one labelled query, got none"):
        read_queries(path, IDS)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"query": "\xe9", "gold": []}')
    for name in ("none.jsonl", "latin.jsonl"):
        with pytest.raises(SourceError, match=f"{name}: can't be read .*; expected JSON lines in UTF-8"):
            read_queries(tmp_path / name, IDS)


def test_a_query_is_a_text_and_no_faq_both_settles_it_and_does_not() -> None:
    with pytest.raises(ValueError, match="query: expected a text, got nothing"):
        LabelledQuery("  ", ())
    with pytest.raises(ValueError, match="wrong: expected FAQs that aren't gold, got 'a', which is both"):
        LabelledQuery("q", ("b", "a"), ("a",))


def test_queries_are_indexed_as_paraphrases_of_every_faq_that_settles_them_once() -> None:
    faqs = (Faq("pay", "How do I pay?", "By card.", paraphrases=("payment",)), Faq("ship", "Where to?", "Anywhere."))
    labelled = [LabelledQuery("payment", ("pay",)), LabelledQuery("pay abroad", ("pay", "ship")), LabelledQuery("hi", ()),
                LabelledQuery("bad", None, ("pay",))]
    assert [faq.paraphrases for faq in with_queries(faqs, labelled)] == [("payment", "pay abroad"), ("pay abroad",)]
