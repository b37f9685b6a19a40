"""FAISS index of FAQs: add, update, remove, search by vector.

An FAQ has one vector for question and answer together and one for each paraphrase; it is scored by its best. Exact inner
product by default; HNSW from `HNSW_FROM` vectors on; IVF by option. Leaves out embedding (`retriever.py`), how FAISS is asked
(`ann.py`) and disk (`folder.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np

from kb.ann import BuiltKind, kind_of, nearest_rows, new_index
from kb.embedder import Vectors
from kb.errors import EmbedderError, UnknownFaqError
from kb.types import Faq

Kind = Literal["auto", "flat", "hnsw", "ivf"]

HNSW_FROM = 10_000
"""Vectors from which `auto` takes HNSW: there, an exact search passes 5 % of an encoder pass (docs/results.md)."""
IVF_GROWTH = 2.0
"""Growth from which IVF's lists, which were made for fewer vectors, are trained anew."""
REBUILD_SHARE = 0.2
"""Share of removed vectors from which the index, which only hides them, is built anew."""
ROWS_A_FAQ = 4
"""Rows first asked of FAISS for each FAQ that is wanted; more follow when paraphrases of few FAQs take them all."""


def passages(faq: Faq) -> tuple[str, ...]:
    """The texts that are embedded for an FAQ, each once."""
    return tuple(dict.fromkeys((faq.text, *faq.paraphrases)))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An FAQ id and its similarity to a query vector."""

    faq_id: str
    similarity: float


class FaqIndex:
    """Vectors of FAQs by FAQ id. Not safe for writing while another thread reads."""

    def __init__(self, dimension: int, kind: Kind = "auto") -> None:
        self.dimension = dimension
        self.kind = kind
        self._owners: list[str] = []
        """FAQ id of each row in the FAISS index; the rows of an FAQ stand together."""
        self._rows: dict[str, range] = {}
        self._live = np.empty(0, dtype=bool)
        """Whether a row's FAQ is still there; a search passes over the others."""
        self._faiss = new_index("flat", dimension, np.empty((0, dimension), dtype=np.float32))
        self._trained_rows = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def vector_count(self) -> int:
        return int(np.count_nonzero(self._live))

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
            self._build(kept_owners + owners, np.concatenate([kept, matrix]))
        else:
            self._append(owners, matrix)

    def remove(self, faq_ids: Iterable[str]) -> None:
        """Forget FAQs. Raises: UnknownFaqError for an id that isn't there; nothing is removed then."""
        ids = list(dict.fromkeys(faq_ids))
        self._check_known(ids)
        self._hide(ids)
        if self._must_rebuild(0):
            self._build(*self._kept())

    def search(self, query: Vectors, *, k: int) -> tuple[Neighbour, ...]:
        """The k nearest FAQs to one vector, shape (dimension,), each once by its best vector, best first."""
        most = self.vector_count
        rows = min(k * ROWS_A_FAQ, most)
        while rows:
            nearest = nearest_rows(self._faiss, query, rows, self._live)
            found: dict[str, float] = {}
            for row, similarity in nearest:
                found.setdefault(self._owners[row], max(-1.0, min(1.0, similarity)))
            # fewer FAQs than wanted: the rest hide behind these ones' paraphrases, unless FAISS has no more rows to give
            if len(found) >= min(k, len(self)) or rows == most or len(nearest) < rows:
                return tuple(Neighbour(*pair) for pair in list(found.items())[:k])
            rows = min(rows * 4, most)
        return ()

    def vectors(self, faq_id: str) -> Vectors:
        """The vectors of an FAQ, shape (n, dimension)."""
        matrix: Vectors = self._faiss.reconstruct_batch(np.array(self._rows[faq_id], dtype=np.int64))
        return matrix

    def packed(self) -> tuple[Any, list[str]]:
        """The FAISS index without removed rows, and the FAQ id of each row: what is written to disk."""
        if not self._live.all():
            self._build(*self._kept())
        return self._faiss, self._owners

    @classmethod
    def unpacked(cls, faiss_index: Any, owners: Sequence[str], kind: Kind) -> "FaqIndex":
        """The index that `packed` gave. Raises: ValueError when the two don't fit."""
        if faiss_index.ntotal != len(owners):
            raise ValueError(f"expected {len(owners)} vectors, got {faiss_index.ntotal}")
        index = cls(faiss_index.d, kind)
        index._faiss = faiss_index
        index._trained_rows = len(owners)
        index._own(list(owners))
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

    def _must_rebuild(self, new: int) -> bool:
        """Whether the FAISS index won't do once `new` rows are added: of another kind, full of hidden rows, or outgrown."""
        live = self.vector_count + new
        hidden = len(self._owners) - self.vector_count
        outgrown = self.kind == "ivf" and live > IVF_GROWTH * self._trained_rows
        return self._kind_for(live) != self.built_kind or hidden > REBUILD_SHARE * (live + hidden) or outgrown

    def _kind_for(self, vectors: int) -> BuiltKind:
        if vectors == 0:
            return "flat"  # there is nothing to train on
        if self.kind != "auto":
            return self.kind
        # a graph that is there stays until half is gone, lest edits around the bound build one each time
        return "hnsw" if vectors >= (HNSW_FROM if self.built_kind == "flat" else HNSW_FROM // 2) else "flat"

    def _kept(self) -> tuple[list[str], Vectors]:
        """The owners and vectors that haven't been removed."""
        matrix: Vectors = self._faiss.reconstruct_n(0, len(self._owners))
        return [self._owners[row] for row in np.flatnonzero(self._live)], matrix[self._live]

    def _build(self, owners: list[str], matrix: Vectors) -> None:
        built = new_index(self._kind_for(len(owners)), self.dimension, matrix)
        built.add(matrix)
        self._faiss, self._trained_rows = built, len(owners)
        self._owners, self._rows, self._live = [], {}, np.empty(0, dtype=bool)
        self._own(owners)

    def _append(self, owners: list[str], matrix: Vectors) -> None:
        self._faiss.add(matrix)
        self._own(owners)

    def _own(self, owners: list[str]) -> None:
        row = len(self._owners)
        for faq_id, group in groupby(owners):
            if faq_id in self._rows:
                raise ValueError(f"expected the rows of {faq_id} together, got them apart")
            first, row = row, row + len(list(group))
            self._rows[faq_id] = range(first, row)
        self._owners += owners
        self._live = np.concatenate([self._live, np.ones(len(owners), dtype=bool)])
