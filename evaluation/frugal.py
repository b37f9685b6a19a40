"""Always-fetch settings, and the cheapest that is as good as any: the baseline that headline savings are against (docs/metrics.md).

The sweep holds the settings that cost no more than `paper` on the sessions that it is chosen by: with a reader that nothing distracts,
accuracy grows with every FAQ shown, and a setting that costs more than the lavish one is not frugal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chat.prompt import PAPER, PromptSettings
from evaluation.datasets import Session
from evaluation.rollout import World, always, replays, with_setting

MARGIN = 0.01
"""Accuracy that `frugal` may lose on the best setting of the sweep."""
SWEEP = tuple(
    PromptSettings(k=k, history_faqs=kept, faq_turns=turns, repeats=repeats)  # type: ignore[arg-type]
    for k in range(1, 9) for kept, turns in (("none", 0), ("cited", 1), ("cited", 2), ("all", 1), ("all", 2))
    for repeats in ((False, True) if turns and k <= PAPER.k else (False,))
)


@dataclass(frozen=True, slots=True, eq=False)
class SettingCounts:
    """What fetching on every turn costs and brings in one setting, by conversation; shape (C,)."""

    setting: PromptSettings
    tokens: NDArray[np.float64]
    good: NDArray[np.float64]
    scored: NDArray[np.float64]
    """Turns with a verdict."""


def sweep(sessions: Sequence[Session], world: World, settings: Sequence[PromptSettings] = SWEEP) -> tuple[SettingCounts, ...]:
    """The counts of each setting, `paper` first."""
    return tuple(_counts(sessions, world, setting) for setting in dict.fromkeys((PAPER, *settings)))


def frugal(counts: Sequence[SettingCounts], margin: float = MARGIN, among: NDArray[np.int64] | None = None) -> PromptSettings:
    """The cheapest setting whose accuracy is at most `margin` below the best, of those that cost no more than the first, `paper`.

    `among` numbers the conversations that choose; None: all of them.
    """
    chosen = np.arange(len(counts[0].tokens)) if among is None else among
    tokens = np.array([one.tokens[chosen].sum() for one in counts])
    accuracy = np.array([one.good[chosen].sum() / max(1.0, one.scored[chosen].sum()) for one in counts])
    affordable = tokens <= tokens[0]
    good_enough = affordable & (accuracy >= accuracy[affordable].max() - margin)
    return counts[int(np.argmin(np.where(good_enough, tokens, np.inf)))].setting


def _counts(sessions: Sequence[Session], world: World, setting: PromptSettings) -> SettingCounts:
    arms = [always(replay) for replay in replays(sessions, with_setting(world, setting))]
    rows = [(sum(arm.tokens for arm in play), sum(bool(arm.good) for arm in play), sum(arm.good is not None for arm in play))
            for play in arms]
    tokens, good, scored = np.array(rows, dtype=float).reshape(-1, 3).T
    return SettingCounts(setting, tokens, good, scored)
