"""How many of a query's words an FAQ holds, the rare ones counting most: BM25 as a share of what the query could reach.

An FAQ is read whole, question, answer and paraphrases together, since a customer's words are spread over them. The encoder knows what
words mean and this knows which ones stand there: names, codes, and languages that the encoder never learned (docs/results.md).
Leaves out joining the two (`retriever.py`). Scores are bm25s's, with Lucene's idf (Robertson & Zaragoza 2009; Lù 2024).
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kb.types import Faq

Overlaps = NDArray[np.float32]
MOST_FAQS = 100_000
"""Above this an index isn't made: every change of the knowledge base makes it anew, and every query scores all FAQs."""
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text in lower case; punctuation and word forms are left as they are."""
    return _WORD.findall(text.lower())


class LexicalIndex:
    """The words of FAQs. Never changes: a changed knowledge base makes a new one."""

    def __init__(self, faqs: Sequence[Faq]) -> None:
        import bm25s

        self.positions = {faq.id: position for position, faq in enumerate(faqs)}
        """FAQ id to its place in `overlaps`."""
        self.ids = tuple(self.positions)
        documents = [words("\n".join((faq.text, *faq.paraphrases))) for faq in faqs]
        self._bm25 = bm25s.BM25()
        self._idf = np.zeros(0, dtype=np.float32)
        if any(documents):
            self._bm25.index(documents, show_progress=False)
            holders = np.diff(self._bm25.scores["indptr"])
            self._idf = np.log1p((len(faqs) - holders + 0.5) / (holders + 0.5)).astype(np.float32)
        self._idf_unknown = float(np.log1p((len(faqs) + 0.5) / 0.5))

    def overlaps(self, query: str) -> Overlaps:
        """Each FAQ's share of the query's words, shape (FAQs,), in [0, 1): 0 where it has none of them.

        A word counts by its idf; one that no FAQ holds counts most, so that a query about something else reaches little.
        """
        asked = list(dict.fromkeys(words(query)))
        known = [self._bm25.vocab_dict[word] for word in asked if word in self._bm25.vocab_dict] if len(self._idf) else []
        if not known:
            return np.zeros(len(self.ids), dtype=np.float32)
        reachable = float(self._idf[known].sum()) + self._idf_unknown * (len(asked) - len(known))
        scores: Overlaps = self._bm25.get_scores_from_ids(known)
        return scores / np.float32(reachable)
