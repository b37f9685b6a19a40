"""A knowledge base in use: query in, FAQs above a similarity out; FAQs added, changed and removed.

Search is hybrid: what the encoder finds near and what holds the query's words are candidates, scored by a weighted mean of the two.
The folder format is `folder.py`'s.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kb.calibrate import CALIBRATION, SEEN_HITS, Calibration, read_calibration
from kb.embedder import Embedder, Progress, Runtime, Vectors, load_embedder
from kb.errors import EmbedderError, IndexFolderError
from kb.folder import Manifest, content_version, load_index, read_manifest, save_index
from kb.index import FaqIndex, Kind, passages
from kb.lexical import MOST_FAQS, LexicalIndex, Overlaps
from kb.types import Comparison, Faq, Hit, better_of

logger = logging.getLogger(__name__)

NO_MINIMUM = -1.0
"""A `min_similarity` that keeps every hit."""
LEXICAL_WEIGHT = 0.4
"""Weight of a query's words beside its vector; chosen by looking at the sets of docs/results.md."""
CANDIDATES = 50
"""FAQs that each side of a hybrid search proposes at least; all are scored by both."""
RECENT_TEXTS = 512
"""Customers' texts whose vectors are remembered, in memory only: a query is compared again in the next turns."""


class FaqRetriever:
    """FAQs with their index and encoder. Searching and changing may happen on different threads."""

    def __init__(self, embedder: Embedder, index: FaqIndex, faqs: Sequence[Faq], *, lexical_weight: float = LEXICAL_WEIGHT) -> None:
        if not 0 <= lexical_weight < 1:
            raise ValueError(f"lexical_weight: expected a share from 0 to below 1, got {lexical_weight}")
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
        self.lexical_weight = lexical_weight
        """Weight of the query's words in a similarity, in [0, 1); 0: vectors alone."""
        self.calibration: Calibration | None = None
        """Of this version; a change of the FAQs voids it."""
        self._lexical = self._words(faqs)
        self._version = content_version(faqs, embedder.model_id, lexical_weight)

    @classmethod
    def build(
        cls, embedder: Embedder, faqs: Sequence[Faq], *, kind: Kind = "auto", lexical_weight: float = LEXICAL_WEIGHT,
        progress: Progress | None = None,
    ) -> "FaqRetriever":
        """Embed FAQs and index them. `progress` is told of every batch of passages embedded."""
        index = FaqIndex(embedder.dimension, kind)
        index.add(embedded(embedder, faqs, progress))
        return cls(embedder, index, faqs, lexical_weight=lexical_weight)

    @classmethod
    def load(cls, folder: Path, embedder: Embedder) -> "FaqRetriever":
        """The knowledge base that `save` wrote. Raises: IndexFolderError when it is damaged or another encoder made it."""
        manifest, index, faqs = load_index(folder)
        if manifest.model_id != embedder.model_id:
            raise IndexFolderError(f"{folder}: expected the encoder {manifest.model_id} that made this index, "
                                   f"got {embedder.model_id}; use that encoder or build the index anew")
        return cls(embedder, index, faqs, lexical_weight=manifest.lexical_weight)

    def save(self, folder: Path, *, model: str, max_tokens: int, runtime: Runtime = "torch") -> Manifest:
        """Write to a folder, swapped in whole. `model` and `runtime` are how the encoder is loaded again."""
        with self._changing:
            with self._lock:
                self._index.packed()  # so that saving changes nothing, and searches go on
            return save_index(folder, self._index, self.faqs, model_id=self._embedder.model_id, model=model,
                              max_tokens=max_tokens, lexical_weight=self.lexical_weight, runtime=runtime)

    def adopt(self, calibration: Calibration | None) -> None:
        """Take a calibration of this version; another is passed over with a warning, as its confidences are about other FAQs."""
        if calibration is not None and calibration.version != self._version:
            logger.warning("the calibration is of knowledge base %s and this is %s: no FAQ answers by itself until `fetchgate kb "
                           "calibrate` is run again", calibration.version, self._version)
            calibration = None
        self.calibration = calibration

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

    def search(
        self, query: str, *, k: int = 3, min_similarity: float = NO_MINIMUM, previous: str | None = None
    ) -> tuple[Hit, ...]:
        """At most k FAQs with a similarity of at least `min_similarity`, best first; () for a blank query.

        With the query before, it is searched for alone and together with that one, and each FAQ has the better similarity: a follow-up
        names what it is about in the query before, a new question is best alone (docs/results.md).
        """
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        if not query.strip():
            return ()
        vector = self._vector(query)
        before = self._vector(previous) if previous is not None and previous.strip() else None
        with self._lock:
            calibration = self.calibration  # of the FAQs that are searched
            wanted = k if calibration is None else max(k, SEEN_HITS)
            hits = self._nearest(vector, query, wanted)
            if before is not None:
                hits = better_of(hits, self._nearest(between(vector, before), f"{previous}\n{query}", wanted))
        if calibration is not None and hits:
            confidence = calibration.confidence(hits)
            hits = (replace(hits[0], confidence=confidence, alone=calibration.alone(confidence)), *hits[1:])
        return tuple(hit for hit in hits[:k] if hit.similarity >= min_similarity)

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison:
        """The query, alone and taken together with the one before, beside these FAQs and the nearest one."""
        if not query.strip():
            return Comparison((None,) * len(faq_ids), None, (), None)
        vector = self._vector(query)
        before = self._vector(previous) if previous is not None and previous.strip() else None
        with self._lock:
            alone = self._similarities(vector, query, faq_ids)
            if before is None:
                return Comparison(alone, None, (), None)
            joined, both = between(vector, before), f"{previous}\n{query}"
            nearest = self._nearest(joined, both, 1)
            together = self._similarities(joined, both, faq_ids)
        return Comparison(alone, float(np.clip(vector @ before, -1.0, 1.0)), together, nearest[0] if nearest else None)

    def put(self, faqs: Sequence[Faq]) -> None:
        """Add FAQs, or replace those whose ids are there. Raises: UnknownFaqError for an id that comes twice."""
        vectors = embedded(self._embedder, faqs)
        with self._changing:
            self._change(self._faqs | {faq.id: faq for faq in faqs}, lambda: self._index.put(vectors))

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

    def _nearest(self, vector: Vectors, text: str, k: int) -> tuple[Hit, ...]:
        """The k FAQs that are most similar to a text and its vector, shape (dimension,), best first. The lock is held."""
        if self._lexical is None:
            return tuple(Hit(self._faqs[n.faq_id], n.similarity) for n in self._index.search(vector, k=k))
        cosines = {n.faq_id: n.similarity for n in self._index.search(vector, k=max(k, CANDIDATES))}
        overlaps = self._lexical.overlaps(text)
        others = [faq_id for position in _largest(overlaps, max(k, CANDIDATES)) if (faq_id := self._lexical.ids[position]) not in cosines]
        cosines |= dict(zip(others, self._index.similarities(vector, others), strict=True))
        scored = [(self._mixed(cosine, faq_id, overlaps), faq_id) for faq_id, cosine in cosines.items()]
        best = sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:k]
        return tuple(Hit(self._faqs[faq_id], similarity, float(overlaps[self._lexical.positions[faq_id]])) for similarity, faq_id in best)

    def _similarities(self, vector: Vectors, text: str, faq_ids: Sequence[str]) -> tuple[float | None, ...]:
        """Of a text and its vector to each FAQ; None for one that isn't there. The lock is held."""
        overlaps = self._lexical.overlaps(text) if self._lexical is not None and faq_ids else None
        there = [faq_id for faq_id in dict.fromkeys(faq_ids) if faq_id in self._faqs]
        cosines = dict(zip(there, self._index.similarities(vector, there), strict=True))
        return tuple(self._mixed(cosines[faq_id], faq_id, overlaps) if faq_id in cosines else None for faq_id in faq_ids)

    def _mixed(self, cosine: float, faq_id: str, overlaps: Overlaps | None) -> float:
        if overlaps is None or self._lexical is None:
            return cosine
        return (1 - self.lexical_weight) * cosine + self.lexical_weight * float(overlaps[self._lexical.positions[faq_id]])

    def _words(self, faqs: Sequence[Faq]) -> LexicalIndex | None:
        """The words of these FAQs; None where they don't count."""
        if self.lexical_weight and len(faqs) > MOST_FAQS:
            logger.warning("%d FAQs: above %d, words don't count in a search, only vectors do", len(faqs), MOST_FAQS)
        return LexicalIndex(faqs) if self.lexical_weight and len(faqs) <= MOST_FAQS else None

    def _change(self, faqs: dict[str, Faq], change_index: Callable[[], None]) -> None:
        """Change FAQs and index together; version and words, a while's work, are made before searches have to wait."""
        values = tuple(faqs.values())
        version, lexical = content_version(values, self._embedder.model_id, self.lexical_weight), self._words(values)
        with self._lock:
            change_index()
            self._faqs, self._version, self._lexical, self.calibration = faqs, version, lexical, None


