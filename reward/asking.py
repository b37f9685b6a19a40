"""One question to an OpenAI-compatible server, answered whole: the client behind `LLMJudge`, by the official SDK.

The SDK's loop is the only one that retries. A server that refuses an option is asked without it, and remembered: JSON by schema, then
JSON of any form, then neither; no seed; the newer name of `max_tokens`; no temperature, which is said aloud. Leaves out what is asked
(`rubric.py`), money (`spending.py`) and reading the answer.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self

import openai
from openai import AsyncOpenAI, omit

from chat.errors import LLMError
from chat.llm.faults import RETRY_UNLESS_TOLD_TO_WAIT, llm_error, told_to_wait
from chat.llm.openai import DEFAULT_BASE_URL, NO_KEY, check_server
from chat.ports import TokenCounter
from chat.types import Message, Usage
from reward.errors import JudgeError

logger = logging.getLogger(__name__)

Format = Literal["json_schema", "json_object", "text"]
WEAKER: dict[Format, Format | None] = {"json_schema": "json_object", "json_object": "text", "text": None}
HOPELESS = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
"""Refusals that every question would meet."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Which server and model, and how long to wait."""

    model: str
    base_url: str | None = None
    """Where the API is, its version included. None: OpenAI's."""
    api_key: str = field(default="", repr=False)
    """Empty for a server that wants none."""
    timeout: float = 60.0
    """Seconds for one attempt."""
    patience: float = 300.0
    """Seconds for one question, the SDK's retries and waits included."""
    max_retries: int = 2
    """Further attempts after connection faults, time-outs, 408, 409, 429 and 5xx."""
    max_tokens: int = 500
    """Of one reply; a model that reasons first needs more."""

    def __post_init__(self) -> None:
        try:
            check_server(self.model, self.base_url, self.api_key, self.max_retries)
        except ValueError as error:
            raise JudgeError(f"judge {error}; set FETCHGATE_JUDGE_… or the option") from None
        for name in ("timeout", "patience", "max_tokens"):
            if not getattr(self, name) > 0:
                raise JudgeError(f"judge {name}: expected more than 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server takes."""

    format: Format = "json_schema"
    seed: bool = True
    temperature: bool = True
    tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole reply."""

    text: str
    usage: Usage
    trouble: str | None = None
    """Why the text is no whole reply; None: it is."""


class Asker:
    """Asks one server; for one event loop, within `async with`."""

    def __init__(self, config: ServerConfig, counter: TokenCounter, dialect: Dialect) -> None:
        self._config = config
        self._counter = counter
        self.dialect = dialect
        """What the server was found to take."""
        timeout = openai.Timeout(config.timeout, connect=min(5.0, config.timeout))
        http = openai.DefaultAsyncHttpx2Client(timeout=timeout, event_hooks={"response": [self._spare_long_waits]})
        self._sdk = AsyncOpenAI(api_key=config.api_key or NO_KEY, base_url=config.base_url or DEFAULT_BASE_URL, timeout=timeout,
                                max_retries=config.max_retries, http_client=http)
        # the SDK would read these from the environment, which is read in service/settings.py alone
        self._sdk.organization = self._sdk.project = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._sdk.close()

    async def ask(self, messages: Sequence[Message], schema: dict[str, Any], seed: int) -> Completion:
        """The reply. Raises: LLMError where this question got none; JudgeError where none would."""
        try:
            async with asyncio.timeout(self._config.patience):
                return self._read(await self._negotiated(messages, schema, seed), messages)
        except TimeoutError:
            raise LLMError(f"expected a verdict within {self._config.patience:g} s, got none; try again", retryable=True) from None
        except HOPELESS as error:
            raise JudgeError(f"judge: {llm_error(error, self._config.model, self._config.api_key)}") from None
        except openai.OpenAIError as error:
            raise llm_error(error, self._config.model, self._config.api_key) from None
        except (ValueError, TypeError, AttributeError):
            raise LLMError("expected a chat completion from the judge's server, got something else; check its address",
                           retryable=True) from None

    async def _negotiated(self, messages: Sequence[Message], schema: dict[str, Any], seed: int) -> Any:
        """The server's reply, in the richest dialect that it takes."""
        dialect = self.dialect
        while True:
            try:
                reply = await self._request(dialect, messages, schema, seed)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                plainer = weaker(dialect, error)
                if plainer is None:
                    raise
                dialect = plainer
            else:
                self._remember(dialect)
                return reply

    async def _request(self, dialect: Dialect, messages: Sequence[Message], schema: dict[str, Any], seed: int) -> Any:
        formats: dict[Format, Any] = {
            "json_schema": {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}},
            "json_object": {"type": "json_object"}, "text": omit,
        }
        sent: list[Any] = [{"role": message.role, "content": message.content} for message in messages]
        older, limit = dialect.tokens == "max_tokens", self._config.max_tokens
        return await self._sdk.chat.completions.create(
            model=self._config.model, messages=sent, response_format=formats[dialect.format], seed=seed if dialect.seed else omit,
            temperature=0.0 if dialect.temperature else omit, max_tokens=limit if older else omit,
            max_completion_tokens=omit if older else limit,
        )

    def _remember(self, dialect: Dialect) -> None:
        if dialect == self.dialect:
            return
        if self.dialect.temperature and not dialect.temperature:
            logger.warning("the judge %s takes no temperature of 0: its verdicts may vary from one time to the next", self._config.model)
        logger.info("the judge's server takes %s", dialect)
        self.dialect = dialect

    def _read(self, reply: Any, messages: Sequence[Message]) -> Completion:
        choices = getattr(reply, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if message is None:
            raise LLMError("expected a chat completion with a choice from the judge's server, got none; check its address", retryable=True)
        text = message.content if isinstance(message.content, str) else ""
        usage = self._usage(getattr(reply, "usage", None), messages, text)
        finish = getattr(choice, "finish_reason", None)
        if getattr(message, "refusal", None) or finish == "content_filter":
            return Completion(text, usage, "the judge refused to judge it")
        return Completion(text, usage, "the reply was cut at its token limit" if finish == "length" else None)

    def _usage(self, counted: Any, messages: Sequence[Message], text: str) -> Usage:
        """As the server counted, else as we do."""
        sent, received = (getattr(counted, name, None) for name in ("prompt_tokens", "completion_tokens"))
        if not (isinstance(sent, int) and isinstance(received, int) and sent >= 0 and received >= 0):
            return Usage(self._counter.count(messages), self._counter.count_text(text), source="local")
        cached = getattr(getattr(counted, "prompt_tokens_details", None), "cached_tokens", None)
        return Usage(sent, received, cached if isinstance(cached, int) else None)

    async def _spare_long_waits(self, response: Any) -> None:
        """Keep the SDK from sleeping through a Retry-After that ends after patience has."""
        after = told_to_wait(response.headers)
        if after is not None and after > self._config.patience:
            response.headers[RETRY_UNLESS_TOLD_TO_WAIT] = "false"


def weaker(dialect: Dialect, error: openai.APIStatusError) -> Dialect | None:
    """The dialect without what a refusal names, or without its format where it names nothing we know; None: nothing is left to drop."""
    said = f"{error.param or ''} {error.message}".lower()
    if "temperature" in said and dialect.temperature:
        return replace(dialect, temperature=False)
    if "max_completion_tokens" in said and dialect.tokens == "max_tokens":
        return replace(dialect, tokens="max_completion_tokens")
    if "seed" in said and dialect.seed:
        return replace(dialect, seed=False)
    plainer = WEAKER[dialect.format]
    return None if plainer is None else replace(dialect, format=plainer)
