"""Answers that were given already, for requests that come again.

SDKs retry without a key of their own, so a repeat of the same body by the same API key within a short window is the same
turn: it gets the same answer, and nothing is logged or counted twice. `Idempotency-Key` makes that explicit and longer. An answer
made from an FAQ that was changed or deleted since is never given again; the request is answered anew.
Kept in this process's memory; failures are not kept, so that a retry really tries again.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from kb.types import Faq
from service.errors import ApiError

WINDOW = 10.0
"""Seconds in which an identical body without a retry count is taken for a retry."""
RETRY_WINDOW = 120.0
"""Seconds in which a request that calls itself a retry finds its first try."""
KEY_WINDOW = 3600.0
"""Seconds for which an `Idempotency-Key` is remembered."""
MAX_KEPT = 1000


@dataclass(slots=True)
class Answer:
    """A response as it went out."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Slot:
    """The place of one answer: in the making, or made."""

    body_hash: str
    made_at: float
    answer: Answer | None = None
    faqs: tuple[Faq, ...] = ()
    """Those that the answer was made from."""
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Replays:
    """Remembers answers by owner and key."""

    def __init__(self, clock: Callable[[], float] = monotonic, stands: Callable[[Faq], bool] = lambda _: True) -> None:
        """`stands` says whether an FAQ is still as an answer had it."""
        self._slots: OrderedDict[tuple[str, str, str], Slot] = OrderedDict()
        self._clock = clock
        self._stands = stands

    async def claim(self, owner: str, body: bytes, headers: Mapping[str, str], scope: str) -> Slot | Answer:
        """The answer to give again, or a slot to fill (`give`) or leave (`leave`).

        `scope` is what besides the body makes the turn, like the conversation named in a header.
        Raises: ApiError 422 when an `Idempotency-Key` comes with another body.
        """
        body_hash = hashlib.sha256(body + b"\0" + scope.encode()).hexdigest()
        given = headers.get("idempotency-key")
        key = (owner, "key", given) if given else (owner, "body", body_hash)
        window = KEY_WINDOW if given else _window(headers.get("x-stainless-retry-count"))
        while (slot := self._slots.get(key)) is not None and self._clock() - slot.made_at <= window:
            if slot.body_hash != body_hash:
                raise ApiError(422, "Idempotency-Key: expected the body that it first came with, got another; use a new key",
                               "idempotency_key_reused", "Idempotency-Key")
            await slot.done.wait()
            if slot.answer is not None:
                if all(map(self._stands, slot.faqs)):
                    return slot.answer
                slot.made_at = float("-inf")
            # the first try failed or was left: look again, and take the place if it is still empty
        new = Slot(body_hash, self._clock())
        self._slots[key] = new
        self._slots.move_to_end(key)
        while len(self._slots) > MAX_KEPT:
            self._slots.popitem(last=False)
        return new

    def give(self, slot: Slot, answer: Answer) -> None:
        """Remember a slot's answer."""
        slot.answer = answer
        slot.done.set()

    def leave(self, slot: Slot) -> None:
        """Give a slot up if it has no answer: the request failed or its client went away."""
        if slot.answer is None:
            slot.made_at = float("-inf")
            slot.done.set()


def _window(retry_count: str | None) -> float:
    """None (below zero) for a first try of an SDK that counts them: the same words on purpose are a new turn."""
    if retry_count is None:
        return WINDOW
    return -1.0 if retry_count == "0" else RETRY_WINDOW
