"""A prompt, read back: which FAQs it shows, what was asked and answered. The inverse of `chat/prompt.py`'s marks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chat.types import Message

FAQ = re.compile(r'<faq id="([^"\n]*)">\n(?:Q: (.*?)\n)?A: (.*?)\n</faq>', re.DOTALL)
QUESTION = re.compile(r"<question>\n(.*?)\n</question>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ShownFaq:
    """An FAQ as the prompt shows it."""

    id: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with the FAQs that came with it, and its answer; the last one has none yet."""

    faqs: tuple[ShownFaq, ...]
    question: str
    answer: str


def read_prompt(messages: Sequence[Message]) -> tuple[Exchange, ...]:
    """The exchanges of a rendered prompt, oldest first; a message without marks is a question as it stands."""
    exchanges: list[Exchange] = []
    for message in messages:
        if message.role == "user":
            asked = QUESTION.search(message.content)
            faqs = tuple(ShownFaq(_text(i), _text(q or ""), _text(a)) for i, q, a in FAQ.findall(message.content))
            exchanges.append(Exchange(faqs, _text(asked[1] if asked else message.content), ""))
        elif message.role == "assistant" and exchanges:
            exchanges[-1] = Exchange(exchanges[-1].faqs, exchanges[-1].question, message.content)
    return tuple(exchanges)


def _text(data: str) -> str:
    return data.replace("&lt;", "<")
