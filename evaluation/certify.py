"""Error budgets: how harmful a gate's skips may be, and which threshold is certified to stay within the budget.

Harm is `harmful_skip`: the answer without a fetch is Bad and the one with it would have been Good. The claim is one-sided, at 95 %
by default, about skips of conversations like those of a calibration split that neither training nor early stopping has seen.
Two averages are bounded and the larger bound counts: over skips (cluster bootstrap), and over conversations, each with one skip drawn
at random (exact). The level is proved for the second; the bootstrap holds for many conversations only, and can but add caution.
Leaves out the replay that finds the skips and the judge that finds the harm.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.stats import Weights, too_small, upper_share
from kb.bounds import clopper_pearson_upper, needed_trials, needed_without_failure


@dataclass(frozen=True, slots=True, eq=False)
class Skips:
    """The turns that a gate served without a fetch, in any order. Shapes (skips,)."""

    conversations: NDArray[np.int64]
    """Numbers from 0, of all conversations of the split: those without a skip have numbers too."""
    turns: NDArray[np.int64]
    """Place in the conversation, from 0."""
    harms: NDArray[np.float64]
    """0 or 1; between them where several seeds or verdicts were averaged; nan where a verdict is missing."""

    def __post_init__(self) -> None:
        if not len(self.conversations) == len(self.turns) == len(self.harms):
            raise ValueError(f"expected one conversation, turn and harm a skip, got {len(self.conversations)}, {len(self.turns)} "
                             f"and {len(self.harms)}")
        if len(self.harms) and (self.conversations.min() < 0 or self.turns.min() < 0):
            raise ValueError("conversations, turns: expected numbers from 0, got a negative one")
        if np.any((self.harms < 0) | (self.harms > 1)):
            raise ValueError("harms: expected 0 to 1 or nan, got one outside")
        if len({*zip(self.conversations.tolist(), self.turns.tolist(), strict=True)}) < len(self.harms):
            raise ValueError("turns: expected each turn of a conversation once, got one twice")


@dataclass(frozen=True, slots=True)
class HarmBound:
    """The harm of skips, and how large it could be."""

    value: float
    """Harmful skips as a share of the skips that have a verdict, as seen; nan where none has."""
    upper_conversation: float
    """The primary bound: the larger of the cluster bootstrap's and the exact one over one random skip a conversation."""
    upper_turn: float
    """Exact over all skips as if they were independent: the optimistic one, for display only."""
    skips: int
    conversations: int
    """Those with a skip: the trials of the exact bound."""
    drawn_harms: int
    """The failures of the exact bound, missing verdicts among them."""
    missing: int
    """Skips without a verdict, each counted as harm in the bounds."""

    @property
    def too_small(self) -> bool:
        """Too few conversations stand behind it to trust the bootstrap; the exact bound holds all the same."""
        return too_small(self.conversations)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The laxest threshold whose harm was certified to stay within a budget, or how far the data are from one."""

    threshold: float | None
    """None where the budget can't be certified."""
    budget: float
    bound: HarmBound | None
    """That threshold's."""
    tightest_budget: float
    """The smallest primary bound of those tested. Where nothing is certified, one threshold alone was tested, chosen without a
    look at harm, so this budget is certified for it. Otherwise it was chosen after looking: information, not a certificate."""
    more_needed: int
    """Where nothing is certified: how many more conversations with a labelled skip would do if no further harm is seen, by the exact
    bound. At least 1, and a lower limit where only the bootstrap is above the budget. 0 where something is certified."""
    tested: tuple[tuple[float, HarmBound], ...]
    """Each threshold that was tested, from strict to lax; the last is the one that failed, if one did."""


