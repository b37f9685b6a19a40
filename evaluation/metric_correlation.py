"""Do reference-based metrics rank answers as people do? Scores of rated answers, and their correlation to the raters.

Two references: the answer that people wrote for the same turn, for the systems' answers, and the passages that were found, for every
answer that had any. Beside them stands the answer's length, which looks at nothing. People's side is the consensus (AUROC) and the mean
over raters of the lower of faithfulness and appropriateness (rank correlations). Leaves out the metrics (`reference_metrics.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.human_ratings import RatedAnswer, consensus
from evaluation.ranks import Resampled, auroc, conversation_numbers, drawn, interval, kendall, spearman
from evaluation.reference_metrics import Overlap, TokenEncoder, TokenVectors, bert_score, bleu, rouge_l
from evaluation.stats import Interval

Floats = NDArray[np.float64]
HUMAN = "reference"
"""The system whose answers people wrote."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Metrics of some of the rated answers."""

    answers: tuple[RatedAnswer, ...]
    scores: Mapping[str, Floats]
    """By the metric's name, shape (answers,)."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """How a score ranks answers, beside people."""

    metric: str
    answers: int
    auroc: Interval
    """Of answers that the raters' consensus finds Good against Bad ones; those without a consensus are left out."""
    spearman: Interval
    kendall: Interval


def against_reference(answers: Sequence[RatedAnswer], encoder: TokenEncoder) -> Scored:
    """The systems' answers beside the one that people wrote for the turn; turns without one are left out."""
    written = {one.turn: one.answer for one in answers if one.system == HUMAN}
    scored = tuple(one for one in answers if one.system != HUMAN and one.turn in written)
    vectors = _vectors(encoder, [text for one in scored for text in (one.answer, written[one.turn])])
    rouge = [rouge_l(one.answer, written[one.turn]) for one in scored]
    bert = [bert_score(vectors[one.answer], vectors[written[one.turn]]) for one in scored]
    return Scored(scored, {
        "BLEU": np.array([bleu(one.answer, [written[one.turn]]) for one in scored]),
        "ROUGE-L F1": _f1(rouge), "ROUGE-L recall": np.array([one.recall for one in rouge]),
        "BERTScore F1": _f1(bert), "BERTScore recall": np.array([one.recall for one in bert]),
        "words": _lengths(scored),
    })


def against_passages(answers: Sequence[RatedAnswer], encoder: TokenEncoder) -> Scored:
    """Answers that had passages, beside all of these together (precision: what of the answer they have) and the nearest one (F1)."""
    scored = tuple(one for one in answers if one.passages)
    vectors = _vectors(encoder, [text for one in scored for text in (one.answer, *(faq.answer for faq in one.passages))])
    bert = [[bert_score(vectors[one.answer], vectors[faq.answer]) for faq in one.passages] for one in scored]
    rouge = [[rouge_l(one.answer, faq.answer) for faq in one.passages] for one in scored]
    return Scored(scored, {
        "BLEU": np.array([bleu(one.answer, [faq.answer for faq in one.passages]) for one in scored]),
        "ROUGE-L F1": np.array([max(found.f1 for found in each) for each in rouge]),
        "ROUGE-L precision": np.array([max(found.precision for found in each) for each in rouge]),
        "BERTScore F1": np.array([max(found.f1 for found in each) for each in bert]),
        "BERTScore precision": np.array([_precision(vectors, one) for one in scored]),
        "words": _lengths(scored),
    })


def correlations(scored: Scored, *, seed: int = 0) -> tuple[Correlation, ...]:
    """Each metric's AUROC, rho and tau-b to people, with 95 % intervals by conversation."""
    return tuple(_correlation(name, scores, scored.answers, seed) for name, scores in scored.scores.items())


def mean_lower(answers: Sequence[RatedAnswer]) -> Floats:
    """The mean over raters of the lower of faithfulness and appropriateness, 1-4; nan where no rater gave both."""
    lowers = [[rating.lower for rating in one.ratings if rating.lower is not None] for one in answers]
    return np.array([np.mean(one) if one else np.nan for one in lowers], dtype=np.float64)


def consensus_auroc(scores: Floats, answers: Sequence[RatedAnswer], *, seed: int = 0) -> tuple[Resampled, int]:
    """The AUROC of a score on the answers with a consensus, with its resamples, and how many conversations these are from."""
    found = [consensus(one) for one in answers]
    kept = np.array([word is not None and not np.isnan(score) for word, score in zip(found, scores, strict=True)], dtype=bool)
    groups = conversation_numbers([one.conversation for one, keep in zip(answers, kept, strict=True) if keep])
    good = np.array([bool(word) for word in found])[kept]
    return auroc(scores[kept], good, groups, drawn(groups, seed=seed)), int(groups.max()) + 1


def _correlation(name: str, scores: Floats, answers: Sequence[RatedAnswer], seed: int) -> Correlation:
    ranked, conversations = consensus_auroc(scores, answers, seed=seed)
    truth = mean_lower(answers)
    kept = ~np.isnan(truth)
    groups = conversation_numbers([one.conversation for one, keep in zip(answers, kept, strict=True) if keep])
    weights = drawn(groups, seed=seed)
    rho, tau = (figure(scores[kept], truth[kept], groups, weights) for figure in (spearman, kendall))
    return Correlation(name, len(answers), interval(ranked, conversations), interval(rho, conversations), interval(tau, conversations))


def _vectors(encoder: TokenEncoder, texts: Sequence[str]) -> dict[str, TokenVectors]:
    unique = list(dict.fromkeys(texts))
    return dict(zip(unique, encoder.encode(unique), strict=True))


def _precision(vectors: Mapping[str, TokenVectors], answer: RatedAnswer) -> float:
    return bert_score(vectors[answer.answer], np.concatenate([vectors[faq.answer] for faq in answer.passages])).precision


def _f1(found: Sequence[Overlap]) -> Floats:
    return np.array([one.f1 for one in found])


def _lengths(answers: Sequence[RatedAnswer]) -> Floats:
    return np.array([float(len(one.answer.split())) for one in answers])
