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

from chat.accounting import baselines
from chat.log.store import SqlConversationLog
from chat.pipeline import TurnFinished, TurnPipeline, TurnRequest
from chat.plan import PipelineConfig
from chat.ports import Chunk
from chat.prompt import PAPER
from chat.tokens import TiktokenCounter
from chat.types import Message, Sampling, Usage
from evaluation.datasets import Session
from kb.embedder import Embedder, Vectors
from kb.index import FaqIndex
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


@dataclass(frozen=True, slots=True)
class SearchBench:
    """One index size; times in milliseconds, medians."""

    vectors: int
    flat: float
    hnsw: float
    encoder: float
    """One encoder pass of a 20-word query, in the same run."""
    hnsw_recall_at_3: float
    """Share of the exact three nearest that HNSW finds too."""


QUERY = "what will I have to pay when I miss the due date of a seven thousand rupee bill by two days"


def bench_search(embedder: Embedder, sizes: Sequence[int], *, searches: int = 200, seed: int = 0) -> tuple[SearchBench, ...]:
    """Exact against HNSW search over random unit vectors in clusters of about 20, as paraphrases are."""
    rng = np.random.default_rng(seed)
    return tuple(_search_bench(embedder, size, searches, rng) for size in sizes)


def _search_bench(embedder: Embedder, size: int, searches: int, rng: np.random.Generator) -> SearchBench:
    centres = rng.standard_normal((max(1, size // 20), embedder.dimension))
    vectors = _near(centres, rng, size)
    queries = _near(centres, rng, searches)
    items = [(str(row), vectors[row : row + 1]) for row in range(size)]
    times: dict[str, list[float]] = {"flat": [], "hnsw": [], "encoder": []}
    found: dict[str, list[set[str]]] = {"flat": [], "hnsw": []}
    indexes = {"flat": FaqIndex(embedder.dimension, "flat"), "hnsw": FaqIndex(embedder.dimension, "hnsw")}
    for index in indexes.values():
        index.add(items)
    for query in queries:
        for kind, index in indexes.items():
            began = perf_counter()
            neighbours = index.search(query, k=3)
            times[kind].append(perf_counter() - began)
            found[kind].append({neighbour.faq_id for neighbour in neighbours})
        began = perf_counter()
        embedder.embed([QUERY])
        times["encoder"].append(perf_counter() - began)
    recall = np.mean([len(exact & near) / 3 for exact, near in zip(found["flat"], found["hnsw"], strict=True)])
    medians = {name: float(np.median(values)) * 1e3 for name, values in times.items()}
    return SearchBench(size, medians["flat"], medians["hnsw"], medians["encoder"], float(recall))


def _near(centres: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", rng: np.random.Generator, count: int) -> Vectors:
    """Unit vectors around randomly drawn centres."""
    points = centres[rng.integers(len(centres), size=count)] + 0.5 * rng.standard_normal((count, centres.shape[1]))
    unit: Vectors = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return unit


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
                                prices={}, config=PipelineConfig(baselines=baselines(PAPER)))
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
