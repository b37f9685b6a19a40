"""Which ratings count, and how much each weighs.

Feedback comes from outside and can poison what is trained on it (CONTRACTS.md, section 2). Some ratings are set aside, each with its
reason: bursts, crowds of raters that one key brings to one answer, raters who say the same of everything, and raters who contradict
themselves. The rest weigh by role, and no key of users weighs more than its share. Nothing is deleted: what is set aside is worked out
anew from all ratings each time, and shown. Leaves out what a rating says (`feedback.py`) and where it is kept (`chat/log/ratings.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import log
from typing import Literal

from chat.log.ratings import Rating, latest
from reward.feedback import verdict_of

Reason = Literal["burst", "crowd", "alike", "contradictory"]

_Where = tuple[str, tuple[str, str]]
"""Turn and rater."""


@dataclass(frozen=True, slots=True)
class SiftConfig:
    """What a rating weighs, and when it is set aside."""

    expert_weight: float = 3.0
    user_weight: float = 1.0
    max_key_share: float = 0.25
    """Of the weight of all users' ratings, what one key's may be; with fewer than four keys, an equal share each."""
    burst_seconds: float = 60.0
    burst_of_rater: int = 20
    """More ratings than this of one rater within `burst_seconds` set aside all that the rater said."""
    burst_of_key: int = 200
    """More than this of all raters of a key together set aside what was said within that time."""
    crowd: int = 3
    """Raters whom one key may bring to one answer; those after them are a crowd."""
    alike_least: int = 10
    """A rater with fewer ratings isn't called alike."""
    alike_chance: float = 0.01
    """All alike: someone who rates as the others do would say the same so often with less than this probability."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A rating that counts."""

    rating: Rating
    weight: float


@dataclass(frozen=True, slots=True)
class SetAside:
    """A rating that doesn't count, and why."""

    rating: Rating
    reason: Reason
    detail: str
    """For people."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """All ratings that stand: each rater's last on each turn."""

    kept: tuple[Weighed, ...]
    aside: tuple[SetAside, ...]


def sift(ratings: Sequence[Rating], config: SiftConfig | None = None) -> Sifted:
    """The ratings that stand, those that count with their weights, and those that don't with their reasons.

    `ratings` are all there are, in the order in which they came; replaced ones still tell of bursts and of contradictions.
    """
    config = config or SiftConfig()
    current = latest(ratings)
    bursts = _bursts(ratings, config)
    contradictory = _contradictory(ratings)
    crowded = _crowded(current, config)
    alike = _alike(current, config)
    kept: list[Rating] = []
    aside: list[SetAside] = []
    for rating in current:
        here = _where(rating)
        found: tuple[tuple[Reason, str | None], ...] = (
            ("burst", bursts.get(here)), ("contradictory", contradictory.get(here)), ("crowd", crowded.get(here)),
            ("alike", alike.get(rating.said_by)))
        reasons = [SetAside(rating, reason, detail) for reason, detail in found if detail is not None]
        aside.extend(reasons[:1])
        if not reasons:
            kept.append(rating)
    return Sifted(_weighed(kept, config), tuple(aside))


def capped(weights: Mapping[str, float], share: float) -> dict[str, float]:
    """Factor for each key, at most 1, after which none has more than this share of the sum; fewer keys than that allows are all equal.

    Water-filling: the largest keys are cut to one height, `height = share * (rest + cut * height)`.
    """
    if not weights:
        return {}
    sizes = sorted(weights.values(), reverse=True)
    share = max(share, 1 / len(sizes))
    height = sizes[0]
    for cut, largest in enumerate(sizes):
        # once share * (cut + 1) >= 1 the next key always fits, so the divisor stays above 0
        height = share * sum(sizes[cut:]) / (1 - share * cut)
        if largest <= height * (1 + 1e-9):
            break
    return {key: min(1.0, height / weight) if weight > 0 else 1.0 for key, weight in weights.items()}


def _weighed(kept: Sequence[Rating], config: SiftConfig) -> tuple[Weighed, ...]:
    """Weights by role; keys of users are held to their share, experts aren't: who brings them has this machine."""
    of_role = {"user": config.user_weight, "expert": config.expert_weight}
    totals: defaultdict[str, float] = defaultdict(float)
    for rating in kept:
        if rating.role == "user":
            totals[rating.owner] += of_role["user"]
    factors = capped(totals, config.max_key_share)
    return tuple(Weighed(rating, of_role[rating.role] * (factors[rating.owner] if rating.role == "user" else 1.0)) for rating in kept)


