"""How varied a set of queries is: figures in which people differ from a template that was filled in.

Pure functions over texts, and `python -m evaluation.diversity`, which prints them for the help desk and, with `--data`, for
public sets beside it, each sampled to the same number of queries since most figures depend on it. Spelling counts, case and
punctuation don't. Leaves out meaning: two wordings of one question are two queries here.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.datasets import Session, Split, read_helpdesk, read_sessions
from evaluation.errors import DatasetError

OPENING_WORDS = 3
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BLOCK = 512
"""Queries whose similarities to all others are held in memory at once."""
PUBLIC_SETS = ("banking77", "dstc11", "mtrag")


@dataclass(frozen=True, slots=True)
class Diversity:
    """The figures of one set of queries."""

    queries: int
    distinct: tuple[float, float, float]
    """Distinct words, word pairs and word triples as a share of all; higher is more varied, and falls as a set grows."""
    nearest: float
    """Mean over queries of the similarity to the most similar other one; lower is more varied."""
    near_twins: float
    """Share of queries that have another one with a similarity of at least 0.8."""
    shared_openings: float
    """Share of the queries of three words or more whose first three words begin another query too."""
    words: tuple[float, ...]
    """Quantiles of a query's words."""


def words(text: str) -> tuple[str, ...]:
    """Lower case, letters and digits only: the form in which queries are compared."""
    return tuple("".join(c.lower() if c.isalnum() else " " for c in text).split())


def distinct(texts: Iterable[str], n: int) -> float:
    """Distinct word n-grams as a share of all of them (Li et al. 2016, distinct-n); 0.0 where there are none."""
    grams = Counter(gram for text in texts for gram in _ngrams(words(text), n))
    return len(grams) / grams.total() if grams else 0.0


def shared_openings(texts: Iterable[str], n: int = OPENING_WORDS) -> float:
    """Share of the texts of n words or more whose first n words begin another one too; 0.0 where there are none."""
    openings = Counter(opening[:n] for text in texts if len(opening := words(text)) >= n)
    return sum(count for count in openings.values() if count > 1) / openings.total() if openings else 0.0


def nearest_similarity(texts: Sequence[str]) -> NDArray[np.float32]:
    """Each text's cosine to the most similar other one, by counts of character triples; shape (n,), 0 for a text alone."""
    counts = [Counter(_ngrams(f" {' '.join(words(text))} ", 3)) for text in texts]
    column = {gram: n for n, gram in enumerate(dict.fromkeys(gram for count in counts for gram in count))}
    matrix = np.zeros((len(texts), max(1, len(column))), dtype=np.float32)
    for row, count in enumerate(counts):
        for gram, times in count.items():
            matrix[row, column[gram]] = times
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
    nearest = np.zeros(len(texts), dtype=np.float32)
    for start in range(0, len(texts), BLOCK):
        similarity = matrix[start : start + BLOCK] @ matrix.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = 0.0
        nearest[start : start + BLOCK] = similarity.max(axis=1, initial=0.0)
    return np.minimum(nearest, 1.0)


def quantiles(values: Sequence[int]) -> tuple[float, ...]:
    """The 5, 25, 50, 75 and 95 % quantiles, each a value that occurs."""
    return tuple(float(q) for q in np.quantile(values, QUANTILES, method="inverted_cdf"))


def diversity(texts: Sequence[str]) -> Diversity:
    """All figures of a set of queries. Raises: ValueError for an empty one."""
    if not texts:
        raise ValueError("expected at least one query, got none")
    nearest = nearest_similarity(texts)
    return Diversity(
        queries=len(texts),
        distinct=(distinct(texts, 1), distinct(texts, 2), distinct(texts, 3)),
        nearest=float(nearest.mean()),
        near_twins=float((nearest >= 0.8).mean()),
        shared_openings=shared_openings(texts),
        words=quantiles([len(words(text)) for text in texts]),
    )


def session_lengths(sessions: Iterable[Session]) -> tuple[float, ...]:
    """Quantiles of the turns of a session."""
    return quantiles([len(session.turns) for session in sessions])


def language_share(sessions: Iterable[Session], language: str) -> float:
    """Share of all turns that are in this language."""
    turns = [turn for session in sessions for turn in session.turns]
    return sum(turn.language == language for turn in turns) / len(turns)


def unique_queries(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts without those that say, word for word, what an earlier one said, and without those that have no word."""
    first: dict[tuple[str, ...], str] = {}
    for text in texts:
        first.setdefault(words(text), text)
    first.pop((), None)
    return tuple(first.values())


def sample(texts: Sequence[str], size: int, seed: int) -> tuple[str, ...]:
    """`size` of the texts at random, or all where there are no more; the same for the same seed."""
    return tuple(random.Random(seed).sample(texts, min(size, len(texts))))


def _ngrams(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(sequence[start : start + n]) for start in range(len(sequence) - n + 1)]


def public_queries(folder: Path) -> tuple[str, ...]:
    """The queries of a set in the plain format: `queries.jsonl`, or else the turns of `sessions.jsonl`. Raises: DatasetError."""
    path = folder / "queries.jsonl"
    if not path.exists():
        return _queries(read_sessions(folder / "sessions.jsonl"))
    try:
        return tuple(str(json.loads(line)["query"]) for line in path.read_text(encoding="utf-8").splitlines())
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: query: expected this field in each JSON object, and one doesn't read ({error!r})") from error


def _queries(sessions: Iterable[Session]) -> tuple[str, ...]:
    return tuple(turn.query for session in sessions for turn in session.turns)


def main() -> None:
    """Print the figures as a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.diversity", description="How varied the help desk's queries are.")
    parser.add_argument("--data", type=Path, help=f"folder that holds public sets ({', '.join(PUBLIC_SETS)}) in the plain format")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    options = parser.parse_args()
    sessions = [session for split in get_args(Split) for session in read_helpdesk(split)]
    sets = {"helpdesk": _queries(sessions)}
    if options.data is not None:
        sets |= {name: public_queries(options.data / name) for name in PUBLIC_SETS}
    distinct_queries = {name: unique_queries(texts) for name, texts in sets.items()}
    print(f"{len(sessions)} sessions of {_listed(session_lengths(sessions))} turns (5, 25, 50, 75, 95 % quantiles), "
          f"{language_share(sessions, 'hinglish'):.1%} of the turns in Hinglish\n")
    for size in sorted({len(texts) for texts in distinct_queries.values() if len(texts) <= len(distinct_queries["helpdesk"])}):
        _print_table({name: sample(texts, size, options.seed) for name, texts in distinct_queries.items() if len(texts) >= size})


def _print_table(sets: dict[str, tuple[str, ...]]) -> None:
    print("| set | queries | distinct-1 | distinct-2 | distinct-3 | nearest | near twins | shared openings | words |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
    for name, texts in sets.items():
        found = diversity(texts)
        print(f"| {name} | {found.queries} | {' | '.join(f'{share:.3f}' for share in found.distinct)} | {found.nearest:.3f} | "
              f"{found.near_twins:.1%} | {found.shared_openings:.1%} | {_listed(found.words)} |")
    print()


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


if __name__ == "__main__":
    main()
