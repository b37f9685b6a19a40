"""Ways to find FAQs side by side, by cross-validation: what learns from labelled queries never sees those that it is measured on.

Out-of-fold similarities are pooled, so a query without an FAQ is told apart across folds that were trained apart. The commands are
`tables.py`'s. Leaves out thresholds (`static_tables.py`) and conversations (`followup_tables.py`).
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from evaluation.batch_search import Matrix, cosines, overlaps, ranked
from evaluation.errors import EvaluationError
from evaluation.retrieval import DEPTH, FIGURES, Bools, Floats, Ints, Outcomes, estimates, intervals, outcomes
from evaluation.retrieval_run import RetrievalRun, knowledge, labelled
from evaluation.stats import Interval
from kb.embedder import Embedder, EmbedderConfig, load_embedder
from kb.errors import EmbedderError
from kb.finetune import TrainConfig, finetune
from kb.pairs import Examples
from kb.queries import LabelledQuery, with_queries
from kb.retriever import LEXICAL_WEIGHT
from kb.tuned import is_projection, load_projection
from kb.types import Faq

DEV_SHARE, MOST_DEV = 0.1, 1000
"""Of a fold's training queries, those that stop the training."""
BASE = "public"
"""What the others are compared with."""
FOOTNOTE = "†: too few to trust."
SHOWN = ("recall_at_1", "recall_at_3", "mrr", "ood_auroc", "ood_fpr95")
COMPARED = ("recall_at_1", "ood_auroc")


@dataclass(frozen=True, slots=True)
class Method:
    """A way to find FAQs."""

    told: str
    weight: float = 0.0
    """Of the query's words, as a retriever's; 1: words alone."""
    train: TrainConfig | None = None
    """How the encoder is tuned; None: it is as it came."""
    learns: Literal["paraphrases", "queries"] = "queries"
    indexed: bool = False
    """Whether the training queries stand in the index, as paraphrases of their FAQs."""


PROJECTION = TrainConfig()
METHODS: Mapping[str, Method] = {
    "bm25": Method("words alone (BM25)", 1.0),
    "public": Method("public encoder, vectors alone"),
    "public-words": Method("public encoder, words", LEXICAL_WEIGHT),
    "paraphrases": Method("projection trained on paraphrases alone, vectors alone", 0.0, PROJECTION, "paraphrases"),
    "projection": Method("projection trained on queries, vectors alone", 0.0, PROJECTION),
    "projection-words": Method("projection trained on queries, words", LEXICAL_WEIGHT, PROJECTION),
    "triplet": Method("the same by triplet loss, vectors alone", 0.0, replace(PROJECTION, loss="triplet")),
    "indexed": Method("public encoder, queries indexed, vectors alone", indexed=True),
    "indexed-words": Method("public encoder, queries indexed, words", LEXICAL_WEIGHT, indexed=True),
    "projection-indexed-words": Method("projection trained on queries, queries indexed, words", LEXICAL_WEIGHT, PROJECTION, indexed=True),
    "lora": Method("LoRA trained on queries, vectors alone", 0.0, TrainConfig("lora", batch_size=64)),
    "top-layers": Method("top layers trained on queries, vectors alone", 0.0, TrainConfig("top-layers", batch_size=64)),
}
SLOW = ("lora", "top-layers")
"""Run only when they are asked for."""