def open_folder(folder: Path, wrap: Callable[[Embedder], Embedder] = lambda embedder: embedder) -> tuple[Embedder, FaqRetriever]:
    """The knowledge base of an index folder with its encoder, which `wrap` may put something around, and its calibration.

    Raises: KbError.
    """
    embedder = wrap(load_embedder(read_manifest(folder).encoder))
    retriever = FaqRetriever.load(folder, embedder)
    retriever.adopt(read_calibration(folder / CALIBRATION))
    return embedder, retriever


def _largest(overlaps: Overlaps, count: int) -> NDArray[np.intp]:
    """Positions of the so many largest overlaps above 0, largest first, the first of equals first; not all are sorted for it."""
    least = np.partition(overlaps, -count)[-count] if len(overlaps) > count else 0
    enough = np.flatnonzero((overlaps >= least) & (overlaps > 0))
    found: NDArray[np.intp] = enough[np.argsort(-overlaps[enough], kind="stable")[:count]]
    return found


def between(vector: Vectors, before: Vectors) -> Vectors:
    """The unit vector between two, shape (dimension,); opposite ones, whose sum is nothing, have none and stay 0."""
    unit: Vectors = (vector + before) / max(float(np.linalg.norm(vector + before)), 1e-9)
    return unit


def embedded(embedder: Embedder, faqs: Sequence[Faq], progress: Progress | None = None) -> list[tuple[str, Vectors]]:
    """Each FAQ's id and the vectors of its passages, all embedded in one go."""
    texts = [passages(faq) for faq in faqs]
    vectors = embedder.embed([text for group in texts for text in group], progress=progress)
    ends = np.cumsum([len(group) for group in texts], dtype=int).tolist()
    return [(faq.id, vectors[end - len(group) : end]) for faq, group, end in zip(faqs, texts, ends, strict=True)]
