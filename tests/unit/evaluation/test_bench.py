"""The benchmarks measure what they say, on a small knowledge base; their figures are not tested here."""

from evaluation.bench import bench_search, bench_turns, resident_mb
from evaluation.datasets import read_helpdesk
from kb.retriever import FaqRetriever
from kb.types import Faq
from tests.fakes import HashEmbedder


def test_a_turn_is_timed_against_the_encoder_and_the_search_that_it_holds() -> None:
    embedder = HashEmbedder()
    retriever = FaqRetriever.build(embedder, [Faq("a", "How much is the late fee?", "₹450."), Faq("b", "Lost card?", "Block it.")])
    found = bench_turns(embedder, retriever, read_helpdesk("dev")[:3], turns=12, warm_up=2)
    assert (found.faqs, found.vectors, found.index, found.turns) == (2, 2, "flat", 12)
    # a turn embeds and searches too, so it can't be faster than either alone
    assert found.turn_p50 > found.encoder_p50 > 0
    assert found.turn_p50 > found.search_p50 > 0
    assert found.turn_over_encoder > 1


def test_hnsw_finds_nearly_what_an_exact_search_finds() -> None:
    (row,) = bench_search(HashEmbedder(), [400], searches=50)
    assert row.vectors == 400
    assert row.hnsw_recall_at_3 > 0.95
    assert min(row.flat, row.hnsw, row.encoder) > 0


def test_resident_memory_is_that_of_a_python_process() -> None:
    assert 10 < resident_mb() < 100_000
