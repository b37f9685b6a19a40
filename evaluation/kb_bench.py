"""What a knowledge base costs: encoding against a plain sentence-transformers loop, search against FAISS itself, recall, memory.

Both sides of a comparison are timed in turn on the same texts or query in the same run, with the same number of threads, so that a
machine whose speed drifts drifts for both. Leaves out a whole turn (`bench.py`).
"""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.bench import resident_mb
from kb.ann import faiss_library, search_parameters
from kb.embedder import RUNTIMES, EmbedderConfig, Runtime, Vectors, load_embedder, load_torch, model_folder
from kb.folder import load_index, save_index
from kb.index import FaqIndex, passages
from kb.types import Faq

Item = TypeVar("Item")

K = 3
FAQS_A_ROUND = 6
"""FAQs whose passages every encoder encodes before the next are taken."""
RELATED = 20
"""Nearest neighbours of a vector that one is mixed with."""
NOISE = 0.3
"""Length of the step that a mixed vector is moved by, in differences of two vectors."""
MOST_BASE = 20_000
BLOCK = 50_000


@dataclass(frozen=True, slots=True)
class EncodeBench:
    """One runtime; FAQs a second, each with all its passages."""

    runtime: Runtime
    faqs: int
    texts: int
    threads: int
    ours: float
    plain: float
    """Of sentence-transformers' `encode`, 32 texts at a time in their order."""
    ours_over_plain: float
    """Median over rounds of (plain seconds) / (our seconds)."""


@dataclass(frozen=True, slots=True)
class KbSearchBench:
    """One size, an FAQ having one vector; times in milliseconds unless they say otherwise."""

    faqs: int
    index: str
    build_s: float
    ours_p50: float
    ours_p99: float
    raw_p50: float
    """Of FAISS's `search` in the same index, as far and for as many rows."""
    raw_p99: float
    ours_over_raw: float
    """Median over queries of (our search) / (FAISS's)."""
    recall_at_3: float
    """Share of the exact three nearest that are found."""
    load_s: float
    """Of the folder in a new process, hashes checked."""
    resident_bytes: float
    """Memory of that process per FAQ, its text included, after searches that touch the whole index."""
    index_bytes: float
    """FAISS's file per FAQ."""
    folder_bytes: float
    """All files per FAQ."""


def bench_encode(faqs: Sequence[Faq], config: EmbedderConfig, runtimes: Sequence[Runtime] = RUNTIMES) -> tuple[EncodeBench, ...]:
    """Each runtime's rate of encoding FAQs, beside the plain loop's."""
    import torch

    config = replace(config, threads=torch.get_num_threads())
    plain = load_torch(model_folder(config.model), config.device)
    plain.max_seq_length = min(config.max_tokens, plain.max_seq_length or config.max_tokens)
    encoders: dict[str, Callable[[list[str]], object]] = {
        runtime: load_embedder(replace(config, runtime=runtime)).embed for runtime in runtimes
    }
    encoders["plain"] = lambda texts: [plain.encode(batch, normalize_embeddings=True) for batch in _batches(texts, config.batch_size)]
    rounds = [[text for faq in some for text in passages(faq)] for some in _batches(faqs, FAQS_A_ROUND)]
    for encode in encoders.values():
        encode(rounds[0][: config.batch_size])
    seconds = {name: np.array([0.0] * len(rounds)) for name in encoders}
    for number, texts in enumerate(rounds):
        for name, encode in encoders.items():
            seconds[name][number] = _seconds(partial(encode, texts))
    return tuple(
        EncodeBench(runtime, len(faqs), sum(map(len, rounds)), torch.get_num_threads(), len(faqs) / float(seconds[runtime].sum()),
                    len(faqs) / float(seconds["plain"].sum()), float(np.median(seconds["plain"] / seconds[runtime])))
        for runtime in runtimes
    )


def bench_kb_search(
    base: Vectors, queries: Vectors, faqs: Sequence[Faq], sizes: Sequence[int], *, repeats: int = 3, seed: int = 0
) -> tuple[KbSearchBench, ...]:
    """Search of as many FAQs as each size says; their vectors are made of `base` (see `multiplied`), their texts are those of `faqs`."""
    return tuple(_search_bench(multiplied(base, size, np.random.default_rng(seed)), queries, faqs, repeats) for size in sizes)


