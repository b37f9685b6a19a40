"""Vectors of texts that come again: the FAQs' sentences, turn after turn. A bounded memory in front of an encoder.

Leaves out customers' words: they are embedded and forgotten.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kb.embedder import Embedder, Vectors

MAX_KEPT = 20_000
"""Texts; 30 MB at 384 dimensions."""


class VectorMemory:
    """An encoder that remembers, by content, the texts it was told to keep. Safe for many threads."""

    def __init__(self, embedder: Embedder, max_kept: int = MAX_KEPT) -> None:
        self._embedder = embedder
        self._max_kept = max_kept
        self._kept: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, passing: Sequence[str], keep: Sequence[str]) -> tuple[Vectors, Vectors]:
        """Unit vectors of texts to forget and of texts to keep, by one call of the encoder for all that are new."""
        keys = [hashlib.sha256(text.encode()).digest() for text in keep]
        with self._lock:
            known = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: text for key, text in zip(keys, keep, strict=True) if key not in known}
        vectors = self._embedder.embed([*passing, *new.values()])
        known |= zip(new, vectors[len(passing) :], strict=True)
        self._remember(known)
        kept = np.stack([known[key] for key in keys]) if keys else vectors[:0]
        return vectors[: len(passing)], kept

    def _remember(self, known: dict[bytes, NDArray[np.float32]]) -> None:
        with self._lock:
            for key, vector in known.items():
                self._kept[key] = vector
                self._kept.move_to_end(key)
            while len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
