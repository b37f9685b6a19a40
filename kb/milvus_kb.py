"""A service's knowledge base in Milvus: what `living.py` is for a folder, without a copy, a journal or a file to follow.

The collection is the truth, so an edit is made there at once and every process sees it. Milvus has no transactions: an edit that fails
half-way leaves some FAQs changed, each whole, and making it again mends that. Leaves out who may edit (`service/`).
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kb.edits import NEAR, Difference, Edits, Near, difference
from kb.embedder import Embedder
from kb.errors import UnknownFaqError
from kb.folder import content_version
from kb.milvus import CHANGING, LEAST_ROWS, LEXICAL_WEIGHT, MilvusRetriever, key_of, key_of_row
from kb.milvus_rows import MilvusConfig
from kb.types import Faq

VECTORS_A_SEARCH = 100
"""Of near-duplicates: a request and its answer stay below 1 MB."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All FAQs of one moment."""

    version: str
    faqs: tuple[Faq, ...]


@dataclass(frozen=True, slots=True)
class MilvusEdited:
    """An edit that was made."""

    before: str
    """Version of the knowledge base until then."""
    kb: Snapshot
    """Since then."""
    made: Difference


class MilvusKb(MilvusRetriever):
    """The Retriever of a running service over Milvus, which it may edit. All but `version` raises IndexFolderError when that is down."""

    def __init__(self, config: MilvusConfig, embedder: Embedder, *, create: bool = False) -> None:
        """As `MilvusRetriever`."""
        super().__init__(config, embedder, create=create)
        self._editing = threading.Lock()

    @property
    def current(self) -> Snapshot:
        """Version and FAQs, as they are now."""
        return Snapshot(*self.state())

    def edit(
        self, put: Sequence[Faq] = (), remove: Sequence[str] = (), *, before_saving: Callable[[str, str], None] = lambda *_: None
    ) -> MilvusEdited:
        """Add or replace FAQs and remove others; once this returns, every process finds them so.

        `before_saving` is told the old and the new version; what it raises stops the edit. Raises: UnknownFaqError for an id to remove
        that isn't there, SourceError, EmbedderError; nothing is changed then. IndexFolderError: a part may be.
        """
        with self._editing:
            before, old = self.state()
            if unknown := sorted(set(remove) - {faq.id for faq in old}):
                raise UnknownFaqError(f"{', '.join(unknown[:10])}: expected ids of FAQs that are there, got {len(unknown)} that aren't")
            new = Edits().then(put, remove).applied(old)
            made = difference(old, new)
            before_saving(before, content_version(new, self._embedder.model_id, LEXICAL_WEIGHT))
            if made or before.startswith(CHANGING):  # an edit that was cut off ends here
                self._change((*made.added, *made.replaced), made.removed)
            return MilvusEdited(before, Snapshot(*self._all), made)

    def near_duplicates(self, faq_ids: Sequence[str]) -> tuple[Near, ...]:
        """Those of the FAQs that have another one at `NEAR` or above, with the nearest such one.

        One with more than about thirty passages may hide another behind its own.
        """
        by_key = {key_of(faq.id): faq.id for faq in self.faqs}
        rows = [(faq_id, vector) for faq_id, group in zip(faq_ids, self._vectors(faq_ids, sure=True), strict=True) if group is not None
                for vector in group]
        nearest: dict[str, Near] = {}
        for start in range(0, len(rows), VECTORS_A_SEARCH):
            some = rows[start : start + VECTORS_A_SEARCH]
            found = self._rows.search(np.stack([vector for _, vector in some]), LEAST_ROWS)
            for (faq_id, _), beside in zip(some, found, strict=True):
                others = ((by_key.get(key_of_row(row.name)), row.similarity) for row in beside)
                other_id, similarity = next(((one, near) for one, near in others if one not in (None, faq_id)), (None, 0.0))
                if other_id is not None and similarity >= NEAR and (faq_id not in nearest or similarity > nearest[faq_id].similarity):
                    nearest[faq_id] = Near(faq_id, other_id, similarity)
        return tuple(nearest[faq_id] for faq_id in faq_ids if faq_id in nearest)
