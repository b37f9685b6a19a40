"""`evaluate retrieval`: a knowledge base, or FAQs that are indexed now, on labelled queries, as one JSON object.

Leaves out the figures' arithmetic (`retrieval.py`) and encoders trained on these very queries (`retrieval_tables.py`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.datasets import HELPDESK, HELPDESK_FAQS
from evaluation.embedding import RememberingEmbedder
from evaluation.errors import DatasetError, EvaluationError
from evaluation.retrieval import DEPTH, FIGURES, Bools, Floats, Outcomes, estimates, intervals, outcomes
from evaluation.stats import Interval
from kb.bounds import clopper_pearson_upper
from kb.calibrate import BUDGET, Calibration, Searched, calibrate, confidences, searched, split
from kb.embedder import DEFAULT_MODEL, Embedder, EmbedderConfig, Progress, load_embedder
from kb.errors import CalibrationError
from kb.folder import read_manifest
from kb.queries import LabelledQuery, read_queries
from kb.retriever import LEXICAL_WEIGHT, FaqRetriever, open_folder
from kb.source import read_faqs
from kb.types import Hit

MAIN_LANGUAGE = "main"
"""How queries without a language are named beside those with one."""
FEWEST_GROUPS = 4
"""Queries of which a half can be split again."""


@dataclass(frozen=True, slots=True)
class RetrievalRun:
    """What to evaluate, on what."""

    data: Path
    """Folder with `queries.jsonl` and, unless `kb` or `faqs` is given, `faqs.jsonl`."""
    kb: Path | None = None
    """Index folder, taken with its encoder, its weight of words and its calibration."""
    embedder: str | None = None
    """Encoder that indexes the FAQs; None: the packaged one."""
    faqs: Path | None = None
    lexical_weight: float | None = None
    """None: the retriever's own."""
    budget: float = BUDGET
    """Wrong share of the static answers; of an index that is calibrated, that calibration's counts."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.budget < 1:
            raise ValueError(f"budget: expected a share above 0 and below 1, got {self.budget}")
        given = {"embedder": self.embedder, "faqs": self.faqs, "lexical_weight": self.lexical_weight}
        if self.kb is not None and (extra := [name for name, value in given.items() if value is not None]):
            raise ValueError(f"{extra[0]}: expected none beside an index folder, which has its own, got {given[extra[0]]}; leave one out")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A knowledge base, its encoder, and how that is loaded."""

    model: str
    embedder: Embedder
    retriever: FaqRetriever


@dataclass(frozen=True, slots=True)
class Static:
    """What FAQs that answer by themselves get right. None: the data can't tell."""

    threshold: float | None = None
    """Confidence from which they do; None: none was certified."""
    precision: float | None = None
    precision_lower: float | None = None
    """Exact one-sided 95 % bound."""
    coverage: float | None = None


def evaluate_retrieval(run: RetrievalRun, progress: Progress | None = None) -> dict[str, Any]:
    """Every figure of the run. `progress` is told of every batch of texts embedded. Raises: EvaluationError, KbError."""
    known = knowledge(run, progress)
    queries = labelled(run.data, known.retriever)
    found = search(known, queries, k=DEPTH, progress=progress)
    calibration = known.retriever.calibration
    told_by, scores = domain_scores(found, calibration)
    everything = outcomes([[hit.faq.id for hit in hits] for hits in found], [query.gold or () for query in queries], scores)
    languages = [query.language or MAIN_LANGUAGE for query in queries]
    by_language = {name: _figures(everything.take(np.array([one == name for one in languages]))) for name in sorted(set(languages))}
    data = searched(queries, found)
    static = calibrated_half(data, run.budget, run.seed) if calibration is None else answered(data, calibration)
    return {
        "dataset": run.data.resolve().name, "embedder": known.model, "embedder_version": known.embedder.model_id,
        "knowledge_base": known.retriever.version, "lexical_weight": known.retriever.lexical_weight,
        **_figures(everything), "ood_score": told_by, "budget": run.budget if calibration is None else calibration.budget,
        "static": asdict(static), "by_language": by_language if len(by_language) > 1 else {},
    }


