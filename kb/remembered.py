"""Texts whose vectors are known, as the first module of a sentence-transformers model: a frozen encoder that runs once a text.

Leaves out texts that were never embedded: training asks only for those that it was given.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from kb.embedder import Vectors


class Remembered(InputModule):
    """Gives each text its vector."""

    def __init__(self, vectors: Mapping[str, Vectors]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._vectors = vectors

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: object) -> dict[str, Any]:
        """The vectors of the texts, shape (n, dimension)."""
        return {"sentence_embedding": torch.stack([torch.from_numpy(self._vectors[text]) for text in inputs])}

    def forward(self, features: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return features

    def get_embedding_dimension(self) -> int:
        return len(next(iter(self._vectors.values())))

    def save(self, output_path: str, *args: object, **_: object) -> None:
        """Nothing: the vectors are made again."""

    @classmethod
    def load(cls, model_name_or_path: str, *args: object, **_: object) -> Self:
        """One without texts: a checkpoint's other modules are what is loaded for."""
        return cls({})