def harm_bound(skips: Skips, weights: Weights, *, level: float = 0.95, false_good_rate: float = 0.0, seed: int = 0) -> HarmBound:
    """How harmful the skips could be, of `weights.shape[1]` conversations.

    Each (conversation, turn) has a random priority that depends on `seed` and the number of conversations alone, and a conversation's
    skip of lowest priority is drawn: thresholds that skip much the same turns look at much the same draws. A harm between 0 and 1 is
    drawn the same way as 0 or 1, which keeps its mean and makes the exact bound exact. With the same weights and seed, more harm
    or a verdict less never lowers a bound.

    `false_good_rate` is the judge's chance f of missing a harmful skip by calling its Bad answer Good, on average over harmful skips
    (give an upper bound of f where f is estimated). Then seen harm = true harm * (1 - f) + what is wrongly seen as harm, which is
    at least true harm * (1 - f), so a bound u on the seen harm gives true harm <= u / (1 - f). Wrongly seen harm is not taken off.
    If the judge also calls a fraction g of the Good answers with a fetch Bad, harm is missed there too: give 1 - (1 - f)(1 - g).
    """
    if not 0 <= false_good_rate < 1:
        raise ValueError(f"false_good_rate: expected a share from 0 to below 1, got {false_good_rate}")
    count = weights.shape[1]
    if len(skips.conversations) and skips.conversations.max() >= count:
        raise ValueError(f"conversations: expected numbers below {count}, as many as the weights have, got {skips.conversations.max()}")
    missing = np.isnan(skips.harms)
    harms = np.where(missing, 1.0, skips.harms)
    priorities, chances = _fixed_draws(skips, count, seed)
    whole_harms = harms > chances
    drawn = whole_harms[_one_a_conversation(skips.conversations, priorities)]
    exact = clopper_pearson_upper(int(drawn.sum()), len(drawn), level)
    harm_of, skips_of = np.bincount(skips.conversations, harms, count), np.bincount(skips.conversations, minlength=count)
    bootstrap = upper_share(harm_of, skips_of, weights, level)
    optimistic = clopper_pearson_upper(int(whole_harms.sum()), len(harms), level)
    return HarmBound(
        value=float(skips.harms[~missing].mean()) if not missing.all() else float("nan"),
        upper_conversation=min(1.0, max(exact, bootstrap) / (1 - false_good_rate)),
        upper_turn=min(1.0, optimistic / (1 - false_good_rate)),
        skips=len(harms), conversations=len(drawn), drawn_harms=int(drawn.sum()), missing=int(missing.sum()),
    )


def fixed_sequence(thresholds: Iterable[float], evaluate: Callable[[float], Skips], weights: Weights, *, budget: float,
                   level: float = 0.95, false_good_rate: float = 0.0, seed: int = 0) -> Certificate:
    """The laxest threshold whose harm is certified to be within `budget`, by testing from strict to lax until one fails.

    Testing begins at the first threshold at which enough conversations skip to certify the budget if no harm were seen; stricter
    ones couldn't pass whatever their harm. Where none has enough, the one that most conversations skip at is tested alone.

    Why no correction for several tests is needed: given which turns each threshold skips, the order and the beginning are fixed, as
    they depend on decisions and never on harm. A false certificate then needs the first threshold in that order whose harm is above the
    budget to pass its test, and one test passes so with a chance of at most 1 - level. This holds for whatever turns were skipped,
    so it holds overall. The harm it is about is the mean chance of harm of the turns skipped; skips drawn from different conversations
    need be independent, not alike (Hoeffding 1956). Choosing the beginning by harm seen would be a further test, and would break it.

    Of two budgets that begin at the same threshold the laxer goes at least as far; a laxer one may begin, and fail, earlier.
    Raises ValueError unless 0 < budget < 1.
    """
    seen_budget = budget * (1 - false_good_rate)  # what the exact bound on the harm seen must keep
    needed = needed_without_failure(seen_budget, level)
    largest: tuple[float, Skips] | None = None
    tested: list[tuple[float, HarmBound]] = []

    def test(threshold: float, skips: Skips) -> bool:
        tested.append((threshold, harm_bound(skips, weights, level=level, false_good_rate=false_good_rate, seed=seed)))
        return tested[-1][1].upper_conversation <= budget

    for threshold in thresholds:
        skips = evaluate(threshold)
        if not tested and _conversations(skips) < needed:
            if largest is None or _conversations(skips) > _conversations(largest[1]):
                largest = threshold, skips
        elif not test(threshold, skips):
            break
    if not tested and largest is not None:
        test(*largest)
    return _certificate(tested, budget, needed, lambda harms: needed_trials(harms, seen_budget, level))


def _certificate(tested: list[tuple[float, HarmBound]], budget: float, needed: int, trials: Callable[[int], int]) -> Certificate:
    passed = [(threshold, bound) for threshold, bound in tested if bound.upper_conversation <= budget]
    tightest = min((bound.upper_conversation for _, bound in tested), default=1.0)
    if passed:
        threshold, bound = passed[-1]
        return Certificate(threshold, budget, bound, tightest, 0, tuple(tested))
    more = max(1, trials(tested[0][1].drawn_harms) - tested[0][1].conversations) if tested else needed
    return Certificate(None, budget, None, tightest, more, tuple(tested))


def _conversations(skips: Skips) -> int:
    return len(np.unique(skips.conversations))


def _fixed_draws(skips: Skips, count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two numbers in [0, 1) for each skip, the same whatever else is skipped: turns fill the table one after another."""
    turns = int(skips.turns.max(initial=-1)) + 1
    table = np.random.default_rng(seed).random((turns, 2, count))
    return table[skips.turns, 0, skips.conversations], table[skips.turns, 1, skips.conversations]


def _one_a_conversation(conversations: NDArray[np.int64], priorities: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of each conversation's skip of lowest priority."""
    order = np.lexsort((priorities, conversations))
    _, first = np.unique(conversations[order], return_index=True)
    return order[first]
