"""Retrievers: what every one must do, the real ones in memory and in a vector database, over either encoder, and the fake."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from chat.ports import Retriever
from kb.embedder import EmbedderConfig, Progress, SentenceEmbedder, Vectors
from kb.index import Kind, passages
from kb.milvus import MilvusRetriever
from kb.retriever import FaqRetriever
from kb.types import Comparison, Faq
from tests.fakes import FakeRetriever, HashEmbedder
from tests.milvus_server import GivenServer, needs_milvus, shared_milvus

FAQS = (
    Faq("pay", "How do I pay my bill?", "By card or bank transfer.", "billing", ("Which payment methods are there?",)),
    Faq("refund", "How do I get a refund?", "Ask within 30 days.", "billing"),
    Faq("ship", "Where do you ship parcels?", "To all of Europe."),
    Faq("passage", "", "Opening hours are nine to five on weekdays."),
    Faq("route", "Talk to a human agent", ""),
)
QUERIES = ("How do I pay my bill?", "refund", "opening hours on weekdays", "Which payment methods are there?", "zebra", "🤷")
HALF = 2e-4
"""What half precision, in which IVF keeps vectors, may change of a cosine."""


@pytest.fixture(scope="module")
def packaged() -> FaqRetriever:
    return FaqRetriever.build(SentenceEmbedder(EmbedderConfig()), FAQS, lexical_weight=0)


@pytest.fixture(scope="module")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GivenServer]:
    server = shared_milvus(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def milvus(milvus_server: GivenServer) -> Iterator[MilvusRetriever]:
    retriever = MilvusRetriever.build(milvus_server.config(), HashEmbedder(), FAQS)
    yield retriever
    retriever.close()


@pytest.fixture(params=["fake", "flat", "hnsw", "ivf", "packaged", pytest.param("milvus", marks=needs_milvus)])
def retriever(request: pytest.FixtureRequest) -> Retriever:
    if request.param == "fake":
        return FakeRetriever(FAQS)
    if request.param in ("packaged", "milvus"):
        shared: Retriever = request.getfixturevalue(request.param)
        return shared
    kind: Kind = request.param
    return FaqRetriever.build(HashEmbedder(), FAQS, kind=kind, lexical_weight=0)


@pytest.mark.parametrize("faq", [faq for faq in FAQS if faq.question], ids=lambda faq: faq.id)
def test_an_faq_is_found_first_by_its_own_question(retriever: Retriever, faq: Faq) -> None:
    assert retriever.search(faq.question, k=1, min_similarity=-1)[0].faq == faq


def test_an_faq_is_found_first_by_its_paraphrase(retriever: Retriever) -> None:
    assert retriever.search("Which payment methods are there?", k=1, min_similarity=-1)[0].faq.id == "pay"


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("k", [1, 2, 5, 50])
def test_at_most_k_faqs_come_each_once_and_best_first(retriever: Retriever, query: str, k: int) -> None:
    hits = retriever.search(query, k=k, min_similarity=-1)
    assert len(hits) == min(k, len(FAQS))
    assert len({hit.faq.id for hit in hits}) == len(hits)
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    assert all(hit.faq in FAQS for hit in hits)
    assert all(-1 <= hit.similarity <= 1 for hit in hits)


@pytest.mark.parametrize("query", QUERIES)
def test_fewer_hits_are_the_first_of_more(retriever: Retriever, query: str) -> None:
    all_of_them = retriever.search(query, k=5, min_similarity=-1)
    assert [retriever.search(query, k=k, min_similarity=-1) for k in range(1, 6)] == [all_of_them[:k] for k in range(1, 6)]


@pytest.mark.parametrize("query", QUERIES)
def test_a_minimum_leaves_out_just_the_hits_below_it(retriever: Retriever, query: str) -> None:
    hits = retriever.search(query, k=5, min_similarity=-1)
    for least in (-1.0, 0.0, hits[0].similarity, hits[2].similarity, 1.0, 1.1):
        assert retriever.search(query, k=5, min_similarity=least) == tuple(hit for hit in hits if hit.similarity >= least)


@pytest.mark.parametrize("query", ["", " ", "\n\t "])
def test_a_blank_query_finds_nothing(retriever: Retriever, query: str) -> None:
    assert retriever.search(query, k=3, min_similarity=-1) == ()


def test_an_faq_is_had_by_its_id_and_an_unknown_id_has_none(retriever: Retriever) -> None:
    assert [retriever.get(faq.id) for faq in FAQS] == list(FAQS)
    assert retriever.get("gone") is None


def test_the_version_is_a_text_that_searching_does_not_change(retriever: Retriever) -> None:
    version = retriever.version
    retriever.search("refund", k=1, min_similarity=-1)
    assert version
    assert retriever.version == version


IDS = tuple(faq.id for faq in FAQS)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_compared_with_an_faq_as_a_search_does(retriever: Retriever, query: str) -> None:
    found = {hit.faq.id: hit.similarity for hit in retriever.search(query, k=len(FAQS), min_similarity=-1)}
    assert retriever.compare(query, None, IDS).faqs == pytest.approx([found[faq_id] for faq_id in IDS], abs=HALF)


def test_a_comparison_keeps_the_order_that_it_was_asked_in_and_an_unknown_id_is_like_nothing(retriever: Retriever) -> None:
    pay, gone, refund = retriever.compare("Which payment methods are there?", None, ("pay", "gone", "refund")).faqs
    assert gone is None
    assert retriever.compare("Which payment methods are there?", None, ("refund", "pay", "pay")).faqs == (refund, pay, pay)
    assert pay is not None
    assert refund is not None
    assert pay == pytest.approx(1.0, abs=HALF)
    assert -1.0 <= refund < pay
    assert retriever.compare("refund", None, ()).faqs == ()


@pytest.mark.parametrize("query", ["", " ", "\n\t "])
@pytest.mark.parametrize("previous", [None, "How do I get a refund?"])
def test_a_blank_query_is_like_nothing(retriever: Retriever, query: str, previous: str | None) -> None:
    assert retriever.compare(query, previous, ("pay", "gone")) == Comparison((None, None), None, (), None)


@pytest.mark.parametrize("previous", [None, "", " \n"])
def test_without_a_query_before_there_is_nothing_joined(retriever: Retriever, previous: str | None) -> None:
    found = retriever.compare("refund", previous, ("refund",))
    assert found.faqs == retriever.compare("refund", "How do I pay my bill?", ("refund",)).faqs
    assert (found.previous, found.joined_faqs, found.joined_top1) == (None, (), None)


def test_a_query_joined_with_itself_is_itself(retriever: Retriever) -> None:
    query = "Which payment methods are there?"
    found = retriever.compare(query, query, ("pay", "gone", "ship"))
    assert found.previous == pytest.approx(1.0, abs=1e-5)
    assert found.joined_faqs[1] is None
    assert found.joined_faqs[::2] == pytest.approx(found.faqs[::2], abs=HALF)
    assert found.joined_top1 is not None
    assert found.joined_top1.faq.id == "pay"
    assert found.joined_top1.similarity == pytest.approx(1.0, abs=HALF)


@pytest.mark.parametrize("query", QUERIES)
def test_the_nearest_faq_to_both_queries_is_as_near_as_any(retriever: Retriever, query: str) -> None:
    found = retriever.compare(query, "Where do you ship parcels?", (*IDS, "gone"))
    assert found.joined_top1 is not None
    assert found.joined_top1.faq in FAQS
    assert len(found.joined_faqs) == len(FAQS) + 1
    known = [cosine for cosine in found.joined_faqs if cosine is not None]
    assert found.joined_top1.similarity == pytest.approx(max(known), abs=HALF)
    assert all(-1 <= cosine <= 1 for cosine in known)
    assert found.previous is not None
    assert -1 <= found.previous <= 1


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_two_queries_are_joined_by_the_direction_of_their_sum(kind: Kind) -> None:
    embedder = HashEmbedder()
    query, previous = "what about refunds", "Which payment methods are there?"
    found = FaqRetriever.build(embedder, FAQS, kind=kind, lexical_weight=0).compare(query, previous, IDS)
    both = embedder.embed([query, previous])
    joined = both.sum(axis=0) / np.linalg.norm(both.sum(axis=0))
    nearest = [float((embedder.embed(passages(faq)) @ joined).max()) for faq in FAQS]
    assert found.previous == pytest.approx(float(both[0] @ both[1]), abs=1e-6)
    assert found.joined_faqs == pytest.approx(nearest, abs=HALF)
    assert found.joined_top1 is not None
    assert found.joined_top1.faq.id == IDS[int(np.argmax(nearest))]


def test_two_queries_that_point_opposite_ways_have_no_direction_together() -> None:
    class Opposite(HashEmbedder):
        def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
            vectors = super().embed(["refund"] * len(texts))
            return vectors * np.array([[-1.0 if text == "not" else 1.0] for text in texts], dtype=np.float32)

    found = FaqRetriever.build(Opposite(), FAQS, lexical_weight=0).compare("not", "refund", IDS)
    assert found.previous == pytest.approx(-1.0, abs=1e-6)
    assert found.joined_faqs == (0.0,) * len(FAQS)
