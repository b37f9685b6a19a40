"""A log to look at, which ships: the help desk's test sessions, served by the `demo` policy through the real pipeline, judged by labels.

    python -m report.example

makes `report/data/example/turns.parquet` and `verdicts.parquet` anew, in a few minutes; another folder may be named.

Each session is played twice, once with the policy and once as one that is held back (`chat/holdback.py`), so that both sides have the same
traffic. The answers are the extractive answerer's. Verdicts on both arms of every turn are by gold labels: Good is an answer that rests on
an FAQ that answers the query, or on none where none is needed. Times are made up: sessions begin over two weeks, a minute between turns.
Leaves out the report itself (`fetchgate report savings --turns …`).
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chat.accounting import baselines
from chat.llm.extractive import ExtractiveClient
from chat.log.export import export_parquet, export_verdicts
from chat.log.store import SqlConversationLog
from chat.pipeline import TurnFinished, TurnPipeline, TurnRequest
from chat.plan import PipelineConfig
from chat.prices import load_prices
from chat.tokens import TiktokenCounter
from chat.types import Message
from evaluation.datasets import Session, read_helpdesk
from evaluation.labelling import LabelOptions, label_log
from evaluation.logged_arms import Answering
from evaluation.world import load_knowledge
from kb.tuned import untuned
from policy.checkpoint import PolicyRecord, load_policy
from policy.decide import Exploration
from policy.shipped import policy_folder
from reward.judge import Case, ReferenceJudge, Verdict

EXAMPLE = Path(__file__).parent / "data" / "example"
TURNS, VERDICTS = "turns.parquet", "verdicts.parquet"
BEGAN = datetime(2026, 11, 2, 8, tzinfo=UTC)
DAYS = 14
OWNER = "local"
HELD_BACK = "-held-back"
"""What the id of a session's second play ends with."""

Asked = tuple[str, str]
"""The query before, "" where there is none, and the query."""


@dataclass(frozen=True, slots=True)
class LabelJudge:
    """The reference judge for served turns: gold by what was asked, and before it."""

    gold: Mapping[Asked, tuple[str, ...] | None]
    """None: two sessions disagree, or the turn is unlabelled."""

    @property
    def version(self) -> str:
        return "labels:any"

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        """A verdict for each case whose gold is known."""
        asked = [(case.history[-1].query if case.history else "", case.query) for case in cases]
        return ReferenceJudge("any").judge([replace(case, gold=self.gold.get(one)) for case, one in zip(cases, asked, strict=True)])


def serve_example(out: Path, sessions: Sequence[Session], policy: str = "demo") -> None:
    """Write a log with these sessions, each played twice and judged. Raises: LogError, CheckpointError, KbError."""
    embedder, retriever = load_knowledge(None)
    gate, record = load_policy(policy_folder(policy), Exploration())
    counter = TiktokenCounter()
    llm = ExtractiveClient(untuned(embedder), counter)
    with SqlConversationLog(str(out)) as log:
        clock = _Clock()
        for number, session in enumerate(sessions):
            for ending, share in (("", 0.0), (HELD_BACK, 1.0)):
                clock.now = BEGAN + number * timedelta(days=DAYS) / len(sessions) + timedelta(hours=1) * share
                pipeline = TurnPipeline(retriever=retriever, policy=gate, llm=llm, log=log, counter=counter, prices=load_prices(),
                                        config=example_config(record, holdback=share), clock=clock)
                asyncio.run(_play(pipeline, session, session.id + ending, clock))
        answering = Answering(retriever, llm, counter, example_config(record))
        label_log(log, LabelJudge(gold_of(sessions)), answering, LabelOptions(both_arms=1.0))


def example_config(record: PolicyRecord, *, holdback: float = 0.0) -> PipelineConfig:
    """As the service serves this policy."""
    return PipelineConfig(prompt=record.prompt, baselines=baselines(record.prompt, record.frugal), calibrated_static=record.static,
                          holdback=holdback)


def gold_of(sessions: Sequence[Session]) -> dict[Asked, tuple[str, ...] | None]:
    """Gold by the query before and the query."""
    found: dict[Asked, tuple[str, ...] | None] = {}
    for asked, gold in _labels(sessions):
        found[asked] = gold if found.get(asked, gold) == gold else None
    return found


def _labels(sessions: Sequence[Session]) -> Iterator[tuple[Asked, tuple[str, ...] | None]]:
    for session in sessions:
        before = ""
        for turn in session.turns:
            yield (before, turn.query.strip()), turn.gold
            before = turn.query.strip()


@dataclass
class _Clock:
    """Moves when it is told to."""

    now: datetime = BEGAN

    def __call__(self) -> datetime:
        return self.now


async def _play(pipeline: TurnPipeline, session: Session, conversation_id: str, clock: _Clock) -> None:
    messages: list[Message] = []
    for turn in session.turns:
        messages.append(Message("user", turn.query))
        async with aclosing(pipeline.run(TurnRequest(tuple(messages), OWNER, conversation_id))) as events:
            async for event in events:
                if isinstance(event, TurnFinished):
                    messages.append(Message("assistant", event.turn.answer))
        clock.now += timedelta(minutes=1)


def write_example(folder: Path = EXAMPLE) -> None:
    """Make the example's files. Raises: LogError, CheckpointError, KbError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        serve_example(Path(kept) / "log.db", read_helpdesk("test"))
        with SqlConversationLog(str(Path(kept) / "log.db"), create=False) as log:
            export_parquet(log, folder / TURNS)
            export_verdicts(log, folder / VERDICTS)


if __name__ == "__main__":
    write_example(*map(Path, sys.argv[1:]))