def multiplied(base: Vectors, count: int, rng: np.random.Generator) -> Vectors:
    """As many unit vectors as wanted, made of real ones so that neighbours stay neighbours, shape (count, dimension).

    Each is a mixture of a vector and one of its nearest, moved by the difference of a random pair: so they stay on the directions in
    which real vectors differ. Where no more are wanted than there are, they are a random choice of the real ones.
    """
    base = rng.permutation(base)[:MOST_BASE]
    if count <= len(base):
        return base[:count]
    related = _exact(base, base, min(RELATED + 1, len(base)))[:, 1:]
    made = np.empty((count, base.shape[1]), dtype=np.float32)
    for first in range(0, count, BLOCK):
        part = made[first : first + BLOCK]
        one = rng.integers(len(base), size=len(part))
        other = related[one, rng.integers(related.shape[1], size=len(part))]
        share = rng.uniform(0.5, 1.0, size=(len(part), 1)).astype(np.float32)
        here, there = rng.integers(len(base), size=(2, len(part)))
        part[:] = share * base[one] + (1 - share) * base[other] + np.float32(NOISE) * (base[here] - base[there])
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


def _search_bench(vectors: Vectors, queries: Vectors, faqs: Sequence[Faq], repeats: int) -> KbSearchBench:
    index = FaqIndex(vectors.shape[1])
    named = [replace(faq, id=f"faq-{number}") for number, faq in enumerate(islice(cycle(faqs), len(vectors)))]
    build_s = _seconds(lambda: index.add((faq.id, vectors[row : row + 1]) for row, faq in enumerate(named)))
    found, ours, raw = _searched(index, queries, repeats)
    exact = _exact(vectors, queries, K)
    recall = float(np.mean([len({f"faq-{row}" for row in rows} & names) / K for rows, names in zip(exact, found, strict=True)]))
    load_s, resident, sizes = _kept(index, named, queries)
    count = len(vectors)
    return KbSearchBench(
        count, index.built_kind, build_s, *_quantiles(ours), *_quantiles(raw), ours_over_raw=float(np.median(ours / raw)),
        recall_at_3=recall, load_s=load_s, resident_bytes=resident / count, index_bytes=sizes["index"] / count,
        folder_bytes=sum(sizes.values()) / count,
    )


def _searched(index: FaqIndex, queries: Vectors, repeats: int) -> tuple[list[set[str]], NDArray[np.float64], NDArray[np.float64]]:
    """What is found for each query, and the seconds of our search and of FAISS's, each query's median of some repeats."""
    faiss = faiss_library()
    packed, owners = index.packed()
    parameters = search_parameters(packed, np.ones(len(owners), dtype=bool))
    seconds = np.empty((2, repeats, len(queries)))
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        for repeat in range(repeats):
            for number, query in enumerate(queries):
                sides = partial(index.search, query, k=K), partial(packed.search, query[None], K, params=parameters)
                for side in (0, 1) if (number + repeat) % 2 else (1, 0):  # who comes second finds the vectors in the cache
                    seconds[side, repeat, number] = _seconds(sides[side])
    finally:
        faiss.omp_set_num_threads(before)
    found = [{neighbour.faq_id for neighbour in index.search(query, k=K)} for query in queries]
    ours, raw = np.median(seconds, axis=1)
    return found, ours, raw


def _kept(index: FaqIndex, faqs: Sequence[Faq], queries: Vectors) -> tuple[float, float, dict[str, int]]:
    """Seconds that a new process takes to load the index from a folder, bytes of memory that it then needs, and each file's bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = save_index(folder, index, faqs, model_id="bench", model="bench", max_tokens=1, lexical_weight=0.0)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            seconds, resident = process.submit(_loaded, folder, queries).result()
        return seconds, resident, {part: (folder / file).stat().st_size for part, file in manifest.files.items()}


def _loaded(folder: Path, queries: Vectors) -> tuple[float, float]:
    faiss_library()
    before, began = resident_mb(), perf_counter()
    held = load_index(folder)
    seconds = perf_counter() - began
    for query in queries:
        held[1].search(query, k=K)
    return seconds, (resident_mb() - before) * 2**20


def _exact(vectors: Vectors, queries: Vectors, k: int) -> NDArray[np.int64]:
    """The rows of the k nearest vectors of each query."""
    faiss = faiss_library()
    rows: NDArray[np.int64] = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return rows


def _batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


def _seconds(call: Callable[[], Any]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def _quantiles(seconds: NDArray[np.float64]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    return float(np.quantile(seconds, 0.5)) * 1e3, float(np.quantile(seconds, 0.99)) * 1e3
