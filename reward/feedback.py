"""Ratings of people to verdicts and preference pairs.

Which ratings count, and how much, is `sift.py`'s; what several raters agree on, `consensus.py`'s; storage, `chat/log/ratings.py`'s.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from chat.log.ratings import Rating, Strength

GOOD_STARS = 4
"""So many or more are Good."""
BAD_STARS = 2
"""So many or fewer are Bad; what lies between says neither."""
MARGINS: Mapping[Strength, float] = {"significantly": 1.0, "better": 2 / 3, "slightly": 1 / 3, "unsure": 0.0}
"""By how much the chosen answer's reward should be ahead: Llama 2's small margins (arXiv 2307.09288, Table 27, the margin component by
preference rating). Three times those are its large ones (`TrainConfig.margin_scale`)."""


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """What a preference pair says of a turn."""

    turn_id: str
    query: str
    context: tuple[str, ...]
    """Texts of the FAQs that stood in the prompt."""
    answer: str


@dataclass(frozen=True, slots=True)
class RankedPair:
    """Two answers to one question, of which a rater preferred the first."""

    chosen: RatedAnswer
    rejected: RatedAnswer
    margin: float | None
    """None: the rater didn't say how much better."""
    rater: str

    @property
    def record(self) -> dict[str, object]:
        """The object of `preferences.jsonl`; all pairs of one question are one group, whoever asked."""
        asked = " ".join(self.chosen.query.casefold().split())
        margin = {} if self.margin is None else {"margin": round(self.margin, 4)}
        return {"group": hashlib.sha256(asked.encode()).hexdigest()[:16], "prompt": self.chosen.query, "context": list(self.chosen.context),
                "chosen": self.chosen.answer, "rejected": self.rejected.answer, **margin}


def verdict_of(rating: Rating) -> bool | None:
    """Good or Bad; None where three stars, or a ranking alone, say neither."""
    if rating.stars is None:
        return rating.good
    return True if rating.stars >= GOOD_STARS else False if rating.stars <= BAD_STARS else None


def ranked_pairs(ratings: Iterable[Rating], answer_of: Callable[[str], RatedAnswer | None]) -> tuple[RankedPair, ...]:
    """All pairs of each ranking, the better answer first (InstructGPT ranks K answers and takes all K (K - 1) / 2 pairs).

    The strength is of the first over the second, and the first is over all that come after the second by at least that. Pairs of
    answers to different questions, of the same words, or that aren't there any more compare nothing and are left out.
    """
    pairs = []
    for rating in ratings:
        first = rating.ranking[0] if rating.ranking else None
        for better, worse in combinations(rating.ranking, 2):
            chosen, rejected = answer_of(better), answer_of(worse)
            if chosen is None or rejected is None or not _comparable(chosen, rejected):
                continue
            margin = MARGINS[rating.strength] if rating.strength is not None and better == first else None
            pairs.append(RankedPair(chosen, rejected, margin, f"{rating.owner}/{rating.rater}"))
    return tuple(pairs)


def _comparable(one: RatedAnswer, other: RatedAnswer) -> bool:
    same = " ".join(one.query.casefold().split()) == " ".join(other.query.casefold().split())
    return same and one.answer != other.answer
