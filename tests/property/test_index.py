"""Random knowledge bases: the index against a slow twin, thresholds, and what disk and files give back."""

import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb.embedder import Vectors
from kb.index import FaqIndex, Kind
from kb.retriever import FaqRetriever
from kb.source import read_faqs, write_faqs
from kb.types import Faq
from tests.fakes import HashEmbedder

DIMENSION = 4
HALF = 2.0**-11
"""How far a cosine may move when the vectors are held in half precision."""
IDS = st.sampled_from([f"faq{n}" for n in range(12)])

# whole numbers make ties, and ties are what a faulty index gets wrong
whole = st.lists(st.integers(-3, 3), min_size=DIMENSION, max_size=DIMENSION).filter(any)


def unit(rows: list[list[int]]) -> Vectors:
    matrix = np.array(rows, dtype=np.float32)
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), dtype=np.float32)


queries = whole.map(lambda row: unit([row])[0])
vectors = st.lists(whole, min_size=1, max_size=6).map(unit)
changes = st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.dictionaries(IDS, vectors, max_size=5)), max_size=12)


class SlowTwin:
    """The same by brute force."""

    def __init__(self) -> None:
        self.vectors: dict[str, Vectors] = {}

    def best(self, query: Vectors) -> dict[str, float]:
        return {faq_id: float((matrix @ query).max()) for faq_id, matrix in self.vectors.items()}


def apply(index: FaqIndex, twin: SlowTwin, verb: str, batch: dict[str, Vectors]) -> None:
    """One change to both; what is new is added, what is there updated or removed."""
    known = {faq_id: matrix for faq_id, matrix in batch.items() if faq_id in twin.vectors}
    if verb == "remove":
        index.remove(known)
        twin.vectors = {faq_id: matrix for faq_id, matrix in twin.vectors.items() if faq_id not in known}
    else:
        index.add((faq_id, matrix) for faq_id, matrix in batch.items() if faq_id not in known)
        index.update(known.items())
        twin.vectors |= batch


@given(changes, st.lists(queries, min_size=1, max_size=4), st.integers(1, 15))
@settings(max_examples=200, deadline=None)
def test_a_search_gives_what_the_slow_twin_gives_after_any_changes(
    sequence: list[tuple[str, dict[str, Vectors]]], asked: list[Vectors], k: int
) -> None:
    index, twin = FaqIndex(DIMENSION, "flat"), SlowTwin()
    for verb, batch in sequence:
        apply(index, twin, verb, batch)
        assert len(index) == len(twin.vectors)
        assert index.vector_count == sum(map(len, twin.vectors.values()))
        for query in asked:
            found, best = index.search(query, k=k), twin.best(query)
            assert len({neighbour.faq_id for neighbour in found}) == len(found) == min(k, len(best))
            # equals may come in any order, so the similarities are compared, and each FAQ's own
            np.testing.assert_allclose([n.similarity for n in found], sorted(best.values(), reverse=True)[:k], atol=1e-6)
            np.testing.assert_allclose([n.similarity for n in found], [best[n.faq_id] for n in found], atol=1e-6)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@given(sequence=changes, asked=st.lists(queries, min_size=1, max_size=3), k=st.integers(1, 15))
@settings(max_examples=60, deadline=None)
def test_an_approximate_search_gives_only_what_is_there_with_its_true_similarity(
    kind: Kind, sequence: list[tuple[str, dict[str, Vectors]]], asked: list[Vectors], k: int
) -> None:
    index, twin = FaqIndex(DIMENSION, kind), SlowTwin()
    for verb, batch in sequence:
        apply(index, twin, verb, batch)
        for query in asked:
            found, best = index.search(query, k=k), twin.best(query)
            assert len({neighbour.faq_id for neighbour in found}) == len(found) <= k
            assert bool(found) == bool(best)
            assert [n.similarity for n in found] == sorted((n.similarity for n in found), reverse=True)
            assert all(n.similarity <= best[n.faq_id] + (HALF if kind == "ivf" else 1e-6) for n in found)
            loaded = FaqIndex.unpacked(*index.copy().packed(), kind)
            assert loaded.search(query, k=k) == found


word = st.sampled_from(["pay", "refund", "parcel", "card", "lost", "how", "où", "钱", "🤷"])
words = st.lists(word, min_size=1, max_size=5).map(" ".join)
faqs = st.lists(
    st.builds(Faq, IDS, words, words, paraphrases=st.lists(words, max_size=2).map(tuple)),
    min_size=1, max_size=8, unique_by=lambda faq: faq.id,
)


@given(faqs, words, st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 10))
@settings(deadline=None)
def test_raising_the_minimum_never_adds_hits(known: list[Faq], query: str, a: float, b: float, k: int) -> None:
    retriever = FaqRetriever.build(HashEmbedder(), known)
    low, high = (retriever.search(query, k=k, min_similarity=least) for least in sorted((a, b)))
    assert high == low[: len(high)]
    assert all(hit.similarity >= max(a, b) for hit in high)


@pytest.mark.parametrize("kind", ["auto", "flat", "hnsw", "ivf"])
@given(known=faqs, gone=st.integers(0, 8), asked=st.lists(words, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_saving_and_loading_keeps_every_search(kind: Kind, known: list[Faq], gone: int, asked: list[str]) -> None:
    before = FaqRetriever.build(HashEmbedder(), known, kind=kind)
    before.remove([faq.id for faq in known[:gone]])
    with tempfile.TemporaryDirectory() as folder:
        before.save(Path(folder), model="hash", max_tokens=1)
        after = FaqRetriever.load(Path(folder), HashEmbedder())
    assert (after.version, after.faqs, after.index.built_kind) == (before.version, before.faqs, before.index.built_kind)
    for query in asked:
        assert after.search(query, k=9) == before.search(query, k=9)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).map(str.strip)
faq_ids = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)


def source_faq(faq_id: str, question: str, answer: str, category: str, paraphrases: list[str], url: str) -> Faq:
    return Faq(faq_id, question, answer or "x", category or None, tuple(dict.fromkeys(filter(None, paraphrases))),
               f"https://{url}".strip() if url else None)


source_faqs = st.lists(st.builds(source_faq, faq_ids, text, text, text, st.lists(text, max_size=3), text), min_size=1, max_size=6,
                       unique_by=lambda faq: faq.id)


@given(source_faqs)
@settings(deadline=None)
def test_writing_faqs_and_reading_them_gives_the_same_ones(known: list[Faq]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "faqs.jsonl"
        write_faqs(path, tuple(known))
        assert read_faqs(path) == tuple(known)


@given(source_faqs)
@settings(deadline=None)
def test_a_csv_that_a_spreadsheet_writes_gives_the_same_faqs(known: list[Faq]) -> None:
    rows = [[faq.source_url, faq.answer, faq.id, faq.category, faq.question] for faq in known]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "faqs.csv"
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([["source_url", "answer", "id", "category", "question"], *rows])
        assert read_faqs(path) == tuple(replace(faq, paraphrases=()) for faq in known)
