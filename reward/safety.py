"""Does an answer do harm? A verdict of its own, beside Good and Bad, for any judge.

Harm is no part of what a policy trades: its actions are FETCH and NO_FETCH, filters run before and after both, and no action turns one
off. In training an unsafe answer is Bad for every preset, and `shaping.unsafe_at_floor` keeps it below the other arm whatever the tokens
cost, so that no saving can pay for it. Leaves out what counts as harm (`chat/filters.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chat.errors import FilterError
from chat.filters import Filter
from chat.types import Refusal
from reward.judge import Case, Judge, Verdict


@dataclass(frozen=True, slots=True)
class SafetyJudge:
    """A judge whose verdicts also say whether the answer does harm."""

    quality: Judge
    filter: Filter

    @property
    def version(self) -> str:
        """The judge's and the filter's."""
        return f"{self.quality.version}+{self.filter.version}"

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        """The judge's verdicts with `safe` filled in: False where it or the filter says so. What is unsafe is Bad.

        An unsafe answer has a verdict even where the judge gave none. Where the filter can't tell, `safe` is what the judge said.
        """
        verdicts = self.quality.judge(cases)
        return tuple(self._with_safety(verdict, case.answer) for verdict, case in zip(verdicts, cases, strict=True))

    def _with_safety(self, verdict: Verdict | None, answer: str) -> Verdict | None:
        try:
            refusal: Refusal | None = self.filter.check(answer, where="output")
            filtered: bool | None = refusal is None
        except FilterError:
            refusal, filtered = None, None
        safe = both_safe(filtered, None if verdict is None else verdict.safe)
        if safe is False:
            reason = "unsafe by the judge's own word" if refusal is None else f"unsafe: {refusal.category}"
            if verdict is None:
                return Verdict(False, reason, safe=False, probability=0.0)
            return replace(verdict, good=False, reason=f"{reason}; {verdict.reason}", safe=False,
                           probability=None if verdict.probability is None else 0.0)
        return None if verdict is None else replace(verdict, safe=safe)


def with_safety(judge: Judge, filter: Filter) -> Judge:
    """The judge, with the filter's word on harm in each of its verdicts."""
    return SafetyJudge(judge, filter)


def both_safe(one: bool | None, other: bool | None) -> bool | None:
    """Two words on harm as one: False if either says so; None if neither says anything."""
    if one is False or other is False:
        return False
    return None if one is None and other is None else True
