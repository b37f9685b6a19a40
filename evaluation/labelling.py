"""`log label`: judge the turns of the log that a judge hasn't judged yet, and store what it says.

The taken arm is always judged, both arms on a share of the turns, so that `harmful_skip` is known. Verdicts are stored batch by batch: a
kill loses those of the batch in flight, the same command goes on, and nothing is judged twice. What the judge looked at and couldn't
tell is stored as missing; what its server failed at, or no budget was left for, isn't stored and comes again. Leaves out what is judged
(`logged_arms.py`), judges (`reward/`) and the command (`service/cli/label.py`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

import numpy as np

from chat.log.records import LoggedTurn, turn_of
from chat.log.store import Conversation, SqlConversationLog
from chat.log.verdicts import BothArms, LoggedVerdict, both_arms, latest_verdicts, record_verdicts
from chat.types import Action
from evaluation.certify import HarmBound, Skips, harm_bound
from evaluation.errors import EvaluationError
from evaluation.logged_arms import Answering, ArmCase, Arms, LoggedArms, Room
from evaluation.stats import resampled
from reward.judge import Judge, ReferenceJudge
from reward.judgements import Judgement, judgements

BATCH = 64
"""Verdicts that are asked for and stored together: what a kill can lose."""
PAGE = 100
"""Conversations that are listed at once."""

Progress = Callable[[int, float | None, str | None], None]
"""Called with the turns that were looked at since the last call, and the cost of all verdicts so far with its currency."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How much is judged."""

    both_arms: float = 0.1
    """Share of the turns, by a hash of their ids, of which the other arm is judged too, in [0, 1]."""
    concurrency: int = 8
    """Conversations whose missing answers are written at once."""
    limit: int | None = None
    """Turns to judge at most, those of the latest conversations first; None: all."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.both_arms <= 1.0:
            raise ValueError(f"both_arms: expected a share from 0 to 1, got {self.both_arms}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1, got {self.concurrency}")


@dataclass(slots=True)
class Labelled:
    """What a run did; figures are defined in docs/metrics.md."""

    judge: str
    turns: int = 0
    good: int = 0
    bad: int = 0
    hedged: int = 0
    unsafe: int = 0
    written: int = 0
    """Judged answers that were written for it."""
    missing: Counter[str] = field(default_factory=Counter)
    """Stored without a verdict, by reason."""
    failed: Counter[str] = field(default_factory=Counter)
    """Not stored, since the judge's server failed or the budget was used up; they come again."""
    passed_over: Counter[str] = field(default_factory=Counter)
    one_arm: Counter[str] = field(default_factory=Counter)
    judge_input_tokens: int = 0
    judge_output_tokens: int = 0
    cost: float | None = 0.0
    """None: the price is unknown."""
    currency: str | None = None
    stopped: str | None = None
    """Why it ended before all was judged; None: it didn't."""

    def add(self, case: ArmCase, word: Judgement) -> None:
        """Count a word."""
        if not word.settled:
            self.failed[word.reason] += 1
        elif word.verdict is None:
            self.missing[word.reason] += 1
        else:
            self.good += word.verdict.good
            self.bad += not word.verdict.good
            self.hedged += word.verdict.hedged is True
            self.unsafe += word.verdict.safe is False
        self.written += word.settled and case.written is not None
        self.judge_input_tokens += word.usage.input_tokens if word.usage else 0
        self.judge_output_tokens += word.usage.output_tokens if word.usage else 0
        if word.cost is not None:
            self.cost = None if self.cost is None else self.cost + word.cost
        elif word.usage is not None:
            self.cost = None
        self.currency = word.currency or self.currency


@dataclass(frozen=True, slots=True)
class Harm:
    """What a judge's verdicts on both arms say, over the whole log."""

    turns: int
    """Turns of which the judge has looked at both arms."""
    known: int
    """Those with both verdicts."""
    harm_if_skipped: int
    """Of the known: a skip's answer is Bad and a fetch's Good, whatever was done."""
    skips: HarmBound | None
    """`harmful_skip` of the turns that were served with NO_FETCH; None: there are none."""


def label_log(
    log: SqlConversationLog, judge: Judge, answering: Answering, options: LabelOptions, progress: Progress | None = None
) -> Labelled:
    """Judge what isn't judged yet, and store it. What was judged stays stored, whatever is raised.

    Raises: LogError, LLMError, RewardError; EvaluationError where the judge fails at a whole batch.
    """
    return asyncio.run(_Run(log, judge, answering, options, progress).run())


def harm_of(log: SqlConversationLog, judge: str, *, seed: int = 0) -> Harm:
    """What this judge's latest verdicts on both arms say. The bounds are one-sided, 95 %, by conversation (`certify.py`)."""
    pairs = both_arms(log, judge)
    known = [pair for pair in pairs if pair.fetch is not None and pair.skip is not None]
    skips = [pair for pair in pairs if pair.taken is Action.NO_FETCH]
    harmful = sum(bool(pair.fetch) and not pair.skip for pair in known)
    return Harm(len(pairs), len(known), harmful, _bound(skips, seed) if skips else None)


