"""Retrievers: what every one must do, the real one over either encoder and the fake."""

import pytest

from chat.ports import Retriever
from kb.embedder import EmbedderConfig, SentenceEmbedder
from kb.index import Kind
from kb.retriever import FaqRetriever
from kb.types import Faq
from tests.fakes import FakeRetriever, HashEmbedder

FAQS = (
    Faq("pay", "How do I pay my bill?", "By card or bank transfer.", "billing", ("Which payment methods are there?",)),
    Faq("refund", "How do I get a refund?", "Ask within 30 days.", "billing"),
    Faq("ship", "Where do you ship parcels?", "To all of Europe."),
    Faq("passage", "", "Opening hours are nine to five on weekdays."),
    Faq("route", "Talk to a human agent", ""),
)
QUERIES = ("How do I pay my bill?", "refund", "opening hours on weekdays", "Which payment methods are there?", "zebra", "🤷")


@pytest.fixture(scope="module")
def packaged() -> FaqRetriever:
    return FaqRetriever.build(SentenceEmbedder(EmbedderConfig()), FAQS)


@pytest.fixture(params=["fake", "flat", "hnsw", "ivf", "packaged"])
def retriever(request: pytest.FixtureRequest) -> Retriever:
    if request.param == "fake":
        return FakeRetriever(FAQS)
    if request.param == "packaged":
        packaged: FaqRetriever = request.getfixturevalue("packaged")
        return packaged
    kind: Kind = request.param
    return FaqRetriever.build(HashEmbedder(), FAQS, kind=kind)


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
