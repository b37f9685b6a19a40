"""FAISS index of FAQs: add, update, remove, search by vector.

An FAQ has a vector for question and answer together, one for each paraphrase and one for each sentence; it is scored by its best.
Exact inner product by default; IVF from `IVF_FROM` vectors on; HNSW by option. A removed FAQ's rows are only hidden, until they are
too many. Leaves out embedding (`retriever.py`), how FAISS is asked (`ann.py`) and disk (`folder.py`).
"""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from kb.ann import BuiltKind, copied, kind_of, nearest_rows, new_index, outgrown, search_parameters
from kb.embedder import Vectors
from kb.errors import EmbedderError, UnknownFaqError
from kb.types import Faq

Kind = Literal["auto", "flat", "hnsw", "ivf"]

IVF_FROM = 10_000
"""Vectors from which `auto` takes IVF: there, an exact search passes 5 % of an encoder pass (docs/decisions/0009)."""
REBUILD_SHARE = 0.2
"""Share of hidden rows from which the index is built anew."""
ROWS_A_FAQ = 8
"""Rows first asked of FAISS for each FAQ that is wanted, where FAQs have several; more follow when those of few FAQs take them all."""

SHORTEST_SENTENCE = 16
"""Characters; what is shorter says nothing alone."""
MOST_SENTENCES = 20
"""Sentences of an answer that get a vector of their own; the rest is reached by the others."""
_SENTENCE = re.compile(r"(?<=[.;:?!])\s+")


def passages(faq: Faq) -> tuple[str, ...]:
    """The texts that are embedded for an FAQ, each once: question and answer, paraphrases, each sentence of the answer.

    A sentence stands under its question: customers ask for one fact of a long answer, whose vector is about all of them.
    """
    sentences = [sentence for sentence in _SENTENCE.split(faq.answer) if len(sentence) >= SHORTEST_SENTENCE] if faq.question else []
    facts = [f"{faq.question}\n{sentence}" for sentence in sentences[:MOST_SENTENCES]] if len(sentences) > 1 else []
    return tuple(dict.fromkeys((faq.text, *faq.paraphrases, *facts)))


class Neighbour(NamedTuple):
    """An FAQ id and its similarity to a query vector. A tuple, which is made in a third of a dataclass's time."""

    faq_id: str
    similarity: float


