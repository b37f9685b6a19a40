"""FAISS index of FAQs: add, update, remove, search by vector.

An FAQ has one vector for question and answer together and one for each paraphrase; it is scored by its best. Exact inner
product by default; HNSW from `HNSW_FROM` vectors on; IVF by option. Leaves out embedding (`retriever.py`) and disk (`folder.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kb.embedder import Vectors
from kb.errors import EmbedderError, UnknownFaqError
from kb.types import Faq

Kind = Literal["auto", "flat", "hnsw", "ivf"]

HNSW_FROM = 20_000
"""Vectors from which `auto` takes HNSW: there, an exact search passes 5 % of an encoder pass (docs/results.md)."""
HNSW_LINKS = 32
HNSW_EF_CONSTRUCTION = 80
HNSW_EF_SEARCH = 64
IVF_PROBES_SHARE = 0.05
"""Share of the IVF lists that a search visits."""
REBUILD_SHARE = 0.2
"""Share of removed vectors from which an HNSW graph, which can't forget, is built anew."""


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
        self._owner: list[str | None] = []
        """FAQ id of each row in the FAISS index; None once removed."""
        self._rows: dict[str, list[int]] = {}
        self._removed: list[int] = []
        """Rows of FAQs that were removed, which a search passes over."""
        self._faiss: Any = None
        self._most_rows = 1

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def vector_count(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    @property
    def built_kind(self) -> str:
        """The kind in use, `auto` resolved by the number of vectors."""
        return self._kind_for(self.vector_count)

    def add(self, items: Iterable[tuple[str, Vectors]]) -> None:
        """Add FAQs with their vectors, shape (n, dimension), unit length.

        Raises: UnknownFaqError for an id that is there already; EmbedderError for vectors of another shape or not finite.
        Nothing is added then.
        """
        new = dict[str, Vectors]()
        for faq_id, vectors in items:
            if faq_id in self._rows or faq_id in new:
                raise UnknownFaqError(f"{faq_id}: expected a new FAQ id, got one that is in the index; use update")
            new[faq_id] = self._checked(faq_id, vectors)
        grown = self._kind_for(self.vector_count + sum(map(len, new.values())))
        if self._faiss is None or grown != self.built_kind or grown == "ivf":
            self._build(self._kept() | new)
        else:
            self._append(new)

    def update(self, items: Iterable[tuple[str, Vectors]]) -> None:
        """Replace the vectors of FAQs that are there. Raises: as `add`, and UnknownFaqError for an id that isn't there."""
        changed = {faq_id: self._checked(faq_id, vectors) for faq_id, vectors in items}
        self.remove(changed)
        self.add(changed.items())

    def remove(self, faq_ids: Iterable[str]) -> None:
        """Forget FAQs. Raises: UnknownFaqError for an id that isn't there; nothing is removed then."""
        ids = list(dict.fromkeys(faq_ids))
        if missing := [faq_id for faq_id in ids if faq_id not in self._rows]:
            raise UnknownFaqError(f"{missing[0]}: expected an FAQ id of the index, got one that it doesn't hold")
        for faq_id in ids:
            for row in self._rows.pop(faq_id):
                self._owner[row] = None
                self._removed.append(row)
        if len(self._removed) > REBUILD_SHARE * len(self._owner):
            self._build(self._kept())

    def search(self, query: Vectors, *, k: int) -> tuple[Neighbour, ...]:
        """The k nearest FAQs to one vector, shape (dimension,), each once by its best vector, best first."""
        if not self._rows:
            return ()
        found: dict[str, float] = {}
        # k FAQs can hide behind k * most_rows vectors at worst, so that many rows always hold k distinct ones
        rows = min(k * self._most_rows, self.vector_count)
        similarities, ids = self._faiss.search(query.reshape(1, -1), rows, params=self._search_parameters(rows))
        for similarity, row in zip(similarities[0].tolist(), ids[0].tolist(), strict=True):
            faq_id = self._owner[row] if row >= 0 else None
            if faq_id is not None and faq_id not in found:
                found[faq_id] = max(-1.0, min(1.0, similarity))
                if len(found) == k:
                    break
        return tuple(Neighbour(faq_id, similarity) for faq_id, similarity in found.items())

    def vectors(self, faq_id: str) -> Vectors:
        """The vectors of an FAQ, shape (n, dimension)."""
        first = self._rows[faq_id][0]
        matrix: Vectors = self._faiss.reconstruct_n(first, len(self._rows[faq_id]))
        return matrix

    def packed(self) -> tuple[Any, list[str]]:
        """The FAISS index without removed rows, and the FAQ id of each row: what is written to disk."""
        if self._removed or self._faiss is None:
            self._build(self._kept())
        return self._faiss, [owner for owner in self._owner if owner is not None]

    @classmethod
    def unpacked(cls, faiss_index: Any, owners: Sequence[str], kind: Kind) -> "FaqIndex":
        """The index that `packed` gave. Raises: ValueError when the two don't fit."""
        if faiss_index.ntotal != len(owners):
            raise ValueError(f"expected {len(owners)} vectors, got {faiss_index.ntotal}")
        index = cls(faiss_index.d, kind)
        for row, faq_id in enumerate(owners):
            index._rows.setdefault(faq_id, []).append(row)
        index._owner = list(owners)
        index._most_rows = max((len(rows) for rows in index._rows.values()), default=1)
        index._faiss = faiss_index
        return index

    def _checked(self, faq_id: str, vectors: Vectors) -> Vectors:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension or len(vectors) == 0:
            raise EmbedderError(f"{faq_id}: expected vectors of shape (n, {self.dimension}), got {vectors.shape}; "
                                "build the index anew with this encoder")
        if not np.isfinite(vectors).all():
            raise EmbedderError(f"{faq_id}: expected finite vectors, got NaN or infinity")
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def _kind_for(self, vectors: int) -> str:
        return self.kind if self.kind != "auto" else "hnsw" if vectors >= HNSW_FROM else "flat"

    def _kept(self) -> dict[str, Vectors]:
        return {faq_id: self.vectors(faq_id) for faq_id in self._rows}

    def _append(self, new: dict[str, Vectors]) -> None:
        for faq_id, vectors in new.items():
            self._rows[faq_id] = list(range(len(self._owner), len(self._owner) + len(vectors)))
            self._owner.extend([faq_id] * len(vectors))
            self._most_rows = max(self._most_rows, len(vectors))
        if new:
            self._faiss.add(np.concatenate(list(new.values())))

    def _build(self, kept: dict[str, Vectors]) -> None:
        """Build the FAISS index anew from these vectors."""
        self._owner, self._rows, self._removed, self._most_rows = [], {}, [], 1
        self._faiss = _new_faiss(self.dimension, self._kind_for(sum(map(len, kept.values()))), kept)
        self._append(kept)

    def _search_parameters(self, rows: int) -> Any:
        """Search options: how far to look, and which removed rows to pass over."""
        import faiss

        selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(self._removed)) if self._removed else None
        if isinstance(self._faiss, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(sel=selector, efSearch=max(HNSW_EF_SEARCH, 2 * rows))
        if isinstance(self._faiss, faiss.IndexIVF):
            return faiss.SearchParametersIVF(sel=selector, nprobe=max(1, round(IVF_PROBES_SHARE * self._faiss.nlist)))
        return faiss.SearchParameters(sel=selector) if selector else None


def _new_faiss(dimension: int, kind: str, vectors: dict[str, Vectors]) -> Any:
    import faiss

    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
        return index
    if kind == "ivf" and vectors:
        matrix = np.concatenate(list(vectors.values()))
        lists = max(1, min(4 * round(len(matrix) ** 0.5), len(matrix) // 39))  # FAISS wants 39 points a list to train
        index = faiss.index_factory(dimension, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(matrix)
        index.make_direct_map()
        return index
    return faiss.IndexFlatIP(dimension)
