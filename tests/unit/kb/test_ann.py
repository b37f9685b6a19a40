"""How FAISS is made, copied, mapped and asked: what would crash or mislead if FAISS behaved otherwise."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from kb.ann import BuiltKind, copied, ivf_lists, kind_of, nearest_rows, new_index, outgrown, search_parameters
from kb.embedder import Vectors

KINDS: tuple[BuiltKind, ...] = ("flat", "hnsw", "ivf")
DIMENSION = 16


def vectors(count: int, seed: int = 0) -> Vectors:
    drawn = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def found(index: object, query: Vectors, rows: int, live: NDArray[np.bool_] | None = None) -> list[int]:
    count = index.ntotal  # type: ignore[attr-defined]
    return nearest_rows(index, query, rows, search_parameters(index, np.ones(count, dtype=bool) if live is None else live))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_mapped_to_a_file_can_be_searched_and_its_copy_added_to(kind: BuiltKind, tmp_path: Path) -> None:
    """FAISS ends the process when a mapped index is added to; were `copied` to share the mapping, so would this test."""
    known, path = vectors(500), tmp_path / "index"
    faiss.write_index(new_index(kind, known), str(path))
    mapped = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    copy = copied(mapped)
    copy.add(vectors(3, seed=1))
    path.unlink()
    assert (kind_of(copy), copy.ntotal, mapped.ntotal) == (kind, 503, 500)
    for row in (0, 250, 499):
        assert found(mapped, known[row], 1) == found(copy, known[row], 1) == [row]
    assert found(copy, vectors(3, seed=1)[2], 1) == [502]
    np.testing.assert_array_equal(copy.reconstruct_batch(np.array([0, 499])), mapped.reconstruct_batch(np.array([0, 499])))


def test_half_precision_loses_nothing_more_when_an_index_is_built_of_its_own_vectors() -> None:
    once = new_index("ivf", vectors(300)).reconstruct_n(0, 300)
    np.testing.assert_array_equal(new_index("ivf", once).reconstruct_n(0, 300), once)
    np.testing.assert_allclose(once, vectors(300), rtol=2.0**-11, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_live_are_passed_over_and_leave_room_for_others(kind: BuiltKind) -> None:
    known = vectors(200)
    live = np.arange(200) % 3 != 0
    rows = found(new_index(kind, known), known[0], 20, live)
    assert len(rows) == 20
    assert live[rows].all()


def test_asked_for_more_rows_than_there_are_it_gives_those_and_their_cosines() -> None:
    index = new_index("flat", vectors(5))
    rows, cosines = nearest_rows(index, vectors(5)[2] * np.float32(1.001), 9, None)
    assert (sorted(rows), rows[0], len(cosines)) == ([0, 1, 2, 3, 4], 2, 5)
    assert cosines[0] == 1.0


def test_lists_are_few_enough_to_be_filled_and_grow_with_the_vectors() -> None:
    assert [ivf_lists(count) for count in (0, 1, 77, 78, 10_000, 1_000_000)] == [1, 1, 1, 2, 256, 4000]
    index = new_index("ivf", vectors(400))
    assert not outgrown(index, 500)
    assert outgrown(index, 700)
    assert not outgrown(new_index("flat", vectors(1)), 10**9)


def test_a_search_leaves_the_thread_setting_as_it_was() -> None:
    """Else every later build would run on one core."""
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        found(new_index("flat", vectors(5)), vectors(1)[0], 1)
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
