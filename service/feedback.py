"""Feedback as the API takes it: a body to a rating, stored once, and the reply.

A rating changes nothing that is served; what becomes of it is `reward/feedback.py`'s. Comments are people's words: they are stored as
they are, and are in no message and no log. Leaves out storage (`chat/log/ratings.py`) and the body's fields (`chat/log/rating_records.py`).
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from chat.errors import LogError, UnknownTurnError
from chat.log.rating_records import rating_of
from chat.log.ratings import Rating
from service.errors import ApiError

logger = logging.getLogger(__name__)

RETRY_AFTER = 5
JSON = dict[str, Any]

Record = Callable[[Rating], bool]
"""Stores a rating of the owner's own turn; whether it takes an earlier one's place. Raises: UnknownTurnError, LogError."""


class Feedback:
    """Takes ratings for the API."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def take(self, owner: str, body: object) -> JSON:
        """Store the rating that a body is, and say what was stored. Raises: ApiError."""
        rating = _rating(owner, body)
        try:
            replaced = self._record(rating)
        except UnknownTurnError as error:
            raise _unknown(error) from error
        except LogError as error:
            logger.exception("a rating can't be stored")
            raise ApiError(503, "The rating can't be stored right now; the server's log says why.", "log_unavailable",
                           retry_after=RETRY_AFTER) from error
        logger.info("rating of %s by %s: %s", rating.turn_id, owner, _value(rating))
        return {"object": "feedback", "id": rating.turn_id, "rating": _value(rating), "replaced": replaced}


def _rating(owner: str, body: object) -> Rating:
    try:
        rating = rating_of(body, owner=owner, role="user", rater=owner, now=datetime.now(UTC))
        if rating.good is None and rating.stars is None:
            raise ValueError('rating: expected "good", "bad" or a whole number from 1 to 5, got none')
    except ValueError as error:
        param = str(error).partition(":")[0]
        raise ApiError(400, str(error), "invalid_request", None if param == "body" else param) from error
    return rating


def _value(rating: Rating) -> str | int:
    if rating.stars is not None:
        return rating.stars
    return "good" if rating.good else "bad"


def _unknown(error: UnknownTurnError) -> ApiError:
    """The id that is rated is what the request is for; one in a ranking is a field of it."""
    if error.param == "id":
        return ApiError(404, "id: expected the id of an answer that this key got, got another; the completion has it",
                        "turn_not_found", "id")
    return ApiError(400, "ranking: expected ids of answers that this key got, got another", "invalid_request", "ranking")
