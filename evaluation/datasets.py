"""Labelled conversations to measure on: the help desk's splits that ship, or a session file of one's own.

The plain format is parsed in `chat/log/plain.py`; fields that measuring doesn't need are dropped here. Leaves out making
splits: those of the help desk are files, frozen and hashed (`data/helpdesk/README.md`).
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from chat.errors import SessionFileError
from chat.log.plain import PlainSession, PlainTurn, numbered_sessions
from evaluation.errors import DatasetError
from kb.queries import LabelledQuery

Split = Literal["train", "dev", "calibration", "test"]
TRAINING_SPLITS: tuple[Split, ...] = ("train", "dev", "calibration")
"""What a training may look at."""

HELPDESK = Path(__file__).parent / "data" / "helpdesk"
HELPDESK_FAQS = Path(__file__).parent.parent / "kb" / "data" / "helpdesk" / "faqs.jsonl"
"""The knowledge base that the help desk's labels are about."""
HELPDESK_ENCODER = HELPDESK_FAQS.with_name("encoder")
"""Tuned to it (`helpdesk_encoder.py`)."""
HELPDESK_INDEX = HELPDESK_FAQS.with_name("index")
"""The knowledge base, embedded by it."""
HELPDESK_QUERIES = HELPDESK / "queries.jsonl"
CALIBRATION_QUERIES = HELPDESK / "calibration" / "queries.jsonl"
"""For thresholds alone, as the conversations beside them."""
RECENT_TURNS = 2
"""Turns before a query whose FAQs the conversation still holds."""


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
    rewards: tuple[float, float] | None = None
    """Rewards of (FETCH, NO_FETCH) that a judge of one's own gave; None: the file has no such column."""


@dataclass(frozen=True, slots=True)
class Session:
    """A labelled conversation; the unit of every split and every resampling."""

    id: str
    turns: tuple[LabelledTurn, ...]


def read_sessions(path: Path) -> tuple[Session, ...]:
    """The sessions of a file in the plain format, in file order; fields that it doesn't know are ignored.

    Raises: DatasetError naming file, line and field of what can't be used, a reward column with gaps among it.
    """
    try:
        read = [(line, _session(path, line, session)) for line, session in numbered_sessions(path)]
    except SessionFileError as error:
        raise DatasetError(str(error)) from error
    if any(turn.rewards is not None for _, session in read for turn in session.turns):
        for line, session in read:
            for n, turn in enumerate(session.turns):
                if turn.rewards is None and turn.gold is not None:
                    raise DatasetError(f"{path}:{line}: turns[{n}].rewards: expected rewards of FETCH and NO_FETCH, as other turns have "
                                       "them, got none; fill the gap, or take `gold` from the turn so that it isn't scored")
    return tuple(session for _, session in read)


def read_splits(folder: Path) -> dict[Split, tuple[Session, ...]]:
    """Sessions by their use: `<split>/sessions.jsonl` of each split but test, or one `sessions.jsonl`, whose conversations are divided
    by a hash of their ids (60 % train, 15 % dev, 25 % calibration).

    Raises: DatasetError when there is neither, or a split comes out empty.
    """
    if (folder / "train" / "sessions.jsonl").exists():
        return {split: read_sessions(folder / split / "sessions.jsonl") for split in TRAINING_SPLITS}
    divided: dict[Split, list[Session]] = {split: [] for split in TRAINING_SPLITS}
    for session in read_sessions(folder / "sessions.jsonl"):
        place = int.from_bytes(hashlib.sha256(session.id.encode()).digest()[:4]) % 100
        divided["train" if place < 60 else "dev" if place < 75 else "calibration"].append(session)
    if empty := [split for split, sessions in divided.items() if not sessions]:
        raise DatasetError(f"{folder / 'sessions.jsonl'}: expected enough sessions for train, dev and calibration, got none for "
                           f"{empty[0]}; give more, or make the folders yourself")
    return {split: tuple(sessions) for split, sessions in divided.items()}


def read_helpdesk(split: Split) -> tuple[Session, ...]:
    """A split of the help desk's sessions. `test` is for the last measurement only, `calibration` for thresholds.

    Raises: DatasetError for a split that there isn't, or whose file is missing or damaged.
    """
    if split not in get_args(Split):
        raise DatasetError(f"split: expected one of {', '.join(get_args(Split))}, got {split!r}")
    return read_sessions(HELPDESK / split / "sessions.jsonl")


def conversation_queries(sessions: Sequence[Session], faq_ids: Iterable[str]) -> Iterator[LabelledQuery]:
    """The labelled turns of conversations as queries, each with what the turns before it settled.

    Raises: DatasetError for a gold id that isn't among `faq_ids`.
    """
    there = set(faq_ids)
    for session in sessions:
        for position, turn in enumerate(session.turns):
            if turn.gold is None:
                continue
            if missing := set(turn.gold) - there:
                raise DatasetError(f"session {session.id}: turns[{position}].gold: expected ids of the knowledge base, got "
                                   f"{sorted(missing)[0]!r}, which it doesn't hold; give the FAQs that the labels are about")
            before = session.turns[max(0, position - RECENT_TURNS) : position]
            known = tuple(dict.fromkeys(faq_id for one in before for faq_id in one.gold or ()))
            previous = session.turns[position - 1].query if position else None
            yield LabelledQuery(turn.query, turn.gold, (), turn.language, session.id, previous, known)


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
    return LabelledTurn(turn.query, turn.answer, turn.gold, turn.kind, language, _rewards(where, turn.extra.get("rewards")))


def _rewards(where: str, column: object) -> tuple[float, float] | None:
    if column is None:
        return None
    values = [column.get(name) for name in ("FETCH", "NO_FETCH")] if isinstance(column, dict) else [None]
    found = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(found) != 2 or not all(map(math.isfinite, found)):
        raise DatasetError(f'{where}rewards: expected {{"FETCH": number, "NO_FETCH": number}}, got {str(column)[:60]}')
    return found[0], found[1]
