"""An LLM behind any OpenAI-compatible server, by the official SDK.

The SDK's loop is the only one that retries: connections, 408, 409, 429 and 5xx, before a stream begins. This module sets the
time limits, reads the stream leniently and turns every failure into an LLMError. Leaves out the circuit breaker, and prices.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import openai
from openai import AsyncOpenAI, AsyncStream, omit
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from chat.errors import LLMError
from chat.llm.events import Event, read_event
from chat.llm.faults import RETRY_UNLESS_TOLD_TO_WAIT, llm_error, refuses_stream_options, told_to_wait
from chat.ports import Chunk
from chat.types import FinishReason, Message, Sampling, Usage

logger = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://api.openai.com/v1"
AFTER_THE_ANSWER = 5.0
"""Seconds to wait for the usage once an answer is whole."""
NO_KEY = "none"
"""Sent where no key is set: the SDK wants one, and local servers ignore it."""


@dataclass(frozen=True, slots=True)
class OpenAIConfig:
    """Which server and model, and how long to wait."""

    model: str
    base_url: str | None = None
    """Where the API is, its version included (`http://127.0.0.1:8001/v1`). None: OpenAI's."""
    api_key: str = field(default="", repr=False)
    """Empty for a server that wants none."""
    connect_timeout: float = 5.0
    """Seconds for one attempt to connect."""
    first_token_timeout: float = 60.0
    """Seconds from the request to the first token, the SDK's retries included; also the longest silence after it."""
    total_timeout: float = 120.0
    """Seconds for a whole answer."""
    max_retries: int = 2
    """Further attempts before the stream begins."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Older servers know only the first, OpenAI's reasoning models only the second."""

    def __post_init__(self) -> None:
        check_server(self.model, self.base_url, self.api_key, self.max_retries)
        for name in ("connect_timeout", "first_token_timeout", "total_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected seconds above 0, got {getattr(self, name)}")


def check_server(model: str, base_url: str | None, api_key: str, max_retries: int) -> None:
    """Whether a server can be asked with these at all. Raises: ValueError that begins with the name of what can't be."""
    if not model.strip():
        raise ValueError("model: expected a model's name at the server, got nothing")
    if base_url is not None and not re.match(r"https?://[^/\s]", base_url):
        raise ValueError(f"base_url: expected http(s)://host…, got {base_url!r}")
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("api_key: expected printable ASCII, got other characters; was it copied whole, without a line end?")
    if max_retries < 0:
        raise ValueError(f"max_retries: expected 0 or more, got {max_retries}")


