"""What a judge was asked during replays: a judge that notes each case with what was said of it.

Replays ask their judge one case at a time and keep numbers only; whoever needs the cases themselves listens with this. Leaves out
judging (`reward/`) and remembering verdicts (`trainers_judge.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from reward.judge import Case, Judge, Verdict


@dataclass(slots=True)
class HearingJudge:
    """Passes cases on to a judge, or can't tell where there is none, and notes both."""

    base: Judge | None
    """None: every verdict is missing."""
    version: str
    heard: list[tuple[Case, Verdict | None]] = field(default_factory=list)
    """Cases and what was said of them, in the order in which they were asked."""

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        """As the judge below says."""
        verdicts = (None,) * len(cases) if self.base is None else self.base.judge(cases)
        self.heard += zip(cases, verdicts, strict=True)
        return verdicts