class Tuner:
    """Encoders tuned on a fold's training queries, each trained once."""

    def __init__(self, model: str, embedder: Embedder, faqs: Sequence[Faq], folder: Path, *, max_pairs: int | None = None,
                 seed: int = 0) -> None:
        self._model, self._embedder, self._faqs, self._folder = model, embedder, faqs, folder
        self._max_pairs, self._seed = max_pairs, seed
        self._tuned: dict[tuple[object, ...], Embedder] = {}

    def encoder(self, method: Method, train: Sequence[LabelledQuery]) -> Embedder:
        """The encoder of a method that may learn from these queries. Raises: EmbedderError when there is nothing to learn from."""
        if method.train is None:
            return self._embedder
        used = tuple(train) if method.learns == "queries" else ()
        key = method.train, used
        if key not in self._tuned:
            self._tuned[key] = self._train(method.train, used)
        return self._tuned[key]

    def _train(self, config: TrainConfig, train: Sequence[LabelledQuery]) -> Embedder:
        rng = np.random.default_rng(self._seed)
        examples, dev = _with_dev(self._faqs, train, rng)  # paraphrases alone leave no dev queries: the last step is kept
        examples, epochs = _capped(examples, config.epochs, self._max_pairs, rng)
        folder = self._folder / f"encoder-{len(self._tuned)}"
        finetune(self._model, examples, dev, folder, replace(config, epochs=epochs, seed=self._seed), embedder=self._embedder)
        return load_projection(folder, self._embedder) if is_projection(folder) else load_embedder(EmbedderConfig(str(folder)))


def crossvalidated(method: Method, faqs: Sequence[Faq], queries: Sequence[LabelledQuery], fold: Ints, tuner: Tuner) -> Outcomes:
    """What a method finds for each query when it may learn from the other folds alone."""
    similarities = np.empty((len(queries), len(faqs)), dtype=np.float32)
    for number in np.unique(fold):
        train, test = ([query for query, one in zip(queries, fold, strict=True) if (one == number) == held] for held in (False, True))
        similarities[fold == number] = _similarities(method, faqs, train, [query.query for query in test], tuner)
    scores = similarities.max(axis=1)
    if method.weight == 1:
        similarities[similarities <= 0] = -np.inf  # an FAQ with none of the words isn't found
    return outcomes(ranked(similarities, [faq.id for faq in faqs], DEPTH), [query.gold or () for query in queries], scores)


def folds(queries: Sequence[LabelledQuery], count: int, seed: int) -> Ints:
    """A fold for each query, from 0, the same for all of one conversation or text, of like sizes. Raises: EvaluationError for too few."""
    groups = list(dict.fromkeys(query.conversation or query.query for query in queries))
    if not 2 <= count <= len(groups):
        raise EvaluationError(f"folds: expected 2 to {len(groups)}, the number of different queries, got {count}")
    place = dict(zip(groups, np.random.default_rng(seed).permutation(len(groups)) % count, strict=True))
    return np.array([place[query.conversation or query.query] for query in queries], dtype=np.int64)


def retrieval(options: argparse.Namespace) -> None:
    """Print every method's figures, of all queries and of each language."""
    run = RetrievalRun(options.data, faqs=options.faqs, embedder=options.embedder)
    known = knowledge(run)
    queries, faqs = labelled(options.data, known.retriever), known.retriever.faqs
    fold = folds(queries, options.folds, options.seed)
    known.embedder.embed([query.query for query in queries])
    print(f"read {len(queries)} queries", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        tuner = Tuner(known.model, known.embedder, faqs, Path(scratch), max_pairs=options.max_pairs, seed=options.seed)
        found = {}
        for name in dict.fromkeys((BASE, *options.methods)):
            try:
                found[name] = crossvalidated(METHODS[name], faqs, queries, fold, tuner)
            except EmbedderError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
            print(f"measured {name}", file=sys.stderr, flush=True)
    cap = "" if options.max_pairs is None else f", at most {options.max_pairs} training pairs"
    print(f"`python -m evaluation.tables retrieval`, {options.data.resolve().name}, encoder {known.embedder.model_id}, "
          f"{options.folds} folds, seed {options.seed}{cap}. {_word_for_word(faqs, queries)} of {len(queries)} queries stand word for word "
          f"in the FAQs. {FOOTNOTE}\n")
    ordered = {name: found[name] for name in METHODS if name in found}
    languages = {query.language for query in queries}
    for language in (None, *sorted(languages - {None}, key=str)) if len(languages) > 1 else ():
        print(table(f"language {language or 'main'}", ordered, np.array([query.language == language for query in queries])), flush=True)
    print(table("all queries", ordered, np.ones(len(queries), dtype=bool)))


def table(title: str, found: Mapping[str, Outcomes], rows: Bools) -> str:
    """The methods on some of the queries as Markdown."""
    searches = [one.take(rows) for one in found.values()]
    known, values = searches[0].known, estimates(searches)
    base = values[list(found).index(BASE)]
    lines = [f"### {title}: {int(known.sum())} queries, {int((~known).sum())} out of domain\n",
             "| method | top-1 | top-3 | MRR | AUROC | FPR@95 | top-1, less public | AUROC, less public |",
             "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for name, value in zip(found, values, strict=True):
        lines.append(f"| {METHODS[name].told} | {_cells(value, known, SHOWN)} | "
                     f"{' | ' if name == BASE else _cells(value - base, known, COMPARED)} |")
    return "\n".join((*lines, ""))


def cell(found: Interval | None) -> str:
    """An interval in percentage points; one of too few queries or conversations to trust it is marked."""
    return "–" if found is None else f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f}){'†' * found.too_small}"


