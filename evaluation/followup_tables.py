"""Ways to search for a query in mid-conversation: alone, or with what was said before in its text, its vector, or its ranking.

On labelled sessions, turns that have a query before them and an FAQ that settles them; intervals are by conversation, and differences are
to the query alone. A conversation's own earlier queries are given as they were asked. The command is `tables.py`'s.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.datasets import Session, read_sessions
from evaluation.errors import DatasetError, EvaluationError
from evaluation.retrieval_run import RetrievalRun, knowledge
from evaluation.retrieval_tables import FOOTNOTE, cell
from evaluation.stats import Weights, ratio_difference, resampled, share
from kb.embedder import Embedder, Progress, Vectors
from kb.retriever import FaqRetriever
from kb.types import Hit

Floats = NDArray[np.float64]
Rewrite = Callable[[Sequence[str], str], str]
"""Queries before, oldest first, and the query, to one that can be understood alone."""

DEPTH = 10
"""Places that are looked at."""
CANDIDATES = 50
"""Hits of each ranking that are fused."""
RANK_OFFSET = 60
"""Of reciprocal-rank fusion (Cormack et al. 2009)."""
ALONE = "query alone"


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A turn that is searched for, and where each way of searching first finds an FAQ that settles it: from 1, 0 for not at all."""

    conversation: int
    kind: str
    places: Mapping[str, int]


class AddedVectors:
    """An encoder that gives two queries on two lines the direction between their vectors, as `FaqRetriever.compare` takes them together."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._pairs: dict[str, tuple[str, str]] = {}

    @property
    def model_id(self) -> str:
        return self._embedder.model_id

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def joined(self, before: str, query: str) -> str:
        """The text that stands for both from now on."""
        text = f"{before}\n{query}"
        self._pairs[text] = before, query
        return text

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Unit vectors, shape (len(texts), dimension); of opposite queries, whose sum is nothing, 0."""
        before, query = zip(*(self._pairs[text] for text in texts), strict=True)
        both = self._embedder.embed(query) + self._embedder.embed(before)
        unit: Vectors = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-9)
        return unit


def measured(sessions: Sequence[Session], embedder: Embedder, retriever: FaqRetriever, rewrite: Rewrite | None = None) -> list[Turn]:
    """Every way of searching for every turn that has a query before it and an FAQ that settles it."""
    adding = AddedVectors(embedder)
    together = FaqRetriever(adding, retriever.index, retriever.faqs, lexical_weight=retriever.lexical_weight)
    found = []
    for number, session in enumerate(sessions):
        queries = [turn.query for turn in session.turns]
        for position, turn in enumerate(session.turns):
            if position and turn.gold:
                before, query = queries[:position], turn.query
                alone = retriever.search(query, k=CANDIDATES)
                joined = together.search(adding.joined(before[-1], query), k=CANDIDATES)
                ways = {
                    ALONE: _ids(alone),
                    "the query before in the text": _ids(retriever.search(f"{before[-1]}\n{query}", k=DEPTH)),
                    "two queries before in the text": _ids(retriever.search("\n".join((*before[-2:], query)), k=DEPTH)),
                    "vectors added": _ids(joined),
                    "ranks of alone and added fused": fused(_ids(alone), _ids(joined)),
                    "the more similar of alone and added": _ids(retriever.search(query, k=CANDIDATES, previous=before[-1])),
                }
                if rewrite is not None:
                    ways["rewritten"] = _ids(retriever.search(rewrite(before, query), k=DEPTH))
                found.append(Turn(number, turn.kind, {name: _place(ids, turn.gold) for name, ids in ways.items()}))
    return found