def knowledge(run: RetrievalRun, progress: Progress | None = None) -> Knowledge:
    """The knowledge base of a run. Raises: DatasetError without FAQs; KbError."""
    if run.kb is not None:
        return Knowledge(read_manifest(run.kb).model, *open_folder(run.kb, RememberingEmbedder))
    faqs = read_faqs(faq_file(run))
    model = run.embedder or DEFAULT_MODEL
    weight = LEXICAL_WEIGHT if run.lexical_weight is None else run.lexical_weight
    embedder = RememberingEmbedder(load_embedder(EmbedderConfig(model)))
    return Knowledge(model, embedder, FaqRetriever.build(embedder, faqs, lexical_weight=weight, progress=progress))


def faq_file(run: RetrievalRun) -> Path:
    """The FAQs of a run that has no index; the help desk's own data are about the FAQs that ship. Raises: DatasetError."""
    beside = run.data / "faqs.jsonl"
    if run.faqs is None and not beside.exists() and run.data.resolve().is_relative_to(HELPDESK.resolve()):
        return HELPDESK_FAQS
    if run.faqs is None and not beside.exists():
        raise DatasetError(f"{run.data}: expected faqs.jsonl in this folder, got none; give an FAQ file with --faqs, or an index with --kb")
    return run.faqs or beside


def labelled(data: Path, retriever: FaqRetriever) -> tuple[LabelledQuery, ...]:
    """The queries of a folder of which it is known what settles them; those of one text stand and fall together, as of one conversation.

    Raises: SourceError naming file and line, FAQ ids that the knowledge base lacks among what it names; EvaluationError for none.
    """
    queries = read_queries(data / "queries.jsonl", (faq.id for faq in retriever.faqs))
    known = tuple(replace(query, conversation=query.conversation or " ".join(query.query.lower().split()))
                  for query in queries if query.gold is not None)
    if not known:
        raise EvaluationError(f"{data / 'queries.jsonl'}: expected queries with `gold`, got only ones of which it is known what is wrong; "
                              "label some")
    return known


def search(known: Knowledge, queries: Sequence[LabelledQuery], *, k: int, progress: Progress | None = None) -> list[tuple[Hit, ...]]:
    """The hits of each query, all embedded first, in batches."""
    known.embedder.embed([query.query for query in queries], progress=progress)
    return [known.retriever.search(query.query, k=k) for query in queries]


def domain_scores(found: Sequence[Sequence[Hit]], calibration: Calibration | None) -> tuple[str, Floats]:
    """How much each query looks as if an FAQ settled it, and what that is: a calibrated probability where there is one."""
    if calibration is not None and calibration.known is not None:
        return "known_probability", np.array([calibration.known_probability(hits) for hits in found], dtype=np.float64)
    return "similarity", np.array([hits[0].similarity if hits else -1.0 for hits in found])


def calibrated_half(data: Searched, budget: float, seed: int) -> Static:
    """Static answers calibrated on a random half, measured on the other."""
    if len(np.unique(data.groups)) < FEWEST_GROUPS:
        return Static()
    used, held_out = split(data, 0.5, np.random.default_rng([seed, 1]))  # not calibrate's draws, which would split off the same half again
    try:
        return answered(held_out, calibrate(used, "", budget=budget, seed=seed))
    except CalibrationError:  # labels of one kind: every first hit is right, or wrong
        return Static()


def answered(data: Searched, calibration: Calibration) -> Static:
    """The static answers that a calibration gives to queries, among them ones that no FAQ settles."""
    rows = static_rows(data, calibration)
    right, count = int(data.right[rows].sum()), int(rows.sum())
    if not count:
        return Static(calibration.first.threshold, coverage=0.0)
    return Static(calibration.first.threshold, right / count, 1 - clopper_pearson_upper(count - right, count), count / len(data))


def static_rows(data: Searched, calibration: Calibration) -> Bools:
    """Which queries get a static answer, as `Calibration.alone` says: in mid-conversation those at or above both thresholds."""
    first, later = (np.inf if one.threshold is None else one.threshold for one in (calibration.first, calibration.later))
    scores = confidences(data, calibration.right, calibration.offsets)
    found: Bools = (scores >= np.where(data.later, max(first, later), first)) & np.array([bool(top) for top in data.top], dtype=bool)
    return found


def _figures(measured: Outcomes) -> dict[str, Any]:
    """Counts and figures of queries, as JSON has them."""
    found = intervals(estimates([measured])[0], measured.known)
    return {"queries": len(measured.known), "ood_queries": int((~measured.known).sum())} | {name: _shown(found[name]) for name in FIGURES}


def _shown(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
