"""FAISS's three kinds of index, flat, HNSW and IVF: make one, copy it, ask it for the nearest rows.

All hold unit vectors under the inner product; IVF in half precision, which halves its memory and moves a cosine by some 1e-5.
Leaves out whose rows they are (`index.py`) and files (`folder.py`).
"""

from functools import cache
from math import isqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kb.embedder import Vectors

BuiltKind = Literal["flat", "hnsw", "ivf"]

HNSW_LINKS = 32
HNSW_EF_CONSTRUCTION = 200
HNSW_EF_SEARCH = 128
"""Recall@3 of .99 with 100,000 vectors (docs/decisions/0009)."""
IVF_POINTS = 39
"""Vectors a list at least, and those that its centre is trained on."""
IVF_PROBES = 20.0
"""Lists that a search visits, over the cube root of their number: recall@3 of .99 from 5,000 to a million vectors."""
IVF_GROWTH = 1.5
"""Growth of the lists wanted from which they, made for fewer vectors, are trained anew."""


@cache
def faiss_library() -> Any:
    """FAISS, whose own type stubs are incomplete; imported late, since it takes time."""
    import faiss

    return faiss


def new_index(kind: BuiltKind, vectors: Vectors) -> Any:
    """A FAISS index of these vectors, shape (n, dimension)."""
    faiss = faiss_library()
    dimension = vectors.shape[1]
    if kind == "flat":
        index = faiss.IndexFlatIP(dimension)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
    else:
        index = _ivf(faiss.IndexFlatIP(dimension), dimension, ivf_lists(len(vectors)))
        index.cp.min_points_per_centroid = 1  # fewer are fine in a small index, and no reason for a warning
        index.cp.max_points_per_centroid = IVF_POINTS
        index.train(vectors)
        index.make_direct_map()
    index.add(vectors)
    return index


def copied(index: Any) -> Any:
    """A copy that shares no memory with an index: it can be added to, which a FAISS index mapped to a file can't (it aborts)."""
    faiss = faiss_library()
    if kind_of(index) != "ivf":
        return faiss.deserialize_index(faiss.serialize_index(index))  # a clone would share what is mapped
    copy = _ivf(faiss.clone_index(index.quantizer), index.d, index.nlist)
    index.copy_subset_to(copy, faiss.InvertedLists.SUBSET_TYPE_ID_RANGE, 0, index.ntotal)
    copy.is_trained = True
    copy.make_direct_map()
    return copy


def _ivf(quantizer: Any, dimension: int, lists: int) -> Any:
    faiss = faiss_library()
    half, inner = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    by_residual = False  # then a vector that is taken out and put in again stays what it is
    return faiss.IndexIVFScalarQuantizer(quantizer, dimension, lists, half, inner, by_residual)


def ivf_lists(vectors: int) -> int:
    """How many lists an IVF index of so many vectors has."""
    return max(1, min(4 * isqrt(vectors), vectors // IVF_POINTS))


def outgrown(index: Any, vectors: int) -> bool:
    """Whether so many vectors want more lists than the index has."""
    return kind_of(index) == "ivf" and ivf_lists(vectors) > IVF_GROWTH * index.nlist


def kind_of(index: Any) -> BuiltKind:
    faiss = faiss_library()
    if isinstance(index, faiss.IndexHNSW):
        return "hnsw"
    return "ivf" if isinstance(index, faiss.IndexIVF) else "flat"


def search_parameters(index: Any, live: NDArray[np.bool_]) -> Any:
    """How far a search looks, and which rows count: made once for many searches, since making it takes a tenth of a small one."""
    faiss = faiss_library()
    selector = None if live.all() else faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
    match kind_of(index):
        case "hnsw":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=HNSW_EF_SEARCH)
        case "ivf":
            return faiss.SearchParametersIVF(sel=selector, nprobe=min(index.nlist, round(IVF_PROBES * index.nlist ** (1 / 3))))
        case "flat":
            return faiss.SearchParameters(sel=selector) if selector else None


def nearest_rows(index: Any, query: Vectors, rows: int, parameters: Any) -> tuple[list[int], list[float]]:
    """At most so many rows and their cosines, in [-1, 1], best first, for one vector, whose shape (dimension,) isn't checked.

    On one thread, as one query is too little work to share. OpenMP keeps that by thread, so no build is slowed.
    """
    faiss = faiss_library()
    if parameters is not None and 2 * rows > getattr(parameters, "efSearch", 2 * rows):
        parameters = faiss.SearchParametersHNSW(sel=parameters.sel, efSearch=2 * rows)  # else the last rows are found badly
    query = np.ascontiguousarray(query, dtype=np.float32)
    similarities, found = np.empty(rows, dtype=np.float32), np.empty(rows, dtype=np.int64)
    threads = faiss.omp_get_max_threads()
    if threads > 1:
        faiss.omp_set_num_threads(1)
    try:
        # what `search` calls after checks that take a twentieth of a small search
        index.search_c(1, faiss.swig_ptr(query), rows, faiss.swig_ptr(similarities), faiss.swig_ptr(found), parameters)
    finally:
        if threads > 1:
            faiss.omp_set_num_threads(threads)
    nearest, cosines = found.tolist(), similarities.tolist()
    if nearest[-1] < 0:  # there are no more
        nearest = [row for row in nearest if row >= 0]
        cosines = cosines[: len(nearest)]
    if cosines and (cosines[0] > 1.0 or cosines[-1] < -1.0):
        cosines = [max(-1.0, min(1.0, cosine)) for cosine in cosines]
    return nearest, cosines
