"""All feedback in a log, looked at together: what counts, what is set aside, what raters agree on, which signals there are besides.

Worked out anew from the log each time, so nothing here is stored. Degraded turns and a front end's own prompts are shown, and give no
training data. Leaves out tables and files (`service/cli/feedback.py`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, groupby

from sqlalchemy import select

from chat.log.ratings import Rating, ratings
from chat.log.schema import turns
from chat.log.store import SqlConversationLog
from reward.consensus import Consensus, Method, consensus, votes_of
from reward.feedback import RankedPair, RatedAnswer, ranked_pairs
from reward.noisy_ranking import Compared, RankedAnswers, rank_answers
from reward.sift import SiftConfig, Sifted, sift
from reward.signals import Embed, Exchange, Signal, signals

ShownFaq = Callable[[str], str | None]
"""The text of an FAQ by its id; None where it isn't known any more."""


@dataclass(frozen=True, slots=True)
class RatedTurn:
    """A turn that somebody rated, as people look at it and as training data takes it."""

    turn_id: str
    query: str
    answer: str | None
    shown: tuple[str, ...]
    trains: bool
    """False: degraded, or a front end's own prompt."""


@dataclass(frozen=True, slots=True)
class Review:
    """The feedback of a log."""

    ratings: tuple[Rating, ...]
    """All, replaced ones too, in the order in which they came."""
    sifted: Sifted
    consensus: Consensus
    ranked: RankedAnswers
    """From the rankings that count."""
    turns: dict[str, RatedTurn]

    @property
    def replaced(self) -> int:
        """Ratings in whose place a later one of the same rater stands."""
        return len(self.ratings) - len(self.sifted.kept) - len(self.sifted.aside)


def review(log: SqlConversationLog, method: Method | None = None, *, seed: int = 0, config: SiftConfig | None = None) -> Review:
    """The feedback of a log, with a consensus by this method, or by the one that suits. Raises: LogError, ShapingInputError."""
    said = ratings(log)
    sifted = sift(said, config)
    compared = [pair for one in sifted.kept for pair in _compared(one.rating)]
    turn_ids = list(dict.fromkeys(turn_id for rating in said for turn_id in (rating.turn_id, *rating.ranking)))
    return Review(said, sifted, consensus(votes_of(sifted.kept), method, seed=seed), rank_answers(compared, seed=seed),
                  _turns(log, turn_ids))


def training_pairs(found: Review, text_of: ShownFaq) -> tuple[RankedPair, ...]:
    """The preference pairs of the rankings that count, of turns that may be trained on."""

    def answer_of(turn_id: str) -> RatedAnswer | None:
        turn = found.turns.get(turn_id)
        if turn is None or turn.answer is None or not turn.trains:
            return None
        context = tuple(text for faq_id in turn.shown if (text := text_of(faq_id)) is not None)
        return RatedAnswer(turn.turn_id, turn.query, context, turn.answer)

    return ranked_pairs((one.rating for one in found.sifted.kept), answer_of)


def log_signals(log: SqlConversationLog, *, embed: Embed | None = None, now: datetime | None = None) -> Iterator[Signal]:
    """The signals in all served conversations; a front end's own prompts aren't among them. Raises: LogError."""
    c = turns.c
    query = (select(c.owner, c.conversation_id, c.id, c.query, c.created_at)
             .where(c.source == "chat", c.background.is_(False)).order_by(c.owner, c.conversation_id, c.position))
    with log.reading("reading conversations for signals") as connection:
        rows = connection.execute(query, execution_options={"yield_per": 1000})
        for _, said in groupby(rows, key=lambda row: (row.owner, row.conversation_id)):
            yield from signals([Exchange(row.id, row.query, row.created_at) for row in said], embed=embed, now=now)


def signal_counts(found: Sequence[Signal]) -> dict[str, int]:
    """How often each kind fired."""
    return dict(Counter(signal.kind for signal in found))


def _compared(rating: Rating) -> list[Compared]:
    """Every pair of a ranking. Nobody knows which answer was shown first, so the one whose id is first stands in its place."""
    rater = "/".join(rating.said_by)
    return [Compared(rater, min(pair), max(pair), left_is_better=pair[0] < pair[1]) for pair in combinations(rating.ranking, 2)]


def _turns(log: SqlConversationLog, turn_ids: Sequence[str]) -> dict[str, RatedTurn]:
    c = turns.c
    columns = (c.id, c.query, c.answer, c.shown, c.degraded, c.background)
    found = {}
    with log.reading("reading rated turns") as connection:
        for start in range(0, len(turn_ids), 500):
            for row in connection.execute(select(*columns).where(c.id.in_(turn_ids[start : start + 500]))):
                found[row.id] = RatedTurn(row.id, row.query, row.answer, tuple(row.shown or ()), not row.degraded and not row.background)
    return found
