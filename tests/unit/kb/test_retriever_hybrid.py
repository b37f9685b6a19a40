"""Search by vector and by word at once: the mixed score by hand, who may be found at all, and words that follow every change."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.embedder import Progress, Vectors
from kb.errors import UnknownFaqError
from kb.index import FaqIndex
from kb.lexical import MOST_FAQS, LexicalIndex
from kb.retriever import CANDIDATES, LEXICAL_WEIGHT, FaqRetriever, _largest
from kb.types import Faq
from tests.fakes import HashEmbedder

PAY = Faq("pay", "How do I pay?", "By card.", paraphrases=("payment methods",))
REFUND = Faq("refund", "How do I get a refund?", "Within 30 days.")
SHIP = Faq("ship", "Where do you ship?", "To all of Europe.")
QUERIES = ("How do I pay?", "refund", "to Europe within 30 days", "zebra", "🤷", "payment methods")


class Planted:
    """Gives each text the vector that it was given for it."""

    model_id = "planted"
    dimension = 2

    def __init__(self, angles: Mapping[str, float]) -> None:
        self._angles = angles

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        return np.array([(math.cos(self._angles[text]), math.sin(self._angles[text])) for text in texts], dtype=np.float32)


def scored(retriever: FaqRetriever, query: str, k: int = 9) -> dict[str, float]:
    return {hit.faq.id: hit.similarity for hit in retriever.search(query, k=k)}


def test_a_similarity_is_the_weighted_mean_of_cosine_and_overlap_by_hand() -> None:
    embedder = Planted({"alpha": 0.0, "beta": math.pi / 2, "alpha beta gamma": math.atan2(0.8, 0.6)})
    retriever = FaqRetriever.build(embedder, [Faq("a", "alpha", ""), Faq("b", "beta", "")], lexical_weight=0.3)
    known, unknown, term = math.log(2), math.log(6), 1 / 2.5  # one of two FAQs holds a word, none does, once in a text of mean length
    overlap = known * term / (2 * known + unknown)
    first, second = retriever.search("alpha beta gamma")
    assert [first.faq.id, second.faq.id] == ["b", "a"]
    assert (first.similarity, second.similarity) == pytest.approx((0.7 * 0.8 + 0.3 * overlap, 0.7 * 0.6 + 0.3 * overlap))
    assert (first.overlap, second.overlap) == pytest.approx((overlap, overlap))
    assert retriever.compare("alpha beta gamma", None, ("a", "b")).faqs == pytest.approx((second.similarity, first.similarity))


def test_two_queries_taken_together_are_scored_by_the_words_of_both() -> None:
    embedder = Planted({"alpha": 0.0, "beta": math.pi / 2, "so": 0.1, "beta too": 0.1})
    retriever = FaqRetriever.build(embedder, [Faq("a", "alpha", ""), Faq("b", "beta", "")], lexical_weight=0.3)
    found = retriever.compare("so", "beta too", ("a", "b"))
    known, unknown, term = math.log(2), math.log(6), 1 / 2.5
    assert found.joined_faqs == pytest.approx((0.7 * math.cos(0.1), 0.7 * math.sin(0.1) + 0.3 * known * term / (known + 2 * unknown)))
    assert found.faqs == pytest.approx((0.7 * math.cos(0.1), 0.7 * math.sin(0.1)))
    assert found.previous == pytest.approx(1.0), "queries are compared with each other by their vectors alone"


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_an_faq_that_no_vector_search_proposes_is_found_by_its_words(kind: str) -> None:
    near = [Faq(f"n{n}", f"topic {n}", "") for n in range(CANDIDATES + 10)]
    far = Faq("far", "zx81", "")
    angles = {faq.text: 0.01 * n for n, faq in enumerate(near)} | {"zx81": math.pi, "zx81 please": 0.0, "please": 0.0}
    hybrid = FaqRetriever.build(Planted(angles), [*near, far], kind=kind, lexical_weight=0.9)  # type: ignore[arg-type]
    hit = hybrid.search("zx81 please", k=1)[0]
    assert hit.faq == far
    assert hit.similarity == pytest.approx(0.1 * -1 + 0.9 * hit.overlap, abs=1e-6)
    assert hybrid.search("please", k=CANDIDATES + 5)[-1].faq != far, "without its word it is as far as its vector says"
    assert far.id not in scored(FaqRetriever.build(Planted(angles), [*near, far], lexical_weight=0), "zx81 please", CANDIDATES + 5)


def test_without_weight_a_similarity_is_the_cosine() -> None:
    embedder = HashEmbedder()
    retriever = FaqRetriever.build(embedder, (PAY, REFUND, SHIP), lexical_weight=0)
    for query in QUERIES:
        hits = retriever.search(query)
        nearest = retriever.index.search(embedder.embed([query])[0], k=3)
        assert [(hit.faq.id, hit.similarity) for hit in hits] == [(one.faq_id, one.similarity) for one in nearest]
        assert {hit.overlap for hit in hits} == {0.0}


def test_the_minimum_is_of_the_mixed_similarity() -> None:
    retriever = FaqRetriever.build(HashEmbedder(), (PAY, REFUND, SHIP))
    first, second = retriever.search("refund within 30 days")[:2]
    assert retriever.search("refund within 30 days", min_similarity=first.similarity) == (first,)
    assert retriever.search("refund within 30 days", min_similarity=second.similarity) == (first, second)


def test_equally_similar_faqs_come_by_id() -> None:
    twins = [Faq(name, "How do I pay?", "By card.") for name in ("b", "c", "a")]
    assert [hit.faq.id for hit in FaqRetriever.build(HashEmbedder(), twins).search("pay")] == ["a", "b", "c"]


def test_words_follow_every_change_as_if_all_were_built_anew() -> None:
    retriever = FaqRetriever.build(HashEmbedder(), (PAY, REFUND, SHIP))
    changed = Faq("ship", "Opening hours?", "Nine to five.")
    steps: list[tuple[Faq, ...]] = [(PAY, REFUND), (PAY, REFUND, SHIP), (PAY, REFUND, changed), (REFUND,), ()]
    for faqs in steps:
        retriever.remove([faq.id for faq in retriever.faqs if faq.id not in {one.id for one in faqs}])
        retriever.put(faqs)
        anew = FaqRetriever.build(HashEmbedder(), faqs)
        for query in (*QUERIES, "Europe", "nine to five"):
            assert scored(retriever, query) == pytest.approx(scored(anew, query))
        assert retriever.version == anew.version


def test_the_words_of_a_removed_faq_find_nothing() -> None:
    retriever = FaqRetriever.build(HashEmbedder(), (PAY, REFUND, SHIP))
    assert retriever.search("Europe", k=1)[0].overlap > 0
    retriever.remove(["ship"])
    assert [hit.overlap for hit in retriever.search("Europe")] == [0.0, 0.0]
    assert retriever.compare("Europe", None, ("ship",)).faqs == (None,)


def test_the_words_of_a_replaced_faq_are_the_new_ones() -> None:
    retriever = FaqRetriever.build(HashEmbedder(), (PAY, REFUND, SHIP))
    retriever.put([Faq("ship", "Which couriers?", "Pigeons.")])
    assert [hit.overlap for hit in retriever.search("Europe")] == [0.0, 0.0, 0.0]
    assert retriever.search("pigeons", k=1)[0].faq.id == "ship"
    assert retriever.search("pigeons", k=1)[0].overlap > 0


def test_a_change_that_is_refused_leaves_the_words_alone() -> None:
    retriever = FaqRetriever.build(HashEmbedder(), (PAY, REFUND, SHIP))
    before = scored(retriever, "Europe")
    with pytest.raises(UnknownFaqError):
        retriever.remove(["ship", "gone"])
    with pytest.raises(UnknownFaqError):
        retriever.put([Faq("ship", "Which couriers?", "Pigeons."), SHIP])
    assert scored(retriever, "Europe") == before
    assert {hit.overlap for hit in retriever.search("pigeons")} == {0.0}


@pytest.mark.parametrize("weight", [-0.1, 1.0, math.nan])
def test_a_weight_that_is_no_share_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="lexical_weight: expected a share from 0 to below 1"):
        FaqRetriever.build(HashEmbedder(), [PAY], lexical_weight=weight)


def test_the_weight_is_part_of_the_version_and_comes_back_from_the_folder(tmp_path: Path) -> None:
    light, default = (FaqRetriever.build(HashEmbedder(), [PAY, SHIP], lexical_weight=w) for w in (0.1, LEXICAL_WEIGHT))
    assert light.version != default.version
    light.save(tmp_path, model="hash", max_tokens=7)
    loaded = FaqRetriever.load(tmp_path, HashEmbedder())
    assert (loaded.lexical_weight, loaded.version) == (0.1, light.version)
    assert scored(loaded, "Europe") == scored(light, "Europe")


def test_among_too_many_faqs_words_do_not_count_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    many = [Faq(f"f{n}", "q", "a") for n in range(MOST_FAQS + 1)]
    with caplog.at_level(logging.WARNING):
        retriever = FaqRetriever(HashEmbedder(), FaqIndex(64), many)
    assert "100001 FAQs: above 100000, words don't count in a search, only vectors do" in caplog.text
    retriever.index.add([("f7", HashEmbedder().embed(["q a"]))])
    hit = retriever.search("q a", k=1)[0]
    assert (hit.faq.id, hit.overlap) == ("f7", 0.0)
    assert hit.similarity == pytest.approx(1.0)


def test_an_overlap_is_the_lexical_indexes() -> None:
    index = LexicalIndex((PAY, REFUND, SHIP))
    for query in QUERIES:
        for hit in FaqRetriever.build(HashEmbedder(), (PAY, REFUND, SHIP)).search(query):
            assert hit.overlap == index.overlaps(query)[index.positions[hit.faq.id]]


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), max_size=40), st.integers(1, 45))
def test_the_largest_overlaps_are_those_of_a_whole_stable_sort(values: list[float], count: int) -> None:
    overlaps = np.array(values, dtype=np.float32)
    everything = [position for position in np.argsort(-overlaps, kind="stable").tolist() if overlaps[position] > 0]
    assert _largest(overlaps, count).tolist() == everything[:count]
