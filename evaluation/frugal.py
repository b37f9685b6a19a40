"""Always-fetch settings, and the cheapest that is as good as any: the baseline that headline savings are against (MEASURES.md).

The sweep holds the settings that cost no more than `paper` on the sessions that it is chosen by: with a reader that nothing distracts,
accuracy grows with every FAQ shown, and a setting that costs more than the lavish one is not frugal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True, slots=True)
class SettingFigures:
    """What fetching on every turn costs and brings in one setting."""

    setting: PromptSettings
    tokens: int
    accuracy: float
    """Share of Good answers among the scored turns."""


def sweep(sessions: Sequence[Session], world: World, settings: Sequence[PromptSettings] = SWEEP) -> tuple[SettingFigures, ...]:
    """The figures of each setting, `paper` first."""
    return tuple(_figures(sessions, world, setting) for setting in dict.fromkeys((PAPER, *settings)))


def frugal(figures: Sequence[SettingFigures], margin: float = MARGIN) -> SettingFigures:
    """The cheapest setting whose accuracy is at most `margin` below the best, of those that cost no more than the first, `paper`."""
    affordable = [one for one in figures if one.tokens <= figures[0].tokens]
    best = max(one.accuracy for one in affordable)
    return min((one for one in affordable if one.accuracy >= best - margin), key=lambda one: one.tokens)


def _figures(sessions: Sequence[Session], world: World, setting: PromptSettings) -> SettingFigures:
    arms = [arm for replay in replays(sessions, with_setting(world, setting)) for arm in always(replay)]
    good = [arm.good for arm in arms if arm.good is not None]
    return SettingFigures(setting, sum(arm.tokens for arm in arms), float(np.mean(good)) if good else 0.0)
