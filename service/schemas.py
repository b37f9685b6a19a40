"""The OpenAI-compatible request, validated; unknown fields are accepted and ignored.

Answers are built in `routes/completion.py`. Images, tools that must be called, log probabilities and more than one choice
are refused by name; no URL in a message is ever fetched.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chat.types import Message, Role, Sampling

MODEL_ID = "fetchgate"
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ChatMessage(_Lenient):
    """One message; content is text or text parts."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None

    @field_validator("content")
    @classmethod
    def _only_text_parts(cls, content: str | list[dict[str, Any]] | None) -> str | list[dict[str, Any]] | None:
        for part in content if isinstance(content, list) else ():
            kind = part.get("type")
            if kind not in ("text", "input_text", "refusal") or not isinstance(part.get("text", part.get("refusal")), str):
                raise ValueError(f"expected text parts only, got a part of type {str(kind)[:40]!r}; images, audio and files are not read")
        return content

    @property
    def text(self) -> str:
        """The content as one text, parts joined by line breaks."""
        if isinstance(self.content, list):
            return "\n".join(part.get("text", part.get("refusal", "")) for part in self.content)
        return self.content or ""


class StreamOptions(_Lenient):
    include_usage: bool = False


class ChatRequest(_Lenient):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    logprobs: bool | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    session_id: Any = None

    @field_validator("n")
    @classmethod
    def _one_choice(cls, n: int | None) -> int | None:
        if n not in (None, 1):
            raise ValueError(f"expected 1, got {n}; one answer a request is given")
        return n

    @field_validator("logprobs")
    @classmethod
    def _no_logprobs(cls, logprobs: bool | None) -> bool | None:
        if logprobs:
            raise ValueError("expected false, got true; log probabilities are not given")
        return logprobs

    @field_validator("tool_choice")
    @classmethod
    def _no_forced_tools(cls, choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if choice not in (None, "none", "auto"):
            raise ValueError("expected none or auto, since no tools are called")
        return choice

    @field_validator("response_format")
    @classmethod
    def _only_text(cls, response_format: dict[str, Any] | None) -> dict[str, Any] | None:
        if response_format and response_format.get("type") not in (None, "text"):
            raise ValueError("expected the type text; answers are prose with citations")
        return response_format

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > 4:
            raise ValueError(f"expected at most 4 texts, got {len(stop)}")
        return stop

    @model_validator(mode="after")
    def _some_user(self) -> "ChatRequest":
        if not any(message.role == "user" for message in self.messages):
            raise ValueError("messages: expected at least one of role user")
        return self

    def spoken(self) -> tuple[Message, ...]:
        """The messages, without those of tools, which aren't called here."""
        return tuple(Message(ROLES[message.role], message.text) for message in self.messages if message.role in ROLES)

    def sampling(self) -> Sampling:
        """Generation options; the newer name of the token limit wins."""
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(limit, self.temperature, self.top_p, tuple(text for text in stop if text), self.seed)