def sample(log: SqlConversationLog, answering: Answering, options: LabelOptions) -> Iterator[ArmCase]:
    """The cases of the log's turns, judged or not, with their missing answers written; nothing is asked or stored. Raises: LLMError."""
    room = Room(options.limit)
    arms = LoggedArms(answering, options.both_arms, room)
    for one in conversations(log):
        if room.is_full:
            return
        yield from asyncio.run(arms.of(_turns(log, one), {}))


def conversations(log: SqlConversationLog) -> Iterator[Conversation]:
    """All conversations, the latest first."""
    last: Conversation | None = None
    while page := log.conversations(limit=PAGE, before=last):
        yield from page
        last = page[-1]


class _Run:
    def __init__(
        self, log: SqlConversationLog, judge: Judge, answering: Answering, options: LabelOptions, progress: Progress | None
    ) -> None:
        self._log = log
        self._judge = judge
        self._options = options
        self._progress = progress
        self._room = Room(options.limit)
        self._arms = LoggedArms(answering, options.both_arms, self._room, by_labels=isinstance(judge, ReferenceJudge))
        self._done = Labelled(judge.version, passed_over=self._arms.passed_over, one_arm=self._arms.one_arm)

    async def run(self) -> Labelled:
        rest = conversations(self._log)
        while self._done.stopped is None and (some := list(islice(rest, self._options.concurrency))):
            found = await asyncio.gather(*map(self._cases, some))
            await self._judged([case for cases in found for case in cases])
            if self._progress is not None:
                self._progress(sum(one.turns for one in some), self._done.cost, self._done.currency)
            if self._room.is_full:
                break
        return self._done

    async def _cases(self, one: Conversation) -> list[ArmCase]:
        """What is to be judged of a conversation."""
        turns = _turns(self._log, one)
        verdicts = latest_verdicts(self._log, judge=self._judge.version, turn_ids=[turn.id for turn in turns])
        said: Arms = {(verdict.turn_id, verdict.arm): verdict.answer for verdict in verdicts}
        return await self._arms.of(turns, said)

    async def _judged(self, cases: Sequence[ArmCase]) -> None:
        """Batch by batch; the arms of a turn stay together."""
        for batch in _batches(cases):
            words = await judgements(self._judge, [case.case for case in batch])
            pairs = list(zip(batch, words, strict=True))
            record_verdicts(self._log, [_verdict(case, word, self._judge.version) for case, word in pairs if word.settled])
            for case, word in pairs:
                self._done.add(case, word)
            self._done.turns += len({case.turn_id for case, word in pairs if word.settled})
            if any(word.kind == "unasked" for word in words):
                self._done.stopped = "the budget is used up"
                return
            if words and all(word.kind == "failed" for word in words):
                raise EvaluationError(f"expected verdicts from {self._judge.version}, got none for a whole batch of {len(words)}: "
                                      f"{words[0].reason}; what was judged before is stored, and the same command goes on")


def _turns(log: SqlConversationLog, one: Conversation) -> list[LoggedTurn]:
    return [turn_of(row) for row in log.rows(owner=one.owner, conversation_id=one.id)]


def _batches(cases: Sequence[ArmCase]) -> Iterator[list[ArmCase]]:
    batch: list[ArmCase] = []
    for case in cases:
        if len(batch) >= BATCH and case.turn_id != batch[-1].turn_id:
            yield batch
            batch = []
        batch.append(case)
    if batch:
        yield batch


def _verdict(case: ArmCase, word: Judgement, judge: str) -> LoggedVerdict:
    said, written, usage = word.verdict, case.written, word.usage
    return LoggedVerdict(
        case.turn_id, datetime.now(UTC), case.arm, judge, None if said is None else said.good, word.reason,
        hedged=None if said is None else said.hedged, safe=None if said is None else said.safe,
        probability=None if said is None else said.probability, quotes=() if said is None else said.quotes,
        answer=None if written is None else written.answer,
        input_tokens=None if written is None else written.usage.input_tokens,
        output_tokens=None if written is None else written.usage.output_tokens,
        judge_input_tokens=None if usage is None else usage.input_tokens,
        judge_output_tokens=None if usage is None else usage.output_tokens,
        cost=word.cost, currency=word.currency,
    )


def _bound(skips: Sequence[BothArms], seed: int) -> HarmBound:
    numbers: dict[tuple[str, str], int] = {}
    conversations = np.array([numbers.setdefault((one.owner, one.conversation_id), len(numbers)) for one in skips], dtype=np.int64)
    harms = np.array([np.nan if one.fetch is None or one.skip is None else float(one.fetch and not one.skip) for one in skips])
    return harm_bound(Skips(conversations, np.arange(len(skips), dtype=np.int64), harms), resampled(len(numbers), seed=seed), seed=seed)
