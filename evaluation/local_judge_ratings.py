"""The local judge against people: rated answers of real LLMs to real questions, by AUROC, beside two baselines and the ceiling.

Good is what more than half of an answer's raters find (`human_ratings.py`); answers without a consensus are left out. The judge is
measured as it ships and as fitted with the other folds' ratings, five folds by conversation. The ceiling is one rater's own score
against the consensus of the others. Leaves out agreement tables (`agreement_tables.py`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chat.ports import Retriever
from evaluation.human_ratings import RatedAnswer, consensus, one_against_rest
from evaluation.reference_metrics import rouge_l
from evaluation.stats import FEWEST_CONVERSATIONS, Interval
from kb.embedder import Embedder
from reward.examining import Examined, Examiner
from reward.local_model import Model, encoder_of, probability_of_good
from reward.local_training import Example, FitConfig, fit

Floats = NDArray[np.float64]
FOLDS = 5
RESAMPLES = 2_000
READ = 64


def rated_examples(answers: Sequence[RatedAnswer]) -> tuple[Example, ...]:
    """The rated answers as examples to fit on; those without a consensus are left out."""
    labelled = [(answer, consensus(answer)) for answer in answers]
    return tuple(Example(answer.case(), answer.conversation, "rated", good, good) for answer, good in labelled if good is not None)


def against_people(answers: Sequence[RatedAnswer], embedder: Embedder, model: Model, helpdesk: Sequence[Example], retriever: Retriever,
                   config: FitConfig) -> list[dict[str, Any]]:
    """AUROC of each score against the consensus, and how much the judge is ahead of it; intervals by conversation."""
    rated = [answer for answer in answers if consensus(answer) is not None]
    good = np.array([bool(consensus(answer)) for answer in rated])
    groups = np.array([answer.conversation for answer in rated])
    examiner = Examiner(embedder)
    read = [one for n in range(0, len(rated), READ) for one in examiner.examine([answer.case() for answer in rated[n : n + READ]])]
    scores = {
        "local judge, as it ships": _scores(model, read),
        "local judge, other folds' ratings added": _cross_fitted(rated, read, helpdesk, retriever, embedder, config),
        "ROUGE-L precision to the passages": np.array([rouge_l(a.answer, _passages(a)).precision for a in rated]),
        "ROUGE-L F1 to the nearest passage": np.array(
            [max((rouge_l(a.answer, p.answer).f1 for p in a.passages), default=0.0) for a in rated]),
        "embedding similarity to the nearest passage": _similarities(rated, embedder),
    }
    return [_row(name, values, scores, good, groups) for name, values in scores.items()] + [_ceiling(answers)]


def _row(name: str, values: Floats, scores: dict[str, Floats], good: NDArray[np.bool_], groups: NDArray[Any]) -> dict[str, Any]:
    first, second = (scores[key] for key in list(scores)[:2])
    return {"score": name, "answers": len(good), "bad": int((~good).sum()), "auroc": by_group(groups, lambda r: auroc(good[r], values[r])),
            "shipped_less_this": by_group(groups, lambda r: auroc(good[r], first[r]) - auroc(good[r], values[r])),
            "fitted_less_this": by_group(groups, lambda r: auroc(good[r], second[r]) - auroc(good[r], values[r]))}


def _ceiling(answers: Sequence[RatedAnswer]) -> dict[str, Any]:
    rows = one_against_rest(answers)
    rest, score = np.array([row.rest for row in rows]), np.array([float(row.score) for row in rows])
    groups = np.array([row.conversation for row in rows])
    nothing = Interval(np.nan, np.nan, np.nan)
    return {"score": "one rater, against the rest", "answers": len(rows), "bad": int((~rest).sum()),
            "auroc": by_group(groups, lambda r: auroc(rest[r], score[r])), "shipped_less_this": nothing, "fitted_less_this": nothing}


def _scores(model: Model, read: Sequence[Examined]) -> Floats:
    """Probability of Good; a half where the judge can't read the answer."""
    found = [None if one.unread else probability_of_good(model, one, searched=False) for one in read]
    return np.array([0.5 if p is None else p for p in found])


def _cross_fitted(rated: Sequence[RatedAnswer], read: Sequence[Examined], helpdesk: Sequence[Example], retriever: Retriever,
                  embedder: Embedder, config: FitConfig) -> Floats:
    """Each conversation scored by a judge whose ratings come from the other folds' conversations."""
    own = rated_examples(rated)
    alone, searching = Examiner(embedder), Examiner(embedder, retriever)
    known = [one for n in range(0, len(helpdesk), READ) for one in alone.examine([e.case for e in helpdesk[n : n + READ]])]
    searched = [one for n in range(0, len(helpdesk), READ) for one in searching.examine([e.case for e in helpdesk[n : n + READ]])]
    fold = {name: n % FOLDS for n, name in enumerate(sorted({answer.conversation for answer in rated}))}
    scores = np.zeros(len(rated))
    for part in range(FOLDS):
        rest = [n for n, answer in enumerate(rated) if fold[answer.conversation] != part]
        model = fit((*helpdesk, *(own[n] for n in rest)), [*known, *(read[n] for n in rest)], [*searched, *(read[n] for n in rest)],
                    encoder_of(embedder.model_id), config)
        held = [n for n, answer in enumerate(rated) if fold[answer.conversation] == part]
        scores[held] = _scores(model, [read[n] for n in held])
    return scores


def _similarities(rated: Sequence[RatedAnswer], embedder: Embedder) -> Floats:
    """Cosine of each answer to the nearest of its passages."""
    texts = list(dict.fromkeys(text for answer in rated for text in (answer.answer, *(one.answer for one in answer.passages))))
    vectors = dict(zip(texts, embedder.embed(texts), strict=True))
    return np.array([max((float(vectors[answer.answer] @ vectors[one.answer]) for one in answer.passages), default=0.0)
                     for answer in rated])


def _passages(answer: RatedAnswer) -> str:
    return "\n".join(one.answer for one in answer.passages)


def auroc(good: NDArray[np.bool_], score: Floats) -> float:
    """Chance that a Good answer's score is above a Bad one's, ties half; nan where there is only one kind."""
    from scipy.stats import rankdata

    most, least = int(good.sum()), int((~good).sum())
    if not most or not least:
        return float("nan")
    return float((rankdata(score)[good].sum() - most * (most + 1) / 2) / (most * least))


def by_group(groups: NDArray[Any], statistic: Any, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """A statistic of rows with its 95 % interval: whole groups are drawn again. Resamples in which it has no value are left out."""
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    rng = np.random.default_rng(seed)
    values = [statistic(np.concatenate([members[n] for n in rng.integers(len(members), size=len(members))])) for _ in range(resamples)]
    low, high = np.nanquantile(values, (0.025, 0.975))
    return Interval(float(statistic(np.arange(len(groups)))), float(low), float(high), len(members) < FEWEST_CONVERSATIONS)
