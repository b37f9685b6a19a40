"""What can go wrong in a turn.

    ChatError
    ├── InvalidRequestError  the messages or options can't be used; names the parameter
    ├── LLMError             the LLM can't answer: now (`retryable`, 503) or ever (refused request)
    ├── LogError             the conversation log can't be read or written
    └── SessionFileError     a session file that can't be imported: file, line, field
"""


class ChatError(Exception):
    """Base of every error that `chat` raises."""


class InvalidRequestError(ChatError):
    """The caller's messages or options can't be used."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class LLMError(ChatError):
    """The LLM gave no usable answer."""

    def __init__(self, message: str, *, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        """Seconds after which a retry makes sense; None when the server named none."""


class LogError(ChatError):
    """The conversation log can't be opened, read or written; nothing of the turn at hand was stored."""


class SessionFileError(ChatError):
    """A session file can't be used; the message names file, line and field."""
