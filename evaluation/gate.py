"""What a gate saves and what it breaks, on labelled conversations: every figure of `fetchgate evaluate gate`.

Each arm is played on its own transcript. Savings are against always fetching in the `frugal` and the `paper` setting; harm is what an
error budget bounds (docs/metrics.md). Where training was repeated, figures are means over the seeds, intervals are by conversation about
that mean, and the bounds on harm are those of the worst seed. Leaves out choosing settings (`frugal.py`) and thresholds (`certify.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from chat.ports import Policy
from chat.prompt import PAPER, PromptSettings
from chat.types import Action, State
from evaluation.certify import harm_bound
from evaluation.datasets import Session
from evaluation.rollout import Arm, World, always, oracle_needed, oracle_useful, play, play_by, replays, with_setting
from evaluation.stats import Interval, Weights, ratio_difference, resampled, saving, share
from evaluation.turns import Bools, Floats, Turns, turns_of

Choose = Callable[[State, Arm, Arm], Action]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Always fetching in one setting, turn by turn; shape (T,)."""

    tokens: Floats
    good: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A gate's turns, one set a seed, beside the baselines on the same sessions."""

    seeds: tuple[Turns, ...]
    frugal: Baseline
    paper: Baseline

    def counts(self, values: Callable[[Turns], Floats | Bools], where: Callable[[Turns], Bools] | None = None) -> Floats:
        """Sums by conversation, shape (S, C)."""
        return np.stack([one.by_conversation(values(one), None if where is None else where(one)) for one in self.seeds])


def measure(sessions: Sequence[Session], world: World, policies: Sequence[Policy], frugal: PromptSettings) -> Measured:
    """Play the sessions under each seed's policy, and under both baselines."""
    played = replays(sessions, world)
    seeds = tuple(turns_of([play(replay, policy) for replay in played]) for policy in policies)
    return Measured(seeds, baseline(sessions, world, frugal), baseline(sessions, world, PAPER))


def baseline(sessions: Sequence[Session], world: World, setting: PromptSettings) -> Baseline:
    """Always fetching in a setting."""
    arms = [arm for replay in replays(sessions, with_setting(world, setting)) for arm in always(replay)]
    return Baseline(np.array([arm.tokens for arm in arms], dtype=float),
                    np.array([np.nan if arm.good is None else float(arm.good) for arm in arms]))


def figures(measured: Measured, *, weights: Weights | None = None) -> dict[str, Any]:
    """The figures as JSON values: shares in [0, 1], intervals of 95 % by conversation; null where nothing can be told."""
    first = measured.seeds[0]
    drawn = resampled(first.count) if weights is None else weights
    everything = np.ones(len(first.tokens), dtype=bool)
    overall = _figures(measured, everything, drawn)
    kinds = sorted({label for labels in first.labels for label in labels})
    slices = {kind: _figures(measured, first.within(kind), drawn) for kind in kinds}
    return {
        "conversations": first.count, "turns": len(first.tokens), "scored_turns": int(first.scored.sum()), **overall,
        "slices": {kind: {"turns": int(first.within(kind).sum()), **found} for kind, found in slices.items()},
    }


def _figures(measured: Measured, chosen: Bools, weights: Weights) -> dict[str, Any]:
    """Of some of the turns: the same ones for every seed."""
    first = measured.seeds[0]

    def counts(values: Callable[[Turns], Floats | Bools], where: Callable[[Turns], Bools] | None = None) -> Floats:
        return measured.counts(values, lambda turns: chosen & (turns.scored if where is None else where(turns)))

    whole = first.by_conversation(chosen)
    scored = counts(lambda turns: np.ones(len(chosen)))
    good, frugal_good = counts(lambda turns: turns.good), first.by_conversation(measured.frugal.good, chosen)
    tokens = measured.counts(lambda turns: turns.tokens, lambda turns: chosen)
    skips, fetches = (counts(lambda turns: np.ones(len(chosen)), where) for where in (_skipped, _fetched))
    return {
        "saving_vs_frugal": _interval(saving(tokens, first.by_conversation(measured.frugal.tokens, chosen), weights)),
        "saving_vs_paper": _interval(saving(tokens, first.by_conversation(measured.paper.tokens, chosen), weights)),
        "accuracy": _value(share(good, scored, weights)),
        "accuracy_frugal": _value(share(frugal_good, scored[0], weights)),
        "accuracy_difference": _interval(ratio_difference(good, scored, frugal_good, scored[0], weights)),
        "skip_rate": _value(share(measured.counts(lambda turns: turns.skipped, lambda turns: chosen), whole, weights)),
        "static_rate": _value(share(measured.counts(lambda turns: turns.static, lambda turns: chosen), whole, weights)),
        "bad_skip": _value(share(counts(lambda turns: turns.good_skip == 0, _skipped), skips, weights)),
        "harmful_skip": _harm(measured, chosen, weights),
        "useless_fetch": _value(share(counts(lambda turns: turns.good_fetch <= turns.good_skip, _fetched), fetches, weights)),
    }


def _skipped(turns: Turns) -> Bools:
    return turns.skipped & turns.scored


def _fetched(turns: Turns) -> Bools:
    return ~turns.skipped & ~turns.static & turns.scored


def _harm(measured: Measured, chosen: Bools, weights: Weights) -> dict[str, float | None]:
    """Harmful skips as a share of the skips: the seeds' mean, and the worst seed's upper bounds."""
    bounds = [harm_bound(replace(turns, skipped=turns.skipped & chosen).skips(), weights) for turns in measured.seeds]
    values = [bound.value for bound in bounds if bound.skips]
    return {"value": _number(float(np.mean(values))) if values else None,
            "upper_conversation": max(bound.upper_conversation for bound in bounds),
            "upper_turn": max(bound.upper_turn for bound in bounds)}


def oracles(sessions: Sequence[Session], world: World, frugal: Baseline) -> dict[str, dict[str, float | None]]:
    """The two references, which look at both arms: saving against `frugal`, and accuracy. References, not bounds."""
    return {name: _oracle(sessions, world, frugal, choose)
            for name, choose in (("oracle_needed", oracle_needed), ("oracle_useful", oracle_useful))}


def _oracle(sessions: Sequence[Session], world: World, frugal: Baseline, choose: Choose) -> dict[str, float | None]:
    turns = turns_of([play_by(replay, choose) for replay in replays(sessions, world)])
    return {"saving": 1.0 - float(turns.tokens.sum() / frugal.tokens.sum()),
            "accuracy": _number(float(np.nanmean(turns.good))) if turns.scored.any() else None}


def _interval(found: Interval) -> dict[str, Any]:
    return {name: _number(value) if isinstance(value, float) else value for name, value in asdict(found).items()}


def _value(found: Interval) -> float | None:
    return _number(found.value)


def _number(value: float) -> float | None:
    """A figure as JSON has it: what can't be told is null."""
    return float(value) if np.isfinite(value) else None


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures with dotted names, for a table."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
