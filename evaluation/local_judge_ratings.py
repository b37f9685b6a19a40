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
from evaluation.ranks import auroc, conversation_numbers, difference, drawn, interval
from evaluation.reference_metrics import rouge_l
from evaluation.stats import Interval
from kb.embedder import Embedder
from kb.retriever import FaqRetriever
from reward.examining import Examined, Examiner
from reward.judge import Case
from reward.local_model import Model, encoder_of, probability_of_good
from reward.local_training import Example, FitConfig, fit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FOLDS = 5
READ = 64
RATED_SUPPORT = 3.0
"""What a rated answer counts in what the FAQs hold, beside a made one."""


def rated_examples(answers: Sequence[RatedAnswer]) -> tuple[Example, ...]:
    """The rated answers as examples of what passages hold to fit on; those without a consensus are left out."""
    labelled = [(answer, consensus(answer)) for answer in answers]
    return tuple(Example(answer.case(), answer.conversation, "rated", good, None, support_weight=RATED_SUPPORT)
                 for answer, good in labelled if good is not None)


def logged_examples(url: str, retriever: FaqRetriever) -> tuple[Example, ...]:
    """The turns of a log on whose answers its raters agree, as examples; ratings that are set aside don't count.

    They teach what the FAQs hold, not what settles a query: a rating doesn't say which of the two was at fault, and what was said before
    isn't looked at. Turns that mayn't be trained on, or whose FAQs are gone, are left out. Raises: LogError.
    """
    from chat.log.store import SqlConversationLog
    from reward.review import review

    with SqlConversationLog(url, create=False) as log:
        found = review(log)
    agreed = {one.turn_id: one.good for one in found.consensus.turns}
    examples = []
    for turn_id, turn in found.turns.items():
        good = agreed.get(turn_id)
        shown = [retriever.get(faq_id) for faq_id in turn.shown]
        if good is not None and turn.answer and turn.trains and None not in shown:
            case = Case(turn.query, (), tuple(faq for faq in shown if faq is not None), turn.answer, ())
            examples.append(Example(case, f"log:{turn_id}", "rated turn", good, None, support_weight=RATED_SUPPORT))
    return tuple(examples)


def against_people(answers: Sequence[RatedAnswer], embedder: Embedder, model: Model, helpdesk: Sequence[Example], retriever: Retriever,
                   config: FitConfig) -> list[dict[str, Any]]:
    """AUROC of each score against the consensus, and how much the judge is ahead of it; intervals by conversation."""
    rated = [answer for answer in answers if consensus(answer) is not None]
    good = np.array([bool(consensus(answer)) for answer in rated])
    groups = conversation_numbers([answer.conversation for answer in rated])
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


def _row(name: str, values: Floats, scores: dict[str, Floats], good: Bools, groups: NDArray[np.int64]) -> dict[str, Any]:
    ranked = {key: auroc(found, good, groups, drawn(groups)) for key, found in scores.items()}
    shipped, fitted = list(ranked)[:2]
    conversations = int(groups.max()) + 1
    return {"score": name, "answers": len(good), "bad": int((~good).sum()), "auroc": interval(ranked[name], conversations),
            "shipped_less_this": difference(ranked[shipped], ranked[name], conversations),
            "fitted_less_this": difference(ranked[fitted], ranked[name], conversations)}


def _ceiling(answers: Sequence[RatedAnswer]) -> dict[str, Any]:
    rows = one_against_rest(answers)
    rest, score = np.array([row.rest for row in rows]), np.array([float(row.score) for row in rows])
    groups = conversation_numbers([row.conversation for row in rows])
    nothing = Interval(np.nan, np.nan, np.nan)
    return {"score": "one rater, against the rest", "answers": len(rows), "bad": int((~rest).sum()),
            "auroc": interval(auroc(score, rest, groups, drawn(groups)), int(groups.max()) + 1), "shipped_less_this": nothing,
            "fitted_less_this": nothing}


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
