"""A knowledge base in use: edits last, fail whole, and lose nothing that others do to its file or folder at the same time."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kb.calibrate import CALIBRATION
from kb.edits import JOURNAL
from kb.embedder import EmbedderConfig, Vectors
from kb.errors import EmbedderError, IndexFolderError, SourceError, UnknownFaqError
from kb.index import passages
from kb.living import Home, LivingKb
from kb.retriever import FaqRetriever
from kb.source import write_faqs
from kb.types import Faq
from tests.conftest import ROOT
from tests.fakes import HashEmbedder
from tests.unit.kb.test_edits import PAY, REFUND, SHIP, CountingEmbedder

CASH = replace(PAY, answer="In cash.")
Open = Callable[[], LivingKb]


def from_folder(tmp_path: Path, embedder: HashEmbedder | None = None) -> LivingKb:
    folder = tmp_path / "kb"
    if not folder.exists():
        FaqRetriever.build(HashEmbedder(), (PAY, REFUND)).save(folder, model="hash", max_tokens=7)
    return LivingKb(embedder or HashEmbedder(), Home(folder, EmbedderConfig("hash", 7), folder / JOURNAL, folder / CALIBRATION))


def from_file(tmp_path: Path, embedder: HashEmbedder | None = None) -> LivingKb:
    file = tmp_path / "faqs.jsonl"
    if not file.exists():
        write_faqs(file, (PAY, REFUND))
    return LivingKb(embedder or HashEmbedder(), Home(tmp_path / "data" / "kb", EmbedderConfig("hash", 7), tmp_path / "data" / "edits.json",
                                                    tmp_path / "data" / CALIBRATION, file))


@pytest.fixture(params=[from_folder, from_file])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the one knowledge base of the test, as a process does when it starts."""
    return lambda: request.param(tmp_path)


def ids(kb: LivingKb) -> set[str]:
    return {faq.id for faq in kb.faqs}


def test_an_edit_is_found_at_once_and_after_a_restart(reopen: Open) -> None:
    kb = reopen()
    before = kb.version
    edited = kb.edit((SHIP, CASH), ("refund",))
    assert (edited.before, edited.kb.version) == (before, kb.version)
    assert ([faq.id for faq in edited.made.added], [faq.id for faq in edited.made.replaced], edited.made.removed) == (
        ["ship"], ["pay"], ("refund",))
    for now in (kb, reopen()):
        assert {faq.id: faq for faq in now.faqs} == {"ship": SHIP, "pay": CASH}
        assert now.search("Where do you ship?", k=1)[0].faq == SHIP
        assert now.get("refund") is None
        assert "refund" not in {hit.faq.id for hit in now.search("How do I get a refund?", k=9)}
        assert now.compare("refund", "pay", ("refund", "pay")).faqs[0] is None
        assert now.version == kb.version


def test_an_edit_that_says_what_is_there_already_changes_nothing(reopen: Open) -> None:
    kb = reopen()
    edited = kb.edit((PAY,))
    assert not edited.made
    assert edited.before == edited.kb.version


def test_a_deleted_id_that_is_added_again_answers_with_its_new_text_alone(reopen: Open) -> None:
    kb = reopen()
    kb.edit(remove=("pay",))
    kb.edit((CASH,))
    for now in (kb, reopen()):
        assert [hit.faq for hit in now.search("How do I pay?", k=9) if hit.faq.id == "pay"] == [CASH]


def test_an_unknown_id_stops_the_whole_edit(reopen: Open) -> None:
    kb = reopen()
    with pytest.raises(UnknownFaqError, match="nope: expected ids of FAQs that are there, got 1 that aren't"):
        kb.edit((SHIP,), ("pay", "nope"))
    assert ids(kb) == ids(reopen()) == {"pay", "refund"}


def test_an_edit_that_is_refused_before_saving_leaves_no_trace(reopen: Open) -> None:
    kb = reopen()

    def refuse(before: str, after: str) -> None:
        assert before == kb.version != after
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kb.edit((SHIP,), before_saving=refuse)
    assert ids(kb) == ids(reopen()) == {"pay", "refund"}


