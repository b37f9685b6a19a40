"""Labelled conversations to measure on: the help desk's splits that ship, or a session file of one's own.

The plain format is parsed in `chat/log/plain.py`; fields that measuring doesn't need are dropped here. Leaves out making
splits: those of the help desk are files, frozen and hashed (`data/helpdesk/README.md`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from chat.errors import SessionFileError
from chat.log.plain import PlainSession, PlainTurn, numbered_sessions
from evaluation.errors import DatasetError

Split = Literal["train", "dev", "calibration", "test"]

HELPDESK = Path(__file__).parent / "data" / "helpdesk"
HELPDESK_FAQS = Path(__file__).parent.parent / "kb" / "data" / "helpdesk" / "faqs.jsonl"
"""The knowledge base that the help desk's labels are about."""


@dataclass(frozen=True, slots=True)
class LabelledTurn:
    """A query and what people say about it."""

    query: str
    answer: str | None
    """None: nobody has written one."""
    gold: tuple[str, ...] | None
    """FAQ ids that answer it; () needs no FAQ, None is unlabelled."""
    kind: str
    """`faq`, `followup`, `same_faq`, `return`, `smalltalk`, `ood` or `unanswerable` in the help desk; other sets have others."""
    language: str | None
    """`hinglish`; None is the set's main language."""


@dataclass(frozen=True, slots=True)
class Session:
    """A labelled conversation; the unit of every split and every resampling."""

    id: str
    turns: tuple[LabelledTurn, ...]


def read_sessions(path: Path) -> tuple[Session, ...]:
    """The sessions of a file in the plain format, in file order; fields that it doesn't know are ignored.

    Raises: DatasetError naming file, line and field of what can't be used.
    """
    try:
        return tuple(_session(path, line, session) for line, session in numbered_sessions(path))
    except SessionFileError as error:
        raise DatasetError(str(error)) from error


def read_helpdesk(split: Split) -> tuple[Session, ...]:
    """A split of the help desk's sessions. `test` is for the last measurement only, `calibration` for thresholds.

    Raises: DatasetError for a split that there isn't, or whose file is missing or damaged.
    """
    if split not in get_args(Split):
        raise DatasetError(f"split: expected one of {', '.join(get_args(Split))}, got {split!r}")
    return read_sessions(HELPDESK / split / "sessions.jsonl")


def _session(path: Path, line: int, session: PlainSession) -> Session:
    return Session(session.id, tuple(_turn(f"{path}:{line}: turns[{n}].", turn) for n, turn in enumerate(session.turns)))


def _turn(where: str, turn: PlainTurn) -> LabelledTurn:
    if not turn.query.strip():
        raise DatasetError(f"{where}query: expected text, got only white space; leave the turn out or write what was asked")
    if turn.gold is not None and len(set(turn.gold)) < len(turn.gold):
        raise DatasetError(f"{where}gold: expected each FAQ id once, got {', '.join(turn.gold)}")
    language = turn.extra.get("language")
    if language is not None and not (isinstance(language, str) and language):
        raise DatasetError(f"{where}language: expected text, or null or no such field, got {language!r}")
    return LabelledTurn(turn.query, turn.answer, turn.gold, turn.kind, language)
