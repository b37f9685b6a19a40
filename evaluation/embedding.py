"""An encoder that reads each text once: a replay embeds the same queries under every setting, threshold and seed.

Leaves out bounds on memory: it is for measuring, and holds what is measured.
"""

from collections.abc import Sequence

import numpy as np

from kb.embedder import Embedder, Progress, Vectors


class RememberingEmbedder:
    """Gives a text the vector that the encoder gave it first."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}

    @property
    def model_id(self) -> str:
        return self._embedder.model_id

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    @property
    def base(self) -> Embedder:
        """What it remembers for."""
        return self._embedder

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """As the encoder embedded them the first time; shape (len(texts), dimension)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors |= dict(zip(new, self._embedder.embed(new, progress=progress), strict=True))
        return np.array([self._vectors[text] for text in texts], dtype=np.float32).reshape(-1, self.dimension)
