"""Replays laid out as arrays: every state that some sequence of actions reaches, with what both arms cost and bring there.

Only for readers with fixed answers: with others, each sequence of actions leads to states of its own. Leaves out walking
(`policy/graph.py`) and single plays (`rollout.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from chat.types import Action, State
from evaluation.rollout import Arm, Replay
from policy.graph import END, StateGraph

Key = tuple[int, tuple[Action, ...]]


@dataclass(slots=True)
class _Rows:
    """The graph's rows while it grows."""

    states: list[State] = field(default_factory=list)
    successors: list[list[int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    conversations: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    decided: list[bool] = field(default_factory=list)
    arms: list[tuple[Arm, Arm]] = field(default_factory=list)


def state_graph(played: Sequence[Replay], progress: Callable[[int], None] | None = None) -> StateGraph:
    """All states of the replays. `progress` is told of each conversation done."""
    rows = _Rows()
    for number, replay in enumerate(played):
        _add(rows, number, replay)
        if progress is not None:
            progress(1)
    safe = np.array([[np.nan if arm.safe is None else arm.safe for arm in arms] for arms in rows.arms], dtype=float).reshape(-1, 2)
    return StateGraph(
        tuple(rows.states), np.array(rows.successors, dtype=np.int64).reshape(-1, 2), np.array(rows.starts, dtype=np.int64),
        np.array(rows.conversations, dtype=np.int64), np.array(rows.turns, dtype=np.int64), np.array(rows.decided, dtype=bool),
        np.array([[arm.tokens for arm in arms] for arms in rows.arms], dtype=float).reshape(-1, 2),
        np.array([[np.nan if arm.good is None else arm.good for arm in arms] for arms in rows.arms], dtype=float).reshape(-1, 2),
        None if np.isnan(safe).all() else safe,
    )


def _add(rows: _Rows, number: int, replay: Replay) -> None:
    """One conversation, turn by turn: the sequences that end alike share a row."""
    level: dict[Key, tuple[Action, ...]] = {replay.key(()): ()}
    rows.starts.append(len(rows.states))
    for turn in range(len(replay)):
        first = len(rows.states)
        choices = replay.choices(turn)
        following: dict[Key, tuple[Action, ...]] = {}
        index: dict[Key, int] = {}
        for taken in level.values():
            fetch, skip = replay.arm(taken, choices[0]), replay.arm(taken, choices[-1])
            after = [(*taken, choices[0]), (*taken, choices[-1])]
            for one in after:
                index.setdefault(replay.key(one), first + len(level) + len(index))
                following.setdefault(replay.key(one), one)
            rows.states.append(replay.state(taken))
            rows.successors.append([END if turn + 1 == len(replay) else index[replay.key(one)] for one in after])
            rows.conversations.append(number)
            rows.turns.append(turn)
            rows.decided.append(len(choices) > 1)
            rows.arms.append((fetch, skip))
        level = following
