"""Edits of a knowledge base in use: what differs, a copy with the difference made, and the journal of edits that must last.

The journal holds for each FAQ id that was edited over HTTP what was last said of it. It goes before what an FAQ file or a new
index says of that id, so that neither loses the other's changes; whoever deletes the journal drops the edits. Leaves out who
edits and when (`living.py`).
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kb.embedder import Embedder
from kb.errors import IndexFolderError, SourceError
from kb.folder import sync
from kb.retriever import FaqRetriever, embedded
from kb.types import Faq

JOURNAL = "edits.json"
"""Name of the journal in an index folder."""
FORMAT = 1
NEAR = 0.95
"""Cosine from which two FAQs are taken for near-duplicates."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What makes one set of FAQs another."""

    added: tuple[Faq, ...] = ()
    replaced: tuple[Faq, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.removed)


@dataclass(frozen=True, slots=True)
class Near:
    """An FAQ that is nearly the same as another one."""

    faq_id: str
    other_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Edits:
    """The last word on each FAQ id that was edited; None: it was deleted."""

    by_id: Mapping[str, Faq | None] = field(default_factory=dict)

    def then(self, put: Sequence[Faq], remove: Sequence[str]) -> "Edits":
        """These edits and then those."""
        return Edits({**self.by_id, **{faq.id: faq for faq in put}, **dict.fromkeys(remove)})

    def applied(self, faqs: Iterable[Faq]) -> tuple[Faq, ...]:
        """The FAQs with the edits made: each in its place, new ones at the end."""
        return tuple(faq for faq in ({faq.id: faq for faq in faqs} | dict(self.by_id)).values() if faq is not None)


def difference(before: Iterable[Faq], after: Iterable[Faq]) -> Difference:
    """What must be added, replaced and removed, by id and content."""
    old, new = {faq.id: faq for faq in before}, {faq.id: faq for faq in after}
    return Difference(
        added=tuple(faq for faq in new.values() if faq.id not in old),
        replaced=tuple(faq for faq in new.values() if faq.id in old and old[faq.id] != faq),
        removed=tuple(faq_id for faq_id in old if faq_id not in new),
    )


def changed(retriever: FaqRetriever, embedder: Embedder, edit: Difference) -> FaqRetriever:
    """A retriever as that one with the edit made; only what is put is embedded. That one stays as it is and can be searched meanwhile.

    Raises: EmbedderError, UnknownFaqError.
    """
    put = (*edit.added, *edit.replaced)
    vectors = embedded(embedder, put)
    copy = retriever.index.copy()
    if edit.removed:
        copy.remove(edit.removed)
    if put:
        copy.put(vectors)
    return FaqRetriever(embedder, copy, Edits().then(put, edit.removed).applied(retriever.faqs), lexical_weight=retriever.lexical_weight)


def near_duplicates(retriever: FaqRetriever, faq_ids: Iterable[str]) -> tuple[Near, ...]:
    """Those of the FAQs that have another one at `NEAR` or above, with the nearest such one."""
    found = []
    for faq_id in faq_ids:
        beside = (hit for vector in retriever.index.vectors(faq_id) for hit in retriever.index.search(vector, k=2))
        nearest = max((hit for hit in beside if hit.faq_id != faq_id), key=lambda hit: hit.similarity, default=None)
        if nearest is not None and nearest.similarity >= NEAR:
            found.append(Near(faq_id, nearest.faq_id, nearest.similarity))
    return tuple(found)


def read_journal(path: Path) -> Edits:
    """The edits of a journal; none where there is no journal.

    Raises: SourceError when it is damaged: going on without it would bring deleted FAQs back.
    """
    try:
        record = json.loads(path.read_bytes())
        if record["format"] != FORMAT or record["sha256"] != _signature(record["edits"]):
            raise ValueError(f"expected format {FORMAT} and the SHA-256 that it names")
        return Edits({edit["id"]: edit["faq"] and Faq.from_record(edit["faq"]) for edit in record["edits"]})
    except (FileNotFoundError, NotADirectoryError):
        return Edits()
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise SourceError(f"{path}: expected the journal of edits made over HTTP, and it doesn't read ({error}); restore it from a "
                          "backup, or delete it and make these edits again") from error


@contextmanager
def journal_written(path: Path, edits: Edits) -> Iterator[None]:
    """Write a journal: on the disk before the block, under its name after it, and gone again if the block raises.

    So the block can save what goes with it, and what needs room on the disk is done before either counts.
    Raises: IndexFolderError.
    """
    new = path.with_name(f".{path.name}.new")
    records = [{"id": faq_id, "faq": faq and asdict(faq)} for faq_id, faq in edits.by_id.items()]
    try:
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump({"format": FORMAT, "edits": records, "sha256": _signature(records)}, file)
                file.flush()
                os.fsync(file.fileno())
            yield
            os.replace(new, path)
            sync(path.parent)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise IndexFolderError(f"{path}: can't be written ({error.strerror or error}); nothing was changed") from error


@contextmanager
def one_editor(folder: Path) -> Iterator[None]:
    """One at a time, among all processes, to read an index folder and save it changed. The lock of a process that dies goes with it.

    It is the folder's own, beside the one that `save_index` takes for its writing. Raises: IndexFolderError.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise IndexFolderError(f"{folder}: expected an index folder, and it can't be opened ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _signature(records: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
