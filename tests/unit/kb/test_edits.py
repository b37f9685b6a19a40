"""Differences, changed copies and the journal: nothing but what differs is embedded, and no journal is half-written."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kb.edits import Difference, Edits, Near, changed, difference, journal_written, near_duplicates, one_editor, read_journal
from kb.embedder import Progress, Vectors
from kb.errors import IndexFolderError, SourceError, UnknownFaqError
from kb.index import Kind
from kb.retriever import FaqRetriever
from kb.types import Faq
from tests.fakes import HashEmbedder

PAY = Faq("pay", "How do I pay?", "By card.", "billing", ("payment",))
REFUND = Faq("refund", "How do I get a refund?", "Within 30 days.")
SHIP = Faq("ship", "Where do you ship?", "To Norway.")
ODD = Faq("odd/ü?#", "", "half a pair \ud83e, a NUL \0, كيف", "", ("", "x"), "https://x.org/ü")


class CountingEmbedder(HashEmbedder):
    """Keeps what it was asked to embed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        self.embedded += texts
        return super().embed(texts, progress=progress)


def test_a_difference_is_by_id_and_content() -> None:
    longer = replace(REFUND, paraphrases=("money back",))
    assert difference((PAY, REFUND), (longer, SHIP)) == Difference((SHIP,), (longer,), ("pay",))
    assert not difference((PAY, REFUND), (REFUND, PAY))
    assert difference((), ()) == Difference()


def test_edits_go_before_what_a_file_says_and_leave_the_rest_in_its_order() -> None:
    edits = Edits().then((replace(PAY, answer="In cash."), SHIP), ("refund",))
    assert edits.applied((REFUND, PAY)) == (replace(PAY, answer="In cash."), SHIP)
    assert edits.then((REFUND,), ("ship",)).applied((REFUND, PAY)) == (REFUND, replace(PAY, answer="In cash."))
    assert edits.applied(()) == (replace(PAY, answer="In cash."), SHIP)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_a_changed_copy_is_what_building_anew_would_give_and_the_old_one_stays(kind: Kind) -> None:
    embedder = CountingEmbedder()
    many = tuple(Faq(f"f{n}", f"How do I do thing {n}?", f"Press {n}.") for n in range(60))
    old = FaqRetriever.build(embedder, (*many, PAY, REFUND), kind=kind)
    found = [old.search(query, k=5) for query in ("pay", "refund", "thing 7")]
    embedder.embedded.clear()
    edit = Difference((SHIP,), (replace(REFUND, answer="Never."),), ("pay", "f7"))
    new = changed(old, embedder, edit)
    assert embedder.embedded == [SHIP.text, "How do I get a refund?\nNever."]
    assert {faq.id: faq for faq in new.faqs} == {faq.id: faq for faq in (*many, SHIP, replace(REFUND, answer="Never.")) if faq.id != "f7"}
    assert new.version == FaqRetriever.build(HashEmbedder(), new.faqs).version
    assert (new.index.kind, new.index.built_kind) == (kind, kind)
    assert new.search("Where do you ship?", k=1)[0].faq == SHIP
    assert "pay" not in {hit.faq.id for hit in new.search("How do I pay?", k=60)}
    assert [old.search(query, k=5) for query in ("pay", "refund", "thing 7")] == found


def test_a_copy_can_be_emptied_and_filled_again() -> None:
    empty = changed(FaqRetriever.build(HashEmbedder(), (PAY,)), HashEmbedder(), Difference(removed=("pay",)))
    assert (empty.faqs, empty.search("pay")) == ((), ())
    assert changed(empty, HashEmbedder(), Difference((SHIP,))).search("ship")[0].faq == SHIP


def test_an_edit_of_what_is_not_there_changes_nothing() -> None:
    old = FaqRetriever.build(HashEmbedder(), (PAY,))
    with pytest.raises(UnknownFaqError, match="ship"):
        changed(old, HashEmbedder(), Difference(removed=("ship",)))
    assert old.faqs == (PAY,)


def test_near_duplicates_are_named_with_the_nearest_other_one() -> None:
    twin = replace(SHIP, id="ship-2")
    retriever = FaqRetriever.build(HashEmbedder(), (PAY, SHIP, twin, replace(REFUND, paraphrases=("payment",))))
    found = near_duplicates(retriever, ("ship-2", "pay"))
    assert [(near.faq_id, near.other_id) for near in found] == [("ship-2", "ship"), ("pay", "refund")]
    assert [near.similarity for near in found] == pytest.approx([1.0, 1.0])
    assert near_duplicates(FaqRetriever.build(HashEmbedder(), (PAY, SHIP)), ("pay", "ship")) == ()
    assert isinstance(found[0], Near)


def test_a_lone_faq_is_nobodys_duplicate() -> None:
    assert near_duplicates(FaqRetriever.build(HashEmbedder(), (PAY,)), ("pay",)) == ()


# --- the journal


def write(path: Path, edits: Edits) -> None:
    with journal_written(path, edits):
        pass


def test_a_journal_comes_back_exactly_however_odd(tmp_path: Path) -> None:
    edits = Edits().then((PAY, ODD), ("refund",))
    write(tmp_path / "edits.json", edits)
    assert read_journal(tmp_path / "edits.json") == edits
    assert [path.name for path in tmp_path.iterdir()] == ["edits.json"]


def test_no_journal_is_no_edits(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "edits.json") == Edits()
    assert read_journal(tmp_path / "none" / "edits.json") == Edits()


def test_a_journal_has_its_name_only_once_what_goes_with_it_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    write(path, Edits().then((PAY,), ()))
    with pytest.raises(ZeroDivisionError), journal_written(path, Edits().then((SHIP,), ())):
        assert read_journal(path) == Edits().then((PAY,), ())
        raise ZeroDivisionError
    assert read_journal(path) == Edits().then((PAY,), ())
    assert [found.name for found in tmp_path.iterdir()] == ["edits.json"]


def test_a_journal_that_can_not_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"none/edits.json: can't be written \(No such file"):
        write(tmp_path / "none" / "edits.json", Edits())


def test_a_damaged_journal_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    """Going on without it would bring deleted FAQs back."""
    path = tmp_path / "edits.json"
    write(path, Edits().then((PAY,), ("refund",)))
    content = path.read_bytes()
    rng = random.Random(0)
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        with pytest.raises(SourceError, match="edits made over HTTP"):
            read_journal(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'{"format": 1}', b'{"format": 1, "edits": 3, "sha256": ""}',
                                     b"[" * 100_000, b"\xff"])
def test_a_journal_of_rubbish_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "edits.json").write_bytes(content)
    with pytest.raises(SourceError, match=r"edits.json: expected the journal.*restore it from a backup"):
        read_journal(tmp_path / "edits.json")


def test_a_journal_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path / "edits.json", Edits().then((PAY,), ("refund",)))
    record = json.loads((tmp_path / "edits.json").read_text())
    assert [(edit["id"], edit["faq"] and edit["faq"]["answer"]) for edit in record["edits"]] == [("pay", "By card."), ("refund", None)]


def test_a_folder_that_is_not_there_has_no_editor(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="expected an index folder"), one_editor(tmp_path / "none"):
        pass


def test_vectors_of_a_copy_are_those_of_the_old_one() -> None:
    old = FaqRetriever.build(HashEmbedder(), (PAY, REFUND, SHIP))
    new = changed(old, HashEmbedder(), Difference(removed=("refund",)))
    for faq_id in ("pay", "ship"):
        assert np.array_equal(new.index.vectors(faq_id), old.index.vectors(faq_id))
