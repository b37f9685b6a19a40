"""An answerer that needs no language model: it finds the sentences of the shown FAQs that answer, and cites them.

It reads only what the prompt shows, like any LLM behind the port: FAQs fetched now, and those that stand with earlier turns.
A follow-up that names nothing ("can you reduce it?") is read together with the question before it and prefers the FAQs that
the last answer cited. It invents nothing; below a threshold it says that it doesn't know. The constants were chosen on the
help desk's training sessions (docs/results.md). Leaves out paraphrasing and joining FAQs into one text.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np

from chat.citations import cited_ids
from chat.llm.reading import Exchange, ShownFaq, read_prompt
from chat.llm.smalltalk import is_vietnamese, smalltalk_reply, words
from chat.ports import Chunk, TokenCounter
from chat.types import Message, Sampling, Usage
from kb.embedder import Embedder, Vectors

MODEL = "fetchgate-extractive"
ANSWER_FROM = 0.35
"""Similarity of question and FAQ from which it answers."""
FOLLOWUP_FROM = 0.30
"""The same for a follow-up, which is read with the question before it."""
CITED_BONUS = 0.30
"""What an FAQ of the last answer gains for a follow-up."""
FIRST_BONUS = 0.10
"""What the first of the FAQs fetched now gains: the retriever, which knows other ways to ask it too, found it the nearest."""
SECOND_WITHIN = 0.03
"""Two FAQs answer a question that asks two things, when their scores are this close."""
SENTENCE_WITHIN = 0.12
"""Sentences this close to the best one go along with it."""
WHOLE_UNTIL = 3
"""Answers of so few sentences are given whole."""
MAX_SENTENCES = 3
MAX_CACHED_TEXTS = 20_000

DONT_KNOW = (
    "I'm sorry, I don't know that from the FAQs I have. Could you put it another way, or ask about something else?",
    "Xin lỗi, tôi không tìm thấy điều này trong các câu hỏi thường gặp. Bạn có thể hỏi theo cách khác không?",
)
POINTING = set("it its that this these those them they one ones same there then he she both either other also too instead again such "
               "iska uska isko usko iske uske yeh ye woh wo usme isme ismein usmein wahi aur "
               "nó đó này kia vậy thế".split())
OPENERS = ("and ", "but ", "or ", "so ", "what about", "how about", "what if", "even ", "also ", "then ", "why", "how long", "how much",
           "how come", "since when", "till when", "aur ", "lekin ", "toh ", "to ", "kya ", "kitna", "kitne", "kab ", "còn ", "vậy ", "thế ")
FUNCTION_WORDS = set("a an the is are was be do does did can could will would should i you me my your we us our to of in on at for "
                     "from by with and or but if so what when where who why how which any some there have has had not no need want get got "
                     "please just only much many long still even about as than into out up off am im ill id dont cant wont "
                     "kya hai ka ki ke ko se me mein main mujhe mera meri hota hoti karna kar kaise kitna kitne kab nahi toh to bhi aur "
                     "ho sakta sakti sakte hain tha thi lagega".split())
MAX_NAMES_ALONE = 1
"""A short question with no more words than this that name something is read as a follow-up."""
MAX_NAMES_POINTING = 4
"""The same for a question that points back ("it", "and on the…")."""


@dataclass(frozen=True, slots=True)
class _Scored:
    faq: ShownFaq
    score: float
    sentences: tuple[str, ...]
    sentence_scores: tuple[float, ...]
    question_score: float


class ExtractiveClient:
    """Answers from the prompt's FAQs, sentence by sentence."""

    model = MODEL

    def __init__(self, embedder: Embedder, counter: TokenCounter) -> None:
        self._embedder = embedder
        self._counter = counter
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """The answer, word by word; `max_tokens` cuts it by words, `stop` where it says. Never fails."""
        answer = await asyncio.to_thread(self.answer, messages)
        for stop in sampling.stop:
            answer = answer.partition(stop)[0]
        pieces = re.findall(r"\s*\S+", answer)
        said = pieces if sampling.max_tokens is None else pieces[: sampling.max_tokens]
        for piece in said:
            yield Chunk(piece)
        usage = Usage(self._counter.count(messages), self._counter.count_text("".join(said)), source="local")
        yield Chunk("", "length" if len(said) < len(pieces) else "stop", usage)

    def answer(self, messages: Sequence[Message]) -> str:
        """The whole answer to the last question of a prompt."""
        exchanges = read_prompt(messages)
        if not exchanges:
            return DONT_KNOW[0]
        query = exchanges[-1].question
        if (talk := smalltalk_reply(query)) is not None:
            return talk
        before = exchanges[:-1]
        follows = bool(before) and names_nothing(query)
        scored = self._scored(query, exchanges, follows=follows)
        if not scored or scored[0].score < (FOLLOWUP_FROM if follows else ANSWER_FROM):
            return DONT_KNOW[is_vietnamese(query)]
        chosen = scored[:2] if _asks_two_things(query, scored) else scored[:1]
        return "\n\n".join(f"{_extract(one, whole=not follows)} [{one.faq.id}]" for one in chosen)

    def _scored(self, query: str, exchanges: Sequence[Exchange], *, follows: bool) -> list[_Scored]:
        """The shown FAQs, best first."""
        shown = {faq.id: faq for exchange in exchanges for faq in exchange.faqs}
        if not shown:
            return []
        read = [query]
        if follows:
            read.append(f"{_last_question(exchanges)}\n{query}")
        queries = self._embedded(read)
        cited = set(cited_ids(exchanges[-2].answer, shown)) if follows else set()
        bonus = dict.fromkeys(cited, CITED_BONUS)
        for faq in exchanges[-1].faqs[:1]:
            bonus[faq.id] = bonus.get(faq.id, 0.0) + FIRST_BONUS
        found = [self._score(faq, queries, bonus.get(faq.id, 0.0)) for faq in shown.values()]
        return sorted(found, key=lambda one: -one.score)

    def _score(self, faq: ShownFaq, queries: Vectors, bonus: float) -> _Scored:
        sentences = split_sentences(faq.answer)
        texts = [faq.question or faq.answer, "\n".join(filter(None, (faq.question, faq.answer))), *sentences]
        similarities = self._embedded(texts) @ queries.T
        # a follow-up is compared alone and with the question before it; the better counts
        best = similarities.max(axis=1)
        return _Scored(faq, float(best.max()) + bonus, sentences, tuple(similarities[2:, 0].tolist()), float(best[0]))

    def _embedded(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts; those of FAQs come again turn after turn, so they are remembered."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
            for text, vector in zip(missing, self._embedder.embed(missing), strict=True):
                self._vectors[text] = vector
        vectors = np.stack([self._vectors[text] for text in texts])
        while len(self._vectors) > MAX_CACHED_TEXTS:
            self._vectors.popitem(last=False)
        return vectors


def names_nothing(query: str) -> bool:
    """Whether a question can only be understood from what was said before: it points back, or hardly names anything."""
    said = words(query)
    names = [word for word in said if word not in FUNCTION_WORDS | POINTING]
    points = any(word in POINTING for word in said) or query.lower().lstrip().startswith(OPENERS)
    return (len(names) <= MAX_NAMES_ALONE and len(said) <= 12) or (points and len(names) <= MAX_NAMES_POINTING)


def split_sentences(text: str) -> tuple[str, ...]:
    """Sentences and lines of a text; an abbreviation's or a number's point doesn't end one."""
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9₹\"'(À-Ỹ])|\n+", text.strip())
    return tuple(part.strip() for part in parts if part and part.strip())


def _last_question(exchanges: Sequence[Exchange]) -> str:
    """The question before, and, if that one named nothing either, the one before it."""
    previous = exchanges[-2].question
    if len(exchanges) > 2 and (names_nothing(previous) or smalltalk_reply(previous) is not None):
        return f"{exchanges[-3].question}\n{previous}"
    return previous


def _asks_two_things(query: str, scored: Sequence[_Scored]) -> bool:
    return (len(scored) > 1 and scored[0].score - scored[1].score < SECOND_WITHIN
            and re.search(r"\b(?:and|also|aur|plus|và)\b|\?.+\?", query.lower()) is not None)


def _extract(one: _Scored, *, whole: bool) -> str:
    """The FAQ's answer, whole or its sentences nearest to the question, in their order."""
    if whole or len(one.sentences) <= WHOLE_UNTIL:
        return one.faq.answer or one.faq.question
    ranked = sorted(range(len(one.sentences)), key=lambda n: -one.sentence_scores[n])[:MAX_SENTENCES]
    near = [n for n in ranked if one.sentence_scores[n] >= one.sentence_scores[ranked[0]] - SENTENCE_WITHIN]
    return " ".join(one.sentences[n] for n in sorted(near))
