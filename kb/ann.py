"""FAISS's three kinds of index, flat, HNSW and IVF: make one, train it, ask it for the nearest rows.

All hold unit vectors under the inner product. Leaves out whose rows they are (`index.py`) and files (`folder.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kb.embedder import Vectors

BuiltKind = Literal["flat", "hnsw", "ivf"]

HNSW_LINKS = 32
HNSW_EF_CONSTRUCTION = 200
HNSW_EF_SEARCH = 64
IVF_PROBES_SHARE = 0.05
"""Share of the IVF lists that a search visits."""
IVF_LEAST_PROBES = 8


def faiss_library() -> Any:
    """FAISS, whose own type stubs are incomplete; imported late, since it takes time."""
    import faiss

    return faiss


def new_index(kind: BuiltKind, dimension: int, sample: Vectors) -> Any:
    """An empty FAISS index; an IVF one has its lists trained on the sample."""
    faiss = faiss_library()
    if kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
        return index
    lists = max(1, min(4 * round(len(sample) ** 0.5), len(sample) // 39))  # FAISS wants 39 points a list to train
    index = faiss.index_factory(dimension, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # fewer are fine in a small index, and no reason for a warning
    index.train(sample)
    index.make_direct_map()
    return index


def kind_of(index: Any) -> BuiltKind:
    faiss = faiss_library()
    if isinstance(index, faiss.IndexHNSW):
        return "hnsw"
    return "ivf" if isinstance(index, faiss.IndexIVF) else "flat"


def nearest_rows(index: Any, query: Vectors, rows: int, live: NDArray[np.bool_]) -> list[tuple[int, float]]:
    """At most so many (row, similarity) pairs among the live rows, best first, for one vector, shape (dimension,)."""
    with _one_thread():
        similarities, found = index.search(query.reshape(1, -1), rows, params=_parameters(index, rows, live))
    pairs = zip(found[0].tolist(), similarities[0].tolist(), strict=True)
    return [(row, similarity) for row, similarity in pairs if row >= 0]


def _parameters(index: Any, rows: int, live: NDArray[np.bool_]) -> Any:
    """How far to look, and which rows count."""
    faiss = faiss_library()
    selector = None if live.all() else faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
    match kind_of(index):
        case "hnsw":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=max(HNSW_EF_SEARCH, 2 * rows))
        case "ivf":
            probes = max(IVF_LEAST_PROBES, round(IVF_PROBES_SHARE * index.nlist))
            return faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        case "flat":
            return faiss.SearchParameters(sel=selector) if selector else None


@contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS on one thread, as one query is too little work to share. OpenMP keeps this by thread, so no build is slowed."""
    faiss = faiss_library()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
