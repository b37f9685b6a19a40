"""A rendered prompt, read back: what was asked and answered, and which FAQs were shown with it.

The inverse of `chat/prompt.py`, whose marks can't stand in FAQ or user text. A user message without the marks is a question
as it stands, and shows nothing. Leaves out what an answer cites (`chat/citations.py`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chat.types import Message

FAQ = re.compile(r'<faq id="(\S+)">\n(?:Q: (.*?)\n)?A: (.*?)\n</faq>\n', re.DOTALL)
QUESTION = re.compile(r"<question>\n(.*?)\n</question>", re.DOTALL)
NEUTRALISED = re.compile(r"&lt;(?=[^\w<]*(?:faqs?|question)\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ShownFaq:
    """An FAQ as the prompt shows it; question or answer may be empty."""

    id: str
    question: str
    answer: str

    @property
    def text(self) -> str:
        return "\n".join(part for part in (self.question, self.answer) if part)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with the FAQs that came with it, best first, and its answer; the last one has none yet."""

    faqs: tuple[ShownFaq, ...]
    question: str
    answer: str


def read_prompt(messages: Sequence[Message]) -> tuple[Exchange, ...]:
    """The exchanges of a prompt, oldest first; () when nobody asked anything."""
    exchanges: list[Exchange] = []
    for message in messages:
        if message.role == "user":
            exchanges.append(_asked(message.content))
        elif message.role == "assistant" and exchanges:
            exchanges[-1] = Exchange(exchanges[-1].faqs, exchanges[-1].question, _original(message.content))
    return tuple(exchanges)


def _asked(content: str) -> Exchange:
    question = QUESTION.search(content)
    if question is None:
        return Exchange((), content, "")
    found = FAQ.findall(content[: question.start()])
    return Exchange(tuple(ShownFaq(_original(i), _original(q), _original(a)) for i, q, a in found), _original(question[1]), "")


def _original(data: str) -> str:
    """Text as it was before its marks were neutralised."""
    return NEUTRALISED.sub("<", data)
