"""People's ratings of turns: rows that are added and never changed.

The latest of a rater on a turn counts, and those before it stay. A rater is known by the name and by who brought the rating: the name
that an API key gives its user says nothing of the person who has that name with another key, or of an expert. Leaves out the JSON form
(`rating_records.py`), and what ratings are worth (`reward/feedback.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import Connection, insert, select

from chat.errors import UnknownTurnError
from chat.log.schema import ratings as table
from chat.log.schema import turns
from chat.log.store import SqlConversationLog

RaterRole = Literal["user", "expert"]
Strength = Literal["significantly", "better", "slightly", "unsure"]
"""How much the first of a ranking is better than the second (the four steps of Llama 2's raters)."""
ROLES: tuple[str, ...] = get_args(RaterRole)
STRENGTHS: tuple[str, ...] = get_args(Strength)

MAX_COMMENT_CHARS = 4000
MAX_RATER_CHARS = 200
MAX_RANKED = 20
LOOKED_UP = 500
"""Ids in one query: SQLite takes so many parameters, and some more."""


@dataclass(frozen=True, slots=True)
class Rating:
    """One person's word on one answer."""

    turn_id: str
    owner: str
    """The API key that brought it; `schema.IMPORT_OWNER` for a file's."""
    rater: str
    role: RaterRole
    created_at: datetime
    """UTC."""
    good: bool | None = None
    """Good or Bad; None: said in stars, or by a ranking alone."""
    stars: int | None = None
    """1 to 5, 5 the best."""
    ranking: tuple[str, ...] = ()
    """Turn ids, the best answer first, this turn's among them; () ranks nothing."""
    strength: Strength | None = None
    """Of the ranking's first over its second."""
    comment: str | None = None

    def __post_init__(self) -> None:
        if self.good is not None and self.stars is not None:
            raise ValueError("rating: expected good or bad, or stars, got both")
        if self.good is None and self.stars is None and not self.ranking:
            raise ValueError("rating: expected good, bad or 1 to 5, got none, and no ranking in its place")
        if self.stars is not None and not 1 <= self.stars <= 5:
            raise ValueError(f"rating: expected 1 to 5 stars, got {self.stars}")
        if self.role not in ROLES:
            raise ValueError(f"role: expected {' or '.join(ROLES)}, got {self.role!r}")
        if not self.rater or len(self.rater) > MAX_RATER_CHARS or not self.rater.isprintable():
            raise ValueError(f"rater: expected 1 to {MAX_RATER_CHARS} printable characters, got {self.rater[:40]!r}")
        if self.comment is not None and len(self.comment) > MAX_COMMENT_CHARS:
            raise ValueError(f"comment: expected at most {MAX_COMMENT_CHARS} characters, got {len(self.comment)}; shorten it")
        self._check_ranking()

    def _check_ranking(self) -> None:
        if self.strength is not None and not self.ranking:
            raise ValueError(f"strength: expected a ranking that it is the strength of, got {self.strength!r} alone")
        if self.strength is not None and self.strength not in STRENGTHS:
            raise ValueError(f"strength: expected one of {', '.join(STRENGTHS)}, got {self.strength!r}")
        if not self.ranking:
            return
        if not 2 <= len(self.ranking) <= MAX_RANKED:
            raise ValueError(f"ranking: expected 2 to {MAX_RANKED} ids, the best first, got {len(self.ranking)}")
        if len(set(self.ranking)) < len(self.ranking):
            raise ValueError("ranking: expected each id once, got one twice")
        if self.turn_id not in self.ranking:
            raise ValueError(f"ranking: expected {self.turn_id[:80]!r}, the id that is rated, to be among the ids")

    @property
    def said_by(self) -> tuple[str, str]:
        """Who the rater is: two owners' raters of one name are two."""
        return self.owner, self.rater

    @property
    def content(self) -> tuple[object, ...]:
        """What it says, whenever it was said."""
        return self.role, self.good, self.stars, self.ranking, self.strength, self.comment


def record_rating(log: SqlConversationLog, rating: Rating) -> bool:
    """Store a rating of the owner's own turn durably; whether it takes the place of an earlier, other one of the same rater.

    A repeat of what the rater said last is not stored again, and gets the same reply.
    Raises: UnknownTurnError when the turn, or one that is ranked, isn't the owner's. LogError.
    """
    with log.writing(f"storing a rating of turn {rating.turn_id}") as connection:
        _check_known(connection, rating, rating.owner)
        return _record(connection, rating)[1]


def record_ratings(log: SqlConversationLog, all_of_them: Iterable[Rating]) -> int:
    """Store ratings of whoever's turns, all of them or none; how many were new. Raises: UnknownTurnError, LogError."""
    stored = 0
    with log.writing("storing ratings") as connection:
        for rating in all_of_them:
            _check_known(connection, rating, None)
            stored += _record(connection, rating)[0]
    return stored


def ratings(log: SqlConversationLog, *, turn_id: str | None = None) -> tuple[Rating, ...]:
    """All ratings in the order in which they came, or those of one turn. Raises: LogError."""
    query = select(*(table.c[name] for name in _FIELDS)).order_by(table.c.sequence)
    if turn_id is not None:
        query = query.where(table.c.turn_id == turn_id)
    with log.reading("reading ratings") as connection:
        return tuple(_rating(dict(row)) for row in connection.execute(query).mappings())


def latest(all_of_them: Iterable[Rating]) -> tuple[Rating, ...]:
    """The last rating of each rater on each turn, in the order in which these came."""
    last: dict[tuple[str, tuple[str, str]], Rating] = {}
    for rating in all_of_them:
        last.pop((rating.turn_id, rating.said_by), None)
        last[rating.turn_id, rating.said_by] = rating
    return tuple(last.values())


def unknown_turns(connection: Connection, turn_ids: Sequence[str], owner: str | None) -> tuple[str, ...]:
    """Those of the ids that are no turn of the owner's; with None, no turn at all."""
    known: set[str] = set()
    for start in range(0, len(turn_ids), LOOKED_UP):
        query = select(turns.c.id).where(turns.c.id.in_(turn_ids[start : start + LOOKED_UP]))
        known.update(connection.execute(query if owner is None else query.where(turns.c.owner == owner)).scalars())
    return tuple(turn_id for turn_id in turn_ids if turn_id not in known)


def _check_known(connection: Connection, rating: Rating, owner: str | None) -> None:
    if unknown := unknown_turns(connection, [rating.turn_id, *rating.ranking], owner):
        param = "id" if rating.turn_id in unknown else "ranking"
        raise UnknownTurnError(f"{param}: expected the id of an answer in the log, got {unknown[0][:80]!r}; it may be another key's, or "
                               "erased", param=param)


def _record(connection: Connection, rating: Rating) -> tuple[bool, bool]:
    """Whether the rating was stored, and whether it took an earlier one's place."""
    mine = (table.c.turn_id == rating.turn_id, table.c.owner == rating.owner, table.c.rater == rating.rater)
    query = select(*(table.c[name] for name in _FIELDS)).where(*mine).order_by(table.c.sequence)
    before = [_rating(dict(row)) for row in connection.execute(query).mappings()]
    if before and before[-1].content == rating.content:
        return False, len(before) > 1
    connection.execute(insert(table).values(asdict(rating) | {"ranking": list(rating.ranking) or None}))
    return True, bool(before)


def _rating(row: dict[str, object]) -> Rating:
    return Rating(**{**row, "ranking": tuple(row["ranking"] or ())})  # type: ignore[arg-type]


_FIELDS = tuple(field.name for field in fields(Rating))
