"""Token counts by one local ruler: tiktoken's o200k_base, whose table ships with the project.

Both arms of a comparison are measured with it; what a server was paid for is what the server counted (`Usage`).
The framing of chat messages is as OpenAI documents it: 3 tokens a message besides role and content, 3 to begin the answer.
"""

import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import tiktoken

from chat.types import Message

ENCODING = "o200k_base"
TABLES = Path(__file__).parent / "data" / "tiktoken"
TOKENS_PER_MESSAGE = 3
TOKENS_PER_REPLY = 3


class TiktokenCounter:
    """Counts with `o200k_base`; texts are remembered, since a conversation repeats its FAQs."""

    def __init__(self) -> None:
        encoding = _encoding()
        # a special token in a customer's text is text: nothing is disallowed
        self._count = lru_cache(maxsize=4096)(lambda text: len(encoding.encode(text, disallowed_special=())))

    def count(self, messages: Sequence[Message]) -> int:
        """Input tokens of a prompt, framing included."""
        return TOKENS_PER_REPLY + sum(
            TOKENS_PER_MESSAGE + self._count(message.role) + self._count(message.content) for message in messages
        )

    def count_text(self, text: str) -> int:
        return self._count(text)


_loading = threading.Lock()


def _encoding() -> tiktoken.Encoding:
    """The encoding, read from our tables: tiktoken looks for them where this variable says, and checks their hash."""
    with _loading:
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(TABLES)
        try:
            return tiktoken.get_encoding(ENCODING)
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before
