"""A tuned encoder that is small enough to ship: another encoder's vectors, turned by one learned matrix.

The folder holds `tuning.json` (which encoder, checked by hash), `projection.safetensors` and a card. Leaves out training
(`finetune.py`) and encoders whose own weights were trained: those are whole sentence-transformers folders.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from kb.embedder import Embedder, Progress, Vectors
from kb.errors import EmbedderError

TUNING = "tuning.json"
WEIGHTS = "projection.safetensors"
FORMAT = 1
Method = Literal["projection", "lora", "top-layers", "full"]
"""What `finetune.py` trains; the first gives such a folder, the others a whole encoder."""
Loss = Literal["infonce", "triplet"]


class ProjectedEmbedder:
    """`normalised(P v)` of another encoder's vectors v, for the matrix P, shape (dimension, dimension)."""

    def __init__(self, base: Embedder, projection: Vectors, name: str) -> None:
        if projection.shape != (base.dimension, base.dimension):
            raise EmbedderError(f"{name}: expected a projection of shape {(base.dimension, base.dimension)}, got {projection.shape}; "
                                "train it with this encoder")
        self._base, self._projection = base, projection.astype(np.float32)
        self._model_id = f"{name}@{hashlib.sha256(self._projection.tobytes()).hexdigest()[:12]}+{base.model_id}"

    @property
    def base(self) -> Embedder:
        """The encoder below."""
        return self._base

    @property
    def model_id(self) -> str:
        """The folder's name, first digits of the matrix's SHA-256, and the encoder below."""
        return self._model_id

    @property
    def dimension(self) -> int:
        return self._base.dimension

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Unit vectors, shape (n, dimension). Raises: as the encoder below."""
        return projected(self._base.embed(texts, progress=progress), self._projection)


def untuned(embedder: Embedder) -> Embedder:
    """The encoder below all that was put on it: what other uses than finding FAQs were measured with."""
    while (base := getattr(embedder, "base", None)) is not None:
        embedder = base
    return embedder


def projected(vectors: Vectors, projection: Vectors) -> Vectors:
    """Unit vectors along `P v`, shape (n, dimension)."""
    turned: Vectors = vectors @ projection.T
    lengths = np.linalg.norm(turned, axis=1, keepdims=True)
    unit: Vectors = turned / np.maximum(lengths, np.float32(1e-9))
    return unit


def save_projection(folder: Path, projection: Vectors, *, model: str, base_id: str) -> None:
    """Write the folder's two files; the matrix in half precision. `model` is how the encoder below is loaded.

    Raises: EmbedderError for a matrix that half precision can't hold.
    """
    from safetensors.numpy import save_file

    largest = np.abs(projection).max()
    if not largest <= np.finfo(np.float16).max:  # nan isn't
        raise EmbedderError(f"projection: expected weights up to {np.finfo(np.float16).max:.0f}, got {largest:g}; lower the learning rate")
    save_file({"projection": projection.astype(np.float16)}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # the library keeps it from other users
    (folder / TUNING).write_text(json.dumps({"format": FORMAT, "model": model, "base": base_id}, indent=2) + "\n", encoding="utf-8")


def is_projection(folder: Path) -> bool:
    return (folder / TUNING).is_file()


def base_model(folder: Path) -> str:
    """How the encoder below is loaded. Raises: EmbedderError."""
    return _tuning(folder)["model"]


def load_projection(folder: Path, base: Embedder) -> ProjectedEmbedder:
    """The tuned encoder of a folder. Raises: EmbedderError when it is damaged or was trained on another encoder."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    trained_on, here = _weights_of(_tuning(folder)["base"]), _weights_of(base.model_id)
    if trained_on != here:
        raise EmbedderError(f"{folder}: expected the encoder {trained_on} that it was trained on, got {here}; train it anew")
    try:
        projection = load_file(folder / WEIGHTS)["projection"]
    except (OSError, SafetensorError, KeyError) as error:
        raise EmbedderError(f"{folder / WEIGHTS}: expected the learned matrix, and it doesn't load ({error}); train it anew") from error
    if not np.isfinite(projection).all():
        raise EmbedderError(f"{folder / WEIGHTS}: expected finite weights, got NaN or infinity; train it anew")
    return ProjectedEmbedder(base, projection, folder.resolve().name)


def _tuning(folder: Path) -> dict[str, str]:
    try:
        record = json.loads((folder / TUNING).read_bytes())
    except (OSError, ValueError) as error:
        raise EmbedderError(f"{folder / TUNING}: expected a JSON object, and it doesn't read ({error}); train the encoder anew") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or not all(isinstance(record.get(k), str) for k in ("model", "base")):
        raise EmbedderError(f"{folder / TUNING}: expected format {FORMAT} with `model` and `base`, got another; train the encoder anew")
    return record


def _weights_of(model_id: str) -> str:
    """Name and weights of an encoder, without how many tokens it reads and what runs it."""
    name, _, rest = model_id.rpartition("@")
    return f"{name}@{rest.partition('/')[0]}"
