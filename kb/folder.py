"""An index on disk: a folder with a JSON manifest, the FAQs as JSON lines, FAISS's own file and the rows' owners.

Data files carry their content hash in their name; saving writes new ones to the side and then replaces `manifest.json`, the
only name that is ever overwritten. A crash leaves the old index or the new one, never half of each. Savers of one folder wait
for each other; readers need not wait. Nothing is pickled.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kb.ann import BuiltKind, faiss_library
from kb.embedder import EmbedderConfig, Runtime
from kb.errors import IndexFolderError
from kb.index import FaqIndex, Kind
from kb.types import Faq

MANIFEST = "manifest.json"
FORMAT = 2
SCORING = 2
"""Changes when the same FAQs and encoder would give other similarities; a part of every version."""
MAPPED_FROM = 256 << 20
"""Bytes of a FAISS file from which it is mapped rather than read. It must then stay where it is while it is searched, as a deleted
file does on a local disk, but not on every network's."""
_OURS = re.compile(r"manifest\.json|\.lock|\.new-.*|faqs-[0-9a-f]{16}\.jsonl|index-[0-9a-f]{16}\.faiss|rows-[0-9a-f]{16}\.json")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index folder holds, and what it was made with."""

    format: int
    model_id: str
    """`Embedder.model_id` of the encoder that made the vectors."""
    model: str
    """Name, folder or hub id by which that encoder is loaded."""
    max_tokens: int
    dimension: int
    faqs: int
    vectors: int
    kind: Kind
    built_kind: BuiltKind
    lexical_weight: float
    """Weight of a query's words in a similarity (`retriever.py`)."""
    runtime: Runtime
    """What runs that encoder."""
    content_hash: str
    """The version of the knowledge base: see `content_version`."""
    files: dict[str, str]
    """Part (`faqs`, `index`, `rows`) to file name, which holds the first digits of its SHA-256."""

    @property
    def encoder(self) -> EmbedderConfig:
        """How the encoder is loaded."""
        return EmbedderConfig(self.model, self.max_tokens, runtime=self.runtime)


def content_version(faqs: Sequence[Faq], model_id: str, lexical_weight: float) -> str:
    """A short hash of every FAQ and of how they are compared with a query, whatever the FAQs' order."""
    digest = hashlib.sha256(f"{SCORING} {model_id} {lexical_weight}".encode())
    for faq in sorted(faqs, key=lambda f: f.id):
        digest.update(repr(faq).encode())
    return digest.hexdigest()[:12]


