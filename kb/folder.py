"""An index on disk: a folder with a JSON manifest, the FAQs as JSON lines, FAISS's own file and the rows' owners.

Data files carry their content hash in their name; saving writes new ones to the side and then replaces `manifest.json`, the
only name that is ever overwritten. A crash leaves the old index or the new one, never half of each. Nothing is pickled.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from kb.errors import IndexFolderError, SourceError
from kb.index import FaqIndex, Kind
from kb.source import read_faqs, write_faqs
from kb.types import Faq

MANIFEST = "manifest.json"
FORMAT = 1


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
    built_kind: str
    content_hash: str
    """SHA-256 over FAQs, vectors and rows: the version of the knowledge base."""
    files: dict[str, str]
    """Part (`faqs`, `index`, `rows`) to file name, which holds the first digits of its SHA-256."""


def save_index(folder: Path, index: FaqIndex, faqs: tuple[Faq, ...], *, model_id: str, model: str, max_tokens: int) -> Manifest:
    """Write an index; the folder holds the old one whole until the moment it holds the new one.

    Raises: IndexFolderError when the folder can't be written, or is somebody else's.
    """
    packed, owners = index.packed()
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
            raise IndexFolderError(f"{folder}: expected an empty folder or an index, got one with other files; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        files, digests = {}, []
        for part, suffix, write in (
            ("faqs", ".jsonl", lambda path: write_faqs(path, faqs)),
            ("index", ".faiss", lambda path: _write_faiss(path, packed)),
            ("rows", ".json", lambda path: path.write_text(json.dumps(owners))),
        ):
            files[part], digest = _write_hashed(folder, part, suffix, write)
            digests.append(digest)
        manifest = Manifest(FORMAT, model_id, model, max_tokens, index.dimension, len(faqs), len(owners), index.kind,
                            index.built_kind, hashlib.sha256("".join(digests).encode()).hexdigest(), files)
        _replace(folder / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
    except OSError as error:
        raise IndexFolderError(f"{folder}: can't be written ({error.strerror or error}); the index that was there is unchanged") from error
    _clean(folder, keep=set(files.values()))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index folder. Raises: IndexFolderError."""
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise IndexFolderError(f"{folder}: expected an index folder with {MANIFEST}, got none; "
                               f"build one with `fetchgate kb build --faqs FILE --out {folder}`") from error
    except (OSError, ValueError) as error:
        raise IndexFolderError(f"{path}: expected a JSON manifest, and it doesn't read ({error}); build the index anew") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise IndexFolderError(f"{path}: expected index format {FORMAT}, got {record.get('format') if isinstance(record, dict) else record!r}; "
                               "build the index anew with this version")
    try:
        manifest = Manifest(**record)
        complete = set(manifest.files) == {"faqs", "index", "rows"} and manifest.kind in get_args(Kind)
    except TypeError as error:
        raise IndexFolderError(f"{path}: expected the manifest's fields, and they don't fit ({error}); build the index anew") from error
    if not complete:
        raise IndexFolderError(f"{path}: expected the files faqs, index and rows, got {manifest.files}; build the index anew")
    return manifest


def load_index(folder: Path) -> tuple[Manifest, FaqIndex, tuple[Faq, ...]]:
    """Manifest, index and FAQs of a folder, checked against their hashes. Raises: IndexFolderError."""
    import faiss

    manifest = read_manifest(folder)
    paths = {part: _checked_file(folder, name) for part, name in manifest.files.items()}
    try:
        packed = faiss.read_index(str(paths["index"]))
        owners = json.loads(paths["rows"].read_text(encoding="utf-8"))
        faqs = read_faqs(paths["faqs"])
        index = FaqIndex.unpacked(packed, owners, manifest.kind)
    except (RuntimeError, ValueError, OSError, SourceError) as error:
        raise IndexFolderError(f"{folder}: expected a readable index, got one that doesn't load ({error}); build it anew") from error
    if (index.dimension, len(faqs)) != (manifest.dimension, manifest.faqs) or {faq.id for faq in faqs} != set(owners):
        raise IndexFolderError(f"{folder}: expected {manifest.faqs} FAQs of dimension {manifest.dimension}, got {len(faqs)} of "
                               f"{index.dimension}; build the index anew")
    return manifest, index, faqs


def _write_faiss(path: Path, packed: Any) -> None:
    import faiss

    try:
        faiss.write_index(packed, str(path))
    except RuntimeError as error:  # FAISS's only word for a full disk
        raise OSError(f"FAISS could not write: {error}") from error


def _write_hashed(folder: Path, part: str, suffix: str, write: Callable[[Path], object]) -> tuple[str, str]:
    """Write a part under the name of its hash; (file name, SHA-256)."""
    temporary = folder / f".{part}.{os.getpid()}{suffix}"
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"{part}-{digest[:16]}{suffix}"
        os.replace(temporary, folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    return name, digest


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _checked_file(folder: Path, name: str) -> Path:
    path = folder / Path(name).name
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


def _clean(folder: Path, keep: set[str]) -> None:
    """Delete the data files of earlier saves; what can't be deleted only takes room."""
    for pattern in ("faqs-*.jsonl", "index-*.faiss", "rows-*.json"):
        for path in folder.glob(pattern):
            if path.name not in keep:
                path.unlink(missing_ok=True)