@contextmanager
def no_room() -> Iterator[None]:
    """Files can't grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_an_edit_that_the_disk_has_no_room_for_is_undone_whole_and_can_be_made_later(reopen: Open) -> None:
    kb = reopen()
    with no_room(), pytest.raises(IndexFolderError, match="File too large"):
        kb.edit((replace(SHIP, answer="far " * 500),), ("pay",))
    assert ids(kb) == {"pay", "refund"}
    assert kb.search("How do I pay?", k=1)[0].faq == PAY
    assert ids(reopen()) == {"pay", "refund"}
    kb.edit((SHIP,), ("pay",))
    assert ids(kb) == ids(reopen()) == {"refund", "ship"}


def test_an_edit_that_can_not_be_embedded_is_undone_whole(tmp_path: Path) -> None:
    class Broken(HashEmbedder):
        def embed(self, texts, *, progress=None) -> Vectors:  # type: ignore[no-untyped-def]
            if SHIP.text in texts:
                raise EmbedderError("the weights are damaged")
            return super().embed(texts, progress=progress)

    kb = from_folder(tmp_path, Broken())
    with pytest.raises(EmbedderError):
        kb.edit((SHIP,), ("pay",))
    assert ids(kb) == {"pay", "refund"}


def test_searches_go_on_while_an_edit_is_embedded(tmp_path: Path) -> None:
    embedding, go_on = threading.Event(), threading.Event()

    class Slow(HashEmbedder):
        def embed(self, texts, *, progress=None) -> Vectors:  # type: ignore[no-untyped-def]
            if SHIP.text in texts:
                embedding.set()
                assert go_on.wait(20)
            return super().embed(texts, progress=progress)

    kb = from_folder(tmp_path, Slow())
    thread = threading.Thread(target=kb.edit, args=((SHIP,), ("pay",)))
    thread.start()
    assert embedding.wait(20)
    assert {hit.faq.id for hit in kb.search("How do I pay?")} == {"pay", "refund"}
    go_on.set()
    thread.join(20)
    assert {hit.faq.id for hit in kb.search("How do I pay?")} == {"ship", "refund"}


def test_many_edits_at_once_are_all_made_and_every_search_sees_one_whole_state(reopen: Open) -> None:
    kb = reopen()
    pairs = [(Faq(f"a{n}", f"Question a {n}?", "A."), Faq(f"b{n}", f"Question b {n}?", "B.")) for n in range(12)]
    threads = [threading.Thread(target=kb.edit, args=(pair,)) for pair in pairs]
    for thread in threads:
        thread.start()
    torn = 0
    while any(thread.is_alive() for thread in threads):
        seen = {faq.id for faq in kb.faqs}
        torn += sum((f"a{n}" in seen) != (f"b{n}" in seen) for n in range(12))
        assert kb.search("Question a 3?", k=40)
    assert torn == 0
    expected = {"pay", "refund"} | {faq.id for pair in pairs for faq in pair}
    assert ids(kb) == ids(reopen()) == expected


# --- others change the file or the folder


def test_a_changed_file_is_taken_in_under_the_edits_and_only_what_changed_is_embedded(tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    kb = from_file(tmp_path, embedder)
    kb.edit((SHIP,), ("refund",))
    embedder.embedded.clear()
    write_faqs(tmp_path / "faqs.jsonl", (CASH, REFUND, Faq("new", "Anything new?", "Yes.")))
    assert kb.refresh() is None, "a file that is still being written waits"
    made = kb.refresh()
    assert made is not None
    assert ([faq.id for faq in made.added], [faq.id for faq in made.replaced], made.removed) == (["new"], ["pay"], ())
    assert embedder.embedded == ["Anything new?\nYes.", CASH.text, "payment"]
    assert ids(kb) == {"pay", "ship", "new"}
    assert kb.refresh() is None
    embedder.embedded.clear()
    assert ids(from_file(tmp_path, embedder)) == ids(kb)
    assert embedder.embedded == [], "a restart embeds nothing that is kept"


def test_the_file_may_change_while_nothing_runs_and_a_deleted_faq_stays_deleted(tmp_path: Path) -> None:
    from_file(tmp_path).edit(remove=("pay",))
    write_faqs(tmp_path / "faqs.jsonl", (CASH, SHIP))
    assert ids(from_file(tmp_path)) == {"ship"}


def test_edits_of_a_file_outlive_its_encoder(tmp_path: Path) -> None:
    from_file(tmp_path).edit((SHIP,), ("pay",))
    assert ids(from_file(tmp_path, HashEmbedder(32))) == {"refund", "ship"}


@pytest.mark.parametrize("broken", ['{"id": "x"', "", '{"id": "x", "question": 5, "answer": ""}'])
def test_a_broken_file_is_reported_once_and_the_old_state_stays(tmp_path: Path, broken: str) -> None:
    kb = from_file(tmp_path)
    (tmp_path / "faqs.jsonl").write_text(broken)
    kb.refresh()
    with pytest.raises(SourceError, match=r"faqs\.jsonl:"):
        kb.refresh()
    assert kb.refresh() is None
    assert ids(kb) == {"pay", "refund"}
    write_faqs(tmp_path / "faqs.jsonl", (SHIP,))
    assert kb.refresh(settled=True)
    assert ids(kb) == {"ship"}


def test_a_file_that_is_gone_for_a_moment_does_no_harm(tmp_path: Path) -> None:
    kb = from_file(tmp_path)
    (tmp_path / "faqs.jsonl").unlink()
    assert kb.refresh() is None
    write_faqs(tmp_path / "faqs.jsonl", (SHIP,))
    assert kb.refresh() is None
    assert kb.refresh()
    assert ids(kb) == {"ship"}


def test_a_replaced_folder_is_taken_in_under_the_edits(tmp_path: Path) -> None:
    kb = from_folder(tmp_path)
    kb.edit((SHIP,), ("pay",))
    FaqRetriever.build(HashEmbedder(), (PAY, REFUND, Faq("new", "Anything new?", "Yes."))).save(tmp_path / "kb", model="hash", max_tokens=7)
    kb.refresh()
    assert kb.refresh()
    assert ids(kb) == {"refund", "new", "ship"} == ids(from_folder(tmp_path))
    assert kb.refresh() is None


def test_an_edit_does_not_undo_what_was_saved_to_the_folder_a_moment_before(tmp_path: Path) -> None:
    kb = from_folder(tmp_path)
    FaqRetriever.build(HashEmbedder(), (PAY, Faq("new", "Anything new?", "Yes."))).save(tmp_path / "kb", model="hash", max_tokens=7)
    kb.edit((SHIP,))
    assert ids(kb) == ids(from_folder(tmp_path)) == {"pay", "new", "ship"}


def test_two_services_of_one_folder_keep_each_others_edits(tmp_path: Path) -> None:
    one, other = from_folder(tmp_path), from_folder(tmp_path)
    one.edit((SHIP,))
    other.edit(remove=("pay",))
    one.refresh(settled=True)
    assert ids(one) == ids(other) == ids(from_folder(tmp_path)) == {"refund", "ship"}


def test_an_index_of_another_encoder_is_refused_and_edits_do_not_write_over_it(tmp_path: Path) -> None:
    kb = from_folder(tmp_path)
    FaqRetriever.build(HashEmbedder(32), (SHIP,)).save(tmp_path / "kb", model="other", max_tokens=7)
    with pytest.raises(IndexFolderError, match="expected the encoder hash/32 that made this index, got hash/64"):
        kb.refresh(settled=True)
    assert kb.refresh() is None, "said once"
    assert ids(kb) == {"pay", "refund"}
    with pytest.raises(IndexFolderError, match="hash/32"):
        kb.edit((SHIP,))
    assert ids(kb) == {"pay", "refund"}
    FaqRetriever.build(HashEmbedder(), (SHIP,)).save(tmp_path / "kb", model="hash", max_tokens=7)
    assert kb.refresh(settled=True)
    assert ids(kb) == {"ship"}


def test_a_damaged_journal_stops_the_start_instead_of_bringing_deleted_faqs_back(reopen: Open, tmp_path: Path) -> None:
    reopen().edit(remove=("pay",))
    [journal] = tmp_path.rglob("edits.json")
    journal.write_bytes(journal.read_bytes()[:-5])
    with pytest.raises(SourceError, match="edits made over HTTP"):
        reopen()


# --- crashes


EDIT_FOR_EVER = """
import itertools, sys
from pathlib import Path
from kb.types import Faq
from tests.unit.kb.test_living import from_file, from_folder
kb = {"folder": from_folder, "file": from_file}[sys.argv[2]](Path(sys.argv[1]))
print("ready", flush=True)
for n in itertools.count(len(kb.faqs)):
    kb.edit((Faq(f"n{n}", f"Question {n}?", f"Answer {n}."), Faq("last", "Which is the last?", str(n))))
    print(n, flush=True)
