"""A knowledge base in use: changes take effect, failures change nothing, threads may share it."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from kb.embedder import Progress, Vectors
from kb.errors import EmbedderError, UnknownFaqError
from kb.index import FaqIndex
from kb.retriever import FaqRetriever
from kb.types import Faq, Hit
from tests.fakes import HashEmbedder

PAY = Faq("pay", "How do I pay?", "By card.", paraphrases=("payment methods",))
REFUND = Faq("refund", "How do I get a refund?", "Within 30 days.")
SHIP = Faq("ship", "Where do you ship?", "To all of Europe.")


def built(*faqs: Faq) -> FaqRetriever:
    return FaqRetriever.build(HashEmbedder(), faqs or (PAY, REFUND, SHIP))


def found(retriever: FaqRetriever, query: str, k: int = 3) -> list[str]:
    return [hit.faq.id for hit in retriever.search(query, k=k)]


def test_similarity_without_words_is_that_of_the_best_passage() -> None:
    hit = FaqRetriever.build(HashEmbedder(), (PAY, REFUND, SHIP), lexical_weight=0).search("payment methods", k=1)[0]
    assert hit == Hit(PAY, pytest.approx(1.0))  # type: ignore[arg-type]


def test_every_passage_is_embedded_once_and_progress_is_told() -> None:
    told: list[int] = []
    retriever = FaqRetriever.build(HashEmbedder(), [PAY, REFUND], progress=told.append)
    assert (sum(told), retriever.index.vector_count) == (3, 3)


def test_an_faq_that_is_put_is_found_and_replaces_the_one_of_its_id() -> None:
    retriever = built()
    before = retriever.version
    retriever.put([Faq("ship", "Opening hours?", "Nine to five."), Faq("new", "Can I cancel my subscription?", "Yes.")])
    assert found(retriever, "opening hours", 1) == ["ship"]
    assert found(retriever, "cancel my subscription", 1) == ["new"]
    assert "Europe" not in str(retriever.search("ship to all of Europe", k=9))
    assert (len(retriever.faqs), retriever.get("ship")) == (4, Faq("ship", "Opening hours?", "Nine to five."))
    assert retriever.version != before


def test_an_faq_that_is_removed_is_gone() -> None:
    retriever = built()
    retriever.remove(["refund"])
    assert "refund" not in found(retriever, "How do I get a refund?")
    assert (retriever.get("refund"), retriever.faqs) == (None, (PAY, SHIP))


def test_putting_back_what_was_removed_gives_the_version_back() -> None:
    retriever = built()
    version = retriever.version
    retriever.remove(["refund"])
    assert retriever.version != version
    retriever.put([REFUND])
    assert retriever.version == version


def test_unknown_ids_and_ids_that_come_twice_change_nothing() -> None:
    retriever = built()
    version = retriever.version
    with pytest.raises(UnknownFaqError, match="gone: expected an FAQ id"):
        retriever.remove(["pay", "gone"])
    with pytest.raises(UnknownFaqError, match="pay: expected each FAQ id once"):
        retriever.put([PAY, SHIP, PAY])
    assert (retriever.version, retriever.faqs) == (version, (PAY, REFUND, SHIP))
    assert found(retriever, "payment methods", 1) == ["pay"]


def test_an_encoder_that_fails_on_a_change_changes_nothing() -> None:
    class Flaky(HashEmbedder):
        fails = False

        def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
            return super().embed(texts) * np.float32("nan" if self.fails else 1)

    embedder = Flaky()
    retriever = FaqRetriever.build(embedder, [PAY, REFUND])
    version, embedder.fails = retriever.version, True
    with pytest.raises(EmbedderError, match="pay: expected finite vectors"):
        retriever.put([PAY, SHIP])
    embedder.fails = False
    assert (retriever.version, retriever.faqs) == (version, (PAY, REFUND))
    assert found(retriever, "payment methods", 1) == ["pay"]


def test_fewer_than_one_hit_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        built().search("pay", k=0)


def test_an_encoder_of_another_dimension_is_refused() -> None:
    with pytest.raises(EmbedderError, match="expected an encoder of dimension 64, got hash/32 of 32"):
        FaqRetriever(HashEmbedder(32), FaqIndex(64), [])


def test_searches_go_on_while_faqs_come_and_go() -> None:
    """A hit is always an FAQ as it was at some moment: its text fits its id, and what stays is always found."""
    retriever = built()
    stop = threading.Event()
    errors: list[BaseException] = []

    def search() -> None:
        try:
            while not stop.is_set():
                hits = retriever.search("How do I pay number 7?", k=9)
                assert {"pay", "refund", "ship"} <= {hit.faq.id for hit in hits}
                assert all(hit.faq.answer.endswith(hit.faq.id[1:]) for hit in hits if hit.faq.id.startswith("x"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(60):
        retriever.put([Faq(f"x{n % 5}", f"How do I pay number {n}?", f"Version {n} of x{n % 5}"), SHIP])
        if n % 3 == 2:
            retriever.remove([f"x{n % 5}"])
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
