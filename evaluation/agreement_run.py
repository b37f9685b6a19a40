"""What `reward agreement` does: judges the sets that ship, rated answers or nothing anew in a log, and keeps what came of it.

Without a file or a log it takes the probe set (people's labels) and the extractive answerer's turns over the help desk's dev sessions
(gold labels). Each measurement is added to the records, of which those against a log's raters bar a judge from training, and the probe
set's verdicts to the runs that show a judge change. Leaves out the figures (`reward/agreement.py`) and the command
(`service/cli/agreement.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.agreement_sets import LabelledSet, against_judge, agreement_on, human_set, judged_by, probe_set, replayed_set, words
from evaluation.datasets import HELPDESK_FAQS, read_helpdesk
from evaluation.human_ratings import GOOD_FROM, RatedAnswer, one_against_rest, read_judgements
from evaluation.world import make_world, read_queries
from kb.embedder import Embedder
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from reward.agreement import (
    Agreement,
    Confusion,
    accept,
    accept_kept,
    agreement,
    known,
    read_agreement,
    record_of,
    write_agreement,
)
from reward.drift import Drift, ProbeRun, add_run, drift, latest_run, read_runs
from reward.errors import JudgeRefusedError
from reward.judge import Judge, Verdict
from reward.kappa import Estimate

Progress = Callable[[int], None]
RECORDS = "agreement.json"
RUNS = "probe_runs.jsonl"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where measurements are kept."""

    folder: Path
    time: str
    """ISO 8601, of this run."""

    @classmethod
    def now(cls, folder: Path) -> "Kept":
        return cls(folder, datetime.now(UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One set's agreement, and whether it lets the judge train."""

    data: str
    agreement: Agreement
    refusal: str | None
    """Why the judge isn't good enough by this set; None: it is."""
    drift: Drift | None = None
    """Of the probe set: since the last run of such a judge; None: there is none, or another set."""
    ceiling: Agreement | None = None
    """Of rated answers: one rater against the others."""


def shipped_probe() -> LabelledSet:
    """The probe set that ships, over the help desk's FAQs."""
    return probe_set({faq.id: faq for faq in read_faqs(HELPDESK_FAQS)})


def shipped_replay(embedder: Embedder, retriever: FaqRetriever, conversations: int | None, progress: Progress | None = None) -> LabelledSet:
    """The extractive answerer's turns over the first so many of the help desk's dev sessions, or over all with None."""
    sessions = read_helpdesk("dev")[:conversations]
    read_queries(embedder, sessions)
    return replayed_set(sessions, make_world(embedder, retriever, reader="extractive"), "helpdesk dev, extractive", progress)


def rated_set(path: Path) -> tuple[LabelledSet, Agreement]:
    """The rated answers of a file against their raters, and the raters against each other. Raises: DatasetError, AgreementError."""
    answers = read_judgements(path)
    return human_set(answers, name=path.resolve().parent.name), rater_ceiling(answers)


def measure_set(judge: Judge, labelled: LabelledSet, kept: Kept, minimum_kappa: float, *, against: Judge | None = None,
                ceiling: Agreement | None = None, seed: int = 0) -> Measurement:
    """Ask the judge about each case, compare with the set's truth or with another judge, and keep the record.

    Raises: AgreementError, RewardError.
    """
    verdicts = judged_by(judge, labelled)
    compared = labelled if against is None else against_judge(labelled, against)
    found = agreement_on(compared, words(verdicts), judge.version, seed=seed)
    changed = _probe_drift(judge.version, labelled, verdicts, kept) if labelled.name == "probe" else None
    return replace(keep(found, labelled.name, compared.hash, kept, minimum_kappa), drift=changed, ceiling=ceiling)


def keep(found: Agreement, data: str, data_hash: str, kept: Kept, minimum_kappa: float) -> Measurement:
    """Write the record, and say whether the judge is good enough by this set."""
    record = record_of(found, data=data, data_hash=data_hash, measured_at=kept.time)
    write_agreement(kept.folder / RECORDS, record)
    try:
        accept(record, minimum_kappa)
    except JudgeRefusedError as error:
        return Measurement(data, found, str(error))
    return Measurement(data, found, None)


def check_kept(folder: Path, judge: str, minimum_kappa: float) -> None:
    """Before a training: nothing that is kept there says that a log's raters disagree with this version of the judge.

    Raises: JudgeRefusedError, AgreementError.
    """
    accept_kept(read_agreement(folder / RECORDS), judge, minimum_kappa)


def rater_ceiling(answers: Sequence[RatedAnswer], *, good_from: int = GOOD_FROM, seed: int = 0) -> Agreement:
    """One rater against the consensus of the other raters of the answer: what a judge may be held against."""
    rows = one_against_rest(answers, good_from)
    return agreement([row.good for row in rows], [row.rest for row in rows], judge="one rater", against="the other raters",
                     conversations=[row.conversation for row in rows], kinds=[answers[row.number].answerability for row in rows], seed=seed)


def as_json(measured: Sequence[Measurement], minimum_kappa: float) -> dict[str, Any]:
    """All of it as one JSON object, null for what can't be told."""
    return {"minimum_kappa": minimum_kappa, "sets": [_set_json(one) for one in measured]}


def _set_json(one: Measurement) -> dict[str, Any]:
    found = one.agreement
    kinds = [{"kind": kind.kind, **_counts(kind.confusion), "kappa": known(kind.kappa)} for kind in found.kinds]
    return {"data": one.data, "judge": found.judge, "against": found.against, "conversations": found.conversations,
            **_counts(found.confusion), "kappa": _estimate(found.kappa), "strict_kappa": _estimate(found.strict_kappa),
            "false_good": _estimate(found.confusion.false_good), "false_bad": _estimate(found.confusion.false_bad),
            "may_train": one.refusal is None, "refusal": one.refusal, "kinds": kinds,
            "drift": None if one.drift is None else _drift_json(one.drift),
            "ceiling": None if one.ceiling is None else {"cases": one.ceiling.confusion.cases, "kappa": _estimate(one.ceiling.kappa)}}


def _counts(counts: Confusion) -> dict[str, Any]:
    return {"cases": counts.cases, "missing": counts.missing, "coverage": known(counts.coverage), "agreed": known(counts.agreed),
            "confusion": asdict(counts)}


def _estimate(found: Estimate) -> dict[str, float | None]:
    return {"value": known(found.value), "low": known(found.low), "high": known(found.high)}


def _drift_json(found: Drift) -> dict[str, Any]:
    return {"since": found.previous.time, "previous_judge": found.previous.judge, "same_judge": found.same_judge,
            "to_good": found.to_good, "to_bad": found.to_bad, "lost": found.lost, "p_value": found.p_value,
            "changed": [asdict(change) for change in found.changes]}


def _probe_drift(version: str, labelled: LabelledSet, verdicts: Sequence[Verdict | None], kept: Kept) -> Drift | None:
    path = kept.folder / RUNS
    run = ProbeRun(kept.time, version, labelled.hash,
                   {one.conversation: word for one, word in zip(labelled.cases, words(verdicts), strict=True)})
    before = latest_run(read_runs(path), labelled.hash, version.split(":")[0])
    add_run(path, run)
    return None if before is None else drift(before, run)
