"""Session files into the log and out again."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.errors import LogError, SessionFileError
from chat.log.plain import as_object, read_sessions
from chat.log.sessions import BATCH, Imported, import_sessions, plain_sessions
from chat.log.store import SqlConversationLog

TURN = {"query": "q", "answer": "a", "gold": ["f1"], "kind": "faq"}


def written(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def exported(log: SqlConversationLog) -> list[dict[str, object]]:
    return [json.loads(json.dumps(as_object(session))) for session in plain_sessions(log)]


@pytest.mark.parametrize(("name", "turns"), [("mtrag", 578), ("dstc11", 11303)])
def test_public_sessions_come_out_as_they_went_in(log: SqlConversationLog, shared_data: Path, name: str, turns: int) -> None:
    file = shared_data / name / "sessions.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert import_sessions(log, [file]) == Imported(len(records), turns, 0)
    assert exported(log) == records
    assert import_sessions(log, [file]) == Imported(0, 0, len(records))
    assert log.turn_count() == turns


texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=9)
plain_turns = st.builds(
    lambda extra, known: {**extra, **known},
    st.dictionaries(words, json_values, max_size=2),
    st.fixed_dictionaries(
        {"query": words, "gold": st.none() | st.lists(words, max_size=2), "kind": words},
        optional={"answer": st.none() | words | st.just("")},
    ),
)
sessions = st.lists(
    st.builds(
        lambda extra, known: {**extra, **known},
        st.dictionaries(words, json_values, max_size=2),
        st.fixed_dictionaries({"id": words, "turns": st.lists(plain_turns, min_size=1, max_size=3)}),
    ),
    min_size=1, max_size=3, unique_by=lambda record: str(record["id"]),
)


@settings(max_examples=40, deadline=None)
@given(records=sessions)
def test_any_session_comes_out_as_it_went_in_unknown_fields_included(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    for record in records:  # a field of ours under "extra" must be of our type, or the record is broken
        for turn in record["turns"]:
            if not isinstance(turn.get("answer"), (str, type(None))) or "\x00" in (turn.get("answer") or ""):
                del turn["answer"]
    folder = tmp_path_factory.mktemp("log")
    with SqlConversationLog(str(folder / "log.db")) as log:
        import_sessions(log, [written(folder / "sessions.jsonl", *records)])
        found = exported(log)
    assert json.dumps(found, sort_keys=True) == json.dumps(records, sort_keys=True)


def test_an_answer_of_null_and_none_at_all_stay_apart(log: SqlConversationLog, tmp_path: Path) -> None:
    said = [{"query": "q", "gold": None, "kind": "k"}, {"query": "q", "answer": None, "gold": [], "kind": "k"},
            {"query": "q", "answer": "", "gold": [], "kind": "k"}]
    import_sessions(log, [written(tmp_path / "s.jsonl", {"id": "s1", "turns": said})])
    assert exported(log) == [{"id": "s1", "turns": said}]


def test_sessions_keep_their_order_over_the_edge_of_a_batch(log: SqlConversationLog, tmp_path: Path) -> None:
    names = [f"s{n}" for n in reversed(range(BATCH + 1))]
    seen: list[int] = []
    import_sessions(log, [written(tmp_path / "s.jsonl", *({"id": name, "turns": [TURN]} for name in names))],
                    progress=seen.append)
    assert [record["id"] for record in exported(log)] == names
    assert seen == [BATCH, 1]


def test_the_same_session_again_is_skipped_and_a_new_one_beside_it_is_not(log: SqlConversationLog, tmp_path: Path) -> None:
    first = {"id": "s1", "turns": [TURN]}
    import_sessions(log, [written(tmp_path / "a.jsonl", first)])
    both = written(tmp_path / "b.jsonl", first, {"id": "s2", "turns": [TURN, TURN]})
    assert import_sessions(log, [both]) == Imported(sessions=1, turns=2, skipped=1)


def test_the_same_session_with_its_fields_in_another_order_is_the_same(log: SqlConversationLog, tmp_path: Path) -> None:
    import_sessions(log, [written(tmp_path / "a.jsonl", {"id": "s1", "x": 1, "y": {"a": 1, "b": 2}, "turns": [TURN]})])
    again = written(tmp_path / "b.jsonl", {"turns": [dict(reversed(TURN.items()))], "y": {"b": 2, "a": 1}, "x": 1, "id": "s1"})
    assert import_sessions(log, [again]) == Imported(0, 0, skipped=1)


@pytest.mark.parametrize("other", [
    {"id": "s1", "turns": [TURN, TURN]},
    {"id": "s1", "turns": [{**TURN, "gold": []}]},
    {"id": "s1", "turns": [{**TURN, "weight": 1}]},
    {"id": "s1", "turns": [TURN], "domain": "cards"},
])
def test_an_id_that_is_there_with_other_content_is_an_error_and_nothing_is_imported(
    log: SqlConversationLog, tmp_path: Path, other: dict[str, object]
) -> None:
    import_sessions(log, [written(tmp_path / "a.jsonl", {"id": "s1", "turns": [TURN]})])
    file = written(tmp_path / "b.jsonl", {"id": "s0", "turns": [TURN]}, other)
    with pytest.raises(SessionFileError, match=r"b\.jsonl:2: id: .*'s1', which is there with other content"):
        import_sessions(log, [file])
    assert [record["id"] for record in exported(log)] == ["s1"]


def test_true_and_one_are_other_content(log: SqlConversationLog, tmp_path: Path) -> None:
    import_sessions(log, [written(tmp_path / "a.jsonl", {"id": "s1", "turns": [TURN], "checked": 1})])
    with pytest.raises(SessionFileError, match="other content"):
        import_sessions(log, [written(tmp_path / "b.jsonl", {"id": "s1", "turns": [TURN], "checked": True})])


GOOD = json.dumps({"id": "good", "turns": [TURN]})


@pytest.mark.parametrize(("line", "told"), [
    ("{", "expected one JSON object, got text that doesn't parse"),
    ("[1]", "expected one JSON object, got list"),
    ('{"turns": [{"query": "q", "gold": null, "kind": "k"}]}', "id: expected text, got no such field"),
    ('{"id": 7, "turns": [{"query": "q", "gold": null, "kind": "k"}]}', "id: expected text, got 7"),
    ('{"id": "s"}', "turns: expected a list of at least one turn, got no such field"),
    ('{"id": "s", "turns": []}', r"turns: expected a list of at least one turn, got \[\]"),
    ('{"id": "s", "turns": ["q"]}', r"turns\[0\]: expected an object, got str"),
    ('{"id": "s", "turns": [{"gold": null, "kind": "k"}]}', r"turns\[0\]\.query: expected text, got no such field"),
    ('{"id": "s", "turns": [{"query": "", "gold": null, "kind": "k"}]}', r"turns\[0\]\.query: expected text, got ''"),
    ('{"id": "s", "turns": [{"query": "q", "kind": "k"}]}', r"turns\[0\]\.gold: expected .*, got no such field"),
    ('{"id": "s", "turns": [{"query": "q", "gold": "f1", "kind": "k"}]}', r"turns\[0\]\.gold: expected .*, got 'f1'"),
    ('{"id": "s", "turns": [{"query": "q", "gold": [1], "kind": "k"}]}', r"turns\[0\]\.gold: expected .*, got \[1\]"),
    ('{"id": "s", "turns": [{"query": "q", "gold": null}]}', r"turns\[0\]\.kind: expected text, got no such field"),
    ('{"id": "s", "turns": [{"query": "q", "gold": null, "kind": "k", "answer": 1}]}', r"turns\[0\]\.answer: expected text"),
    ('{"id": "s", "turns": [{"query": "\\u0000", "gold": null, "kind": "k"}]}', r"turns\[0\]\.query: .* NUL"),
    ('{"id": "s", "turns": [{"query": "\\ud83d", "gold": null, "kind": "k"}]}', r"turns\[0\]\.query: .* well-formed text"),
    ('{"id": "s", "turns": [{"query": "q", "gold": null, "kind": "k", "w": 1e999}]}', r"turns\[0\]\.w: expected finite"),
    ('{"id": "s", "x": NaN, "turns": [{"query": "q", "gold": null, "kind": "k"}]}', "x: expected finite numbers"),
    (GOOD, "id: expected an id of its own, got 'good', which stands on line 1 already"),
])
def test_a_broken_record_is_named_and_nothing_is_loaded(log: SqlConversationLog, tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "sessions.jsonl"
    file.write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(SessionFileError, match=rf"sessions\.jsonl:3: {told}"):
        import_sessions(log, [file])
    assert exported(log) == []


def test_a_broken_second_file_keeps_the_first_one_out_too(log: SqlConversationLog, tmp_path: Path) -> None:
    good, bad = written(tmp_path / "a.jsonl", {"id": "s1", "turns": [TURN]}), written(tmp_path / "b.jsonl", {"id": "s2"})
    with pytest.raises(SessionFileError, match=r"b\.jsonl:1: turns"):
        import_sessions(log, [good, bad])
    assert exported(log) == []


def test_the_first_ten_bad_records_are_reported_together(tmp_path: Path) -> None:
    file = written(tmp_path / "s.jsonl", *({"id": f"s{n}"} for n in range(30)))
    with pytest.raises(SessionFileError) as caught:
        list(read_sessions(file))
    assert str(caught.value).count("turns: expected") == 10
    assert "more not checked" in str(caught.value)


@pytest.mark.parametrize(("content", "told"), [
    (b"", "expected at least one session, got none"),
    (b'{"id": "\xff"}\n', "expected UTF-8 text, got byte 0xff"),
    (None, "can't be read"),
])
def test_a_file_that_can_not_be_used_is_named(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "s.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SessionFileError, match=rf"s\.jsonl: {told}"):
        list(read_sessions(file))


def test_an_import_that_is_broken_off_leaves_nothing(log: SqlConversationLog, tmp_path: Path) -> None:
    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_sessions(log, [written(tmp_path / "s.jsonl", {"id": "s1", "turns": [TURN]})], progress=interrupt)
    assert exported(log) == []
    assert log.conversations(limit=1) == ()


def test_a_broken_file_does_not_take_the_lock(log: SqlConversationLog, tmp_path: Path) -> None:
    caught: list[Exception] = []

    def import_broken() -> None:
        try:
            import_sessions(log, [written(tmp_path / "s.jsonl", {"id": "s1"})])
        except Exception as error:
            caught.append(error)

    with log.writing("another write"):
        thread = threading.Thread(target=import_broken)
        thread.start()
        thread.join()
    assert [type(error) for error in caught] == [SessionFileError]
    assert LogError not in [type(error) for error in caught]


def test_served_conversations_come_out_as_unlabelled_sessions(log: SqlConversationLog, make_turn: Any) -> None:
    log.append(make_turn("t1", query="hello", answer="hi"))
    log.append(make_turn("t2", query="Suggest a title", background=True))
    log.append(make_turn("t3", conversation_id="c2", query="Suggest a title", background=True))
    log.append(make_turn("t4", query="bye", answer=""))
    assert exported(log) == [{"id": "c1", "turns": [
        {"query": "hello", "answer": "hi", "gold": None, "kind": "unlabelled"},
        {"query": "bye", "answer": "", "gold": None, "kind": "unlabelled"},
    ]}]


def test_conversations_of_one_name_get_names_of_their_own(log: SqlConversationLog, make_turn: Any, tmp_path: Path) -> None:
    log.append(make_turn("t1", owner="alice", conversation_id="s1"))
    log.append(make_turn("t2", owner="bob", conversation_id="s1"))
    log.append(make_turn("t3", owner="bob", conversation_id="s2"))
    import_sessions(log, [written(tmp_path / "s.jsonl", {"id": "s1", "turns": [TURN]})])
    assert [record["id"] for record in exported(log)] == ["alice/s1", "bob/s1", "s2", "s1"]
