"""What can go wrong in a turn.

    ChatError
    ├── InvalidRequestError  the messages or options can't be used; names the parameter
    ├── LLMError             the LLM can't answer: now (`retryable`, 503) or ever (refused request)
    ├── FilterError          a filter's rules or model can't be used, or it can't tell whether a text does harm
    ├── LogError             the conversation log can't be read or written
    ├── SessionFileError     a file of sessions or ratings that can't be imported: file, line, field
    └── UnknownTurnError     no turn of that id, or not that owner's
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


class FilterError(ChatError):
    """A filter can't be built, or can't tell right now; the message says which and why."""


class LogError(ChatError):
    """The conversation log can't be opened, read or written; nothing of the turn at hand was stored."""


class SessionFileError(ChatError):
    """A file of sessions or ratings can't be used; the message names file, line and field."""


class UnknownTurnError(ChatError):
    """No turn of that id is in the log, or it isn't the owner's, which looks the same from outside."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param