class OpenAIClient:
    """Streams answers; safe for many at once. Give it back with `aclose`."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._wants_usage = True
        """Whether `stream_options` is sent; not once the server has refused it."""
        timeout = openai.Timeout(config.total_timeout, connect=config.connect_timeout)
        self._http = openai.DefaultAsyncHttpx2Client(timeout=timeout, event_hooks={"response": [self._spare_long_waits]})
        self._sdk = AsyncOpenAI(api_key=config.api_key or NO_KEY, base_url=config.base_url or DEFAULT_BASE_URL, timeout=timeout,
                                max_retries=config.max_retries, http_client=self._http)
        # the SDK would read these from the environment, which is read in service/settings.py alone
        self._sdk.organization = self._sdk.project = None

    @property
    def model(self) -> str:
        return self._config.model

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """The answer as the server streams it; the last chunk's usage is the server's, None if it gives none.

        Raises: LLMError, before or between chunks.
        """
        if self._sdk.is_closed():
            raise LLMError("the LLM client is closed; the service is shutting down", retryable=True)
        waiting = _Patience(self._config)
        finish: FinishReason | None = None
        usage: Usage | None = None
        stream = await self._opened(messages, sampling, waiting)
        try:
            while (event := await self._next(stream, waiting)) is not None:
                if event.is_filtered:
                    raise LLMError("the LLM server's content filter cut the answer; ask in other words", retryable=False)
                usage = event.counted or usage
                finish = event.finish or finish
                if event.text:
                    yield Chunk(event.text)
        finally:
            await stream.close()
        if finish is None:
            raise LLMError("expected the LLM's stream to say why it ended, got its end alone; try again", retryable=True)
        yield Chunk("", finish, usage)

    async def aclose(self) -> None:
        """Close the connections; streams that are open fail."""
        await self._sdk.close()

    async def _opened(
        self, messages: Sequence[Message], sampling: Sampling, waiting: "_Patience"
    ) -> AsyncStream[ChatCompletionChunk]:
        """The stream, begun; without `stream_options` where the server refuses it."""
        wants_usage = self._wants_usage
        try:
            return await self._request(messages, sampling, waiting, wants_usage=wants_usage)
        except openai.OpenAIError as error:
            if not (wants_usage and refuses_stream_options(error)):
                raise llm_error(error, self._config.model, self._config.api_key) from None
        try:
            stream = await self._request(messages, sampling, waiting, wants_usage=False)
        except openai.OpenAIError as error:
            raise llm_error(error, self._config.model, self._config.api_key) from None
        logger.info("the LLM server takes no stream_options: usage will be counted here")
        self._wants_usage = False
        return stream

    async def _request(
        self, messages: Sequence[Message], sampling: Sampling, waiting: "_Patience", *, wants_usage: bool
    ) -> AsyncStream[ChatCompletionChunk]:
        limit = omit if sampling.max_tokens is None else sampling.max_tokens
        older = self._config.max_tokens_field == "max_tokens"
        try:
            async with asyncio.timeout_at(waiting.until):
                return await self._sdk.chat.completions.create(
                    model=self._config.model,
                    messages=[_param(message) for message in messages],
                    stream=True,
                    stream_options={"include_usage": True} if wants_usage else omit,
                    max_tokens=limit if older else omit,
                    max_completion_tokens=omit if older else limit,
                    temperature=omit if sampling.temperature is None else sampling.temperature,
                    top_p=omit if sampling.top_p is None else sampling.top_p,
                    stop=list(sampling.stop) or omit,
                    seed=omit if sampling.seed is None else sampling.seed,
                )
        except TimeoutError:
            raise waiting.over() from None
        except UnicodeEncodeError:
            raise LLMError("the prompt holds half a surrogate pair, which is no text; send valid Unicode",
                           retryable=False) from None

    async def _next(self, stream: AsyncStream[ChatCompletionChunk], waiting: "_Patience") -> Event | None:
        """The next event; None at the end. What breaks once the answer is whole costs only the usage."""
        try:
            return await self._read(stream, waiting)
        except LLMError:
            if not waiting.finished:
                raise
            logger.debug("the LLM's stream broke after its answer was whole", exc_info=True)
            return None

    async def _read(self, stream: AsyncStream[ChatCompletionChunk], waiting: "_Patience") -> Event | None:
        try:
            async with asyncio.timeout_at(waiting.until):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise waiting.over() from None
        except openai.OpenAIError as error:
            raise llm_error(error, self._config.model, self._config.api_key) from None
        except ValueError:  # JSON or UTF-8
            raise LLMError("expected chat completion chunks from the LLM server, got text that doesn't parse; try again",
                           retryable=True) from None
        if chunk is None:
            return None
        event = read_event(chunk)
        waiting.heard = waiting.heard or event.holds_a_token
        waiting.finished = waiting.finished or event.finish is not None
        return event

    async def _spare_long_waits(self, response: Any) -> None:
        """Keep the SDK from sleeping through a Retry-After that ends after the caller has given up."""
        after = told_to_wait(response.headers)
        if after is not None and after > self._config.first_token_timeout:
            response.headers[RETRY_UNLESS_TOLD_TO_WAIT] = "false"


class _Patience:
    """Until when to wait for the next event."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self.heard = False
        """Whether a token came."""
        self.finished = False
        """Whether the answer is whole, and only the usage may follow."""

    @property
    def until(self) -> float:
        """The event loop's time at which to give up."""
        silence = AFTER_THE_ANSWER if self.finished else self._config.first_token_timeout
        since = self._clock() if self.heard or self.finished else self._began
        return min(since + silence, self._end)

    @property
    def _end(self) -> float:
        return self._began + self._config.total_timeout

    def over(self) -> LLMError:
        """The error that says which limit was passed."""
        if self._clock() >= self._end:
            return LLMError(f"expected a whole answer from the LLM within {self._config.total_timeout:g} s, got none; try again",
                            retryable=True)
        what = "the next token" if self.heard else "a first token"
        return LLMError(f"expected {what} from the LLM within {self._config.first_token_timeout:g} s, got none; try again",
                        retryable=True)


def _param(message: Message) -> ChatCompletionMessageParam:
    match message.role:
        case "system":
            return {"role": "system", "content": message.content}
        case "user":
            return {"role": "user", "content": message.content}
        case "assistant":
            return {"role": "assistant", "content": message.content}
