"""Many queries against few FAQs at once: `FaqRetriever`'s similarities as one matrix, for tables that search thousands of times.

Every FAQ is scored, as in a search whose candidates are all FAQs. Leaves out knowledge bases too large for such a matrix.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kb.embedder import Embedder
from kb.index import passages
from kb.lexical import LexicalIndex
from kb.types import Faq

Matrix = NDArray[np.float32]
TOGETHER = 512
"""Queries whose similarities to all passages are in memory at once."""


def cosines(embedder: Embedder, faqs: Sequence[Faq], queries: Sequence[str]) -> Matrix:
    """Of each query to the nearest passage of each FAQ, shape (queries, FAQs)."""
    texts = [passages(faq) for faq in faqs]
    starts = np.cumsum([0, *(len(group) for group in texts[:-1])])
    matrix = embedder.embed([text for group in texts for text in group]).T
    vectors = embedder.embed(queries)
    blocks = [np.maximum.reduceat(vectors[start : start + TOGETHER] @ matrix, starts, axis=1)
              for start in range(0, len(queries), TOGETHER)]
    return np.concatenate(blocks).clip(-1.0, 1.0)


def overlaps(faqs: Sequence[Faq], queries: Sequence[str]) -> Matrix:
    """Each FAQ's share of each query's words, shape (queries, FAQs)."""
    lexical = LexicalIndex(faqs)
    return np.stack([lexical.overlaps(query) for query in queries])


def ranked(similarities: Matrix, ids: Sequence[str], k: int) -> list[list[str]]:
    """The k nearest FAQ ids of each row, best first, ties by id; those of -inf aren't found."""
    by_id = np.argsort(np.array(ids), kind="stable")
    order = by_id[np.argsort(-similarities[:, by_id], axis=1, kind="stable")[:, :k]]
    return [[ids[column] for column in row if similarities[at, column] > -np.inf] for at, row in enumerate(order)]