"""


@pytest.mark.parametrize("where", ["folder", "file"])
def test_a_process_killed_in_mid_edit_leaves_every_edit_that_it_acknowledged_and_no_half_one(tmp_path: Path, where: str) -> None:
    rng = random.Random(0)
    acknowledged: list[int] = []
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", EDIT_FOR_EVER, str(tmp_path), where], cwd=ROOT, text=True, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        acknowledged += [int(process.stdout.readline()) for _ in range(rng.randrange(2, 6))]
        for _ in range(rng.randrange(200_000)):  # somewhere in an edit
            pass
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += map(int, process.communicate()[0].split())
        kb = {"folder": from_folder, "file": from_file}[where](tmp_path)
        there = {int(faq.id[1:]) for faq in kb.faqs if faq.id.startswith("n")}
        assert set(acknowledged) <= there
        last = kb.get("last")
        assert last is not None
        assert int(last.answer) == max(there), "both FAQs of an edit are there, or neither"
    assert len(acknowledged) > 8


def test_a_first_start_begins_from_the_shipped_index_and_embeds_only_what_differs(tmp_path: Path) -> None:
    shipped, file = tmp_path / "shipped", tmp_path / "faqs.jsonl"
    FaqRetriever.build(HashEmbedder(), (PAY, REFUND)).save(shipped, model="hash", max_tokens=7)
    write_faqs(file, (PAY, REFUND, SHIP))
    embedder = CountingEmbedder()
    home = Home(tmp_path / "kept", EmbedderConfig("hash", 7), tmp_path / "edits.json", tmp_path / CALIBRATION, file, shipped)
    before = sorted(path.read_bytes() for path in shipped.iterdir())
    kb = LivingKb(embedder, home)
    assert ids(kb) == {"pay", "refund", "ship"}
    assert set(embedder.embedded) == set(passages(SHIP))
    kb.edit(put=[CASH])
    assert sorted(path.read_bytes() for path in shipped.iterdir()) == before, "it is only read"
    assert LivingKb(HashEmbedder(), home).get("pay") == CASH
