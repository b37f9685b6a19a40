"""The tables of docs/results.md on agreement, as Markdown: `python -m evaluation.agreement_tables --rated FILE [--judge NAME …]`.

How far raters agree, how reference-based metrics rank answers beside them, and each judge against people on the probe set and on rated
answers, and against gold labels on the extractive answerer's turns. Leaves out what is measured (`reward/agreement.py`,
`metric_correlation.py`). Slow: the answerer takes minutes.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from evaluation.agreement_run import rater_ceiling, shipped_probe, shipped_replay
from evaluation.agreement_sets import LabelledSet, agreement_on, human_set, judged_by, words
from evaluation.human_ratings import GOOD_FROM, SCALES, OneAgainstRest, RatedAnswer, one_against_rest, read_judgements
from evaluation.judges import JUDGES, JudgeName, make_judge
from evaluation.metric_correlation import Scored, against_passages, against_reference, consensus_auroc, correlations
from evaluation.ranks import auroc, conversation_numbers, difference, drawn, interval
from evaluation.reference_metrics import TokenEncoder
from evaluation.stats import Interval
from evaluation.world import load_knowledge
from reward.agreement import Agreement, confusion, kappa_of
from reward.judge import Judge, Verdict
from reward.kappa import Estimate, Tables, by_conversation, coincidences, krippendorff_alpha

CUTS = (3, 4)
"""From where an answer is Good on the raters' scale: the upper half, and the best alone."""


def raters_table(answers: Sequence[RatedAnswer]) -> Iterator[str]:
    """How far raters agree: alpha on each scale, and one rater against the consensus of the others."""
    yield "| what | of | figure (95 % by conversation) |"
    yield "|---|---|---|"
    for scale in SCALES:
        units = [[getattr(one, scale) - 1 for one in answer.ratings if getattr(one, scale) is not None] for answer in answers]
        yield f"| {scale} | Krippendorff's alpha, ordinal | {_alpha(units, answers, 4)} |"
    for cut in CUTS:
        units = [[int(good) for one in answer.ratings if (good := one.good(cut)) is not None] for answer in answers]
        ceiling, rows = rater_ceiling(answers, good_from=cut), one_against_rest(answers, cut)
        yield f"| Good from {cut} | Krippendorff's alpha, nominal | {_alpha(units, answers, 2)} |"
        yield f"| Good from {cut} | kappa, one rater against the others ({ceiling.confusion.cases} pairs) | {ceiling.kappa} |"
        yield f"| Good from {cut} | AUROC, one rater's score against the others | {_thousandths(_rater_auroc(rows))} |"


def each_rater_table(answers: Sequence[RatedAnswer], cut: int = GOOD_FROM) -> Iterator[str]:
    """Every rater beside the others."""
    rows = one_against_rest(answers, cut)
    yield "| rater | answers | says Good | the others say Good | kappa |"
    yield "|---|---|---|---|---|"
    for number, rater in enumerate(sorted({row.rater for row in rows}), 1):
        mine = [row for row in rows if row.rater == rater]
        good, rest = [row.good for row in mine], [row.rest for row in mine]
        yield f"| {number} | {len(mine)} | {np.mean(good):.0%} | {np.mean(rest):.0%} | {kappa_of(confusion(good, rest)):.2f} |"


def metrics_table(scored: Scored) -> Iterator[str]:
    """Each metric's ranking of answers beside people's."""
    yield "| metric | answers | AUROC | Spearman | Kendall |"
    yield "|---|---|---|---|---|"
    for one in correlations(scored):
        yield f"| {one.metric} | {one.answers} | {_thousandths(one.auroc)} | {_hundredths(one.spearman)} | {_hundredths(one.kendall)} |"


def judge_tables(judge: Judge, sets: Sequence[LabelledSet]) -> Iterator[str]:
    """A judge on each set, by kind of turn."""
    for labelled in sets:
        verdicts = judged_by(judge, labelled)
        found = agreement_on(labelled, words(verdicts), judge.version)
        yield f"\n**{labelled.name}**: `{found.judge}` against {found.against}, {found.conversations} conversations"
        yield ""
        yield from agreement_table(found)
        if (ranked := _judge_auroc(labelled, verdicts)) is not None:
            yield f"\nAUROC of its probability: {_thousandths(ranked)}"


