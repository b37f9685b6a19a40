"""Another look at what a search found: a cross-encoder reads the query and each FAQ together, and orders the first hits anew.

Only the order changes: a hit's similarity stays the retrieval's, so that thresholds mean the same. Off unless configured; slower than
the search by far, as every hit is a pass of the model. Leaves out training.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from kb.embedder import encodable, first_line, model_folder
from kb.errors import EmbedderError, KbError
from kb.retriever import NO_MINIMUM
from kb.types import Comparison, Faq, Hit

logger = logging.getLogger(__name__)

TOP = 20
"""Hits of a search that are ordered anew."""
MAX_TOKENS = 256
"""Read of a query and an FAQ together."""
LONGEST = 8000
"""Characters given of each, far above what these tokens hold."""


class Reranker(Protocol):
    """Says how well texts fit a query."""

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """A number for each text; higher fits better. Only their order means something."""


class Searchable(Protocol):
    """What a search is made in."""

    @property
    def version(self) -> str: ...

    def get(self, faq_id: str) -> Faq | None: ...

    def search(self, query: str, *, k: int, min_similarity: float, previous: str | None = None) -> tuple[Hit, ...]: ...

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison: ...


class CrossEncoderReranker:
    """A cross-encoder of sentence-transformers with one output. May be used from several threads, one at a time."""

    def __init__(self, model: str, *, device: str = "cpu", max_tokens: int = MAX_TOKENS, batch_size: int = TOP) -> None:
        """`model` is a folder or a hub id, with safetensors weights; code that comes with it is never run. Raises: EmbedderError."""
        self._name = model
        self._batch_size = batch_size
        self._model, self._raw = _load(model, device, max_tokens)
        self._one = threading.Lock()  # padding and truncation are the tokenizer's state

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """As the port. Raises: EmbedderError when a score isn't finite."""
        pairs = [(encodable(query[:LONGEST]), encodable(text[:LONGEST])) for text in texts]
        with self._one:
            scores = np.asarray(self._model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False, activation_fn=self._raw))
        if not np.isfinite(scores).all():
            raise EmbedderError(f"{self._name}: expected finite scores, got NaN or infinity; the weights are damaged")
        return [float(score) for score in scores]


class RerankedRetriever:
    """A Retriever whose first hits are ordered by a reranker; all else is as in the one below."""

    def __init__(self, retriever: Searchable, reranker: Reranker, *, top: int = TOP) -> None:
        """`top` is how many hits are ordered anew."""
        if top < 2:
            raise ValueError(f"top: expected at least 2 hits to order, got {top}")
        self._retriever = retriever
        self._reranker = reranker
        self._top = top

    @property
    def version(self) -> str:
        return self._retriever.version

    def get(self, faq_id: str) -> Faq | None:
        return self._retriever.get(faq_id)

    def get_many(self, faq_ids: Iterable[str]) -> dict[str, Faq]:
        """Those of the FAQs that are there, by id; in one request where the one below can."""
        if (several := getattr(self._retriever, "get_many", None)) is not None:
            return dict(several(faq_ids))
        return {faq_id: faq for faq_id in faq_ids if (faq := self._retriever.get(faq_id)) is not None}

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison:
        return self._retriever.compare(query, previous, faq_ids)

    def search(
        self, query: str, *, k: int = 3, min_similarity: float = NO_MINIMUM, previous: str | None = None
    ) -> tuple[Hit, ...]:
        """At most k FAQs with a similarity of at least `min_similarity`, those that fit best first.

        Confidence and leave to answer alone are of the FAQ that was first before: they go when another one is. When the reranker fails,
        the order is the retrieval's.
        """
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        hits = self._retriever.search(query, k=max(k, self._top), min_similarity=min_similarity, previous=previous)
        return (*self._ordered(query, hits[: self._top]), *hits[self._top :])[:k]

    def _ordered(self, query: str, hits: tuple[Hit, ...]) -> tuple[Hit, ...]:
        if len(hits) < 2:
            return hits
        try:
            scores = self._reranker.score(query, [hit.faq.text for hit in hits])
        except (KbError, RuntimeError):  # RuntimeError is what torch raises
            logger.exception("the reranker failed; the order is the retrieval's")
            return hits
        order = sorted(range(len(hits)), key=lambda n: -scores[n])  # stable: of equals the nearer one stays first
        if order[0] == 0:
            return tuple(hits[n] for n in order)
        return tuple(replace(hits[n], confidence=None, alone="never") for n in order)


def _load(model: str, device: str, max_tokens: int) -> tuple[Any, Any]:
    """The CrossEncoder, and the function that leaves its scores as they are: a sigmoid makes equals of the best ones."""
    folder = model_folder(model, expected="a cross-encoder of sentence-transformers")
    if not list(folder.rglob("*.safetensors")):
        raise EmbedderError(f"{folder}: expected model.safetensors in it, got none; only safetensors weights are loaded")
    # imported here: torch takes seconds
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        loaded = CrossEncoder(str(folder), device=device, trust_remote_code=False, local_files_only=True,
                              model_kwargs={"use_safetensors": True})
        loaded.max_seq_length = min(max_tokens, loaded.max_seq_length or max_tokens)
        outputs = int(loaded.num_labels)
    except Exception as error:  # a damaged folder makes the library fail in any way
        raise EmbedderError(f"{folder}: expected a cross-encoder of sentence-transformers for device {device!r}, and it doesn't load "
                            f"({first_line(error)})") from error
    if outputs != 1:
        raise EmbedderError(f"{folder}: expected a cross-encoder with one output, which orders texts, got one with {outputs}")
    return loaded, torch.nn.Identity()
