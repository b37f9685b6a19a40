"""The values that the knowledge base trades in: an FAQ, a hit on one, a query beside what was said before.

Leaves out where FAQs come from (`source.py`) and how they are found (`index.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Faq:
    """One question and its answer, with other ways to ask it."""

    id: str
    question: str
    """May be empty for a passage that answers no single question."""
    answer: str
    """May be empty for an intent that only routes; then the question isn't."""
    category: str | None = None
    paraphrases: tuple[str, ...] = ()
    source_url: str | None = None
    """Where a reader can check the answer: http or https."""

    def __post_init__(self) -> None:
        if not self.id.strip() or any(c.isspace() for c in self.id):
            raise ValueError(f"id: expected text without spaces, got {self.id!r}")
        if not (self.question.strip() or self.answer.strip()):
            raise ValueError("question: expected a question or an answer, got neither")
        if self.source_url is not None and not self.source_url.startswith(("https://", "http://")):
            raise ValueError(f"source_url: expected http(s)://…, got {self.source_url!r}")

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Faq":
        """The FAQ of which `asdict` made this record, back from JSON."""
        return cls(**{**record, "paraphrases": tuple(record["paraphrases"])})

    @property
    def text(self) -> str:
        """Question and answer as one passage, the text of the FAQ's first vector."""
        return "\n".join(part for part in (self.question, self.answer) if part)


@dataclass(frozen=True, slots=True)
class Hit:
    """An FAQ that a search found."""

    faq: Faq
    similarity: float
    """Of the query to the FAQ, in [-1, 1]; higher is closer. The cosine to its best vector, and where the knowledge base is hybrid
    the weighted mean of that and its share of the query's words (`lexical.py`)."""
    overlap: float = 0.0
    """Share of the query's words that the FAQ holds, in [0, 1); 0 where the knowledge base isn't hybrid."""
    confidence: float | None = None
    """Probability that this FAQ settles the query, of the first hit of a calibrated knowledge base (`calibrate.py`)."""
    alone: Literal["never", "first", "always"] = "never"
    """When it is certain enough to be the answer without an LLM: never, where nothing was said before, or always."""


def better_of(*found: Sequence[Hit]) -> tuple[Hit, ...]:
    """Each FAQ that any search found, with the better of its similarities, best first; of equals, those of the first search."""
    best: dict[str, Hit] = {}
    for hit in (hit for hits in found for hit in hits):
        if hit.faq.id not in best or hit.similarity > best[hit.faq.id].similarity:
            best[hit.faq.id] = hit
    return tuple(sorted(best.values(), key=lambda hit: -hit.similarity))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A query beside FAQs and the query before it; every figure is in [-1, 1]."""

    faqs: tuple[float | None, ...]
    """Similarity to each FAQ, as of a `Hit`; None for one that isn't there."""
    previous: float | None
    """Cosine to the query before; None: there is none, or one of the two is blank."""
    joined_faqs: tuple[float | None, ...]
    """As `faqs`, of both queries taken together: the direction between their vectors. () without a query before."""
    joined_top1: Hit | None
    """The nearest FAQ to both queries taken together."""
