"""The FAQ index: what it holds after changes, and how near the approximate kinds come to the exact one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from kb.embedder import Vectors
from kb.errors import EmbedderError, UnknownFaqError
from kb.index import IVF_FROM, REBUILD_SHARE, FaqIndex, Kind, passages
from kb.types import Faq

KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivf")
DIMENSION = 32
HALF = 2.0**-11
"""How far a number in half precision, as an IVF index holds it, may be from the one put in, as a share of it."""


@pytest.fixture(autouse=True)
def threads_are_left_as_they_were() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    yield
    assert faiss.omp_get_max_threads() == before


def clustered(count: int, *, seed: int = 0, dimension: int = DIMENSION) -> Vectors:
    """Unit vectors around thirty centres, as texts on thirty subjects are; the centres are the same for every seed."""
    centres = np.random.default_rng(0).normal(size=(30, dimension))
    rng = np.random.default_rng(seed)
    return unit(centres[rng.integers(30, size=count)] + 0.6 * rng.normal(size=(count, dimension)))


def unit(vectors: NDArray[np.floating]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def items(vectors: Vectors, name: str = "f") -> list[tuple[str, Vectors]]:
    return [(f"{name}{row}", vectors[row : row + 1]) for row in range(len(vectors))]


def rounding(kind: Kind) -> float:
    return HALF if kind == "ivf" else 0.0


def built(kind: Kind, vectors: Vectors) -> FaqIndex:
    index = FaqIndex(vectors.shape[1], kind)
    index.add(items(vectors))
    return index


def nearest(index: FaqIndex, query: Vectors, k: int = 10) -> list[str]:
    return [neighbour.faq_id for neighbour in index.search(query, k=k)]


def test_the_passages_of_an_faq_are_its_text_and_each_paraphrase_once() -> None:
    assert passages(Faq("a", "How?", "So.", paraphrases=("Which way?", "Which way?"))) == ("How?\nSo.", "Which way?")
    assert passages(Faq("a", "How?", "", paraphrases=("How?",))) == ("How?",)


def test_an_faq_is_found_by_its_nearest_vector_and_only_once() -> None:
    index = FaqIndex(2, "flat")
    index.add([("a", unit(np.array([[1, 0], [0, 1], [-1, 0]]))), ("b", unit(np.array([[1, 1]])))])
    found = index.search(np.array([0, 1], dtype=np.float32), k=5)
    assert [n.faq_id for n in found] == ["a", "b"]
    assert [n.similarity for n in found] == pytest.approx([1.0, 0.5**0.5])
    assert (len(index), index.vector_count) == (2, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_one_faq_with_hundreds_of_paraphrases_hides_no_other(kind: Kind) -> None:
    index = FaqIndex(DIMENSION, kind)
    query = clustered(1)[0]
    near = unit(query + 0.01 * np.random.default_rng(1).normal(size=(300, DIMENSION)))
    index.add([("many", near), *items(clustered(100, seed=2))])
    assert len(nearest(index, query, k=3)) == 3
    assert nearest(index, query, k=3)[0] == "many"


def test_k_beyond_the_number_of_faqs_gives_all_of_them() -> None:
    assert len(nearest(built("flat", clustered(5)), clustered(1, seed=1)[0], k=1000)) == 5


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
def test_an_empty_index_finds_nothing_and_takes_faqs_again(kind: Kind) -> None:
    vectors = clustered(5)
    index = FaqIndex(DIMENSION, kind)
    assert index.search(vectors[0], k=3) == ()
    index.add([])
    index.add(items(vectors))
    index.remove([f"f{n}" for n in range(5)])
    assert (index.search(vectors[0], k=3), len(index), index.vector_count) == ((), 0, 0)
    index.add(items(vectors))
    assert nearest(index, vectors[2], k=1) == ["f2"]


@pytest.mark.parametrize("count", [1, 2, 38, 39, 40, 200])
def test_ivf_works_from_one_vector_on_and_says_nothing_about_it(count: int, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = clustered(count)
    index = built("ivf", vectors)
    assert index.built_kind == "ivf"
    assert nearest(index, vectors[count // 2], k=1) == [f"f{count // 2}"]
    assert capfd.readouterr() == ("", "")


# HNSW's graph differs with the threads' timing; its recall here was 1.0 in each of 50 builds
@pytest.mark.parametrize(("kind", "least"), [("hnsw", 0.97), ("ivf", 0.9)])
def test_an_approximate_index_finds_nearly_what_the_exact_one_finds(kind: Kind, least: float) -> None:
    vectors, queries = clustered(4000), clustered(100, seed=1)
    exact, approximate = built("flat", vectors), built(kind, vectors)
    assert (exact.built_kind, approximate.built_kind) == ("flat", kind)
    shared = [len(set(nearest(exact, query)) & set(nearest(approximate, query))) for query in queries]
    assert sum(shared) / (10 * len(queries)) >= least


@pytest.mark.parametrize("kind", KINDS)
def test_removed_faqs_never_come_back(kind: Kind) -> None:
    vectors = clustered(600)
    index = built(kind, vectors)
    gone: set[str] = set()
    rng = np.random.default_rng(3)
    for _ in range(12):  # past the share at which the index is built anew, more than once
        some = rng.choice(sorted({f"f{n}" for n in range(600)} - gone), size=40, replace=False).tolist()
        index.remove(some)
        gone |= set(some)
        found = {faq_id for faq_id in gone for faq_id in nearest(index, vectors[int(faq_id[1:])])}
        assert found
        assert not found & gone
        assert len(index) == 600 - len(gone)


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_takes_effect_and_the_old_vector_is_forgotten(kind: Kind) -> None:
    index = built(kind, clustered(400))
    before, after = index.vectors("f7")[0], clustered(1, seed=9)[0]
    index.update([("f7", after[None])])
    assert nearest(index, after, k=1) == ["f7"]
    assert nearest(index, before, k=1) != ["f7"]
    np.testing.assert_allclose(index.vectors("f7"), after[None], rtol=rounding(kind), atol=1e-7)
    assert (len(index), index.vector_count) == (400, 400)


@pytest.mark.parametrize("kind", KINDS)
def test_an_faq_that_was_removed_can_be_added_again_with_another_vector(kind: Kind) -> None:
    index = built(kind, clustered(400))
    index.remove(["f7"])
    new = clustered(1, seed=9)
    index.add([("f7", new)])
    assert nearest(index, new[0], k=1) == ["f7"]
    np.testing.assert_allclose(index.vectors("f7"), new, rtol=rounding(kind), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_faqs_added_one_by_one_are_found_as_if_added_together(kind: Kind) -> None:
    vectors = clustered(100)
    index = FaqIndex(DIMENSION, kind)
    for item in items(vectors):
        index.add([item])
    found = [nearest(index, vector, k=1)[0] for vector in vectors]
    assert sum(faq_id == f"f{row}" for row, faq_id in enumerate(found)) >= 99
    assert index.built_kind == kind


def test_auto_is_exact_until_the_bound_then_in_lists_until_half_of_it_is_gone() -> None:
    vectors = clustered(IVF_FROM, dimension=4)
    index = FaqIndex(4)
    changes: list[Callable[[], None]] = [
        lambda: index.add([("all", vectors[:-1])]),
        lambda: index.add([("last", vectors[-1:])]),
        lambda: index.remove(["last"]),
        lambda: index.update([("all", vectors[: IVF_FROM // 2])]),
        lambda: index.update([("all", vectors[: IVF_FROM // 2 - 1])]),
    ]
    kinds = []
    for change in changes:
        change()
        kinds.append(index.built_kind)
    assert kinds == ["flat", "ivf", "ivf", "ivf", "flat"]


@pytest.mark.parametrize("kind", KINDS)
def test_packing_hides_what_was_removed_and_changes_no_vector(kind: Kind) -> None:
    vectors = clustered(200)
    index = built(kind, vectors)
    index.remove(["f3", "f150"])
    index.put([("f7", clustered(2, seed=5))])
    copy = FaqIndex.unpacked(*index.packed(), kind)
    assert (len(copy), copy.vector_count) == (198, 199)
    for query in (*vectors[:20], vectors[150]):
        assert copy.search(query, k=5) == index.search(query, k=5)
        assert not {"f3", "f150"} & {*nearest(copy, query, k=198)}
    for faq_id in ("f0", "f4", "f7", "f151"):
        np.testing.assert_array_equal(copy.vectors(faq_id), index.vectors(faq_id))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_hidden_until_they_are_too_many_and_then_left_out(kind: Kind) -> None:
    index = built(kind, clustered(200))
    most = round(200 * REBUILD_SHARE)
    index.remove([f"f{row}" for row in range(most)])
    assert index.packed()[1] == [None] * most + [f"f{row}" for row in range(most, 200)]
    index.remove(["f199"])
    assert index.packed()[1] == [f"f{row}" for row in range(most, 199)]
    assert index.packed()[0].ntotal == len(index) == 199 - most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", ["the index", "its copy"])
def test_neither_an_index_nor_its_copy_sees_what_becomes_of_the_other(kind: Kind, changed: str) -> None:
    vectors = clustered(200)
    kept = built(kind, vectors)
    kept.remove(["f9"])
    other = kept.copy()
    if changed == "the index":
        kept, other = other, kept
    before = [kept.search(vector, k=3) for vector in vectors]
    new = clustered(1, seed=8)
    other.remove(["f1", "f2"])
    other.put([("f3", new), ("new", vectors[:1])])
    other.put([("newer", vectors[1:2])])
    assert [kept.search(vector, k=3) for vector in vectors] == before
    assert (len(kept), kept.vector_count, len(other)) == (199, 199, 199)
    assert nearest(other, vectors[1], k=1) == ["newer"]
    assert nearest(other, new[0], k=1) == ["f3"]
    other.remove([f"f{row}" for row in range(100, 200)])  # built anew
    assert [kept.search(vector, k=3) for vector in vectors] == before


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_on_a_mapped_file_takes_changes_and_leaves_the_file_as_it_is(kind: Kind, tmp_path: Path) -> None:
    """FAISS ends the process when a mapped index is added to."""
    vectors, path = clustered(300), tmp_path / "index"
    packed, owners = built(kind, vectors).packed()
    faiss.write_index(packed, str(path))
    content = path.read_bytes()
    index = FaqIndex.unpacked(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), owners, kind)
    new = clustered(1, seed=9)
    index.remove(["f1"])
    index.put([("f2", new), ("new", vectors[1:2])])
    assert (nearest(index, new[0], k=1), nearest(index, vectors[1], k=1), len(index)) == (["f2"], ["new"], 300)
    assert path.read_bytes() == content


def test_an_index_that_was_saved_small_and_loaded_gets_its_lists_anew_once_it_has_grown() -> None:
    vectors = clustered(4000)
    loaded = FaqIndex.unpacked(*built("ivf", vectors[:200]).packed(), "ivf")
    for first in range(200, 4000, 50):
        loaded.add(items(vectors[first : first + 50], f"more{first}-"))
    assert loaded.packed()[0].nlist > built("ivf", vectors).packed()[0].nlist / 2


def test_unpacking_rows_that_do_not_fit_is_refused() -> None:
    packed, owners = built("flat", clustered(4)).packed()
    with pytest.raises(ValueError, match="expected 3 vectors, got 4"):
        FaqIndex.unpacked(packed, owners[:3], "flat")
    with pytest.raises(ValueError, match="rows of f0 together"):
        FaqIndex.unpacked(packed, ["f0", "f1", "f0", "f2"], "flat")


REFUSED: dict[str, tuple[list[tuple[str, Vectors]], type[Exception], str]] = {
    "another dimension": ([("new", clustered(1, dimension=8))], EmbedderError, r"new: .* of shape \(n, 32\), got \(1, 8\)"),
    "no vectors": ([("new", clustered(1)[:0])], EmbedderError, r"new: .* of shape \(n, 32\), got \(0, 32\)"),
    "one vector without its axis": ([("new", clustered(1)[0])], EmbedderError, "new: expected vectors of shape"),
    "a NaN": ([("new", clustered(1) * np.float32("nan"))], EmbedderError, "new: expected finite vectors"),
    "an id twice": ([("new", clustered(1)), ("new", clustered(1))], UnknownFaqError, "new: expected each FAQ id once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_put_is_refused_and_changes_nothing(case: str) -> None:
    bad, error, message = REFUSED[case]
    vectors = clustered(50)
    index = built("flat", vectors)
    for change in (index.add, index.put):
        with pytest.raises(error, match=message):
            change([("other", clustered(1, seed=4)), *bad])
    with pytest.raises((error, UnknownFaqError)):
        index.update([("f1", clustered(1, seed=4)), *bad])
    assert (len(index), index.vector_count) == (50, 50)
    assert [nearest(index, vector, k=1)[0] for vector in vectors] == [f"f{n}" for n in range(50)]


def test_unknown_and_known_ids_are_refused_where_they_do_not_belong() -> None:
    index = built("flat", clustered(3))
    with pytest.raises(UnknownFaqError, match="f1: expected a new FAQ id"):
        index.add([("g", clustered(1)), ("f1", clustered(1))])
    with pytest.raises(UnknownFaqError, match="g: expected an FAQ id of the index"):
        index.update([("f1", clustered(1)), ("g", clustered(1))])
    with pytest.raises(UnknownFaqError, match="g: expected an FAQ id of the index"):
        index.remove(["f1", "g"])
    assert len(index) == 3


def test_a_query_of_another_dimension_is_refused() -> None:
    index = built("flat", clustered(50))
    for query in (clustered(1, dimension=8)[0], clustered(1)):
        with pytest.raises(EmbedderError, match=r"expected a vector of shape \(32,\), got"):
            index.search(query, k=1)


def test_removing_the_same_id_twice_in_one_call_is_removing_it() -> None:
    index = built("flat", clustered(3))
    index.remove(["f1", "f1"])
    assert len(index) == 2
