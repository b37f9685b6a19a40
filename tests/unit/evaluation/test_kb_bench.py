"""The knowledge base's benchmark measures what it says, on few FAQs; its figures are not tested here."""

import numpy as np

from evaluation.kb_bench import bench_encode, bench_kb_search, multiplied
from kb.embedder import EmbedderConfig, Vectors
from kb.types import Faq

FAQS = (Faq("a", "How much is the late fee?", "₹450."), Faq("b", "Lost card?", "Block it in the app."))


def unit(count: int, seed: int = 0) -> Vectors:
    drawn = np.random.default_rng(seed).normal(size=(count, 16))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def test_a_search_finds_the_exact_neighbours_and_is_timed_beside_faiss() -> None:
    small, large = bench_kb_search(unit(60), unit(20, seed=1), FAQS, [50, 300], repeats=1)
    assert [(row.faqs, row.index, row.recall_at_3) for row in (small, large)] == [(50, "flat", 1.0), (300, "flat", 1.0)]
    assert 0 < large.raw_p50 <= large.raw_p99
    assert large.ours_over_raw > 0.5
    assert large.folder_bytes > large.index_bytes > 16 * 4
    assert min(large.load_s, large.build_s) > 0


def test_multiplied_vectors_are_of_unit_length_stay_near_the_real_ones_and_differ() -> None:
    real = unit(60)
    made = multiplied(real, 500, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1.0, rtol=1e-5)
    assert len(np.unique(made.round(4), axis=0)) == 500
    assert (made @ real.T).max(axis=1).mean() > 0.8
    few = multiplied(real, 10, np.random.default_rng(0))
    assert {vector.tobytes() for vector in few} <= {vector.tobytes() for vector in real}


def test_encoding_is_timed_beside_the_plain_loop() -> None:
    (row,) = bench_encode(FAQS, EmbedderConfig(max_tokens=16), runtimes=("torch",))
    assert (row.runtime, row.faqs, row.texts) == ("torch", 2, 2)
    assert min(row.ours, row.plain, row.ours_over_plain) > 0
