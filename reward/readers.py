"""Who reads the prompt and answers, where no LLM is paid to: the ideal, the distracted and the extractive reader.

The first two read labels: they never write a wrong word, and what they miss is a gold FAQ. Their answers are those of the labelled
session in every arm, so that arms differ in prompts alone. The third is the answerer that ships. No figure that one of them made
says what a GPT-4 class model would do. Leaves out grading (`judge.py`).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from chat.citations import cited_ids
from chat.types import Message, Prompt
from kb.types import Faq

ReaderName = Literal["ideal", "distracted", "extractive"]


@dataclass(frozen=True, slots=True)
class Question:
    """A labelled turn, as a reader gets it."""

    query: str
    answer: str | None
    """As people wrote it; None: nobody has."""
    gold: tuple[Faq, ...] | None
    """None: unlabelled."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer, and the ids of the FAQs that it rests on."""

    answer: str
    used: tuple[str, ...]


class Reader(Protocol):
    """Answers a prompt; the same prompt always gets the same answer."""

    @property
    def fixed_answers(self) -> bool:
        """Whether the words of an answer are those of the session, whatever the prompt holds."""

    def read(self, question: Question, prompt: Prompt) -> Reading: ...


@dataclass(frozen=True, slots=True)
class IdealReader:
    """Uses every gold FAQ that stands in the prompt, and nothing else."""

    fixed_answers: bool = True

    def read(self, question: Question, prompt: Prompt) -> Reading:
        """The session's answer, resting on the gold FAQs that are shown."""
        return Reading(session_answer(question), gold_shown(question, prompt.shown))


@dataclass(frozen=True, slots=True)
class DistractedReader:
    """Misses a gold FAQ the more easily, the more FAQs are shown: with probability 1 - (1 - per_faq)^(n - 1)."""

    per_faq: float = 0.03
    """Probability that one further FAQ in the prompt hides a gold one."""
    seed: int = 0
    fixed_answers: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.per_faq < 1.0:
            raise ValueError(f"per_faq: expected 0 <= p < 1, got {self.per_faq}")

    def miss_probability(self, shown: int) -> float:
        """Of a gold FAQ among so many."""
        return 1.0 - (1.0 - self.per_faq) ** max(0, shown - 1)

    def read(self, question: Question, prompt: Prompt) -> Reading:
        """As the ideal reader, less the gold FAQs that are missed. Chance is drawn once a query and FAQ, so arms are paired."""
        missed = self.miss_probability(len(prompt.shown))
        seen = tuple(one for one in gold_shown(question, prompt.shown) if _uniform(self.seed, question.query, one) >= missed)
        return Reading(session_answer(question), seen)


class ExtractiveReader:
    """The embedded answerer; its answers depend on all that was said before."""

    fixed_answers = False

    def __init__(self, answer: Callable[[Sequence[Message]], str]) -> None:
        self._answer = answer

    def read(self, question: Question, prompt: Prompt) -> Reading:
        """What it says to the prompt, and what that cites."""
        answer = self._answer(prompt.messages)
        return Reading(answer, cited_ids(answer, prompt.shown))


def session_answer(question: Question) -> str:
    """The session's own answer, or the gold FAQs' answers; where there is neither, that nobody knows."""
    if question.answer is not None:
        return question.answer
    return "\n".join(faq.answer for faq in question.gold or ()) or "I don't know."


def gold_shown(question: Question, shown: Sequence[str]) -> tuple[str, ...]:
    """The gold FAQs that stand in the prompt."""
    there = set(shown)
    return tuple(faq.id for faq in question.gold or () if faq.id in there)


def _uniform(seed: int, query: str, faq_id: str) -> float:
    digest = hashlib.sha256(f"{seed}\0{query}\0{faq_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
