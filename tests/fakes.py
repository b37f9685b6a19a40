"""Hand-written fakes of the ports: small, deterministic, and held to the same contract suites as the real adaptors."""

import zlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import numpy as np

from chat.errors import LLMError, LogError
from chat.ports import Chunk, LoggedExchange
from chat.types import Action, Decision, Message, Sampling, State, Turn, Usage
from kb.embedder import Progress, Vectors
from kb.types import Comparison, Faq, Hit, better_of


class HashEmbedder:
    """Texts that share character trigrams are similar."""

    def __init__(self, dimension: int = 64) -> None:
        self._dimension = dimension

    @property
    def model_id(self) -> str:
        return f"hash/{self._dimension}"

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            padded = f"  {text.lower()} "
            for start in range(len(padded) - 2):
                vectors[row, zlib.crc32(padded[start : start + 3].encode()) % self._dimension] += 1
        if progress is not None:
            progress(len(texts))
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        return vectors


def words(text: str) -> set[str]:
    return set(text.lower().replace("?", " ").split())


class FakeRetriever:
    """Similarity is the share of words that query and question have in common."""

    version = "fake-kb"

    def __init__(self, faqs: Sequence[Faq]) -> None:
        self._faqs = {faq.id: faq for faq in faqs}
        self.error: Exception | None = None

    def get(self, faq_id: str) -> Faq | None:
        return self._faqs.get(faq_id)

    def search(self, query: str, *, k: int = 3, min_similarity: float = -1.0, previous: str | None = None) -> tuple[Hit, ...]:
        if self.error is not None:
            raise self.error
        if not query.strip():
            return ()
        if previous is not None and previous.strip():
            return better_of(*(self._nearest(text, min_similarity) for text in (query, f"{previous} {query}")))[:k]
        return self._nearest(query, min_similarity)[:k]

    def _nearest(self, query: str, min_similarity: float) -> tuple[Hit, ...]:
        hits = [Hit(faq, max(self._overlap(query, text) for text in (faq.text, faq.question, *faq.paraphrases)))
                for faq in self._faqs.values()]
        return tuple(sorted((hit for hit in hits if hit.similarity >= min_similarity), key=lambda hit: -hit.similarity))

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison:
        if self.error is not None:
            raise self.error
        if not query.strip():
            return Comparison((None,) * len(faq_ids), None, (), None)
        known = [self._faqs.get(faq_id) for faq_id in faq_ids]
        if previous is None or not previous.strip():
            return Comparison(self._to_faqs(query, known), None, (), None)
        joined = f"{previous} {query}"
        nearest = self.search(joined, k=1)
        return Comparison(self._to_faqs(query, known), self._overlap(query, previous), self._to_faqs(joined, known),
                          nearest[0] if nearest else None)

    def _to_faqs(self, query: str, faqs: Sequence[Faq | None]) -> tuple[float | None, ...]:
        return tuple(None if faq is None else max(self._overlap(query, text) for text in (faq.text, faq.question, *faq.paraphrases))
                     for faq in faqs)

    @staticmethod
    def _overlap(a: str, b: str) -> float:
        return len(words(a) & words(b)) / max(1, len(words(a) | words(b)))


@dataclass
class ScriptedLLM:
    """Streams its answers in turn, word by word; keeps the prompts that it got."""

    answers: Sequence[str] = ("I don't know.",)
    model: str = "scripted"
    usage: bool = True
    fail_after: int | None = None
    """Words of the next answer after which it fails; None: it doesn't."""
    prompts: list[tuple[Message, ...]] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        answer = self.answers[len(self.prompts) % len(self.answers)].split(" ")
        self.prompts.append(tuple(messages))
        self.samplings.append(sampling)
        limit = len(answer) if sampling.max_tokens is None else sampling.max_tokens
        for n, word in enumerate(answer[:limit]):
            if self.fail_after == n:
                raise LLMError("the scripted LLM failed; try again", retryable=True, retry_after=1)
            yield Chunk(word if n == 0 else f" {word}")
        tokens = sum(len(message.content.split()) for message in messages)
        usage = Usage(tokens, len(answer[:limit]), cached_input_tokens=0) if self.usage else None
        yield Chunk("", "stop" if limit >= len(answer) else "length", usage)


class InMemoryLog:
    """Turns in a list."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.error: LogError | None = None

    def append(self, turn: Turn) -> None:
        if self.error is not None:
            raise self.error
        if any(turn.id == other.id for other in self.turns):
            raise LogError(f"{turn.id}: expected a new turn id, got one that is in the log")
        self.turns.append(turn)

    def recent(self, owner: str, conversation_id: str, *, limit: int) -> tuple[LoggedExchange, ...]:
        if self.error is not None:
            raise self.error
        mine = [t for t in self.turns if (t.owner, t.conversation_id) == (owner, conversation_id)
                and not t.background and t.refusal is None]
        return tuple(
            LoggedExchange(t.query, t.answer, t.decision.action, tuple(faq_id for faq_id, _ in t.hits), t.fetched, t.cited)
            for t in mine[max(0, len(mine) - limit) :]
        )

    def find_conversation(self, owner: str, transcript_mac: str) -> str | None:
        for turn in reversed(self.turns):
            if turn.owner == owner and turn.transcript_mac == transcript_mac:
                return turn.conversation_id
        return None


class WordCounter:
    """A token is a word; a message costs one more."""

    def count(self, messages: Sequence[Message]) -> int:
        return sum(1 + len(message.content.split()) for message in messages)

    def count_text(self, text: str) -> int:
        return len(text.split())


@dataclass
class ScriptedPolicy:
    """Takes its actions in turn; keeps the states that it saw."""

    actions: Sequence[Action] = (Action.FETCH,)
    version: str = "scripted:1"
    states: list[State] = field(default_factory=list)
    error: Exception | None = None

    def decide(self, state: State) -> Decision:
        if self.error is not None:
            raise self.error
        action = self.actions[len(self.states) % len(self.actions)]
        self.states.append(state)
        return Decision(action, 1.0 if action is Action.FETCH else 0.0, 0.0, 1.0, self.version, "scripted")
