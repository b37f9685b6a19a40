"""Turns as the API serves them: who is talking, how many at once, and the answer whole or as a stream.

Leaves out parsing (`schemas.py`) and the objects' form (`completion.py`).
"""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from fastapi.responses import Response
from fastapi.sse import EventSourceResponse

from chat.errors import InvalidRequestError
from chat.pipeline import TextDelta, TurnEvent, TurnFinished, TurnPipeline, TurnRequest, TurnStarted
from chat.ports import ConversationLog
from service import completion
from service.errors import ApiError, api_error
from service.identity import BACKGROUND_HEADER, TranscriptSigner, named_conversation, new_conversation
from service.replays import Answer, Replays, Slot
from service.schemas import ChatRequest

logger = logging.getLogger(__name__)

BUSY_RETRY_AFTER = 2
DONE = b"data: [DONE]\n\n"
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all at once, may ask for."""

    max_query_chars: int
    max_concurrent_turns: int


class ChatTurns:
    """Serves turns over one pipeline."""

    def __init__(self, pipeline: TurnPipeline, log: ConversationLog, signer: TranscriptSigner, limits: Limits) -> None:
        self._pipeline = pipeline
        self._log = log
        self._signer = signer
        self._limits = limits
        self._replays = Replays(stands=pipeline.stands)
        self._running = 0

    async def answer(self, body: bytes, chat: ChatRequest, owner: str, headers: Mapping[str, str]) -> Response:
        """The response to a chat request: a new turn's, or the one that this request got before.

        Raises: ApiError, ChatError; then nothing was sent.
        """
        named = named_conversation(headers, chat.metadata, chat.session_id)
        slot = await self._replays.claim(owner, body, headers, named or "")
        if isinstance(slot, Answer):
            return Response(slot.body, slot.status, dict(slot.headers))
        try:
            turn = self._request(chat, owner, named, headers)
            events = self._events(turn, slot)
            started = await anext(events)
        except BaseException:
            self._replays.leave(slot)
            raise
        assert isinstance(started, TurnStarted)
        sent = completion.headers(started, turn.conversation_id)
        if chat.stream:
            with_usage = bool(chat.stream_options and chat.stream_options.include_usage)
            content = self._sse(started, events, slot, turn.conversation_id, sent | STREAM_HEADERS, with_usage=with_usage)
            return EventSourceResponse(content, headers=sent | STREAM_HEADERS)
        finished = await _finish(events)
        sent |= {"content-type": "application/json"}
        whole = Answer(200, sent, json.dumps(completion.completion(started, finished)).encode())
        self._replays.give(slot, whole)
        return Response(whole.body, whole.status, sent)

    def _request(self, chat: ChatRequest, owner: str, named: str | None, headers: Mapping[str, str]) -> TurnRequest:
        messages = chat.spoken()
        longest = len(messages[-1].content)
        if longest > self._limits.max_query_chars:
            raise InvalidRequestError(f"messages: expected at most {self._limits.max_query_chars} characters in the last message, "
                                      f"got {longest}; shorten it", param="messages")
        sign = None
        conversation = named
        if conversation is None:
            past = self._signer.sign_past(owner, messages)
            conversation = (past and self._log.find_conversation(owner, past)) or new_conversation()
            sign = self._signer.signer_for(owner, messages)
        return TurnRequest(messages, owner, conversation, chat.sampling(), BACKGROUND_HEADER in headers, sign,
                           whole=not chat.stream)

    async def _events(self, request: TurnRequest, slot: Slot) -> AsyncGenerator[TurnEvent]:
        """The pipeline's events, within the limit of turns at once; gives the slot up when the turn ends without an answer."""
        if self._running >= self._limits.max_concurrent_turns:
            raise ApiError(503, f"Expected at most {self._limits.max_concurrent_turns} turns at once, and they are running; try again",
                           "busy", retry_after=BUSY_RETRY_AFTER)
        self._running += 1
        try:
            async with aclosing(self._pipeline.run(request)) as events:
                async for event in events:
                    if isinstance(event, TurnFinished):
                        slot.faqs = event.faqs
                    yield event
        except BaseException:
            self._replays.leave(slot)
            raise
        finally:
            self._running -= 1

    async def _sse(
        self, started: TurnStarted, events: AsyncGenerator[TurnEvent], slot: Slot, conversation_id: str,
        headers: Mapping[str, str], *, with_usage: bool,
    ) -> AsyncIterator[bytes]:
        """The stream's bytes; an error in mid-stream is one `data: {"error": …}`, and the end."""
        sent: list[bytes] = []
        try:
            async with aclosing(_chunks(started, events, conversation_id, with_usage=with_usage)) as chunks:
                async for chunk in chunks:
                    sent.append(_event(chunk))
                    yield sent[-1]
        except Exception as error:  # the status is sent already; the client must still hear that the answer is not whole
            yield _event(api_error(error).body)
            return
        self._replays.give(slot, Answer(200, {**headers, "content-type": "text/event-stream"}, b"".join([*sent, DONE])))
        yield DONE


async def _chunks(
    started: TurnStarted, events: AsyncGenerator[TurnEvent], conversation_id: str, *, with_usage: bool
) -> AsyncGenerator[completion.JSON]:
    async with aclosing(events):
        yield completion.first_chunk(started, conversation_id, with_usage=with_usage)
        async for event in events:
            match event:
                case TextDelta(text):
                    yield completion.text_chunk(started, text, with_usage=with_usage)
                case TurnFinished():
                    yield completion.last_chunk(started, event, with_usage=with_usage)
                    if with_usage:
                        yield completion.usage_chunk(started, event.turn)


async def _finish(events: AsyncGenerator[TurnEvent]) -> TurnFinished:
    finished: TurnFinished | None = None
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TurnFinished):
                finished = event
    assert finished is not None, "a pipeline ends with TurnFinished or an error"
    return finished


def _event(data: completion.JSON) -> bytes:
    # ensure_ascii: no line separator of Unicode can be mistaken for an event's end
    return b"data: " + json.dumps(data).encode() + b"\n\n"
