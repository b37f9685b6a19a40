"""Token counts by one local ruler: tiktoken's o200k_base, whose table ships with the project.

Both arms of a comparison are measured with it; what a server was paid for is what the server counted (`Usage`).
The framing of chat messages is as OpenAI documents it: 3 tokens a message besides role and content, 3 to begin the answer.
"""

import hashlib
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import tiktoken

from chat.errors import ChatError
from chat.types import Message

ENCODING = "o200k_base"
TABLES = Path(__file__).parent / "data" / "tiktoken"
TABLE = "fb374d419588a4632f3f557e76b4b70aebbca790"
"""File name by which tiktoken looks for the table: the SHA-1 of its address."""
TABLE_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
TOKENS_PER_MESSAGE = 3
TOKENS_PER_REPLY = 3


class TiktokenCounter:
    """Counts with `o200k_base`; texts are remembered, since a conversation repeats its FAQs.

    Raises: ChatError when the table isn't the one that the project ships; nothing is downloaded in its place.
    """

    def __init__(self, tables: Path = TABLES, *, remembered: int = 4096) -> None:
        """`remembered` is how many texts' counts are kept."""
        encoding = _encoding(tables)
        # a special token in a customer's text is text: nothing is disallowed
        self._count = lru_cache(maxsize=remembered)(lambda text: len(encoding.encode(text, disallowed_special=())))

    def count(self, messages: Sequence[Message]) -> int:
        """Input tokens of a prompt, framing included."""
        return TOKENS_PER_REPLY + sum(
            TOKENS_PER_MESSAGE + self._count(message.role) + self._count(message.content) for message in messages
        )

    def count_text(self, text: str) -> int:
        return self._count(text)


_loading = threading.Lock()


def _encoding(tables: Path) -> tiktoken.Encoding:
    """The encoding, read from our table: tiktoken looks for it where this variable says."""
    _check(tables / TABLE)
    with _loading:
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(tables)
        try:
            return tiktoken.get_encoding(ENCODING)
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before


def _check(table: Path) -> None:
    """Raises: ChatError. A table that isn't the expected one would be deleted and downloaded by tiktoken."""
    try:
        found = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError as error:
        raise ChatError(f"{table}: expected the token table of {ENCODING}, and it can't be read ({error.strerror}); "
                        "restore it from the project") from error
    if found != TABLE_SHA256:
        raise ChatError(f"{table}: expected SHA-256 {TABLE_SHA256}, got {found}; restore it from the project")