def agreement_table(found: Agreement) -> Iterator[str]:
    """Confusion, kappa and rates, by kind of turn and in all."""
    yield "| kind | cases | missing | agreed | Bad called Good | Good called Bad | kappa |"
    yield "|---|---|---|---|---|---|---|"
    for kind in found.kinds:
        counts = kind.confusion
        yield (f"| {kind.kind} | {counts.cases} | {counts.missing} | {_share(counts.agreed)} | {counts.bad_good} of "
               f"{counts.bad_good + counts.bad_bad} | {counts.good_bad} of {counts.good_bad + counts.good_good} | {_number(kind.kappa)} |")
    counts = found.confusion
    yield (f"| **all** | {counts.cases} | {counts.missing} | {_share(counts.agreed)} | {_rate(counts.false_good)} | "
           f"{_rate(counts.false_bad)} | {found.kappa} |")


def compared(scored: Scored, metric: str, rival: str) -> str:
    """How much better one metric's AUROC is than another's, on the same resamples."""
    one, conversations = consensus_auroc(scored.scores[metric], scored.answers)
    other, _ = consensus_auroc(scored.scores[rival], scored.answers)
    return f"{metric} less {rival}: AUROC {_thousandths(difference(one, other, conversations))}"


def main(arguments: Sequence[str]) -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.agreement_tables", description="Agreement of judges, raters and metrics.")
    parser.add_argument("--rated", type=Path, help="rated answers (judgements.jsonl)")
    parser.add_argument("--judge", choices=JUDGES[:2], action="append", default=[], help="judge to measure; may be given again")
    parser.add_argument("--conversations", type=int, help="dev sessions to answer; default all")
    options = parser.parse_args(arguments)
    answers = () if options.rated is None else read_judgements(options.rated)
    for line in _all_tables(answers, options.judge, options.conversations):
        print(line)


def _all_tables(answers: Sequence[RatedAnswer], judges: Sequence[JudgeName], conversations: int | None) -> Iterator[str]:
    if answers:
        encoder = TokenEncoder()
        yield from ("### Raters", "", *raters_table(answers), "", *each_rater_table(answers))
        reference, passages = against_reference(answers, encoder), against_passages(answers, encoder)
        yield from ("\n### Metrics against the answer that people wrote", "", *metrics_table(reference))
        yield from ("\n### Metrics against the passages", "", *metrics_table(passages))
        yield "\n" + compared(passages, "BERTScore precision", "ROUGE-L precision")
    if judges:
        embedder, retriever = load_knowledge(None)
        sets = (shipped_probe(), shipped_replay(embedder, retriever, conversations))
        for name in judges:
            yield from (f"\n### Judge: {name}", *judge_tables(make_judge(name, embedder, retriever=retriever), sets))
            if answers:
                yield from judge_tables(make_judge(name, embedder), [human_set(answers)])


def _alpha(units: Sequence[Sequence[int]], answers: Sequence[RatedAnswer], categories: int) -> Estimate:
    """Krippendorff's alpha with its interval by conversation; ordinal where there are more than two categories."""
    groups = conversation_numbers([answer.conversation for answer in answers])
    tables: Tables = np.stack([coincidences([unit for unit, group in zip(units, groups, strict=True) if group == one], categories)
                               for one in range(int(groups.max()) + 1)])
    return by_conversation(lambda summed: krippendorff_alpha(summed, "ordinal" if categories > 2 else "nominal"), tables)


def _rater_auroc(rows: Sequence[OneAgainstRest]) -> Interval:
    groups = conversation_numbers([row.conversation for row in rows])
    scores, rest = np.array([float(row.score) for row in rows]), np.array([row.rest for row in rows], dtype=bool)
    return interval(auroc(scores, rest, groups, drawn(groups)), int(groups.max()) + 1)


def _judge_auroc(labelled: LabelledSet, verdicts: Sequence[Verdict | None]) -> Interval | None:
    """None: the judge gives no probabilities."""
    kept = [(case, verdict.probability) for case, verdict in zip(labelled.cases, verdicts, strict=True)
            if verdict is not None and verdict.probability is not None and case.truth is not None]
    if not kept:
        return None
    groups = conversation_numbers([case.conversation for case, _ in kept])
    found = auroc(np.array([probability for _, probability in kept], dtype=np.float64),
                  np.array([bool(case.truth) for case, _ in kept]), groups, drawn(groups))
    return interval(found, int(groups.max()) + 1)


def _thousandths(found: Interval) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _hundredths(found: Interval) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _rate(found: Estimate) -> str:
    return "-" if math.isnan(found.value) else f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
