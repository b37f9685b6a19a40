"""A judge's word on a case with what it cost and why it is missing; and the cache that keeps such words by content.

A key is the SHA-256 of everything that the word depends on, so nothing is judged twice and nothing stale is found. What a server
failed at, or no budget was left for, isn't kept: it is asked again. The cache is one SQLite file: a word is on disk before the next
one is asked for, and a kill loses none that was put. It holds reasons and quotes, no queries or answers; deleting the file costs money
and nothing else.

A reason or a quote may repeat what a person wrote, so whoever erases a conversation erases the words on its queries as well
(`JudgementCache.erase`). They are found by a hash of the query: also what others asked in the very same words goes, and is paid for again.
"""

import asyncio
import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from chat.types import Usage
from reward.errors import JudgeError
from reward.judge import Case, Judge, Verdict

logger = logging.getLogger(__name__)

Kind = Literal["verdict", "missing", "failed", "unasked"]
"""A verdict; a word that can't be read or taken; a server that gave none; no money left to ask. The last two may be asked again."""

BUSY_TIMEOUT = 10.0
"""Seconds that a write waits for another process's."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of asking."""

    kind: Kind
    verdict: Verdict | None
    reason: str
    """The verdict's, or why there is none: one of few, to be counted."""
    usage: Usage | None = None
    """Tokens of the asking; None: none were counted, or the word was cached."""
    cost: float | None = None
    """Money of the asking; 0 for a cached word, None where the price is unknown."""
    currency: str | None = None

    @property
    def settled(self) -> bool:
        """Whether asking again would only bring the same."""
        return self.kind in ("verdict", "missing")


@runtime_checkable
class AccountingJudge(Protocol):
    """What a Judge has besides where asking it costs something: words with their reasons and costs."""

    async def asked(self, cases: Iterable[Case]) -> tuple[Judgement, ...]:
        """One a case, in order. Raises: JudgeError where no case can be judged."""


class JudgementCache:
    """Words by key in an SQLite file, which is open while it is read or written; safe for many threads and processes."""

    def __init__(self, path: Path) -> None:
        """Make the file if need be. Raises: JudgeError."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._opened() as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("CREATE TABLE IF NOT EXISTS judgements (key TEXT PRIMARY KEY, word TEXT NOT NULL) WITHOUT ROWID")
                db.execute("CREATE TABLE IF NOT EXISTS asked (query TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (query, key)) "
                           "WITHOUT ROWID")
        except (sqlite3.Error, OSError) as error:
            raise JudgeError(f"{path}: expected a cache of judgements, and it can't be used ({error}); delete it, or check its folder's "
                             "permissions") from error

    def get(self, key: str) -> Judgement | None:
        """The word of that key, at no cost; None where there is none that can be read."""
        try:
            with self._opened() as db:
                row = db.execute("SELECT word FROM judgements WHERE key = ?", (key,)).fetchone()
            return None if row is None else _judgement(json.loads(row[0]))
        except (sqlite3.Error, ValueError, KeyError, TypeError):
            logger.warning("%s: a cached judgement can't be read; it is asked for again", self._path, exc_info=True)
            return None

    def put(self, key: str, word: Judgement, query: str) -> None:
        """Keep a settled word on an answer to this query; a disk that fails costs the cache alone."""
        assert word.settled, "what may be asked again isn't kept"
        stored = json.dumps({"verdict": None if word.verdict is None else asdict(word.verdict), "reason": word.reason})
        try:
            with self._opened() as db:
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT OR REPLACE INTO asked VALUES (?, ?)", (_hash(query), key))
                db.execute("INSERT OR REPLACE INTO judgements VALUES (?, ?)", (key, stored))
                db.execute("COMMIT")
        except sqlite3.Error:
            logger.warning("%s: a judgement can't be cached", self._path, exc_info=True)

    def erase(self, queries: Iterable[str]) -> int:
        """How many words were erased: those on answers to these queries, and those that an older release kept without their query.

        Nothing of them is left in the file. Raises: JudgeError.
        """
        hashes = [(_hash(query),) for query in dict.fromkeys(queries)]
        try:
            with self._opened() as db:
                db.execute("PRAGMA secure_delete = ON")
                db.execute("BEGIN IMMEDIATE")
                before = db.execute("SELECT count(*) FROM judgements").fetchone()[0]
                db.executemany("DELETE FROM asked WHERE query = ?", hashes)
                db.execute("DELETE FROM judgements WHERE key NOT IN (SELECT key FROM asked)")
                left = db.execute("SELECT count(*) FROM judgements").fetchone()[0]
                db.execute("COMMIT")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise JudgeError(f"{self._path}: expected to erase what judges said, and it can't be written ({error}); try again, or delete "
                             "the file, which costs money and nothing else") from error
        return int(before - left)

    def _opened(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None))


def case_key(case: Case, asked: Mapping[str, object]) -> str:
    """The full hash of a case and of what it is asked with: model, server, rubric, votes. Labels aren't part of it: no judge sees them."""
    content = {
        "asked": dict(asked), "query": case.query, "answer": case.answer, "used": case.used,
        "history": [(turn.query, turn.answer) for turn in case.history],
        "faqs": [(faq.id, faq.question, faq.answer) for faq in case.evidence],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hash(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()


async def judgements(judge: Judge, cases: Iterable[Case]) -> tuple[Judgement, ...]:
    """Words of any judge; one that doesn't account is asked in a thread, costs nothing and gives no reason for what is missing."""
    asked = tuple(cases)
    if isinstance(judge, AccountingJudge):
        return await judge.asked(asked)
    verdicts = await asyncio.to_thread(judge.judge, asked)
    return tuple(Judgement("missing", None, "the judge can't tell") if verdict is None else Judgement("verdict", verdict, verdict.reason)
                 for verdict in verdicts)


def _judgement(stored: dict[str, Any]) -> Judgement:
    fields = stored["verdict"]
    verdict = None if fields is None else Verdict(**{**fields, "quotes": tuple(fields["quotes"])})
    return Judgement("missing" if verdict is None else "verdict", verdict, stored["reason"], cost=0.0)
