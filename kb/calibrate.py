"""When a similarity means something: from labelled queries, how probably the nearest FAQ settles a query, and from where it may say so.

A confidence is comparable across FAQs, which a similarity isn't: it is fitted on a third of the labels, with an offset for each FAQ
that has enough (vCache's per-entry thresholds, Schroeder et al. 2025, as a shrunk offset). The rest certifies from which
confidence an FAQ may answer by itself: the lowest at which an exact bound keeps wrong static answers within the budget. A query in
mid-conversation has a threshold of its own. Too little data: no static answers, and how many more labels it takes.
Leaves out encoders and the index.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kb.bounds import clopper_pearson_upper, needed_trials, needed_without_failure
from kb.errors import CalibrationError
from kb.queries import LabelledQuery
from kb.types import Hit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Alone = Literal["never", "first", "always"]
CALIBRATION = "calibration.json"
BUDGET = 0.05
"""Wrong share of the static answers that is asked for by default."""
LEVEL = 0.95
SEEN_HITS = 5
"""Hits that a confidence looks at."""
FITTING_SHARE = 1 / 3
"""Labels that fit confidences, which are few numbers; the others certify."""
FEATURES = ("similarity", "margin", "lead", "overlap")
STARTS = (0, 3, 10)
"""Wrong answers that the first test of each sequence has room for: few labels certify by the first, many go further by the others."""
STEPS = 200
"""Thresholds that are tested at most."""
OFFSET_PRIOR = 8.0
"""Strength of an FAQ's prior offset of 0, in units of information: about 30 labels of middling confidence move it half the way."""
CURVE_POINTS = 50


class Searchable(Protocol):
    """What finds FAQs for a query."""

    def search(self, query: str, *, k: int, min_similarity: float, previous: str | None = None) -> tuple[Hit, ...]: ...


@dataclass(frozen=True, slots=True)
class Logistic:
    """`P = 1 / (1 + exp(-(intercept + weights x)))` of features x."""

    weights: tuple[float, ...]
    intercept: float

    def logits(self, features: Floats) -> Floats:
        """Shape (n,) of features, shape (n, len(FEATURES))."""
        logits: Floats = features @ np.array(self.weights) + self.intercept
        return logits


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold of the curve, as the certifying share shows it."""

    threshold: float
    coverage: float
    """Share of the queries that would get a static answer."""
    wrong: float
    """Wrong share of these."""
    upper: float
    """Exact one-sided bound of it."""


@dataclass(frozen=True, slots=True)
class Certified:
    """What fixed-sequence testing found for one kind of query."""

    threshold: float | None
    """Confidence from which an FAQ may answer by itself; None: nothing keeps the budget."""
    trials: int
    """Independent queries with a static answer that stand behind it, or behind the best that was tried."""
    wrong: int
    upper: float
    """Bound on the wrong share at the threshold; of the best that was tried where none keeps the budget."""
    more_needed: int
    """Further labelled queries with a static answer that it would take, if none of them were wrong. 0: certified."""
    curve: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidences and thresholds of one state of a knowledge base."""

    version: str
    """Of the knowledge base; void for any other."""
    budget: float
    right: Logistic
    """Chance that the first hit settles the query."""
    offsets: dict[str, float]
    """Added to the logit of an FAQ that has labels of its own."""
    known: Logistic | None
    """Chance that any FAQ settles it; None where every labelled query has one, or none."""
    first: Certified
    """Queries that begin a conversation."""
    later: Certified
    """Queries in mid-conversation, which may mean what was said before."""
    known_threshold: float | None
    """Chance below which a query counts as out of domain: 95 % of the certifying share's known queries are above. None without `known`."""
    fitted: int
    certified_on: int
    seed: int

    def confidence(self, hits: Sequence[Hit]) -> float | None:
        """Probability that the first hit settles the query; None without one."""
        if not hits:
            return None
        logit = self.right.logits(features_of([hits]))[0] + self.offsets.get(hits[0].faq.id, 0.0)
        return float(_sigmoid(logit))

    def alone(self, confidence: float | None) -> Alone:
        """When a first hit of this confidence may be the answer by itself."""
        if confidence is None:
            return "never"
        first, later = (kind.threshold is not None and confidence >= kind.threshold for kind in (self.first, self.later))
        return "always" if first and later else "first" if first else "never"

    def known_probability(self, hits: Sequence[Hit]) -> float | None:
        """Probability that any FAQ settles the query; None where that wasn't calibrated."""
        if self.known is None:
            return None
        return float(_sigmoid(self.known.logits(features_of([hits]))[0])) if hits else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """Labelled queries with what a search found for them. Shapes (n,) but for features, (n, len(FEATURES))."""

    features: Floats
    top: tuple[str, ...]
    """FAQ id of each first hit; "" without one."""
    right: Bools
    """Whether the first hit settles the query, and the conversation hadn't it already."""
    known: Bools
    """Whether any FAQ does."""
    later: Bools
    groups: NDArray[np.int64]
    """Number of the conversation; each query that stands alone has its own."""

    def __len__(self) -> int:
        return len(self.top)

    def take(self, rows: NDArray[np.intp]) -> "Searched":
        return Searched(self.features[rows], tuple(self.top[row] for row in rows), self.right[rows], self.known[rows], self.later[rows],
                        self.groups[rows])


