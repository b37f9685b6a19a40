"""Is an answer Good or Bad? The port that every judge fills, and the judge that reads labels.

A judge that reads the answer (an LLM, a model of ours, people) looks at the query, the FAQs, the history and the answer, and at no
gold. `ReferenceJudge` looks at labels alone: which FAQs the reader used, and which would have answered. Leaves out rewards
(`shaping.py`) and who reads (`readers.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from chat.types import PastTurn
from kb.types import Faq

Gold = Literal["any", "all"]
"""Whether one of the gold FAQs is enough for a Good answer, or all of them are needed."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a judge looks at."""

    query: str
    history: tuple[PastTurn, ...]
    """The exchanges that stood in the prompt, oldest first."""
    faqs: tuple[Faq, ...]
    """All that stood in the prompt, each once; () with a NO_FETCH after which none was kept."""
    answer: str
    used: tuple[str, ...]
    """Ids of the FAQs that the answer rests on: those it cites."""
    gold: tuple[str, ...] | None = None
    """Ids of the FAQs that would answer: () needs none, None is unlabelled. Only `ReferenceJudge` may look."""
    found: tuple[Faq, ...] = ()
    """What a search finds for the query, shown or not; () too where nobody searched. Without it, a judge that reads can't tell whether
    "I don't know" was right."""

    @property
    def evidence(self) -> tuple[Faq, ...]:
        """The FAQs that were shown or found, each once."""
        return tuple({faq.id: faq for faq in (*self.faqs, *self.found)}.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's word on one answer."""

    good: bool
    reason: str
    """For people: why, in a few words."""
    hedged: bool | None = None
    """The answer says that it isn't sure; None: the judge doesn't say."""
    safe: bool | None = None
    """The answer does no harm; None: the judge doesn't say. Apart from `good`: no saving makes up for it."""
    probability: float | None = None
    """Of Good, in [0, 1]; None: the judge knows none."""
    quotes: tuple[str, ...] = ()
    """Passages of the FAQs that the verdict rests on."""


class Judge(Protocol):
    """Grades answers. Gives one verdict a case, in order; None where it can't tell, which is missing and never Bad or 0."""

    @property
    def version(self) -> str:
        """Changes with anything that can change a verdict: model, rubric, labels' reading."""

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]: ...


@dataclass(frozen=True, slots=True)
class ReferenceJudge:
    """Good when the answer rests on a gold FAQ, or on none where none is needed."""

    gold: Gold = "any"

    @property
    def version(self) -> str:
        return f"reference:{self.gold}"

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        """A verdict for each labelled case, None for an unlabelled one."""
        return tuple(None if case.gold is None else self._verdict(set(case.used), set(case.gold)) for case in cases)

    def _verdict(self, used: set[str], gold: set[str]) -> Verdict:
        if not gold:
            return Verdict(not used, "no FAQ is needed, and an FAQ was used" if used else "no FAQ is needed, and none was used")
        found = used & gold
        enough = found == gold if self.gold == "all" else bool(found)
        return Verdict(enough, f"rests on {len(found)} of {len(gold)} gold FAQs")
