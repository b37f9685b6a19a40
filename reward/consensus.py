"""What several raters agree on: the consensus, how much they disagree, how good each rater is, and who stands apart.

The default for few raters is a weighted majority. With more, Dawid-Skene (1979) learns each rater's errors, MACE (Hovy et al. 2013) who
merely guesses, Wawa who agrees with the majority; for rankings, a Bradley-Terry model with noise learns answers' scores and raters'
reliability (`noisy_ranking.py`). The fitting is crowd-kit's. Leaves out which ratings count (`sift.py`).
"""

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Any, Literal

from reward.errors import ShapingInputError
from reward.feedback import verdict_of
from reward.sift import Weighed

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

Method = Literal["majority", "dawid-skene", "mace", "wawa"]
METHODS: tuple[Method, ...] = ("majority", "dawid-skene", "mace", "wawa")

LEAST_RATERS = 3
LEAST_SHARED = 10
"""Dawid-Skene is taken when so many raters each share so many turns with others: fewer can't tell an error from a view."""
LEAST_COMPARED = 8
"""A rater who shares fewer turns with others isn't called an outlier."""
OUTLIER_CHANCE = 0.01
"""Outlier: someone who agrees with the rest as often as all do would agree so seldom with less than this probability."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A rater's Good or Bad of a turn."""

    turn_id: str
    rater: str
    good: bool
    weight: float = 1.0
    """Above 0."""


@dataclass(frozen=True, slots=True)
class TurnConsensus:
    """What the raters of one turn agree on."""

    turn_id: str
    good: bool | None
    """None: as much says Good as Bad."""
    probability: float
    """Of Good, by the method."""
    disagreement: float
    """Entropy of the weighed votes in bits: 0 all agree, 1 an even split. It doesn't depend on the method."""
    votes: int