def features_of(found: Sequence[Sequence[Hit]]) -> Floats:
    """What tells a right first hit from a wrong one, shape (n, len(FEATURES)); of no hits it is 0.

    Its similarity, how far it is ahead of the next FAQ and of those after that, and its share of the query's words.
    """
    rows = np.zeros((len(found), len(FEATURES)))
    for row, hits in zip(rows, found, strict=True):
        if not hits:
            continue
        similarities = [hit.similarity for hit in hits[:SEEN_HITS]]
        first = similarities[0]
        second = similarities[1] if len(similarities) > 1 else 0.0
        rest = float(np.mean(similarities[2:])) if len(similarities) > 2 else second
        row[:] = first, first - second, first - rest, hits[0].overlap
    return rows


def searched(queries: Sequence[LabelledQuery], found: Sequence[Sequence[Hit]]) -> Searched:
    """Queries and their hits as arrays. Queries without gold aren't labelled: leave them out."""
    first = [hits[0].faq if hits else None for hits in found]
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(q.conversation or f"\0{n}", len(numbers)) for n, q in enumerate(queries)]
    # the answer that was just given is no answer to "and for the gold one?", though its FAQ may hold one
    right = [faq is not None and faq.id in (q.gold or ()) and faq.id not in q.known for q, faq in zip(queries, first, strict=True)]
    return Searched(
        features=features_of(found), top=tuple(faq.id if faq else "" for faq in first), right=np.array(right, dtype=bool),
        known=np.array([bool(q.gold) for q in queries], dtype=bool), later=np.array([q.previous is not None for q in queries], dtype=bool),
        groups=np.array(groups, dtype=np.int64))


def search_all(retriever: Searchable, queries: Sequence[LabelledQuery], progress: Callable[[int], None] | None = None) -> Searched:
    """Labelled queries with what the knowledge base finds for them; those without gold are left out."""
    labelled, found = [query for query in queries if query.gold is not None], []
    for query in labelled:
        found.append(retriever.search(query.query, k=SEEN_HITS, min_similarity=-1.0, previous=query.previous))
        if progress is not None:
            progress(1)
    return searched(labelled, found)


def split(data: Searched, share: float, rng: np.random.Generator) -> tuple[Searched, Searched]:
    """A random share of the queries, and the rest; whole conversations together."""
    groups = rng.permutation(int(data.groups.max()) + 1) < (int(data.groups.max()) + 1) * share
    chosen = groups[data.groups]
    return data.take(np.flatnonzero(chosen)), data.take(np.flatnonzero(~chosen))