def _bursts(ratings: Sequence[Rating], config: SiftConfig) -> dict[_Where, str]:
    """What was rated too fast: of a rater everything, since nobody reads so fast; of a key what falls into the time."""
    by_rater: defaultdict[tuple[str, str], list[Rating]] = defaultdict(list)
    by_key: defaultdict[str, list[Rating]] = defaultdict(list)
    for rating in sorted(ratings, key=lambda one: one.created_at):
        if rating.role == "user":
            by_rater[rating.said_by].append(rating)
            by_key[rating.owner].append(rating)
    found = {}
    for said in by_key.values():
        for rating in _fast(said, config.burst_of_key, config.burst_seconds):
            found[_where(rating)] = f"among more than {config.burst_of_key} ratings of one key within {config.burst_seconds:g} s"
    for said in by_rater.values():
        if _fast(said, config.burst_of_rater, config.burst_seconds):
            told = f"more than {config.burst_of_rater} ratings of one rater within {config.burst_seconds:g} s"
            found |= {_where(rating): told for rating in said}
    return found


def _fast(said: Sequence[Rating], limit: int, seconds: float) -> list[Rating]:
    """Those of the ratings, in order of time, that stand in a window of this length with more than `limit`."""
    inside: set[int] = set()
    start = 0
    for end, rating in enumerate(said):
        while (rating.created_at - said[start].created_at).total_seconds() > seconds:
            start += 1
        if end - start + 1 > limit:
            inside.update(range(start, end + 1))
    return [said[n] for n in sorted(inside)]


def _where(rating: Rating) -> _Where:
    return rating.turn_id, rating.said_by


def _contradictory(ratings: Iterable[Rating]) -> dict[_Where, str]:
    """Who went from Good to Bad and back on one turn, or ranked two answers both ways. One change of mind is none."""
    said: defaultdict[_Where, list[bool]] = defaultdict(list)
    rankings: defaultdict[tuple[str, str], list[Rating]] = defaultdict(list)
    everything = tuple(ratings)
    for rating in everything:
        if (verdict := verdict_of(rating)) is not None:
            said[_where(rating)].append(verdict)
    for rating in latest(everything):
        if rating.ranking:
            rankings[rating.said_by].append(rating)
    found = {where: "went from one verdict to the other and back" for where, verdicts in said.items()
             if sum(a != b for a, b in pairwise(verdicts)) > 1}
    for who, ranked in rankings.items():
        orders = Counter(pair for rating in ranked for pair in combinations(rating.ranking, 2))
        for rating in ranked:
            if any((worse, better) in orders for better, worse in combinations(rating.ranking, 2)):
                found[rating.turn_id, who] = "ranked two answers both ways"
    return found


def _crowded(current: Iterable[Rating], config: SiftConfig) -> dict[_Where, str]:
    brought: Counter[tuple[str, str]] = Counter()
    found = {}
    for rating in current:
        if rating.role != "user":
            continue
        brought[rating.turn_id, rating.owner] += 1
        if brought[rating.turn_id, rating.owner] > config.crowd:
            found[_where(rating)] = f"more than {config.crowd} raters of one key on one answer"
    return found


def _alike(current: Iterable[Rating], config: SiftConfig) -> dict[tuple[str, str], str]:
    """Raters who say the same of everything, where the others wouldn't have by chance."""
    said: defaultdict[tuple[str, str], Counter[bool | None]] = defaultdict(Counter)
    for rating in current:
        if rating.good is not None or rating.stars is not None:
            said[rating.said_by][verdict_of(rating)] += 1
    overall: Counter[bool | None] = sum(said.values(), Counter())
    found = {}
    for who, counts in said.items():
        (verdict, times), *others = counts.most_common()
        if others or times < config.alike_least:
            continue
        # the others' rate of that verdict, one more of each for what wasn't seen (Laplace)
        rate = (overall[verdict] - times + 1) / (overall.total() - times + 3)
        if times * log(rate) < log(config.alike_chance):
            name = {True: "Good", False: "Bad", None: "neither Good nor Bad"}[verdict]
            found[who] = f"all {times} ratings are {name}, and {rate:.0%} of the others'"
    return found