def fused(*rankings: Sequence[str]) -> tuple[str, ...]:
    """FAQ ids by the sum over rankings of `1 / (60 + place)`, ties by id."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for place, faq_id in enumerate(ranking, 1):
            scores[faq_id] = scores.get(faq_id, 0.0) + 1 / (RANK_OFFSET + place)
    return tuple(sorted(scores, key=lambda faq_id: (-scores[faq_id], faq_id)))


def table(title: str, turns: Sequence[Turn], weights: Weights) -> str:
    """The ways of searching for some turns, as Markdown."""
    numbers, count = [turn.conversation for turn in turns], weights.shape[1]

    def sums(values: Floats) -> Floats:
        return np.bincount(numbers, weights=values, minlength=count).astype(np.float64)

    whole, alone = sums(np.ones(len(turns))), [sums(values) for values in _values(turns, ALONE)]
    lines = [f"### {title}: {len(turns)} turns of {len(set(numbers))} conversations\n",
             "| searched for | hit@1 | hit@3 | MRR | hit@1, less alone | hit@3, less alone | MRR, less alone |",
             "|---|--:|--:|--:|--:|--:|--:|"]
    for name in turns[0].places:
        mine = [sums(values) for values in _values(turns, name)]
        cells = [cell(share(part, whole, weights)) for part in mine]
        cells += [cell(ratio_difference(a, whole, b, whole, weights)) if name != ALONE else "" for a, b in zip(mine, alone, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join((*lines, ""))


def followups(options: argparse.Namespace) -> None:
    """Print a table of all turns and one of each kind."""
    sessions = read_sessions(options.data / "sessions.jsonl")
    known = knowledge(RetrievalRun(options.data, options.kb, options.embedder))
    _check_gold(options.data / "sessions.jsonl", sessions, known.retriever)
    queries = [[turn.query for turn in session.turns] for session in sessions]
    known.embedder.embed([query for asked in queries for query in asked])
    known.embedder.embed(["\n".join(asked[max(0, n - back) : n + 1]) for back in (1, 2) for asked in queries for n in range(1, len(asked))])
    print("read the queries", file=sys.stderr, flush=True)
    turns = measured(sessions, known.embedder, known.retriever)
    if not turns:
        raise EvaluationError(f"{options.data / 'sessions.jsonl'}: expected turns with a gold FAQ and a turn before them, got none; "
                              "label some")
    print(f"`python -m evaluation.tables followups`, {options.data.resolve().name}, encoder {known.embedder.model_id}, words "
          f"{known.retriever.lexical_weight:g}; turns with a query before them and a gold FAQ. {FOOTNOTE}\n")
    weights = resampled(len(sessions))
    print(table("all turns", turns, weights))
    for kind in dict.fromkeys(turn.kind for turn in turns):
        print(table(kind, [turn for turn in turns if turn.kind == kind], weights), flush=True)


def _check_gold(path: Path, sessions: Sequence[Session], retriever: FaqRetriever) -> None:
    named = {faq_id for session in sessions for turn in session.turns for faq_id in turn.gold or ()}
    if missing := sorted(named - {faq.id for faq in retriever.faqs}):
        raise DatasetError(f"{path}: gold: expected ids of the knowledge base's FAQs, got {missing[0]!r}, which it lacks, and "
                           f"{len(missing) - 1} more; use the FAQs that these labels are for")


def _ids(hits: Sequence[Hit]) -> tuple[str, ...]:
    return tuple(hit.faq.id for hit in hits)


def _place(ids: Sequence[str], gold: Sequence[str]) -> int:
    return next((place for place, one in enumerate(ids[:DEPTH], 1) if one in gold), 0)


def _values(turns: Sequence[Turn], name: str) -> tuple[Floats, ...]:
    """hit@1, hit@3 and reciprocal place of each turn."""
    places = np.array([turn.places[name] for turn in turns])
    found = places > 0
    return (found & (places <= 1)).astype(np.float64), (found & (places <= 3)).astype(np.float64), found / np.maximum(places, 1)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`followups` among the commands of `tables.py`."""
    mine = commands.add_parser("followups", help="ways to search for a query in mid-conversation")
    mine.add_argument("--data", type=Path, required=True, help="folder with sessions.jsonl and, unless --kb is given, faqs.jsonl")
    mine.add_argument("--kb", type=Path, help="index folder of its FAQs")
    mine.add_argument("--embedder", help="encoder that indexes the FAQs where no index is given")
    mine.set_defaults(run=followups)
