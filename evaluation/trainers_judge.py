"""The judge of a training other than the labels': asked about everything in one go, and let in only if it agrees with the labels.

A replay asks one case at a time, for which a judge that works in batches is slow and one over a network hopeless. So the replays are
laid out once to hear what they will ask, all of that is judged together, and the second time the answers are remembered. Needs a reader
with fixed answers, whose questions don't depend on verdicts. Leaves out judging (`reward/`) and what its verdicts are for (`training.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.datasets import Session
from evaluation.graph import state_graph
from evaluation.heard import HearingJudge
from evaluation.rollout import World, replays
from policy.graph import StateGraph
from reward.agreement import Agreement, agreement
from reward.judge import Case, Judge, Verdict

MOST_OVERLOOKED = 0.999
"""Stands for a judge of which nothing is known: with it no budget can be certified."""


class RememberingJudge:
    """Judges each case once; what it is asked again it knows."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._known: dict[Case, Verdict | None] = {}
        self.version = judge.version

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        """The verdicts, with one call for all cases that are new."""
        new = tuple(dict.fromkeys(case for case in cases if case not in self._known))
        if new:
            self._known.update(zip(new, self._judge.judge(new), strict=True))
        return tuple(self._known[case] for case in cases)


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a judge is to be believed about the labelled turns of a set, in both arms of every state."""

    agreement: Agreement
    false_good_rate: float
    """1 - (1 - f)(1 - g), where f is the share of Bad answers that it calls Good and g that of Good answers that it calls Bad, each at
    its upper bound: what harm it may overlook (`certify.harm_bound`). Measured on all Bad answers: that it overlooks a harmful skip's no
    more often than another's is taken for granted."""


def foreseen(judge: Judge, sessions: Sequence[Session], world: World, progress: Callable[[int], None] | None = None) -> RememberingJudge:
    """The judge, asked already about all that replays of these sessions will ask. `progress` is told of each conversation."""
    hearing = HearingJudge(None, judge.version)
    state_graph(replays(sessions, replace(world, judge=hearing)), progress)
    known = RememberingJudge(judge)
    known.judge([case for case, _ in hearing.heard])
    return known


def trust(judged: StateGraph, labelled: StateGraph, judge: str, against: str) -> Trust:
    """What a judge's verdicts on a graph are worth beside those of the labels on the same graph.

    Raises: AgreementError when the labels say nothing.
    """
    conversations = [str(number) for number in np.repeat(labelled.conversations, 2)]
    found = agreement(_words(judged), _words(labelled), judge=judge, against=against, conversations=conversations)
    missed, denied = found.confusion.false_good.high, found.confusion.false_bad.high
    return Trust(found, min(1.0 - (1.0 - missed) * (1.0 - denied), MOST_OVERLOOKED))


def _words(graph: StateGraph) -> list[bool | None]:
    return [None if np.isnan(good) else bool(good) for good in graph.good.ravel()]
