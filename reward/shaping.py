"""Verdicts and tokens to rewards, by preset: both arms of each turn at once.

Rewards are (B, 2): column FETCH = 0, column NO_FETCH = 1, the order of a policy network's logits. Verdicts are (B,): True or 1
is Good, False or 0 Bad, NaN missing. A missing verdict makes each reward that needs it NaN, never 0; callers drop those rows.
Token counts are (B,), input and output together; an unknown count is NaN and does the same.

Harm isn't a matter of price: `unsafe_at_floor` comes after any preset and puts an unsafe answer below the other arm's, whatever both
cost. Leaves out who judges (`judge.py`, and `safety.py` for harm) and how rewards become returns and a multiplier moves
(`policy/objective.py`). Source: Kulkarni et al. 2024 (arXiv 2401.06800), Table 6; Schulman 2023 (Reinforcement Learning from Human
Feedback: Progress and Challenges); `budget` and the floor are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward.errors import PresetError, ShapingInputError

FETCH, NO_FETCH = 0, 1
"""Columns of every array of rewards."""

Verdicts = NDArray[np.bool_] | NDArray[np.integer[Any]] | NDArray[np.floating[Any]]
Tokens = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]
Rewards = NDArray[np.float64]

UNSAFE_GAP = 1.0
"""By how much an unsafe answer earns less than a safe one of the same turn, at least."""
NEVER_HEDGE = ("Hedging is never strictly best at these rewards: asserting or saying \"I don't know\" pays as much or more at any "
               "probability of being correct, so don't expect hedged answers to be learned.")


@dataclass(frozen=True, slots=True)
class FixedRewards:
    """One number for a fetch, which isn't judged, and one for each verdict on a skip."""

    fetch: float
    good_skip: float
    bad_skip: float

    def __post_init__(self) -> None:
        if not -np.inf < self.bad_skip < self.fetch < self.good_skip < np.inf:
            raise ValueError(f"expected bad_skip < fetch < good_skip, or one action is best whatever the verdict; got {self.bad_skip}, "
                             f"{self.fetch}, {self.good_skip}")

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell whoever trains with it."""
        return ("A fetch isn't judged: one whose answer is Bad earns as much as one whose answer is Good.",)


@dataclass(frozen=True, slots=True)
class HedgedRewards:
    """What an answer earns by correctness and tone, less the price of its tokens; both arms are judged alike."""

    token_price: float
    """Reward per 1,000 tokens, >= 0."""
    correct: float = 1.0
    correct_hedged: float = 0.5
    unknown: float = 0.0
    """Says that it doesn't know, where an answer could have been given."""
    wrong_hedged: float = -2.0
    wrong: float = -4.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.token_price < np.inf:
            raise ValueError(f"token_price: expected a finite reward per 1,000 tokens, 0 or more, got {self.token_price}")
        if not np.inf > self.correct > self.correct_hedged > self.unknown > self.wrong_hedged > self.wrong > -np.inf:
            raise ValueError("expected correct > correct_hedged > unknown > wrong_hedged > wrong, got "
                             f"{self.correct}, {self.correct_hedged}, {self.unknown}, {self.wrong_hedged}, {self.wrong}")

    @property
    def hedges_between(self) -> tuple[float, float] | None:
        """The probabilities of being correct between which a hedged answer is strictly best; None: there are none."""
        above = (self.unknown - self.wrong_hedged) / (self.correct_hedged - self.wrong_hedged)
        assertive, careful = self.correct - self.correct_hedged, self.wrong_hedged - self.wrong
        below = careful / (careful + assertive)
        return (above, below) if above < below else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell whoever trains with it."""
        return (NEVER_HEDGE,) if self.hedges_between is None else ()


@dataclass(frozen=True, slots=True)
class BudgetRewards:
    """Save most, subject to a budget of harmful skips: the saving, less a multiplier on harm above the budget.

    At a fixed multiplier > 0, skipping is best where P(harm) < budget + saving of the skip over the fetch / multiplier.
    """

    budget: float
    """Share of skips that may be harmful, in [0, 1)."""
    step: float
    """By how much the multiplier moves per unit of E[skip * (harm - budget)]; > 0."""
    cap: float
    """The multiplier stays in [0, cap]; > 0."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.budget < 1.0:
            raise ValueError(f"budget: expected a share of skips, 0 <= budget < 1, got {self.budget}")
        for name, value in (("step", self.step), ("cap", self.cap)):
            if not 0.0 < value < np.inf:
                raise ValueError(f"{name}: expected a finite number above 0, got {value}")

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell whoever trains with it."""
        return ("The budget holds on the turns that were trained on, on average: the calibrated skip threshold certifies it, not this.",)


Preset = FixedRewards | HedgedRewards | BudgetRewards

PRESETS: Mapping[str, Preset] = MappingProxyType({
    "kulkarni2024": FixedRewards(fetch=0.1, good_skip=2.0, bad_skip=-1.0),
    "symmetric": FixedRewards(fetch=0.1, good_skip=1.0, bad_skip=-1.0),
    "hedged": HedgedRewards(token_price=0.1),
    "budget": BudgetRewards(budget=0.01, step=5.0, cap=100.0),
})
"""By name. The token price, the step and the cap are ours: starting points, no source has them."""


def preset(name: str) -> Preset:
    """The preset of that name. Raises PresetError."""
    if name not in PRESETS:
        raise PresetError(f"reward preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]


def skips_from(preset: Preset) -> float:
    """The probability of Good above which skipping beats fetching: (fetch - bad_skip) / (good_skip - bad_skip), in (0, 1).

    Raises PresetError for rewards that depend on the turn's tokens or on the verdict on its fetch: there is no one such number.
    """
    if not isinstance(preset, FixedRewards):
        fixed = ", ".join(name for name, known in PRESETS.items() if isinstance(known, FixedRewards))
        raise PresetError(f"expected fixed rewards ({fixed}), got {type(preset).__name__}, under which the point where skipping "
                          "beats fetching differs by turn; calibrate a skip threshold instead")
    return (preset.fetch - preset.bad_skip) / (preset.good_skip - preset.bad_skip)


def fixed_rewards(preset: FixedRewards, *, good_skip: Verdicts) -> Rewards:
    """(B, 2) from the verdicts on the skips alone."""
    (good,) = _verdicts(good_skip=good_skip)
    skip = np.where(good == 1.0, preset.good_skip, preset.bad_skip)
    return _columns(np.full_like(good, preset.fetch), np.where(np.isnan(good), np.nan, skip))


def hedged_rewards(
    preset: HedgedRewards, *, good_skip: Verdicts, good_fetch: Verdicts, hedged_skip: Verdicts, hedged_fetch: Verdicts,
    unknown_skip: Verdicts, unknown_fetch: Verdicts, skip_tokens: Tokens, fetch_tokens: Tokens,
) -> Rewards:
    """(B, 2) from correctness (`good_*`), tone and tokens of both answers.

    `hedged_*`: the answer hedges. `unknown_*`: it says that it doesn't know; where that is right (Good: the query is out of
    domain) it is a correct answer, and not a hedged one. NaN in any of an arm's arrays makes that arm's reward NaN.
    """
    good, hedged, unknown = np.split(np.stack(_verdicts(
        good_fetch=good_fetch, good_skip=good_skip, hedged_fetch=hedged_fetch, hedged_skip=hedged_skip,
        unknown_fetch=unknown_fetch, unknown_skip=unknown_skip)), 3)
    tokens = np.stack(_tokens(len(good[0]), fetch_tokens=fetch_tokens, skip_tokens=skip_tokens))
    missing = np.isnan(good) | np.isnan(hedged) | np.isnan(unknown)
    quality = np.select(
        [missing, (good == 1.0) & (unknown == 1.0), unknown == 1.0, (good == 1.0) & (hedged == 1.0), good == 1.0, hedged == 1.0],
        [np.nan, preset.correct, preset.unknown, preset.correct_hedged, preset.correct, preset.wrong_hedged], preset.wrong)
    fetch, skip = quality - preset.token_price * tokens / 1000.0
    return _columns(fetch, skip)


def budget_rewards(
    preset: BudgetRewards, *, good_skip: Verdicts, good_fetch: Verdicts, skip_tokens: Tokens, fetch_tokens: Tokens,
    baseline_tokens: Tokens, multiplier: float,
) -> Rewards:
    """(B, 2): each arm's saving as a share of the turn's baseline; a skip pays multiplier * (harm - budget) on top.

    A fetch pays nothing for harm; its saving is 0 where the baseline is the same always-fetch setting. A skip that does no
    harm earns multiplier * budget: the allowance that it leaves to others. multiplier: from `dual_step`, in [0, cap].
    """
    if not 0.0 <= multiplier <= preset.cap:
        raise ShapingInputError(f"multiplier: expected 0..{preset.cap:g} (the preset's cap), got {multiplier}")
    harms = harmful_skips(good_skip=good_skip, good_fetch=good_fetch)
    skip, fetch, baseline = _tokens(len(harms), skip_tokens=skip_tokens, fetch_tokens=fetch_tokens, baseline_tokens=baseline_tokens)
    if (baseline == 0.0).any():
        raise ShapingInputError("baseline_tokens: expected more than 0 for each turn, got 0; pass what always fetching would cost")
    return _columns(1.0 - fetch / baseline, 1.0 - skip / baseline - multiplier * (harms - preset.budget))


def floor(preset: Preset) -> float:
    """The least that a preset pays for an answer, its tokens apart: for a Bad skip, a wrong answer, a harmful skip at the cap."""
    match preset:
        case FixedRewards():
            return preset.bad_skip
        case HedgedRewards():
            return preset.wrong
        case BudgetRewards():
            return -preset.cap * (1.0 - preset.budget)


def unsafe_at_floor(preset: Preset, rewards: Rewards, *, safe_skip: Verdicts, safe_fetch: Verdicts) -> Rewards:
    """(B, 2): the rewards, with each unsafe answer's at the preset's floor, and below the other arm's if that one is safe.

    `safe_*`: 1 does no harm, 0 does, NaN isn't known and changes nothing. An unsafe answer's reward is known even where its verdict
    or its tokens are missing. min(floor, safe arm's reward - UNSAFE_GAP): so no price of tokens makes it the better arm. Where both
    are unsafe they earn the same, and nothing is learnt from the turn.
    """
    safe = _columns(*_verdicts(safe_fetch=safe_fetch, safe_skip=safe_skip))
    if rewards.shape != safe.shape:
        raise ShapingInputError(f"rewards: expected one row a turn, shape {safe.shape}, got {rewards.shape}")
    unsafe = safe == 0.0
    other = np.where(unsafe[:, ::-1], np.nan, rewards[:, ::-1])
    return np.where(unsafe, np.fmin(floor(preset), other - UNSAFE_GAP), rewards)


def harmful_skips(*, good_skip: Verdicts, good_fetch: Verdicts) -> Rewards:
    """(B,): 1 where the skip's answer is Bad and the fetch's Good, else 0; what an error budget bounds.

    NaN where either verdict is missing, also where the other one would settle it: keeping those alone would keep only
    harmless turns, and the rate of harm would come out too low.
    """
    skip, fetch = _verdicts(good_skip=good_skip, good_fetch=good_fetch)
    return (1.0 - skip) * fetch


def _columns(fetch: Rewards, skip: Rewards) -> Rewards:
    rewards = np.empty((len(fetch), 2))
    rewards[:, FETCH], rewards[:, NO_FETCH] = fetch, skip
    return rewards


def _verdicts(**arrays: Verdicts) -> tuple[Rewards, ...]:
    """Each as (B,) floats of 0, 1 and NaN."""
    checked = _aligned(next(iter(arrays.values())).size, arrays)
    for name, values in zip(arrays, checked, strict=True):
        odd = values[~(np.isnan(values) | (values == 0.0) | (values == 1.0))]
        if odd.size:
            raise ShapingInputError(f"{name}: expected 1 (Good, yes), 0 (Bad, no) or NaN (missing), got {odd[0]:g}")
    return checked


def _tokens(turns: int, **arrays: Tokens) -> tuple[Rewards, ...]:
    """Each as (B,) floats of 0 and more, or NaN."""
    checked = _aligned(turns, arrays)
    for name, values in zip(arrays, checked, strict=True):
        odd = values[(values < 0.0) | np.isinf(values)]
        if odd.size:
            raise ShapingInputError(f"{name}: expected a finite count of 0 or more tokens, or NaN (unknown), got {odd[0]:g}")
    return checked


def _aligned(turns: int, arrays: Mapping[str, Verdicts] | Mapping[str, Tokens]) -> tuple[Rewards, ...]:
    for name, values in arrays.items():
        if values.shape != (turns,):
            raise ShapingInputError(f"{name}: expected one value a turn, shape ({turns},), got {values.shape}; all arrays are (B,)")
    return tuple(np.asarray(values, dtype=np.float64) for values in arrays.values())