def fit_right(data: Searched) -> tuple[Logistic, dict[str, float]]:
    """The model of a right first hit, and each FAQ's offset. Raises: CalibrationError when all are right, or all wrong."""
    model = _fit(data.features, data.right)
    chance = _sigmoid(model.logits(data.features))
    offsets = {}
    for faq_id in sorted(set(data.top) - {""}):
        rows = np.array([top == faq_id for top in data.top])
        # one Newton step from 0 of the offset's posterior under a normal prior
        information = float((chance[rows] * (1 - chance[rows])).sum()) + OFFSET_PRIOR
        offsets[faq_id] = float((data.right[rows] - chance[rows]).sum() / information)
    return model, offsets


def confidences(data: Searched, model: Logistic, offsets: dict[str, float]) -> Floats:
    """Probability that each first hit is right, shape (n,)."""
    chances: Floats = _sigmoid(model.logits(data.features) + np.array([offsets.get(top, 0.0) for top in data.top]))
    return chances


def certify(scores: Floats, wrong: Bools, groups: NDArray[np.int64], *, budget: float, seed: int = 0) -> Certified:
    """The lowest threshold on `scores` that keeps wrong answers within the budget, by fixed-sequence testing from several starts.

    Each conversation gives one trial, a query of it at random among those answered, so that trials are independent and the bound exact
    (Clopper & Pearson 1934). From each start, thresholds are tested from strict to lax until one fails, at a level that the starts share
    (Angelopoulos et al. 2021, "Learn then test", section 2.3); a start is where enough are answered to leave room for so many wrong ones
    (`STARTS`), which depends on scores alone, as does how many starts there are. Shapes (n,).
    """
    if not 0 < budget < 1:
        raise CalibrationError(f"budget: expected a share above 0 and below 1, got {budget}")
    priority = np.random.default_rng(seed).random(len(scores))
    tested = [(float(threshold), *_trials(scores >= threshold, wrong, groups, priority)) for threshold in _grid(scores)]
    starts, level = _starts(tested[-1][1] if tested else 0, budget)
    passed = [found for room in starts if (found := _passed(tested, needed_trials(room, budget, level), budget, level)) is not None]
    if passed:
        found = max(passed, key=lambda one: one.trials)
    else:
        most = tested[-1] if tested else (0.0, 0, 0)
        _, trials, failures = next((one for one in tested if one[1] >= needed_without_failure(budget, level)), most)
        more = needed_trials(failures, budget, level) - trials
        found = Certified(None, trials, failures, clopper_pearson_upper(failures, trials, level), max(1, more))
    return replace(found, curve=curve(scores, wrong, groups, seed=seed))


def _starts(trials: int, budget: float) -> tuple[tuple[int, ...], float]:
    """As many of the starts as so many trials reach, at least one, and the level of each test."""
    for count in range(len(STARTS), 1, -1):
        level = 1 - (1 - LEVEL) / count
        if needed_trials(STARTS[count - 1], budget, level) <= trials:
            return STARTS[:count], level
    return STARTS[:1], LEVEL


def _passed(tested: Sequence[tuple[float, int, int]], begin: int, budget: float, level: float) -> Certified | None:
    """The last of the (threshold, trials, wrong), from the first with `begin` trials on, before one whose bound is above the budget."""
    last = None
    for threshold, trials, failures in tested:
        if trials < begin:
            continue
        if (upper := clopper_pearson_upper(failures, trials, level)) > budget:
            break
        last = Certified(threshold, trials, failures, upper, 0)
    return last


