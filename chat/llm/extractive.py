"""An answerer that needs no language model, key or network: it finds the sentences of the shown FAQs that answer, and cites them.

It reads only what the prompt shows, like any LLM behind the port: FAQs fetched now, and those that stand with earlier turns. It
invents nothing, and says that it doesn't know when nothing fits (`relevance.py`). Leaves out paraphrasing, and memory between
calls except of the FAQs' vectors.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np

from chat.citations import cited_ids
from chat.errors import LLMError
from chat.llm import relevance, wording
from chat.llm.reading import Exchange, ShownFaq, read_prompt
from chat.llm.relevance import Likeness, Standing
from chat.llm.smalltalk import smalltalk_reply
from chat.llm.stopping import StopStrings
from chat.llm.vectors import VectorMemory
from chat.ports import Chunk, TokenCounter
from chat.types import Message, Sampling, Usage
from kb.embedder import Embedder, Vectors
from kb.errors import KbError

MODEL = "fetchgate-extractive"
MAX_SENTENCES_READ = 40
"""Of one FAQ; the rest counts only in its text as a whole."""
DONT_KNOW = (
    "I'm sorry, I don't know that from the FAQs I have here. Could you put it another way, or say which product or step you mean?"
)
DONT_KNOW_VIETNAMESE = (
    "Xin lỗi, tôi không tìm thấy câu trả lời trong các câu hỏi thường gặp ở đây. Bạn có thể hỏi theo cách khác không?"
)


@dataclass(frozen=True, slots=True)
class _Candidate:
    faq: ShownFaq
    sentences: tuple[str, ...]
    stands: Standing


@dataclass(frozen=True, slots=True)
class _Found:
    """A candidate beside the question."""

    candidate: _Candidate
    like: Likeness


class ExtractiveClient:
    """Answers from the prompt's FAQs, sentence by sentence; the same prompt always gets the same answer."""

    model = MODEL

    def __init__(self, embedder: Embedder, counter: TokenCounter) -> None:
        self._vectors = VectorMemory(embedder)
        self._counter = counter

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """The answer, word by word, up to `max_tokens` and `stop`; the other options mean nothing here.

        Raises: LLMError, before any chunk, when the encoder fails.
        """
        try:
            answer = await asyncio.to_thread(self.answer, messages)
        except (KbError, RuntimeError) as error:  # RuntimeError is what torch raises
            raise LLMError(f"the encoder of the extractive answerer failed ({error}); check the encoder in the settings",
                           retryable=False) from error
        stops = StopStrings(sampling.stop)
        answer = stops.feed(answer) + stops.flush()
        words = re.findall(r"\s*\S+", answer)
        said = self._cut(words, sampling.max_tokens)
        for piece in said:
            yield Chunk(piece)
        usage = Usage(self._counter.count(messages), self._counter.count_text("".join(said)), source="local")
        yield Chunk("", "stop" if len(said) == len(words) else "length", usage)

    def answer(self, messages: Sequence[Message]) -> str:
        """The whole answer to the last question of a prompt."""
        exchanges = read_prompt(messages)
        query = exchanges[-1].question if exchanges else ""
        if (talk := smalltalk_reply(query)) is not None:
            return talk
        candidates = _candidates(exchanges) if query.strip() else []
        found = self._two_answers(query, candidates) or self._one_answer(query, exchanges, candidates)
        return found or (DONT_KNOW_VIETNAMESE if wording.is_vietnamese(query) else DONT_KNOW)

    def _one_answer(self, query: str, exchanges: Sequence[Exchange], candidates: Sequence[_Candidate]) -> str | None:
        """The answer of the FAQ that fits best; None when there is none, or even that one is too far off."""
        if not candidates:
            return None
        before = _followed(exchanges)
        leaning = wording.leaning(query) if before else 0.0
        joined = f"{before.question} {query}" if before and leaning >= relevance.LEANS_FROM else None
        best = max(self._found(query, joined, candidates), key=lambda one: relevance.fit(one.like, one.candidate.stands, leaning))
        sure = relevance.trust(best.like, best.candidate.stands, leaning, asks=wording.asks(query))
        return _said(best) if sure >= relevance.ANSWER_FROM else None

    def _two_answers(self, query: str, candidates: Sequence[_Candidate]) -> str | None:
        """The answers of two FAQs, when the question clearly asks two things and each has its own FAQ; else None."""
        halves = wording.two_questions(query) if candidates else None
        if halves is None:
            return None
        first, second = (max(self._found(half, None, candidates), key=lambda one: one.like.direct) for half in halves)
        apart = first.candidate.faq.id != second.candidate.faq.id
        sure = min(first.like.direct, second.like.direct) >= relevance.SECOND_FROM
        return f"{_said(first)}\n\n{_said(second)}" if apart and sure else None

    def _found(self, query: str, joined: str | None, candidates: Sequence[_Candidate]) -> list[_Found]:
        """Each candidate beside the query, and beside the query joined with the one before."""
        groups = [_passages(candidate) for candidate in candidates]
        queries = [query] if joined is None else [query, joined]
        asked, passages = self._vectors.embed(queries, [text for group in groups for text in group])
        rows = np.split(passages @ asked.T, np.cumsum([len(group) for group in groups])[:-1])
        named = wording.named(query)
        return [_Found(candidate, _likeness(named, candidate, part)) for candidate, part in zip(candidates, rows, strict=True)]

    def _cut(self, pieces: list[str], max_tokens: int | None) -> list[str]:
        """As many words as fit into `max_tokens`."""
        if max_tokens is None:
            return pieces
        while pieces and self._counter.count_text("".join(pieces)) > max_tokens:
            pieces = pieces[:-1]
        return pieces


