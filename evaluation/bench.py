"""What a turn costs besides its LLM: time against one encoder pass, search's share of it, memory.

Turn, encoder pass and search are measured in turn on the same query in the same run, so that a machine whose speed drifts
drifts for all three. The LLM is one that answers at once. Leaves out load over HTTP.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from chat.log.store import SqlConversationLog
from chat.pipeline import TurnFinished, TurnPipeline, TurnRequest
from chat.plan import PipelineConfig
from chat.ports import Chunk
from chat.tokens import TiktokenCounter
from chat.types import Message, Sampling, Usage
from evaluation.datasets import Session
from kb.embedder import Embedder
from kb.retriever import FaqRetriever
from policy.rules import EvidenceRule

ANSWER = "Here is what the FAQs say about it."


@dataclass(frozen=True, slots=True)
class TurnBench:
    """Figures of a run; times in milliseconds."""

    faqs: int
    vectors: int
    index: str
    turns: int
    turn_p50: float
    turn_p95: float
    encoder_p50: float
    encoder_p95: float
    search_p50: float
    search_p95: float
    turn_over_encoder: float
    """Median over queries of (whole turn without LLM) / (one encoder pass of its query)."""
    search_over_encoder: float
    """Median over queries of (index search) / (one encoder pass)."""
    resident_mb: float
    """Resident memory after the run, in MiB."""


class InstantLLM:
    """Answers at once, so that what is left is our own time."""

    model = "instant"

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """One chunk."""
        yield Chunk(ANSWER, "stop", Usage(1, 1))


def bench_turns(embedder: Embedder, retriever: FaqRetriever, sessions: Sequence[Session], *, turns: int, warm_up: int = 10) -> TurnBench:
    """Play sessions for `turns` turns after a warm-up, on a log on disk with the durability of serving."""
    with tempfile.TemporaryDirectory() as folder:
        log = SqlConversationLog(str(Path(folder) / "log.db"))
        pipeline = TurnPipeline(retriever=retriever, policy=EvidenceRule(), llm=InstantLLM(), log=log, counter=TiktokenCounter(),
                                prices={}, config=PipelineConfig())
        try:
            times = asyncio.run(_play(pipeline, embedder, retriever, sessions, turns + warm_up))[warm_up:]
        finally:
            log.close()
    if not len(times):
        raise ValueError(f"expected sessions with more than {warm_up} turns, got fewer")
    turn, encoder, search = (times * 1e3).T
    return TurnBench(
        faqs=len(retriever.faqs), vectors=retriever.index.vector_count, index=retriever.index.built_kind, turns=len(times),
        turn_p50=_quantile(turn, 0.5), turn_p95=_quantile(turn, 0.95),
        encoder_p50=_quantile(encoder, 0.5), encoder_p95=_quantile(encoder, 0.95),
        search_p50=_quantile(search, 0.5), search_p95=_quantile(search, 0.95),
        turn_over_encoder=_quantile(turn / encoder, 0.5), search_over_encoder=_quantile(search / encoder, 0.5),
        resident_mb=resident_mb(),
    )


async def _play(
    pipeline: TurnPipeline, embedder: Embedder, retriever: FaqRetriever, sessions: Sequence[Session], turns: int
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Seconds of (turn, encoder pass, search) for each turn."""
    times: list[tuple[float, float, float]] = []
    for session in sessions:
        messages: list[Message] = []
        for labelled in session.turns:
            if len(times) == turns:
                break
            messages.append(Message("user", labelled.query))
            began = perf_counter()
            async for event in pipeline.run(TurnRequest(tuple(messages), "bench", session.id)):
                if isinstance(event, TurnFinished):
                    messages.append(Message("assistant", event.turn.answer))
            turned = perf_counter()
            vector = embedder.embed([labelled.query])[0]
            encoded = perf_counter()
            retriever.index.search(vector, k=3)
            times.append((turned - began, encoded - turned, perf_counter() - encoded))
    return np.array(times).reshape(-1, 3)


def resident_mb() -> float:
    """Resident memory of this process in MiB, on Linux; elsewhere its peak."""
    status = Path("/proc/self/status")
    if status.exists():
        kilobytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(kilobytes) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _quantile(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", share: float) -> float:
    return float(np.quantile(values, share))
