"""A knowledge base in use: query in, FAQs above a similarity out; FAQs added, changed and removed.

Leaves out thresholds' calibration. The folder format is `folder.py`'s.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kb.embedder import Embedder, Progress, Vectors
from kb.errors import EmbedderError, IndexFolderError
from kb.folder import Manifest, content_version, load_index, save_index
from kb.index import FaqIndex, Kind, passages
from kb.types import Comparison, Faq, Hit

NO_MINIMUM = -1.0
"""A `min_similarity` that keeps every hit."""
RECENT_TEXTS = 512
"""Customers' texts whose vectors are remembered, in memory only: a query is compared again in the next turns."""


class FaqRetriever:
    """FAQs with their index and encoder. Searching and changing may happen on different threads."""

    def __init__(self, embedder: Embedder, index: FaqIndex, faqs: Sequence[Faq]) -> None:
        if embedder.dimension != index.dimension:
            raise EmbedderError(f"expected an encoder of dimension {index.dimension}, got {embedder.model_id} "
                                f"of {embedder.dimension}")
        self._embedder = embedder
        self._index = index
        self._changing = threading.Lock()
        """Held by what changes or saves: one at a time."""
        self._lock = threading.Lock()
        """Held by what reads or changes the index."""
        self._faqs = {faq.id: faq for faq in faqs}
        self._recent: OrderedDict[str, Vectors] = OrderedDict()
        self._version = content_version(faqs, embedder.model_id)

    @classmethod
    def build(
        cls, embedder: Embedder, faqs: Sequence[Faq], *, kind: Kind = "auto", progress: Progress | None = None
    ) -> "FaqRetriever":
        """Embed FAQs and index them. `progress` is told of every batch of passages embedded."""
        index = FaqIndex(embedder.dimension, kind)
        index.add(_embedded(embedder, faqs, progress))
        return cls(embedder, index, faqs)

    @classmethod
    def load(cls, folder: Path, embedder: Embedder) -> "FaqRetriever":
        """The knowledge base that `save` wrote. Raises: IndexFolderError when it is damaged or another encoder made it."""
        manifest, index, faqs = load_index(folder)
        if manifest.model_id != embedder.model_id:
            raise IndexFolderError(f"{folder}: expected the encoder {manifest.model_id} that made this index, "
                                   f"got {embedder.model_id}; use that encoder or build the index anew")
        return cls(embedder, index, faqs)

    def save(self, folder: Path, *, model: str, max_tokens: int) -> Manifest:
        """Write to a folder, swapped in whole. `model` is how the encoder is loaded again."""
        with self._changing:
            with self._lock:
                self._index.packed()  # so that saving changes nothing, and searches go on
            return save_index(folder, self._index, self.faqs, model_id=self._embedder.model_id, model=model,
                              max_tokens=max_tokens)

    @property
    def version(self) -> str:
        """Changes with any FAQ or with the encoder."""
        return self._version

    @property
    def faqs(self) -> tuple[Faq, ...]:
        return tuple(self._faqs.values())

    @property
    def index(self) -> FaqIndex:
        return self._index

    def get(self, faq_id: str) -> Faq | None:
        return self._faqs.get(faq_id)

    def search(self, query: str, *, k: int = 3, min_similarity: float = NO_MINIMUM) -> tuple[Hit, ...]:
        """At most k FAQs with a similarity of at least `min_similarity`, best first; () for a blank query."""
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        if not query.strip():
            return ()
        vector = self._vector(query)
        with self._lock:
            found = self._index.search(vector, k=k)
            return tuple(Hit(self._faqs[n.faq_id], n.similarity) for n in found if n.similarity >= min_similarity)

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison:
        """The query, alone and taken together with the one before, beside these FAQs and the nearest one."""
        if not query.strip():
            return Comparison((None,) * len(faq_ids), None, (), None)
        vector = self._vector(query)
        before = self._vector(previous) if previous is not None and previous.strip() else None
        with self._lock:
            known = [self._index.vectors(faq_id) if faq_id in self._faqs else None for faq_id in faq_ids]
            if before is None:
                return Comparison(_cosines(vector, known), None, (), None)
            joined = _direction(vector + before)
            nearest = [Hit(self._faqs[n.faq_id], n.similarity) for n in self._index.search(joined, k=1)]
        cosine = float(np.clip(vector @ before, -1.0, 1.0))
        return Comparison(_cosines(vector, known), cosine, _cosines(joined, known), nearest[0] if nearest else None)

    def put(self, faqs: Sequence[Faq]) -> None:
        """Add FAQs, or replace those whose ids are there. Raises: UnknownFaqError for an id that comes twice."""
        embedded = _embedded(self._embedder, faqs, None)
        with self._changing:
            self._change(self._faqs | {faq.id: faq for faq in faqs}, lambda: self._index.put(embedded))

    def remove(self, faq_ids: Sequence[str]) -> None:
        """Forget FAQs. Raises: UnknownFaqError for an id that isn't there; nothing is removed then."""
        gone = set(faq_ids)
        with self._changing:
            kept = {faq_id: faq for faq_id, faq in self._faqs.items() if faq_id not in gone}
            self._change(kept, lambda: self._index.remove(gone))

    def _vector(self, text: str) -> Vectors:
        """The vector of a customer's text, shape (dimension,); the latest are remembered, since a turn asks for each several times."""
        with self._lock:
            if text in self._recent:
                self._recent.move_to_end(text)
                return self._recent[text]
        vector: Vectors = np.asarray(self._embedder.embed([text])[0], dtype=np.float32)
        with self._lock:
            self._recent[text] = vector
            while len(self._recent) > RECENT_TEXTS:
                self._recent.popitem(last=False)
        return vector

    def _change(self, faqs: dict[str, Faq], change_index: Callable[[], None]) -> None:
        """Change FAQs and index together; the version, a while's work, is made before searches have to wait."""
        version = content_version(tuple(faqs.values()), self._embedder.model_id)
        with self._lock:
            change_index()
            self._faqs, self._version = faqs, version


def _cosines(vector: Vectors, groups: Sequence[Vectors | None]) -> tuple[float | None, ...]:
    """Of the vector to the nearest of each group, shape (n, dimension)."""
    return tuple(None if group is None else float(np.clip((group @ vector).max(), -1.0, 1.0)) for group in groups)


def _direction(vector: Vectors) -> Vectors:
    """The unit vector that way; opposite queries, whose sum is nothing, have none and stay 0."""
    unit: Vectors = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit


def _embedded(embedder: Embedder, faqs: Sequence[Faq], progress: Progress | None) -> list[tuple[str, Vectors]]:
    """Each FAQ's id and the vectors of its passages, all embedded in one go."""
    texts = [passages(faq) for faq in faqs]
    vectors = embedder.embed([text for group in texts for text in group], progress=progress)
    ends = np.cumsum([len(group) for group in texts], dtype=int).tolist()
    return [(faq.id, vectors[end - len(group) : end]) for faq, group, end in zip(faqs, texts, ends, strict=True)]
