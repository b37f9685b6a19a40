"""The seams of a turn. Each has a real adaptor, a hand-written fake (`tests/fakes.py`) and one contract suite.

Leaves out judges (`reward/`) and embedders (`kb/`), whose callers are elsewhere.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chat.types import Action, Decision, FinishReason, Message, Sampling, State, Turn, Usage
from kb.types import Comparison, Faq, Hit


class Retriever(Protocol):
    """Finds FAQs. Its answers are those of one version of the knowledge base."""

    @property
    def version(self) -> str: ...

    def search(self, query: str, *, k: int, min_similarity: float, previous: str | None = None) -> tuple[Hit, ...]:
        """At most k FAQs, each once, best first, none below `min_similarity`; with the query before, what either alone or both find."""

    def get(self, faq_id: str) -> Faq | None:
        """The FAQ of that id; None when there is none (any more)."""

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison:
        """The query, alone and together with the one before, beside these FAQs; a blank query is like nothing."""


class Policy(Protocol):
    """Decides whether to fetch. Must be deterministic given the state, exploration apart."""

    @property
    def version(self) -> str: ...

    def decide(self, state: State) -> Decision: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer; the last one carries why it ended, and the usage if the LLM counts."""

    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


class LLMClient(Protocol):
    """Answers a prompt.

    `stream` yields chunks; exactly one, the last, has a `finish_reason`. Raises: LLMError, before or between chunks.
    """

    @property
    def model(self) -> str: ...

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]: ...


@dataclass(frozen=True, slots=True)
class LoggedExchange:
    """What the log knows of an earlier turn: enough to rebuild a `PastTurn`."""

    query: str
    answer: str
    action: Action
    hits: tuple[str, ...]
    fetched: tuple[str, ...]
    cited: tuple[str, ...]


class ConversationLog(Protocol):
    """The append-only record of turns. Every call is within one owner. Raises: LogError."""

    def append(self, turn: Turn) -> None:
        """Store the turn durably; once this returns, it survives a crash."""

    def recent(self, owner: str, conversation_id: str, *, limit: int) -> tuple[LoggedExchange, ...]:
        """The last turns of a conversation, oldest first; none that was refused."""

    def find_conversation(self, owner: str, transcript_mac: str) -> str | None:
        """The conversation whose transcript, up to our last answer, has this keyed hash."""


class TokenCounter(Protocol):
    """Counts tokens by one tokenizer, the ruler of both arms of a comparison."""

    def count(self, messages: Sequence[Message]) -> int:
        """Input tokens of a prompt, chat framing included."""

    def count_text(self, text: str) -> int: ...
