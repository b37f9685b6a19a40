"""How often the served default answers from the right FAQ: sessions played through the whole pipeline, without an LLM.

An answer counts as right when it cites a gold FAQ, or, where none is needed, cites nothing. That is what labels can tell of the
extractive answerer; whether the sentences it chose answer the question is a judge's business. `python -m evaluation.answers`.
"""

import argparse
import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chat.llm.extractive import ExtractiveClient
from chat.log.store import SqlConversationLog
from chat.pipeline import TurnFinished, TurnPipeline, TurnRequest
from chat.plan import PipelineConfig
from chat.ports import Policy
from chat.prompt import PromptSettings
from chat.tokens import TiktokenCounter
from chat.types import Message
from evaluation.datasets import LabelledTurn, Session, read_helpdesk
from evaluation.stats import Share, resampled, share
from kb.embedder import Embedder
from kb.retriever import FaqRetriever


@dataclass(frozen=True, slots=True)
class Outcome:
    """One turn, played."""

    session: str
    kind: str
    right: bool
    tokens: int
    """Input and output tokens of the turn."""
    saved: int
    """Against always fetching with the same settings, given the answers that were given."""


def play(embedder: Embedder, retriever: FaqRetriever, policy: Policy, sessions: Sequence[Session]) -> tuple[Outcome, ...]:
    """Every labelled turn of the sessions, served as `fetchgate serve` would."""
    with tempfile.TemporaryDirectory() as folder, SqlConversationLog(str(Path(folder) / "log.db")) as log:
        counter = TiktokenCounter()
        pipeline = TurnPipeline(retriever=retriever, policy=policy, llm=ExtractiveClient(embedder, counter), log=log, counter=counter,
                                prices={}, config=PipelineConfig(prompt=PromptSettings(repeats=False)))
        return tuple(outcome for session in sessions for outcome in asyncio.run(_play_one(pipeline, session)))


async def _play_one(pipeline: TurnPipeline, session: Session) -> list[Outcome]:
    messages: list[Message] = []
    found: list[Outcome] = []
    for labelled in session.turns:
        messages.append(Message("user", labelled.query))
        async for event in pipeline.run(TurnRequest(tuple(messages), "evaluation", session.id)):
            if isinstance(event, TurnFinished):
                turn = event.turn
        messages.append(Message("assistant", turn.answer))
        if labelled.gold is not None:
            tokens = turn.usage.input_tokens + turn.usage.output_tokens
            found.append(Outcome(session.id, labelled.kind, _right(labelled, turn.cited), tokens, turn.saved_tokens or 0))
    return found


def _right(labelled: LabelledTurn, cited: Sequence[str]) -> bool:
    return bool(set(cited) & set(labelled.gold)) if labelled.gold else not cited


def right_share(outcomes: Sequence[Outcome]) -> Share:
    """Share of right answers, with its 95 % interval by conversation."""
    by_session: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes:
        by_session[outcome.session].append(outcome.right)
    right = np.array([sum(values) for values in by_session.values()])
    turns = np.array([len(values) for values in by_session.values()])
    return share(right, turns, resampled(len(turns)))


def main() -> None:
    """Print the table of one split under the three rules."""
    from kb.embedder import EmbedderConfig, SentenceEmbedder
    from kb.source import read_faqs
    from policy.rules import AlwaysFetch, EvidenceRule, NeverFetch

    parser = argparse.ArgumentParser(description="Right answers of the served default, by kind of turn, under each rule.")
    parser.add_argument("--split", default="dev", choices=["train", "dev"], help="of the help desk; never choose by test")
    sessions = read_helpdesk(parser.parse_args().split)
    embedder = SentenceEmbedder(EmbedderConfig())
    retriever = FaqRetriever.build(embedder, read_faqs(Path(__file__).parent.parent / "kb" / "data" / "helpdesk" / "faqs.jsonl"))
    for policy in (AlwaysFetch(), EvidenceRule(), NeverFetch()):
        outcomes = play(embedder, retriever, policy, sessions)
        tokens, saved = sum(o.tokens for o in outcomes), sum(o.saved for o in outcomes)
        print(f"{policy.version}: {len(outcomes)} turns, {tokens} tokens, {saved / (tokens + saved):.1%} saved given its answers")
        for kind in ["all", *dict.fromkeys(outcome.kind for outcome in outcomes)]:
            chosen = [outcome for outcome in outcomes if kind in ("all", outcome.kind)]
            print(f"  {kind:13} {len(chosen):5}  {right_share(chosen)} %")


if __name__ == "__main__":
    main()
