"""What a contrastive training learns from: texts of one FAQ pulled together, texts of others pushed apart.

Leaves out the loss and the trainer (`finetune.py`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kb.embedder import Vectors
from kb.errors import EmbedderError
from kb.index import passages
from kb.queries import LabelledQuery
from kb.types import Faq

NO_FAQ = -1
"""Label of a query that no FAQ settles."""
SOME_FAQ = -2
"""Label of a query that the FAQ it came with doesn't settle, while another may: no negative of other anchors."""
DEV_SHARE = 10
"""One in so many queries stops the training where no dev queries are given."""
RANDOM_NEGATIVES = 20
"""Passages of other FAQs of which a negative is drawn where none are mined."""
MINED_AT_ONCE = 1024
"""Anchors whose similarities to all passages are in memory together."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts with the number of their FAQ."""

    passages: tuple[tuple[str, int], ...]
    """What the index holds."""
    queries: tuple[tuple[str, int], ...]
    """What customers asked; one with several gold FAQs stands here once for each."""
    strangers: tuple[str, ...] = ()
    """Queries that no FAQ settles: negatives of every anchor."""
    wrong: tuple[tuple[str, int], ...] = ()
    """A query and an FAQ that was taken for its answer and isn't. The query may be among neither of the others."""

    @classmethod
    def of(cls, faqs: Sequence[Faq], queries: Sequence[LabelledQuery]) -> "Examples":
        """The examples that FAQs and labelled queries give."""
        number = {faq.id: n for n, faq in enumerate(faqs)}
        return cls(
            passages=tuple((text, n) for n, faq in enumerate(faqs) for text in passages(faq)),
            queries=tuple((q.query, number[faq_id]) for q in queries for faq_id in q.gold or ()),
            strangers=tuple(q.query for q in queries if q.gold == ()),
            wrong=tuple((q.query, number[faq_id]) for q in queries for faq_id in q.wrong),
        )

    def all_texts(self, *others: "Examples") -> tuple[str, ...]:
        """Every text of these and others, once."""
        return tuple(dict.fromkeys(
            text for one in (self, *others)
            for text in (*(t for t, _ in one.passages), *(t for t, _ in one.queries), *one.strangers, *(t for t, _ in one.wrong))))


