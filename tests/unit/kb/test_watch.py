"""Changes of a real file, seen as they come."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from kb.edits import Difference
from kb.errors import SourceError
from kb.living import LivingKb
from kb.source import write_faqs
from kb.watch import changes
from tests.unit.kb.test_edits import PAY, REFUND, SHIP
from tests.unit.kb.test_living import from_file, from_folder

LIMIT = 20.0
"""Seconds within which a change must be seen; it takes one or two."""
Seen = Queue[Difference | Exception]


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def seen(kb: LivingKb, folder: Path, stop: threading.Event) -> tuple[Seen, threading.Thread]:
    """Changes, as a thread sees them."""
    found: Seen = Queue()

    def see() -> None:
        for change in changes(kb, folder, stop):
            found.put(change)

    thread = threading.Thread(target=see)
    thread.start()
    return found, thread


def test_changes_of_a_file_come_one_by_one_and_errors_among_them(tmp_path: Path, stop: threading.Event) -> None:
    kb, file = from_file(tmp_path), tmp_path / "faqs.jsonl"
    found, thread = seen(kb, tmp_path, stop)
    write_faqs(file, (PAY, REFUND, SHIP))
    assert found.get(timeout=LIMIT) == Difference((SHIP,))
    file.write_text("{")
    error = found.get(timeout=LIMIT)
    assert isinstance(error, SourceError)
    assert "faqs.jsonl:1: expected one JSON object" in str(error)
    write_faqs(tmp_path / "new", (PAY,))
    os.replace(tmp_path / "new", file)  # as editors save
    assert found.get(timeout=LIMIT) == Difference(removed=("refund", "ship"))
    stop.set()
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert found.empty()


def test_a_link_that_is_turned_to_another_file_is_a_change(tmp_path: Path, stop: threading.Event) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_faqs(tmp_path / "elsewhere" / "1.jsonl", (PAY,))
    write_faqs(tmp_path / "elsewhere" / "2.jsonl", (SHIP,))
    (tmp_path / "elsewhere" / "link").symlink_to("1.jsonl")
    (tmp_path / "faqs.jsonl").symlink_to(tmp_path / "elsewhere" / "link")
    kb = from_file(tmp_path)
    found, _ = seen(kb, tmp_path, stop)
    (tmp_path / "elsewhere" / "new").symlink_to("2.jsonl")
    os.replace(tmp_path / "elsewhere" / "new", tmp_path / "elsewhere" / "link")  # nothing happens in the folder that is watched
    assert found.get(timeout=LIMIT) == Difference((SHIP,), (), ("pay",))


def test_a_folder_that_another_process_saves_is_taken_in(tmp_path: Path, stop: threading.Event) -> None:
    kb, other = from_folder(tmp_path), from_folder(tmp_path)
    found, _ = seen(kb, tmp_path / "kb", stop)
    other.edit((SHIP,), ("pay",))
    assert found.get(timeout=LIMIT) == Difference((SHIP,), (), ("pay",))
    kb.edit(remove=("ship",))
    with pytest.raises(Empty):  # its own edit is no change to it
        found.get(timeout=3)


def test_a_folder_that_can_not_be_watched_is_looked_at(tmp_path: Path, stop: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    kb = from_file(tmp_path)
    found, _ = seen(kb, tmp_path / "none", stop)
    write_faqs(tmp_path / "faqs.jsonl", (PAY,))
    assert found.get(timeout=LIMIT) == Difference(removed=("refund",))
    assert "can't be watched" in caplog.text
