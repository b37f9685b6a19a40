"""A knowledge base in use: query in, FAQs above a similarity out; FAQs added, changed and removed.

Leaves out thresholds' calibration. The folder format is `folder.py`'s.
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kb.embedder import Embedder, Progress
from kb.errors import EmbedderError, IndexFolderError, UnknownFaqError
from kb.folder import Manifest, load_index, save_index
from kb.index import FaqIndex, Kind, passages
from kb.types import Faq, Hit

NO_MINIMUM = -1.0
"""A `min_similarity` that keeps every hit."""


class FaqRetriever:
    """FAQs with their index and encoder. Searching and changing may happen on different threads."""

    def __init__(self, embedder: Embedder, index: FaqIndex, faqs: Sequence[Faq], version: str) -> None:
        if embedder.dimension != index.dimension:
            raise EmbedderError(f"expected an encoder of dimension {index.dimension}, got {embedder.model_id} of {embedder.dimension}")
        self._embedder = embedder
        self._index = index
        self._faqs = {faq.id: faq for faq in faqs}
        self._version = version
        self._lock = threading.Lock()

    @classmethod
    def build(
        cls, embedder: Embedder, faqs: Sequence[Faq], *, kind: Kind = "auto", progress: Progress | None = None
    ) -> "FaqRetriever":
        """Embed FAQs and index them. `progress` is told of every batch of passages embedded."""
        index = FaqIndex(embedder.dimension, kind)
        index.add(_embedded(embedder, faqs, progress))
        return cls(embedder, index, faqs, _content_version(faqs, embedder.model_id))

    @classmethod
    def load(cls, folder: Path, embedder: Embedder) -> "FaqRetriever":
        """The knowledge base that `save` wrote. Raises: IndexFolderError when it is damaged or another encoder made it."""
        manifest, index, faqs = load_index(folder)
        if manifest.model_id != embedder.model_id:
            raise IndexFolderError(f"{folder}: expected the encoder {manifest.model_id} that made this index, got {embedder.model_id}; "
                                   "use that encoder or build the index anew")
        return cls(embedder, index, faqs, _content_version(faqs, embedder.model_id))

    def save(self, folder: Path, *, model: str, max_tokens: int) -> Manifest:
        """Write to a folder, swapped in whole. `model` is how the encoder is loaded again."""
        with self._lock:
            return save_index(folder, self._index, tuple(self._faqs.values()), model_id=self._embedder.model_id, model=model,
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
        vector = self._embedder.embed([query])[0]
        with self._lock:
            found = self._index.search(np.asarray(vector, dtype=np.float32), k=k)
            return tuple(Hit(self._faqs[n.faq_id], n.similarity) for n in found if n.similarity >= min_similarity)

    def put(self, faqs: Sequence[Faq]) -> None:
        """Add FAQs, or replace those whose ids are there."""
        embedded = _embedded(self._embedder, faqs, None)
        with self._lock:
            self._index.remove(faq.id for faq in faqs if faq.id in self._faqs)
            self._index.add(embedded)
            self._change(self._faqs | {faq.id: faq for faq in faqs})

    def remove(self, faq_ids: Sequence[str]) -> None:
        """Forget FAQs. Raises: UnknownFaqError for an id that isn't there; nothing is removed then."""
        with self._lock:
            if missing := [faq_id for faq_id in faq_ids if faq_id not in self._faqs]:
                raise UnknownFaqError(f"{missing[0]}: expected the id of an FAQ, got one that the knowledge base doesn't hold")
            self._index.remove(faq_ids)
            self._change({faq_id: faq for faq_id, faq in self._faqs.items() if faq_id not in set(faq_ids)})

    def _change(self, faqs: dict[str, Faq]) -> None:
        self._faqs = faqs
        self._version = _content_version(tuple(faqs.values()), self._embedder.model_id)


def _embedded(embedder: Embedder, faqs: Sequence[Faq], progress: Progress | None) -> "list[tuple[str, np.ndarray]]":
    """Each FAQ's id and the vectors of its passages, all embedded in one go."""
    texts = [passages(faq) for faq in faqs]
    vectors = embedder.embed([text for group in texts for text in group], progress=progress)
    splits = np.cumsum([len(group) for group in texts])[:-1]
    return [(faq.id, part) for faq, part in zip(faqs, np.split(vectors, splits), strict=True)] if faqs else []


def _content_version(faqs: Sequence[Faq], model_id: str) -> str:
    """A short hash of every FAQ and the encoder, whatever the FAQs' order."""
    digest = hashlib.sha256(model_id.encode())
    for faq in sorted(faqs, key=lambda f: f.id):
        digest.update(repr(faq).encode())
    return digest.hexdigest()[:12]
