"""A rating as a JSON object: what the API takes, and what `feedback export` and `feedback import` write and read.

    {"id", "rating": "good" | "bad" | 1..5, "comment"?, "ranking"?: [ids, the best first], "strength"?, "rater"?, "created_at"?}

Fields that aren't named here are ignored; one that is null is as good as absent. Leaves out storage (`ratings.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from chat.errors import SessionFileError
from chat.log.plain import numbered_lines, parsed
from chat.log.ratings import MAX_COMMENT_CHARS, RaterRole, Rating, unknown_turns
from chat.log.schema import IMPORT_OWNER
from chat.log.store import SqlConversationLog

MAX_ID_CHARS = 200
MAX_REPORTED = 10
VERDICTS = {"good": True, "bad": False}


def rating_of(record: object, *, owner: str, role: RaterRole, rater: str | None, now: datetime) -> Rating:
    """The rating that a JSON object is. `rater` is who rates where it doesn't say; with None it has to.

    Raises: ValueError that begins with the field's name.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"body: expected an object with id and rating, got {_kind(record)}")
    ranking = _ranking(record.get("ranking"))
    good, stars = _value(record.get("rating"), needed=not ranking)
    return Rating(
        turn_id=_id(record.get("id"), "id"),
        owner=owner,
        rater=_text(record.get("rater"), "rater") or _named(rater),
        role=role,
        created_at=_time(record.get("created_at"), now) if role == "expert" else now,
        good=good,
        stars=stars,
        ranking=ranking,
        strength=cast("Any", _text(record.get("strength"), "strength")),
        comment=_text(record.get("comment"), "comment"),
    )


def rating_object(rating: Rating) -> dict[str, object]:
    """The JSON object of a rating, with what the log knows of it besides."""
    said: dict[str, object] = {"id": rating.turn_id}
    if rating.stars is not None or rating.good is not None:
        said["rating"] = rating.stars if rating.stars is not None else "good" if rating.good else "bad"
    if rating.ranking:
        said["ranking"] = list(rating.ranking)
    said |= {name: value for name in ("strength", "comment") if (value := getattr(rating, name)) is not None}
    return said | {"rater": rating.rater, "role": rating.role, "owner": rating.owner, "created_at": rating.created_at.isoformat()}


def read_ratings(path: Path, log: SqlConversationLog, *, rater: str | None, now: datetime) -> tuple[Rating, ...]:
    """The experts' ratings of a file, all of them of turns in the log. Up to ten bad lines are reported together.

    Raises: SessionFileError naming file, line and field. LogError.
    """
    found: list[tuple[int, Rating]] = []
    errors: list[tuple[int, str]] = []
    for line, text in numbered_lines(path):
        try:
            found.append((line, rating_of(parsed(text), owner=IMPORT_OWNER, role="expert", rater=rater, now=now)))
        except ValueError as error:
            errors.append((line, str(error)))
    ids = list(dict.fromkeys(turn_id for _, rating in found for turn_id in (rating.turn_id, *rating.ranking)))
    with log.reading("finding rated turns") as connection:
        unknown = set(unknown_turns(connection, ids, None))
    errors += [(line, f"{'id' if rating.turn_id in unknown else 'ranking'}: expected turns of this log, got "
                      f"{next(one for one in (rating.turn_id, *rating.ranking) if one in unknown)[:80]!r}")
               for line, rating in found if unknown & {rating.turn_id, *rating.ranking}]
    if errors:
        shown = [f"{path}:{line}: {said}" for line, said in sorted(errors)[:MAX_REPORTED]]
        more = [f"… ({len(errors) - MAX_REPORTED} more)"] if len(errors) > MAX_REPORTED else []
        raise SessionFileError("\n".join([*shown, *more, "Nothing was imported; mend these lines and try again."]))
    if not found:
        raise SessionFileError(f"{path}: expected at least one rating, got none")
    return tuple(rating for _, rating in found)


def _value(value: object, *, needed: bool) -> tuple[bool | None, int | None]:
    """Good or Bad, or stars. `True` is an int to Python, and no rating."""
    if isinstance(value, str) and value in VERDICTS:
        return VERDICTS[value], None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 5:
        return None, value
    if value is None and not needed:
        return None, None
    raise ValueError(f'rating: expected "good", "bad" or a whole number from 1 to 5, got {_kind(value)}')


def _ranking(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        raise ValueError(f"ranking: expected a list of ids, the best answer's first, got {_kind(value)}")
    return tuple(_id(one, "ranking") for one in cast("Sequence[object]", value))


def _id(value: object, name: str) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_ID_CHARS or not value.isprintable():
        raise ValueError(f"{name}: expected the id of a completion, got {_kind(value)}")
    return value


def _text(value: object, name: str) -> str | None:
    """Text that says something and can be stored; None where there is none."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {_kind(value)}")
    if len(value) > MAX_COMMENT_CHARS:
        raise ValueError(f"{name}: expected at most {MAX_COMMENT_CHARS} characters, got {len(value)}; shorten it")
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):  # no database holds these
        raise ValueError(f"{name}: expected well-formed text, got a NUL or half a surrogate pair")
    return value if value.strip() else None


def _named(rater: str | None) -> str:
    if rater is None:
        raise ValueError("rater: expected who rated, got none; name one in each line, or for all of them with --rater")
    return rater


def _time(value: object, now: datetime) -> datetime:
    if value is None:
        return now
    try:
        told = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        told = None
    if told is None or told.utcoffset() is None:
        raise ValueError(f"created_at: expected an ISO 8601 time with its zone, got {_kind(value)}")
    return told


def _kind(value: object) -> str:
    return "none" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