@dataclass(frozen=True, slots=True)
class RaterFigures:
    """What the votes say of one rater."""

    rater: str
    votes: int
    skill: float | None
    """By the method. majority: share of agreement with the weighed vote of the rest; dawid-skene: mean of P(says Good | Good) and
    P(says Bad | Bad), so .5 tells nothing; mace: P(doesn't guess); wawa: share of agreement with the plain majority. None: unknown."""
    compared: int
    """Turns on which the rest have a majority."""
    agreed: int
    outlier: bool
    """Agrees with the rest less than chance among such raters explains. For people to look at; the votes count as they are."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """Of all turns with a vote, in the order of their first."""

    method: Method
    turns: tuple[TurnConsensus, ...]
    raters: tuple[RaterFigures, ...]


def votes_of(kept: Sequence[Weighed]) -> tuple[Vote, ...]:
    """The votes in ratings that count; three stars and rankings alone are none."""
    return tuple(Vote(one.rating.turn_id, "/".join(one.rating.said_by), verdict, one.weight)
                 for one in kept if (verdict := verdict_of(one.rating)) is not None)


def consensus(votes: Sequence[Vote], method: Method | None = None, *, seed: int = 0) -> Consensus:
    """The consensus of each turn and the figures of each rater. Without a method: Dawid-Skene where there are votes enough.

    One vote of a rater on a turn. The same votes and seed give the same result. Raises: ShapingInputError.
    """
    _check(votes)
    if not votes:
        return Consensus(method or "majority", (), ())
    by_turn: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_turn[vote.turn_id].append(vote)
    compared = _agreement(votes, by_turn)
    method = method or _suited(compared)
    share = {turn_id: _share(here) for turn_id, here in by_turn.items()}
    if method == "majority":
        probability = share
        skills = {rater: agreed / n if n else None for rater, (n, agreed) in compared.items()}
    else:
        probability, skills = _fitted(votes, method, seed)
    turns = tuple(TurnConsensus(turn_id, _side(probability[turn_id]), probability[turn_id], _entropy(share[turn_id]), len(here))
                  for turn_id, here in by_turn.items())
    return Consensus(method, turns, _figures(votes, compared, skills))


def _check(votes: Sequence[Vote]) -> None:
    seen: set[tuple[str, str]] = set()
    for vote in votes:
        if not vote.weight > 0:
            raise ShapingInputError(f"votes: expected weights above 0, got {vote.weight} of {vote.rater!r}")
        if (vote.turn_id, vote.rater) in seen:
            raise ShapingInputError(f"votes: expected one of each rater on a turn, got two of {vote.rater!r} on {vote.turn_id!r}")
        seen.add((vote.turn_id, vote.rater))


def _suited(compared: Mapping[str, tuple[int, int]]) -> Method:
    enough = sum(n >= LEAST_SHARED for n, _ in compared.values())
    return "dawid-skene" if enough >= LEAST_RATERS else "majority"


def _share(here: Sequence[Vote]) -> float:
    """Weight of Good among the votes."""
    return sum(vote.weight for vote in here if vote.good) / sum(vote.weight for vote in here)


def _side(probability: float) -> bool | None:
    return None if abs(probability - 0.5) < 1e-9 else probability > 0.5


def _entropy(share: float) -> float:
    return 0.0 - sum(p * log2(p) for p in (share, 1 - share) if p > 0)


def _agreement(votes: Sequence[Vote], by_turn: Mapping[str, Sequence[Vote]]) -> dict[str, tuple[int, int]]:
    """For each rater, on how many turns the rest have a majority, and how often the rater is of it."""
    found: dict[str, tuple[int, int]] = {vote.rater: (0, 0) for vote in votes}
    for vote in votes:
        rest = [other for other in by_turn[vote.turn_id] if other.rater != vote.rater]
        side = _side(_share(rest)) if rest else None
        if side is not None:
            n, agreed = found[vote.rater]
            found[vote.rater] = (n + 1, agreed + (side == vote.good))
    return found


def _figures(
    votes: Sequence[Vote], compared: Mapping[str, tuple[int, int]], skills: Mapping[str, float | None]
) -> tuple[RaterFigures, ...]:
    from scipy.stats import binom

    counts: defaultdict[str, int] = defaultdict(int)
    for vote in votes:
        counts[vote.rater] += 1
    total, agreed_in_all = (sum(figure) for figure in zip(*compared.values(), strict=True))
    figures = []
    for rater, (n, agreed) in compared.items():
        # the others' rate, one more of each for what wasn't seen (Laplace)
        rate = (agreed_in_all - agreed + 1) / (total - n + 2)
        outlier = n >= LEAST_COMPARED and float(binom.cdf(agreed, n, rate)) < OUTLIER_CHANCE
        figures.append(RaterFigures(rater, counts[rater], skills[rater], n, agreed, outlier))
    return tuple(figures)


def _fitted(votes: Sequence[Vote], method: Method, seed: int) -> tuple[dict[str, float], dict[str, float | None]]:
    """P(Good) of each turn and the skill of each rater, by crowd-kit."""
    import pandas as pd

    frame = pd.DataFrame([(vote.turn_id, vote.rater, int(vote.good)) for vote in votes], columns=["task", "worker", "label"])
    with warnings.catch_warnings():
        # crowd-kit 1.4.2 calls pandas in ways that pandas 4 won't know
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        if method == "dawid-skene":
            table, skills = _dawid_skene(frame, votes)
        elif method == "mace":
            table, skills = _mace(frame, seed)
        elif method == "wawa":
            table, skills = _wawa(frame)
        else:
            raise ShapingInputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    good = table[1] if 1 in table else table[0] * 0.0  # a label that nobody gave has no column
    return {str(turn_id): float(p) for turn_id, p in good.items()}, dict(skills)


def _dawid_skene(frame: "pd.DataFrame", votes: Sequence[Vote]) -> "tuple[pd.DataFrame, dict[str, float]]":
    """With a prior in each step: of each truth a rater has given one vote for their weight and one right, and one wrong.

    Without it a rater of few votes is taken for infallible, or for a liar; crowd-kit's own initial errors only begin the first step.
    """
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    weights: dict[str, float] = {}
    for vote in votes:
        weights[vote.rater] = max(weights.get(vote.rater, 0.0), vote.weight)
    labels = sorted(frame["label"].unique())
    if len(labels) < 2:  # all votes are alike, so there is nothing to learn of anybody
        return pd.DataFrame(1.0, index=pd.Index(frame["task"].unique(), name="task"), columns=labels), dict.fromkeys(weights, 0.5)
    index = pd.MultiIndex.from_product([list(weights), labels], names=["worker", "label"])
    prior = pd.DataFrame([[1 + weight, 1.0] if label == 0 else [1.0, 1 + weight] for weight in weights.values() for label in labels],
                         index=index, columns=pd.Index(labels, name="label"))

    class Smoothed(DawidSkene):
        @staticmethod
        def _m_step(data: Any, probas: Any, initial_error: Any = None, initial_error_strategy: Any = None) -> Any:
            return DawidSkene._m_step(data, probas, prior, "addition")

    fitted = Smoothed(n_iter=200).fit(frame)
    errors = fitted.errors_
    assert errors is not None, "it is fitted"
    return fitted.probas_, {rater: float((errors.loc[(rater, 0), 0] + errors.loc[(rater, 1), 1]) / 2) for rater in weights}


def _mace(frame: "pd.DataFrame", seed: int) -> "tuple[pd.DataFrame, dict[str, float]]":
    """crowd-kit begins each of its restarts from the same numbers, so one of them is as good as ten."""
    import pandas as pd
    from crowdkit.aggregation import MACE

    fitted = MACE(n_restarts=1, random_state=seed).fit(frame)
    _, raters = pd.factorize(frame["worker"])
    return fitted.probas_, {str(rater): float(p) for rater, p in zip(raters, fitted.spamming_[:, 1], strict=True)}


def _wawa(frame: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[str, float]]":
    """A majority, then one that weighs each rater by agreement with the first; crowd-kit's class doesn't run with scikit-learn 1.9."""
    from crowdkit.aggregation import MajorityVote

    skills = MajorityVote().fit(frame).skills_
    assert skills is not None, "it is fitted"
    skills = skills.clip(lower=1e-9)  # one who never agrees would leave turns without any weight
    return MajorityVote().fit_predict_proba(frame, skills), {str(rater): float(skill) for rater, skill in skills.items()}
