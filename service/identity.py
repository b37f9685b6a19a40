"""Whose conversation is it? The API is stateless, the gate's memory isn't.

In order, always within one API key: the header `X-Conversation-Id`; `X-OpenWebUI-Chat-Id`; `metadata.conversation_id` or
`session_id` in the body; else inferred: after each turn the log keeps HMAC(transcript up to our answer), and the next request
is recognised by the transcript that it repeats. A miss is a new conversation, whose earlier actions are unknown. Inferred
identity only finds what was shown; it never returns stored text.
"""

import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Mapping, Sequence

from chat.errors import InvalidRequestError
from chat.types import Message

HEADERS = ("x-conversation-id", "x-openwebui-chat-id")
MAX_ID_CHARS = 200
BACKGROUND_HEADER = "x-openwebui-task"
"""Set by Open WebUI on its own prompts: titles, tags, follow-up suggestions."""


def named_conversation(headers: Mapping[str, str], metadata: Mapping[str, object] | None, session_id: object) -> str | None:
    """The conversation id that the client gave, or None. Raises: InvalidRequestError when it can't be one."""
    candidates: list[tuple[str, object]] = [(name, headers.get(name)) for name in HEADERS]
    candidates += [("metadata.conversation_id", (metadata or {}).get("conversation_id")), ("session_id", session_id)]
    for param, value in candidates:
        if value is None or value == "":
            continue
        if not isinstance(value, str) or len(value) > MAX_ID_CHARS or not value.isprintable():
            raise InvalidRequestError(f"{param}: expected at most {MAX_ID_CHARS} printable characters, got {str(value)[:40]!r}",
                                      param=param)
        return value
    return None


def new_conversation() -> str:
    return f"conv-{uuid.uuid4().hex}"


class TranscriptSigner:
    """Keyed hashes of transcripts; system messages stay out, since front ends vary them from turn to turn."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, owner: str, messages: Sequence[Message]) -> str:
        """The keyed hash of what was said, up to the last message."""
        mac = hmac.new(self._secret, owner.encode(), hashlib.sha256)
        for message in messages:
            if message.role != "system":
                mac.update(json.dumps([message.role, message.content.strip()]).encode())
        return mac.hexdigest()

    def signer_for(self, owner: str, messages: Sequence[Message]) -> Callable[[str], str]:
        """Gives the hash of these messages followed by an answer."""
        return lambda answer: self.sign(owner, [*messages, Message("assistant", answer)])

    def sign_past(self, owner: str, messages: Sequence[Message]) -> str | None:
        """The hash of the transcript up to the last answer; None when there was no answer yet."""
        last = max((n for n, message in enumerate(messages) if message.role == "assistant"), default=None)
        return None if last is None else self.sign(owner, messages[: last + 1])