def divided(
    faqs: Sequence[Faq], queries: Sequence[LabelledQuery], dev: Sequence[LabelledQuery] | None = None, *, seed: int = 0
) -> tuple[Examples, Examples]:
    """Examples to train on and to stop by: the given dev queries, else a tenth of the queries, else one paraphrase of every other FAQ."""
    rng = np.random.default_rng(seed)
    if dev is not None:
        return Examples.of(faqs, queries), Examples.of(faqs, dev)
    if labelled := [query for query in queries if query.gold]:
        held = {labelled[row].query for row in rng.permutation(len(labelled))[: max(1, len(labelled) // DEV_SHARE)]}
        return (Examples.of(faqs, [query for query in queries if query.query not in held]),
                Examples.of(faqs, [query for query in labelled if query.query in held]))
    paraphrased = [faq for faq in faqs if len(faq.paraphrases) > 1][::2]
    taken = {faq.id: faq.paraphrases[rng.integers(len(faq.paraphrases))] for faq in paraphrased}
    rest = [replace(faq, paraphrases=tuple(p for p in faq.paraphrases if p != taken.get(faq.id))) for faq in faqs]
    return Examples.of(rest, queries), Examples.of(rest, [LabelledQuery(text, (faq_id,)) for faq_id, text in taken.items()])


def draw_pairs(examples: Examples, vectors: Mapping[str, Vectors], *, rounds: int, hard: int, rng: np.random.Generator) -> Any:
    """A dataset of (anchor, positive, negative, label): each anchor `rounds` times, in random order.

    The positive is another passage of the anchor's FAQ. The negative is, at random: one of the `hard` nearest among passages of FAQs that
    don't settle the anchor and queries of no FAQ, by `vectors`; a passage of an FAQ that was wrongly taken for its answer; or a query
    for whose answer its FAQ was. The label is the FAQ of anchor and positive, and that of the negative.
    Raises: EmbedderError when fewer than two FAQs have a pair.
    """
    from datasets import Dataset

    by_faq: dict[int, list[str]] = defaultdict(list)
    for text, number in examples.passages:
        by_faq[number].append(text)
    anchors = [(text, number) for text, number in (*examples.passages, *examples.queries) if set(by_faq[number]) - {text}]
    if len({number for _, number in anchors}) < 2:
        raise EmbedderError("expected pairs of at least two FAQs, got fewer: give FAQs paraphrases, or labelled queries")
    negatives = _negatives(examples, anchors, vectors, hard, rng)
    usable = [at for at in range(len(anchors)) if negatives[at]]  # a query may be settled by every FAQ
    if not usable:
        raise EmbedderError("expected queries that some FAQ doesn't settle, got none: give FAQs paraphrases")
    rows: dict[str, list[Any]] = {"anchor": [], "positive": [], "negative": [], "label": []}
    for _ in range(rounds):
        for at in rng.permutation(usable).tolist():
            text, number = anchors[at]
            others = [other for other in by_faq[number] if other != text]
            negative, owner = negatives[at][rng.integers(len(negatives[at]))]
            values = {"anchor": text, "positive": others[rng.integers(len(others))], "negative": negative, "label": [number, owner]}
            for name, value in values.items():
                rows[name].append(value)
    return Dataset.from_dict(rows)


def _negatives(
    examples: Examples, anchors: Sequence[tuple[str, int]], vectors: Mapping[str, Vectors], hard: int, rng: np.random.Generator
) -> list[list[tuple[str, int]]]:
    """The texts of which each anchor's negative is drawn, with their FAQs."""
    owners = np.array([number for _, number in examples.passages])
    matrix = np.stack([vectors[text] for text, _ in examples.passages])
    strangers = [(text, NO_FAQ) for text in examples.strangers]
    stranger_vectors = np.stack([vectors[text] for text, _ in strangers]) if strangers else matrix[:0]
    settled_by: dict[str, set[int]] = defaultdict(set)
    for text, number in (*examples.queries, *anchors):
        settled_by[text].add(number)
    mistaken, misled = _mistakes(examples, settled_by)
    known = [*examples.passages, *strangers]
    candidates, of = np.concatenate([matrix, stranger_vectors]), np.concatenate([owners, np.full(len(strangers), NO_FAQ)])
    found: list[list[tuple[str, int]]] = []
    for start in range(0, len(anchors), MINED_AT_ONCE):
        block = anchors[start : start + MINED_AT_ONCE]
        similarity = np.stack([vectors[text] for text, _ in block]) @ candidates.T
        for row, (text, _) in zip(similarity, block, strict=True):
            row[np.isin(of, list(settled_by[text]))] = -np.inf
        if not hard:
            similarity[np.isfinite(similarity)] = rng.random(int(np.isfinite(similarity).sum()))  # any other FAQ's are as near
        count = max(1, min(hard or RANDOM_NEGATIVES, len(candidates) - 1))
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        for (text, number), row, columns in zip(block, similarity, nearest.tolist(), strict=True):
            wrong = [(passage, owner) for passage, owner in examples.passages if owner in mistaken[text]] if text in mistaken else []
            found.append([known[column] for column in columns if np.isfinite(row[column])] + wrong + misled.get(number, []))
    return found


def _mistakes(examples: Examples, settled_by: Mapping[str, set[int]]) -> tuple[dict[str, set[int]], dict[int, list[tuple[str, int]]]]:
    """The FAQs that each query was wrongly given; and the queries that each FAQ was wrongly given for, where these have no FAQ known."""
    mistaken: dict[str, set[int]] = defaultdict(set)
    misled: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for text, number in dict.fromkeys(examples.wrong):
        if text not in settled_by:
            misled[number].append((text, NO_FAQ if text in examples.strangers else SOME_FAQ))
        elif number not in settled_by[text]:  # labels of a text that contradict each other count for nothing
            mistaken[text].add(number)
    return mistaken, misled
