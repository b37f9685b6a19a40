"""A service's knowledge base in Milvus: edits with their versions told first, near-duplicates by search, several FAQs in one request."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kb.errors import IndexFolderError, UnknownFaqError
from kb.folder import content_version
from kb.milvus_kb import MilvusKb
from kb.milvus_rows import MilvusConfig
from kb.retriever import FaqRetriever
from kb.types import Faq
from tests.fakes import HashEmbedder
from tests.milvus_server import GivenServer, MilvusServer, needs_milvus, shared_milvus
from tests.unit.kb.test_milvus import PAY, REFUND, SHIP, THREE, eventually, many

pytestmark = needs_milvus

TWIN = Faq("twin", "How do I get a refund?", "Within 30 days!")


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GivenServer]:
    server = shared_milvus(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()


@pytest.fixture
def config(shared_server: GivenServer) -> MilvusConfig:
    """A collection of the test's own."""
    return shared_server.config()


@pytest.fixture
def kb(config: MilvusConfig) -> Iterator[MilvusKb]:
    kb = MilvusKb.build(config, HashEmbedder(), THREE)
    yield kb
    kb.close()


def version(*faqs: Faq) -> str:
    return content_version(faqs, HashEmbedder().model_id, 0.0)


def test_an_edit_says_what_it_changed_and_both_versions(kb: MilvusKb) -> None:
    told: list[tuple[str, str]] = []
    changed = Faq("pay", "How do I pay?", "By bank transfer.")
    edited = kb.edit([changed, TWIN, SHIP], before_saving=lambda *versions: told.append(versions))
    assert (edited.made.added, edited.made.replaced, edited.made.removed) == ((TWIN,), (changed,), ())
    assert told == [(version(*THREE), version(changed, REFUND, SHIP, TWIN))]
    assert (edited.before, edited.kb.version) == told[0]
    assert set(edited.kb.faqs) == set(kb.current.faqs) == {changed, REFUND, SHIP, TWIN}
    removed = kb.edit(remove=["twin"])
    assert (removed.before, removed.kb.version, removed.made.removed) == (told[0][1], version(changed, REFUND, SHIP), ("twin",))
    assert kb.current.version == kb.version == FaqRetriever.build(HashEmbedder(), kb.faqs, lexical_weight=0.0).version


def test_an_edit_that_is_stopped_or_names_an_unknown_id_changes_nothing(kb: MilvusKb) -> None:
    def stop(before: str, after: str) -> None:
        raise RuntimeError("no audit")

    with pytest.raises(RuntimeError, match="no audit"):
        kb.edit([TWIN], before_saving=stop)
    with pytest.raises(UnknownFaqError, match="gone, lost: expected ids of FAQs that are there, got 2 that aren't"):
        kb.edit(remove=["pay", "lost", "gone"])
    assert (kb.faqs, kb.version) == (THREE, version(*THREE))


def test_an_edit_without_a_difference_writes_nothing(kb: MilvusKb) -> None:
    edited = kb.edit([PAY])
    assert (bool(edited.made), edited.before, edited.kb.version) == (False, version(*THREE), version(*THREE))


def test_another_process_sees_an_edit_and_edits_on(config: MilvusConfig, kb: MilvusKb) -> None:
    there = MilvusKb(config, HashEmbedder())
    kb.edit([TWIN])
    assert there.edit(remove=["refund"]).before == version(*THREE, TWIN)
    assert (kb.current.version, set(kb.faqs)) == (version(PAY, SHIP, TWIN), {PAY, SHIP, TWIN})
    there.close()


def test_edits_of_two_processes_at_once_leave_the_version_of_what_is_there(config: MilvusConfig, kb: MilvusKb) -> None:
    there = MilvusKb(config, HashEmbedder())
    for round_ in range(5):
        new = [Faq(f"new{round_}-{n}", f"New {n} in {round_}?", "Yes.") for n in range(2)]
        both = [threading.Thread(target=one.edit, args=([faq],)) for one, faq in zip((kb, there), new, strict=True)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        for one in (kb, there):
            assert {faq.id for faq in new} <= {faq.id for faq in one.faqs}
            assert one.current.version == version(*one.faqs)
    there.close()


def test_near_duplicates_are_named_by_any_passage_and_never_the_faq_itself(kb: MilvusKb) -> None:
    same = Faq("same", "Something else entirely", "unlike", paraphrases=("payment methods", "other words"))
    kb.edit([TWIN, same])
    found = {near.faq_id: near for near in kb.near_duplicates(["twin", "same", "ship", "gone"])}
    assert {faq_id: near.other_id for faq_id, near in found.items()} == {"twin": "refund", "same": "pay"}
    assert found["same"].similarity == pytest.approx(1.0, abs=1e-5)
    assert kb.near_duplicates([]) == ()


def test_near_duplicates_of_many_faqs_are_those_of_an_exact_index(config: MilvusConfig) -> None:
    from kb.edits import near_duplicates

    faqs = [*many(150), *(Faq(f"again{n}", faq.question, faq.answer) for n, faq in enumerate(many(150)[:20]))]
    kb, twin = MilvusKb.build(config, HashEmbedder(), faqs), FaqRetriever.build(HashEmbedder(), faqs, kind="flat", lexical_weight=0.0)
    ids = [faq.id for faq in faqs]
    ours, theirs = ({near.faq_id: near.similarity for near in found} for found in (kb.near_duplicates(ids), near_duplicates(twin, ids)))
    assert ours == pytest.approx(theirs, abs=1e-5)
    kb.close()


def test_several_faqs_are_had_at_once(kb: MilvusKb) -> None:
    assert kb.get_many(["ship", "gone", "pay", "pay"]) == {"pay": PAY, "ship": SHIP}
    assert kb.get_many([]) == {}


def test_an_edit_while_milvus_is_away_fails_and_can_be_made_once_it_is_back(tmp_path: Path) -> None:
    server = MilvusServer(tmp_path)
    try:
        config = server.config(timeout=1)
        kb = MilvusKb.build(config, HashEmbedder(), THREE)
        server.kill()
        with pytest.raises(IndexFolderError, match="expected Milvus to answer"):
            kb.edit([TWIN])
        assert kb.get_many([]) == {}
        server.start()
        eventually(kb, "refund")
        assert kb.edit([TWIN]).kb.version == version(*THREE, TWIN)
        kb.close()
    finally:
        server.kill()