def _likeness(named: frozenset[str], candidate: _Candidate, cosines: Vectors) -> Likeness:
    """`cosines` of a candidate's passages (question, text, then sentences) with the query and, in a second column, the joined."""
    shared = relevance.shared_words(named, wording.named(candidate.faq.text))
    joined = float(cosines[1, 1]) if cosines.shape[1] > 1 else 0.0
    return Likeness(float(cosines[0, 0]), float(cosines[1, 0]), tuple(cosines[2:, 0].tolist()), shared, joined)


def _passages(candidate: _Candidate) -> list[str]:
    return [candidate.faq.question or candidate.faq.text, candidate.faq.text, *candidate.sentences[:MAX_SENTENCES_READ]]


def _candidates(exchanges: Sequence[Exchange]) -> list[_Candidate]:
    """Every FAQ that the prompt shows, once: those fetched for this question first, then the latest."""
    fetched = {faq.id: rank for rank, faq in reversed(list(enumerate(exchanges[-1].faqs)))}
    shown = {faq.id: faq for exchange in reversed(exchanges) for faq in exchange.faqs}
    before = _followed(exchanges)
    cited = set(cited_ids(before.answer, shown)) if before else set()
    first = before.faqs[0].id if before and before.faqs else None
    return [
        _Candidate(faq, wording.sentences(faq.answer), Standing(fetched.get(faq.id), faq.id in cited, faq.id == first))
        for faq in shown.values()
    ]


def _followed(exchanges: Sequence[Exchange]) -> Exchange | None:
    """The exchange that a follow-up follows: the last whose answer cites something, else the last; None when there is none."""
    past = exchanges[:-1]
    shown = {faq.id for exchange in past for faq in exchange.faqs}
    return next((exchange for exchange in reversed(past) if cited_ids(exchange.answer, shown)), past[-1] if past else None)


def _said(found: _Found) -> str:
    """The FAQ's answer, whole or its telling sentences, with the citation."""
    faq, sentences = found.candidate.faq, found.candidate.sentences
    whole = found.like.question >= relevance.WHOLE_FROM and bool(faq.question)
    if whole or len(sentences) <= relevance.SHORT_ANSWER:
        text = faq.answer.strip() or f"This is about: {faq.question}"
    else:
        text = " ".join(sentences[n] for n in relevance.telling_sentences(found.like.sentences))
    return f"{text} [{faq.id}]"