def save_index(folder: Path, index: FaqIndex, faqs: Sequence[Faq], *, model_id: str, model: str, max_tokens: int,
               lexical_weight: float, runtime: Runtime = "torch") -> Manifest:
    """Write an index; the folder holds the old one whole until the moment it holds the new one.

    Raises: IndexFolderError when the folder can't be written, or is somebody else's.
    """
    packed, owners = index.packed()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name))
        if others and not (folder / MANIFEST).exists():
            raise IndexFolderError(f"{folder}: expected an empty folder or an index, got one with other files ({others[0]}); "
                                   "choose another folder")
        with _locked(folder):
            files = {
                "faqs": _write_hashed(folder, "faqs-{}.jsonl", lambda file: _write_faqs(file, faqs)),
                "index": _write_hashed(folder, "index-{}.faiss", lambda file: _write_faiss(file, packed)),
                "rows": _write_hashed(folder, "rows-{}.json", lambda file: file.write(json.dumps(owners).encode())),
            }
            manifest = Manifest(FORMAT, model_id, model, max_tokens, index.dimension, len(faqs), index.vector_count, index.kind,
                                index.built_kind, lexical_weight, runtime, content_version(faqs, model_id, lexical_weight), files)
            _write_new(folder, lambda file: file.write(_signed(asdict(manifest))), lambda _: MANIFEST)
    except OSError as error:
        raise IndexFolderError(f"{folder}: can't be written ({error.strerror or error}); "
                               "an index that was there is unchanged") from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index folder. Raises: IndexFolderError."""
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IndexFolderError(f"{folder}: expected an index folder with {MANIFEST}, got none; "
                               f"build one with `fetchgate kb build --faqs FILE --out {folder}`") from error
    except (OSError, ValueError, RecursionError) as error:
        raise IndexFolderError(f"{path}: expected a JSON manifest, and it doesn't read ({error}); "
                               "build the index anew") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise IndexFolderError(f"{path}: expected index format {FORMAT}, got {found!r}; build the index anew with this version")
    signature = record.pop("sha256", None)
    if signature != _signature(record):
        raise IndexFolderError(f"{path}: expected content with SHA-256 {signature}, got {_signature(record)}; "
                               "the file is damaged or was edited, build the index anew")
    return Manifest(**record)


def load_index(folder: Path) -> tuple[Manifest, FaqIndex, tuple[Faq, ...]]:
    """Manifest, index and FAQs of a folder, checked against their hashes. Raises: IndexFolderError.

    Files are hashed whole, a mapped one too: 0.8 s for a million FAQs, and a search then finds its pages in memory.
    """
    manifest = read_manifest(folder)
    try:
        return manifest, *_load_parts(folder, manifest)
    except IndexFolderError:
        if read_manifest(folder) == manifest:
            raise
        return load_index(folder)  # a newer index was saved meanwhile, and the files of the older one are gone


def _load_parts(folder: Path, manifest: Manifest) -> tuple[FaqIndex, tuple[Faq, ...]]:
    paths = {part: _checked_file(folder / name) for part, name in manifest.files.items()}
    try:
        owners = json.loads(paths["rows"].read_bytes())
        faqs = _read_faqs(paths["faqs"])
        index = FaqIndex.unpacked(_read_faiss(paths["index"]), owners, manifest.kind)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise IndexFolderError(f"{folder}: expected a readable index, got one that doesn't load ({error}); "
                               "build it anew") from error
    if (index.dimension, len(faqs)) != (manifest.dimension, manifest.faqs) or {faq.id for faq in faqs} != set(owners) - {None}:
        raise IndexFolderError(f"{folder}: expected {manifest.faqs} FAQs of dimension {manifest.dimension}, got {len(faqs)} of "
                               f"{index.dimension}; build the index anew")
    return index, faqs


def _write_faqs(file: BinaryIO, faqs: Sequence[Faq]) -> None:
    """FAQs exactly as they are; `kb.source` is for files that people write."""
    for faq in faqs:
        file.write(json.dumps(asdict(faq)).encode() + b"\n")


def _read_faqs(path: Path) -> tuple[Faq, ...]:
    with path.open(encoding="ascii", newline="\n") as file:  # json.dumps escapes the rest
        return tuple(map(Faq.from_record, map(json.loads, file)))


def _write_faiss(file: BinaryIO, packed: Any) -> None:
    faiss = faiss_library()
    # by our own file: FAISS closes one that the disk had no room for without an error
    faiss.write_index(packed, faiss.PyCallbackIOWriter(file.write))


def _read_faiss(path: Path) -> Any:
    """FAISS's index; a large one is mapped to the file, whose pages all processes share."""
    faiss = faiss_library()
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if path.stat().st_size >= MAPPED_FROM else 0)


def _write_hashed(folder: Path, name: str, write: Callable[[BinaryIO], object]) -> str:
    """Write a data file; its name, with the first digits of its hash for `{}`."""

    def named(path: Path) -> str:
        with path.open("rb") as file:
            return name.format(hashlib.file_digest(file, "sha256").hexdigest()[:16])

    return _write_new(folder, write, named)


def _write_new(folder: Path, write: Callable[[BinaryIO], object], name: Callable[[Path], str]) -> str:
    """Write a file to the side and on to the disk, then give it its name."""
    temporary = folder / f".new-{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        final = name(temporary)
        os.replace(temporary, folder / final)
    finally:
        temporary.unlink(missing_ok=True)
    sync(folder)
    return final


def sync(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _signed(record: dict[str, Any]) -> bytes:
    return (json.dumps({**record, "sha256": _signature(record)}, indent=2) + "\n").encode()


def _signature(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _checked_file(path: Path) -> Path:
    expected = path.stem.rpartition("-")[2]
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IndexFolderError(f"{path}: expected this file of the index, and it can't be read ({error.strerror}); "
                               "build the index anew") from error
    if not digest.startswith(expected):
        raise IndexFolderError(f"{path}: expected content with SHA-256 {expected}…, got {digest[:16]}…; the file is damaged, "
                               "build the index anew")
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One saver at a time, and no litter when it is done or fails; the lock of a process that dies goes with it."""
    with (folder / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            _clean(folder)


def _clean(folder: Path) -> None:
    """Delete the data files that the manifest doesn't name: those of earlier saves, finished or not."""
    named = set(read_manifest(folder).files.values()) if (folder / MANIFEST).exists() else set()
    for path in folder.iterdir():
        if path.name not in {MANIFEST, ".lock"} | named and _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)
