"""The plain format of sessions: conversations with their labels, one JSON object a line.

    {"id", "turns": [{"query", "answer"?, "gold": [faq ids] | null, "kind"}]}

`gold: []` needs no FAQ, null is unlabelled. Fields that aren't named here are kept, in the session and in the turn, and
come back as they were. Leaves out the log (`sessions.py`) and splits for training and testing (`evaluation/`).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chat.errors import SessionFileError

MAX_REPORTED = 10


@dataclass(frozen=True, slots=True)
class PlainTurn:
    """A query with its labels."""

    query: str
    answer: str | None
    gold: tuple[str, ...] | None
    """FAQ ids that answer it; () needs none, None is unlabelled."""
    kind: str
    extra: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the record; among them `answer` where it stands there as null."""


@dataclass(frozen=True, slots=True)
class PlainSession:
    """A conversation."""

    id: str
    turns: tuple[PlainTurn, ...]
    extra: Mapping[str, object] = field(default_factory=dict)


def read_sessions(path: Path) -> Iterator[PlainSession]:
    """The sessions of a file, one by one. Up to ten bad records are reported together, at the file's end.

    Raises: SessionFileError naming file, line and field; what was given before it must not be kept.
    """
    return (session for _, session in numbered_sessions(path))


def numbered_sessions(path: Path) -> Iterator[tuple[int, PlainSession]]:
    """`read_sessions` with the line of each; nothing more is given once a record was bad."""
    first_line: dict[str, int] = {}
    errors: list[str] = []
    for line, text in numbered_lines(path):
        try:
            session = _session(text)
            if session.id in first_line:
                raise ValueError(f"id: expected an id of its own, got {session.id!r}, which stands on line "
                                 f"{first_line[session.id]} already")
        except ValueError as error:
            errors.append(f"{path}:{line}: {error}")
            if len(errors) == MAX_REPORTED:
                errors.append("… (more not checked)")
                break
        else:
            first_line[session.id] = line
            if not errors:
                yield line, session
    if errors:
        raise SessionFileError("\n".join([*errors, "Nothing was loaded; mend these records and try again."]))
    if not first_line:
        raise SessionFileError(f"{path}: expected at least one session, got none")


def as_object(session: PlainSession) -> dict[str, object]:
    """The JSON object of a session: equal to the one that it was read from."""
    return {"id": session.id, **session.extra, "turns": [_turn_object(turn) for turn in session.turns]}


def _turn_object(turn: PlainTurn) -> dict[str, object]:
    answer = {} if turn.answer is None else {"answer": turn.answer}
    gold = None if turn.gold is None else list(turn.gold)
    return {"query": turn.query, **answer, "gold": gold, "kind": turn.kind, **turn.extra}


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that aren't blank, each with its number. Raises: SessionFileError."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            yield from ((number, text) for number, text in enumerate(file, 1) if text.strip())
    except UnicodeDecodeError as error:
        raise SessionFileError(f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#x}; save the file as UTF-8") \
            from error
    except OSError as error:
        raise SessionFileError(f"{path}: can't be read ({error.strerror}); check the path and its permissions") from error


def parsed(text: str) -> object:
    """What a line says in JSON. Raises: ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected one JSON object, got text that doesn't parse ({error})") from error


def _session(text: str) -> PlainSession:
    """One line as a session. Raises: ValueError that begins with the field's name."""
    record = parsed(text)
    if not isinstance(record, dict):
        raise ValueError(f"expected one JSON object, got {type(record).__name__}")
    said = record.get("turns")
    if not isinstance(said, list) or not said:
        raise ValueError(f"turns: expected a list of at least one turn, got {_shown(record, 'turns')}")
    extra = {name: value for name, value in record.items() if name not in ("id", "turns")}
    _check_storable({"id": record.get("id"), **extra}, "")
    return PlainSession(_text(record, "id", ""), tuple(_turn(turn, f"turns[{n}]") for n, turn in enumerate(said)), extra)


def _turn(record: object, where: str) -> PlainTurn:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object, got {type(record).__name__}")
    where += "."
    _check_storable(record, where)
    gold, answer = record.get("gold", ""), record.get("answer")
    if gold is not None and not (isinstance(gold, list) and all(isinstance(faq_id, str) and faq_id for faq_id in gold)):
        raise ValueError(f"{where}gold: expected a list of FAQ ids, or null, got {_shown(record, 'gold')}")
    if answer is not None and not isinstance(answer, str):
        raise ValueError(f"{where}answer: expected text, or null, got {_shown(record, 'answer')}")
    _check_text(answer, f"{where}answer")
    named = {"query", "gold", "kind"} if "answer" in record and answer is None else {"query", "answer", "gold", "kind"}
    return PlainTurn(
        query=_text(record, "query", where),
        answer=answer,
        gold=None if gold is None else tuple(gold),
        kind=_text(record, "kind", where),
        extra={name: value for name, value in record.items() if name not in named},
    )


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}{name}: expected text, got {_shown(record, name)}")
    _check_text(value, f"{where}{name}")
    return value


def _check_text(value: str | None, where: str) -> None:
    if value is not None and "\x00" in value:  # PostgreSQL holds none
        raise ValueError(f"{where}: expected text, got a NUL character; is this a binary file?")


def _check_storable(fields: Mapping[str, object], where: str) -> None:
    """A file may hold what no database does: half a surrogate pair, or an infinite number."""
    for name, value in fields.items():
        try:
            json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}{name}: expected finite numbers and well-formed text, got {error}") from error


def _shown(record: Mapping[str, Any], name: str) -> str:
    return repr(record[name])[:60] if name in record else "no such field"