def curve(scores: Floats, wrong: Bools, groups: NDArray[np.int64], *, seed: int = 0) -> tuple[Point, ...]:
    """Coverage and wrong share by threshold, from strict to lax: to look at, not to choose by."""
    priority = np.random.default_rng(seed).random(len(scores))
    points = []
    for threshold in _grid(scores, CURVE_POINTS):
        answered = scores >= threshold
        trials, failures = _trials(answered, wrong, groups, priority)
        points.append(Point(float(threshold), float(answered.mean()), float(wrong[answered].mean()),
                            clopper_pearson_upper(failures, trials, LEVEL)))
    return tuple(points)


def calibrate(data: Searched, version: str, *, budget: float = BUDGET, seed: int = 0) -> Calibration:
    """Confidences and thresholds from labelled queries that have been searched for in this version of the knowledge base.

    Raises: CalibrationError when there are no labels, or of one class only.
    """
    if not len(data):
        raise CalibrationError("labels: expected labelled queries, got none")
    fit, held = split(data, FITTING_SHARE, np.random.default_rng(seed))
    right, offsets = fit_right(fit)
    scores = confidences(held, right, offsets)
    known = _fit(fit.features, fit.known) if 0 < fit.known.sum() < len(fit) else None
    chance = _sigmoid(known.logits(held.features))[held.known] if known is not None else np.zeros(0)
    by_kind = [certify(scores[rows], ~held.right[rows], held.groups[rows], budget=budget, seed=seed) for rows in (~held.later, held.later)]
    return Calibration(version, budget, right, offsets, known, by_kind[0], by_kind[1],
                       float(np.quantile(chance, 0.05)) if len(chance) else None, len(fit), len(held), seed)


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write it whole or not at all. Raises: CalibrationError."""
    from pydantic import TypeAdapter

    fresh = path.with_name(f".new-{path.name}-{os.getpid()}")
    try:
        fresh.write_bytes(TypeAdapter(Calibration).dump_json(calibration, indent=1) + b"\n")
        os.replace(fresh, path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise CalibrationError(f"{path}: can't be written ({error.strerror}); a calibration that was there is unchanged") from error


def read_calibration(path: Path) -> Calibration | None:
    """The calibration of a file; None where there is none. Raises: CalibrationError for one that doesn't read."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Calibration).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise CalibrationError(f"{path}: expected a calibration as `fetchgate kb calibrate` writes it, and it doesn't read "
                               f"({str(error).splitlines()[0]}); calibrate anew, or delete the file") from error


def _trials(answered: Bools, wrong: Bools, groups: NDArray[np.int64], priority: Floats) -> tuple[int, int]:
    """Conversations with an answered query, and in how many of them the one drawn is wrong."""
    rows = np.flatnonzero(answered)
    rows = rows[np.lexsort((priority[rows], groups[rows]))]
    drawn = rows[np.unique(groups[rows], return_index=True)[1]]
    return len(drawn), int(wrong[drawn].sum())


def _grid(scores: Floats, steps: int = STEPS) -> Floats:
    """Thresholds from strict to lax: quantiles of the scores."""
    return np.unique(np.quantile(scores, np.linspace(0, 1, steps), method="lower"))[::-1] if len(scores) else np.zeros(0)


def _fit(features: Floats, labels: Bools) -> Logistic:
    """Logistic regression on standardised features, given back for raw ones."""
    from sklearn.linear_model import LogisticRegression

    if len(labels) == 0 or labels.all() or not labels.any():
        raise CalibrationError(f"labels: expected both right and wrong first hits, got {len(labels)} queries of one kind; add labelled "
                               "queries of the other, such as ones that no FAQ answers")
    centre, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)  # what was always the same tells nothing, whatever it is elsewhere
    model: Any = LogisticRegression(C=1.0, max_iter=1000).fit((features - centre) / scale, labels)
    weights = model.coef_[0] / scale
    return Logistic(tuple(weights.tolist()), float(model.intercept_[0] - weights @ centre))


def _sigmoid(logits: Any) -> Any:
    from scipy.special import expit

    return expit(logits)
