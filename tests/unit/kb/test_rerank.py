"""Hits that a cross-encoder orders anew: the order is its, all else is the retrieval's."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from kb.errors import EmbedderError
from kb.rerank import CrossEncoderReranker, RerankedRetriever
from kb.retriever import FaqRetriever
from kb.types import Faq, Hit
from tests.fakes import FakeRetriever, HashEmbedder
from tests.tiny_encoder import make_tiny_cross_encoder

FAQS = tuple(Faq(f"faq{n:02}", f"How do I pay bill {n}?", f"By card {n}.") for n in range(30))
QUERY = "How do I pay bill 7?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_cross_encoder(tmp_path_factory.mktemp("models") / "cross")


class Last:
    """What was found last fits best."""

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        return [float(n) for n in range(len(texts))]


class Same:
    """All fit as well."""

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        return [0.0] * len(texts)


class Broken:
    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        raise RuntimeError("out of memory")


class Sure(FakeRetriever):
    """Its first hit may answer alone."""

    def search(self, query: str, *, k: int = 3, min_similarity: float = -1.0, previous: str | None = None) -> tuple[Hit, ...]:
        first, *others = super().search(query, k=k, min_similarity=min_similarity, previous=previous)
        return (Hit(first.faq, first.similarity, confidence=0.9, alone="always"), *others)


@pytest.fixture(scope="module")
def retriever() -> FaqRetriever:
    return FaqRetriever.build(HashEmbedder(), FAQS)


def test_the_order_of_the_first_hits_is_the_cross_encoders_and_their_similarities_the_retrievals(
    model: Path, retriever: FaqRetriever
) -> None:
    reranker = CrossEncoderReranker(str(model))
    found = retriever.search(QUERY, k=20)
    scores = dict(zip(found, reranker.score(QUERY, [hit.faq.text for hit in found]), strict=True))
    ordered = RerankedRetriever(retriever, reranker).search(QUERY, k=5)
    assert list(ordered) == sorted(found, key=lambda hit: -scores[hit])[:5]
    assert [hit.faq.id for hit in ordered] != [hit.faq.id for hit in found[:5]]


def test_hits_behind_the_first_ones_keep_their_places(retriever: FaqRetriever) -> None:
    found, ordered = retriever.search(QUERY, k=9), RerankedRetriever(retriever, Last(), top=4).search(QUERY, k=9)
    assert ordered == (*reversed(found[:4]), *found[4:])
    assert RerankedRetriever(retriever, Last(), top=4).search(QUERY, k=2) == (found[3], found[2])


def test_a_minimum_holds_before_the_order(retriever: FaqRetriever) -> None:
    found = retriever.search(QUERY, k=3)
    ordered = RerankedRetriever(retriever, Last()).search(QUERY, k=30, min_similarity=found[2].similarity)
    assert ordered == tuple(reversed(found))
    assert RerankedRetriever(retriever, Last()).search(" ", k=3) == ()


def test_confidence_and_leave_to_answer_alone_go_with_another_first_hit_and_stay_with_the_same() -> None:
    kb = Sure(FAQS)
    assert [(hit.confidence, hit.alone) for hit in RerankedRetriever(kb, Last()).search(QUERY, k=20)] == [(None, "never")] * 20
    assert RerankedRetriever(kb, Same()).search(QUERY, k=3) == kb.search(QUERY, k=3)


def test_a_reranker_that_fails_leaves_the_retrievals_order(retriever: FaqRetriever, caplog: pytest.LogCaptureFixture) -> None:
    assert RerankedRetriever(retriever, Broken()).search(QUERY, k=3) == retriever.search(QUERY, k=3)
    assert "the reranker failed; the order is the retrieval's" in caplog.text


def test_all_but_the_search_is_the_knowledge_bases(retriever: FaqRetriever) -> None:
    reranked = RerankedRetriever(retriever, Last())
    assert (reranked.version, reranked.get("faq03"), reranked.get("x")) == (retriever.version, FAQS[3], None)
    assert reranked.get_many(["faq03", "x"]) == {"faq03": FAQS[3]}
    assert reranked.compare(QUERY, "card", ("faq01",)) == retriever.compare(QUERY, "card", ("faq01",))


def test_threads_score_alike(model: Path) -> None:
    reranker, texts = CrossEncoderReranker(str(model)), [faq.text for faq in FAQS]
    alone = {query: list(reranker.score(query, texts)) for query in ("pay", "a much longer question about my bill", "")}
    found: list[tuple[str, list[float]]] = []
    threads = [threading.Thread(target=lambda q=query: found.append((q, list(reranker.score(q, texts))))) for query in alone for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for query, scores in found:
        assert scores == pytest.approx(alone[query], abs=1e-5)


def test_odd_texts_are_scored_and_none_gives_none(model: Path) -> None:
    reranker = CrossEncoderReranker(str(model))
    assert len(reranker.score("\ud83d", ["", "x" * 100_000, "🤷"])) == 3
    assert list(reranker.score("pay", [])) == []


def test_a_model_that_is_no_cross_encoder_of_one_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match="expected a cross-encoder with one output, which orders texts, got one with 3"):
        CrossEncoderReranker(str(make_tiny_cross_encoder(tmp_path / "three", outputs=3)))
    with pytest.raises(EmbedderError, match="expected a folder with a cross-encoder"):
        CrossEncoderReranker(str(tmp_path / "nothing"))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(EmbedderError, match="only safetensors weights are loaded"):
        CrossEncoderReranker(str(tmp_path / "pickled"))
    (tmp_path / "pickled" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(EmbedderError, match="it doesn't load"):
        CrossEncoderReranker(str(tmp_path / "pickled"))
