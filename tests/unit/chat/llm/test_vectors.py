"""The memory of FAQs' vectors."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from chat.llm.vectors import VectorMemory
from kb.embedder import Progress, Vectors
from tests.fakes import HashEmbedder


class Counting(HashEmbedder):
    """Keeps the texts that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        self.asked.append(list(texts))
        return super().embed(texts, progress=progress)


def test_vectors_are_the_encoders_in_the_order_asked_for() -> None:
    memory = VectorMemory(HashEmbedder())
    passing, kept = memory.embed(["late fee"], ["b", "a", "b"])
    assert np.array_equal(passing, HashEmbedder().embed(["late fee"]))
    assert np.array_equal(kept, HashEmbedder().embed(["b", "a", "b"]))
    assert memory.embed(["x"], [])[1].shape == (0, 64)


def test_a_kept_text_is_embedded_once_and_a_passing_one_each_time() -> None:
    encoder = Counting()
    memory = VectorMemory(encoder)
    for _ in range(2):
        memory.embed(["query"], ["a", "b", "a"])
    assert encoder.asked == [["query", "a", "b"], ["query"]]


def test_the_text_that_was_not_used_for_longest_is_forgotten() -> None:
    encoder = Counting()
    memory = VectorMemory(encoder, max_kept=2)
    memory.embed([], ["a", "b"])
    memory.embed([], ["a"])
    memory.embed([], ["c"])
    encoder.asked.clear()
    memory.embed([], ["a", "c"])
    memory.embed([], ["b"])
    assert encoder.asked == [[], ["b"]]


def test_more_texts_than_are_kept_still_get_their_vectors() -> None:
    memory = VectorMemory(HashEmbedder(), max_kept=1)
    assert np.array_equal(memory.embed([], ["a", "b", "c"])[1], HashEmbedder().embed(["a", "b", "c"]))


def test_many_threads_get_what_one_gets() -> None:
    memory = VectorMemory(HashEmbedder(), max_kept=5)
    texts = [f"text {n}" for n in range(12)]
    expected = HashEmbedder().embed(texts)
    with ThreadPoolExecutor(8) as pool:
        for _, kept in pool.map(lambda _: memory.embed(["query"], texts), range(40)):
            assert np.array_equal(kept, expected)
