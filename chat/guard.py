"""What is done with what a filter says: queries that aren't answered, answers that aren't sent, and what is said in their place.

What is promised of a stream. With patterns alone, no character of what a pattern matches is sent: text goes out once nothing that is
refused can begin in it, whatever follows, which holds back the last word and the beginning of what may become a match. With a model
too, text goes out in pieces of `PIECE` characters, each after the model has seen the answer as far as it goes: what a model only finds
harmful later was sent by then. After a refusal nothing more of the answer is sent, but the text that stands in its place. An answer
that isn't streamed is checked whole before any of it is sent.

Only the query is checked on its way in: what was said before it was checked then. Exchanges that were refused are taken out of what a turn
reads, so that neither a prompt nor a search nor a policy sees them again. Leaves out how it is told what does harm (`filters.py`).
"""

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Literal

from chat.errors import FilterError
from chat.filters import Filter, PatternFilter
from chat.types import Message, Refusal, Where

logger = logging.getLogger(__name__)

UNAVAILABLE = "filter_unavailable"
"""In `degraded`: the model filter failed. Where it fails closed, also the category of the refusal, without `filter_`."""
PIECE = 400
"""Characters of a stream that a model looks at together."""
LONG = 8_000
"""Characters that are looked at together; more are cut, and read outside the event loop, which they would keep for milliseconds each."""

OnFailure = Literal["open", "closed"]


class Guard:
    """Checks queries and answers; safe for many at once."""

    def __init__(self, patterns: PatternFilter, model: Filter | None = None, *, on_failure: OnFailure = "open", contact: str = "") -> None:
        """`on_failure`: whether a text that the model can't judge passes when no pattern matches, or is refused.

        `contact`: whom to turn to in a crisis, as a sentence.
        """
        self._patterns, self._model, self._on_failure, self._contact = patterns, model, on_failure, contact
        rules = patterns.rules
        self._texts = tuple(dict.fromkeys(rules.text(category, contact) for category in rules.texts))

    @property
    def version(self) -> str:
        """The filters' versions."""
        return self._patterns.version if self._model is None else f"{self._patterns.version}+{self._model.version}"

    def reply(self, refusal: Refusal) -> str:
        """What is said in the place of what was refused."""
        return self._patterns.rules.text(refusal.category, self._contact)

    async def query(self, text: str) -> "Check":
        """The check of a query, done."""
        check = Check(self._patterns, self._model, self._on_failure, "input", whole=True)
        await check.feed(text, last=True)
        return check

    def answer(self, *, whole: bool) -> "Check":
        """The check of one answer as it comes; `whole`: nothing is sent before its end."""
        return Check(self._patterns, self._model, self._on_failure, "output", whole=whole)

    def unrefused(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages without the exchanges that were refused, known by what was said in their place."""
        kept: list[Message] = []
        for message in messages:
            if message.role == "assistant" and message.content.strip().endswith(self._texts):
                asked = len(kept)
                while asked and kept[asked - 1].role == "user":
                    asked -= 1
                del kept[asked:]
            else:
                kept.append(message)
        return tuple(kept)


class Check:
    """One text on its way through the filters."""

    def __init__(self, patterns: PatternFilter, model: Filter | None, on_failure: OnFailure, where: Where, *, whole: bool) -> None:
        self.refusal: Refusal | None = None
        self.unavailable = False
        """The model couldn't tell, at least once."""
        self.seconds = 0.0
        """That the checks took together."""
        self._watch = patterns.watch(where)
        self._model, self._on_failure, self._where, self._whole = model, on_failure, where, whole
        self._text, self._sent = "", 0

    async def feed(self, text: str, *, last: bool = False) -> str:
        """What may be sent now; "" when nothing may, or once the text is refused. `last`: nothing follows."""
        began = perf_counter()
        self._text += text
        try:
            settled = self._watch.feed(text) if len(text) <= LONG else await self._feed_long(text)
            if last:
                self._watch.end()
                settled = len(self._text)
            self.refusal = self._watch.refusal
            if self.refusal is None and (last or self._ripe(settled)):
                return await self._release(settled)
            return ""
        finally:
            self.seconds += perf_counter() - began

    async def _feed_long(self, text: str) -> int:
        """`Watch.feed`, piece by piece; what stands on both sides of a cut is still seen."""
        settled = 0
        for start in range(0, len(text), LONG):
            settled = await asyncio.to_thread(self._watch.feed, text[start : start + LONG])
            if self._watch.refusal is not None:
                break
        return settled

    def _ripe(self, settled: int) -> bool:
        return not self._whole and settled - self._sent >= (1 if self._model is None else PIECE)

    async def _release(self, stop: int) -> str:
        if self._model is not None and stop > self._sent:
            self.refusal = await asyncio.to_thread(self._ask, self._text[:stop])
        if self.refusal is not None:
            return ""
        free, self._sent = self._text[self._sent : stop], stop
        return free

    def _ask(self, text: str) -> Refusal | None:
        assert self._model is not None, "only asked where there is one"
        try:
            return self._model.check(text, where=self._where)
        except FilterError:
            logger.warning("filter %s can't tell; it fails %s", self._model.version, self._on_failure, exc_info=True)
            self.unavailable = True
            return Refusal(self._where, "unavailable", self._model.version) if self._on_failure == "closed" else None