class FaqIndex:
    """Vectors of FAQs by FAQ id. Not safe for writing while another thread reads."""

    def __init__(self, dimension: int, kind: Kind = "auto") -> None:
        self.dimension = dimension
        self.kind = kind
        self._owners: list[str | None] = []
        """FAQ id of each row in the FAISS index; None for a hidden one. The rows of an FAQ stand together."""
        self._rows: dict[str, range] = {}
        self._live = np.empty(0, dtype=bool)
        """Whether a row has an owner; a search passes over the others."""
        self._vectors = 0
        self._faiss = new_index("flat", np.empty((0, dimension), dtype=np.float32))
        self._shared = False
        """Whether a file or another FaqIndex may hold the same FAISS index, so that it mustn't be added to."""
        self._parameters: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def vector_count(self) -> int:
        return self._vectors

    @property
    def built_kind(self) -> BuiltKind:
        """The kind in use, `auto` resolved by the number of vectors."""
        return kind_of(self._faiss)

    def add(self, items: Iterable[tuple[str, Vectors]]) -> None:
        """Add FAQs with their vectors, shape (n, dimension), unit length.

        Raises: as `put`, and UnknownFaqError for an id that is there already; nothing is added then.
        """
        new = list(items)
        for faq_id, _ in new:
            if faq_id in self._rows:
                raise UnknownFaqError(f"{faq_id}: expected a new FAQ id, got one that is in the index; use update")
        self.put(new)

    def update(self, items: Iterable[tuple[str, Vectors]]) -> None:
        """Replace the vectors of FAQs that are there. Raises: as `put`, and UnknownFaqError for an id that isn't there."""
        changed = list(items)
        self._check_known(faq_id for faq_id, _ in changed)
        self.put(changed)

    def put(self, items: Iterable[tuple[str, Vectors]]) -> None:
        """Add FAQs, or replace the vectors of those that are there.

        Raises: UnknownFaqError for an id that comes twice; EmbedderError for vectors of another shape or not finite.
        """
        owners, matrix = self._stacked(list(items))
        self._hide(faq_id for faq_id in dict.fromkeys(owners) if faq_id in self._rows)
        if self._must_rebuild(len(owners)):
            kept_owners, kept = self._kept()
            self._build(kept_owners + owners, np.concatenate([kept, matrix]) if kept_owners else matrix)
        elif owners:
            self._append(owners, matrix)
        self._parameters = search_parameters(self._faiss, self._live)

    def remove(self, faq_ids: Iterable[str]) -> None:
        """Forget FAQs. Raises: UnknownFaqError for an id that isn't there; nothing is removed then."""
        ids = list(dict.fromkeys(faq_ids))
        self._check_known(ids)
        self._hide(ids)
        if self._must_rebuild(0):
            self._build(*self._kept())
        self._parameters = search_parameters(self._faiss, self._live)

    def search(self, query: Vectors, *, k: int) -> tuple[Neighbour, ...]:
        """The k nearest FAQs to one vector, shape (dimension,), each once by its best vector, best first."""
        if query.shape != (self.dimension,):
            raise EmbedderError(f"expected a vector of shape ({self.dimension},), got {query.shape}; use the encoder of this index")
        most, owners = self._vectors, cast("list[str]", self._owners)  # a row that is found has one
        if most == len(self._rows) > 0:  # one vector each
            nearest, cosines = nearest_rows(self._faiss, query, min(k, most), self._parameters)
            return tuple([Neighbour(owners[row], cosine) for row, cosine in zip(nearest, cosines, strict=True)])
        rows = min(k * ROWS_A_FAQ, most)
        while rows:
            nearest, cosines = nearest_rows(self._faiss, query, rows, self._parameters)
            found: dict[str, float] = {}
            for row, cosine in zip(nearest, cosines, strict=True):
                found.setdefault(owners[row], cosine)
            # fewer FAQs than wanted: the rest hide behind these ones' paraphrases, unless FAISS has no more rows to give
            if len(found) >= min(k, len(self._rows)) or rows == most or len(nearest) < rows:
                return tuple([Neighbour(*pair) for pair in islice(found.items(), k)])
            rows = min(rows * 4, most)
        return ()

    def vectors(self, faq_id: str) -> Vectors:
        """The vectors of an FAQ, shape (n, dimension)."""
        matrix: Vectors = self._faiss.reconstruct_batch(np.array(self._rows[faq_id], dtype=np.int64))
        return matrix

    def similarities(self, query: Vectors, faq_ids: Sequence[str]) -> list[float]:
        """Of one vector, shape (dimension,), to the best vector of each of these FAQs, which are there."""
        if not faq_ids:
            return []
        rows = [self._rows[faq_id] for faq_id in faq_ids]
        starts = np.cumsum([0, *(len(own) for own in rows[:-1])])
        matrix = self._faiss.reconstruct_batch(np.concatenate(rows).astype(np.int64))
        # row by row: a product of matrices rounds by where a row stands, and an FAQ has one similarity whatever else is asked for
        best: list[float] = np.maximum.reduceat(np.einsum("nd,d->n", matrix, query), starts).clip(-1.0, 1.0).tolist()
        return best

    def copy(self) -> "FaqIndex":
        """The same index, for changes that this one doesn't see. Both hold one FAISS index until either is added to."""
        self._shared = True
        copy = FaqIndex(self.dimension, self.kind)
        copy._owners, copy._rows, copy._live, copy._vectors = list(self._owners), dict(self._rows), self._live.copy(), self._vectors
        copy._faiss, copy._shared, copy._parameters = self._faiss, True, self._parameters
        return copy

    def packed(self) -> tuple[Any, list[str | None]]:
        """The FAISS index, and the FAQ id of each row, None for a hidden one: what is written to disk. Neither may be changed.

        The vectors of removed FAQs are among them until the index is built anew.
        """
        return self._faiss, self._owners

    @classmethod
    def unpacked(cls, faiss_index: Any, owners: Sequence[str | None], kind: Kind) -> "FaqIndex":
        """The index that `packed` gave; the FAISS index is left as it is. Raises: ValueError when the two don't fit."""
        if faiss_index.ntotal != len(owners):
            raise ValueError(f"expected {len(owners)} vectors, got {faiss_index.ntotal}")
        index = cls(faiss_index.d, kind)
        index._faiss, index._shared = faiss_index, True
        index._own(owners)
        index._parameters = search_parameters(faiss_index, index._live)
        return index

    def _check_known(self, faq_ids: Iterable[str]) -> None:
        for faq_id in faq_ids:
            if faq_id not in self._rows:
                raise UnknownFaqError(f"{faq_id}: expected an FAQ id of the index, got one that it doesn't hold")

    def _stacked(self, items: Sequence[tuple[str, Vectors]]) -> tuple[list[str], Vectors]:
        """The FAQ id of each vector, and the vectors in one matrix."""
        seen: set[str] = set()
        for faq_id, vectors in items:
            if faq_id in seen:
                raise UnknownFaqError(f"{faq_id}: expected each FAQ id once, got it twice")
            if vectors.ndim != 2 or vectors.shape[1] != self.dimension or len(vectors) == 0:
                raise EmbedderError(f"{faq_id}: expected vectors of shape (n, {self.dimension}), got {vectors.shape}; "
                                    "build the index anew with this encoder")
            seen.add(faq_id)
        matrix = np.concatenate([np.empty((0, self.dimension)), *(vectors for _, vectors in items)], dtype=np.float32)
        owners = [faq_id for faq_id, vectors in items for _ in range(len(vectors))]
        if (bad := np.flatnonzero(~np.isfinite(matrix).all(axis=1))).size:
            raise EmbedderError(f"{owners[bad[0]]}: expected finite vectors, got NaN or infinity")
        return owners, matrix

    def _hide(self, faq_ids: Iterable[str]) -> None:
        for faq_id in faq_ids:
            rows = self._rows.pop(faq_id)
            self._live[rows.start : rows.stop] = False
            self._owners[rows.start : rows.stop] = [None] * len(rows)
            self._vectors -= len(rows)

    def _must_rebuild(self, new: int) -> bool:
        """Whether the FAISS index won't do once `new` rows are added: of another kind, full of hidden rows, or outgrown."""
        live = self._vectors + new
        hidden = len(self._owners) - self._vectors
        return self._kind_for(live) != self.built_kind or hidden > REBUILD_SHARE * (live + hidden) or outgrown(self._faiss, live)

    def _kind_for(self, vectors: int) -> BuiltKind:
        if vectors == 0:
            return "flat"  # there is nothing to train on
        if self.kind != "auto":
            return self.kind
        # lists that are there stay until half is gone, lest edits around the bound train them each time
        return "ivf" if vectors >= (IVF_FROM if self.built_kind == "flat" else IVF_FROM // 2) else "flat"

    def _kept(self) -> tuple[list[str], Vectors]:
        """The owners and vectors that haven't been removed."""
        matrix: Vectors = self._faiss.reconstruct_batch(np.flatnonzero(self._live))
        return [owner for owner in self._owners if owner is not None], matrix

    def _build(self, owners: list[str], matrix: Vectors) -> None:
        self._faiss, self._shared = new_index(self._kind_for(len(owners)), matrix), False
        self._owners, self._rows, self._live, self._vectors = [], {}, np.empty(0, dtype=bool), 0
        self._own(owners)

    def _append(self, owners: list[str], matrix: Vectors) -> None:
        if self._shared:
            self._faiss, self._shared = copied(self._faiss), False
        self._faiss.add(matrix)
        self._own(owners)

    def _own(self, owners: Sequence[str | None]) -> None:
        row = len(self._owners)
        for faq_id, group in groupby(owners):
            first, row = row, row + sum(1 for _ in group)
            if faq_id is None:
                continue
            if faq_id in self._rows:
                raise ValueError(f"expected the rows of {faq_id} together, got them apart")
            self._rows[faq_id] = range(first, row)
        live = np.fromiter((owner is not None for owner in owners), dtype=bool, count=len(owners))
        self._owners += owners
        self._live = np.concatenate([self._live, live])
        self._vectors += int(np.count_nonzero(live))