def _similarities(method: Method, faqs: Sequence[Faq], train: Sequence[LabelledQuery], test: Sequence[str], tuner: Tuner) -> Matrix:
    """Of test queries to FAQs, shape (len(test), len(faqs))."""
    held = with_queries(faqs, train) if method.indexed else faqs
    found = np.zeros((len(test), len(faqs)), dtype=np.float32)
    if method.weight < 1:
        found += (1 - method.weight) * cosines(tuner.encoder(method, train), held, test)
    if method.weight > 0:
        found += method.weight * overlaps(held, test)
    return found


def _with_dev(faqs: Sequence[Faq], train: Sequence[LabelledQuery], rng: np.random.Generator) -> tuple[Examples, Examples]:
    """Training queries, less a random part that stops the training."""
    order = rng.permutation(len(train))
    count = min(MOST_DEV, round(DEV_SHARE * len(train)))
    return Examples.of(faqs, [train[n] for n in order[count:]]), Examples.of(faqs, [train[n] for n in order[:count]])


def _capped(examples: Examples, epochs: int, max_pairs: int | None, rng: np.random.Generator) -> tuple[Examples, int]:
    """Examples and rounds of them that make about so many pairs at most: fewer rounds, and then fewer queries."""
    anchors = len(examples.passages) + len(examples.queries)
    if max_pairs is None or anchors * epochs <= max_pairs:
        return examples, epochs
    room = min(len(examples.queries), max(0, max_pairs - len(examples.passages)))
    kept = np.sort(rng.permutation(len(examples.queries))[:room])
    return replace(examples, queries=tuple(examples.queries[n] for n in kept)), max(1, max_pairs // anchors)


def _word_for_word(faqs: Sequence[Faq], queries: Sequence[LabelledQuery]) -> int:
    texts = {" ".join(text.lower().split()) for faq in faqs for text in (faq.question, *faq.paraphrases)}
    return sum(" ".join(query.query.lower().split()) in texts for query in queries)


def _cells(values: Floats, known: Bools, names: Sequence[str]) -> str:
    found = intervals(values, known)
    return " | ".join(cell(found[name]) for name in FIGURES if name in names)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`retrieval` among the commands of `tables.py`."""
    mine = commands.add_parser("retrieval", help="ways to find FAQs, cross-validated on labelled queries")
    mine.add_argument("--data", type=Path, required=True, help="folder with queries.jsonl and faqs.jsonl")
    mine.add_argument("--faqs", type=Path, help="FAQ file in place of that folder's")
    mine.add_argument("--embedder", help="public encoder to begin with")
    mine.add_argument("--folds", type=int, default=5)
    mine.add_argument("--methods", nargs="+", choices=list(METHODS), default=[name for name in METHODS if name not in SLOW])
    mine.add_argument("--max-pairs", type=int, help="training pairs of an encoder at most")
    mine.add_argument("--seed", type=int, default=0)
    mine.set_defaults(run=retrieval)
