"""What is read of a chat completion's stream: text, why it ended, and usage.

Lenient where servers differ (fields that are left out, null or added), strict where a wrong type would pass for an answer.
"""

from pydantic import BaseModel, ValidationError

from chat.errors import LLMError
from chat.types import FinishReason, Usage


class Delta(BaseModel, extra="allow"):
    """What a chunk adds; `extra` holds what isn't text, like the reasoning that some servers stream."""

    role: str | None = None
    content: str | None = None


class Choice(BaseModel):
    delta: Delta | None = None
    finish_reason: str | None = None


class PromptTokensDetails(BaseModel):
    cached_tokens: int | None = None


class CompletionUsage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None


class Event(BaseModel):
    """One event of a stream."""

    choices: list[Choice] | None = None
    usage: CompletionUsage | None = None

    @property
    def text(self) -> str:
        delta = self._choice.delta
        return (delta.content or "") if delta else ""

    @property
    def holds_a_token(self) -> bool:
        """Whether a token came, be it text or something else than the role."""
        delta = self._choice.delta
        return delta is not None and any((delta.content, *(delta.model_extra or {}).values()))

    @property
    def finish(self) -> FinishReason | None:
        """Why the answer ended; None while it goes on. A reason of a server's own, like `eos`, is a stop."""
        reason = self._choice.finish_reason
        return None if reason is None else "length" if reason == "length" else "stop"

    @property
    def is_filtered(self) -> bool:
        """Whether the server cut the answer for what it says."""
        return self._choice.finish_reason == "content_filter"

    @property
    def counted(self) -> Usage | None:
        """The server's usage; None where it gives none, or not whole."""
        if self.usage is None or self.usage.prompt_tokens is None or self.usage.completion_tokens is None:
            return None
        details = self.usage.prompt_tokens_details
        cached = details.cached_tokens if details else None
        return Usage(self.usage.prompt_tokens, self.usage.completion_tokens, cached, source="server")

    @property
    def _choice(self) -> Choice:
        return self.choices[0] if self.choices else Choice()


def read_event(chunk: object) -> Event:
    """A chunk as the SDK gives it, which it hasn't validated. Raises: LLMError when it is no chunk."""
    try:
        return Event.model_validate(chunk.model_dump(warnings=False) if isinstance(chunk, BaseModel) else chunk)
    except ValidationError:
        raise LLMError("expected chat completion chunks from the LLM server, got other JSON; try again", retryable=True) from None
