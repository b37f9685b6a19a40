"""Answers with a word on each that a judge is measured against: the probe set, replayed conversations, people's ratings.

Leaves out measuring (`reward/agreement.py`) and the verdicts and ratings of a log, on which nobody is asked anew (`log_agreement.py`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chat.types import Action
from evaluation.datasets import Session
from evaluation.heard import HearingJudge
from evaluation.human_ratings import GOOD_FROM, RatedAnswer, consensus
from evaluation.rollout import World, replays
from kb.types import Faq
from reward.agreement import Agreement, Word, agreement
from reward.judge import Case, Judge, Verdict
from reward.kappa import RESAMPLES
from reward.probe import PROBE, probe_cases, probe_hash, read_probe


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """What a judge sees, and the word that it is measured against."""

    case: Case
    truth: Word
    conversation: str
    kind: str


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Cases of one source."""

    name: str
    against: str
    """Whose word the truth is."""
    hash: str
    """sha256 of what a judge sees and of the truth."""
    cases: tuple[LabelledCase, ...]


def judged_by(judge: Judge, labelled: LabelledSet) -> tuple[Verdict | None, ...]:
    """The judge's verdict on each case of the set."""
    return judge.judge([one.case for one in labelled.cases])


def agreement_on(labelled: LabelledSet, judged: Sequence[Word], version: str, *, resamples: int = RESAMPLES, seed: int = 0) -> Agreement:
    """How far a judge's words on the set's cases agree with its truth, with intervals by conversation. Raises: AgreementError."""
    return agreement(judged, [one.truth for one in labelled.cases], judge=version, against=labelled.against,
                     conversations=[one.conversation for one in labelled.cases], kinds=[one.kind for one in labelled.cases],
                     resamples=resamples, seed=seed)


def against_judge(labelled: LabelledSet, judge: Judge) -> LabelledSet:
    """The same cases with another judge's words for the truth: judge against judge."""
    said = words(judged_by(judge, labelled))
    cases = tuple(replace(one, truth=word) for one, word in zip(labelled.cases, said, strict=True))
    return LabelledSet(labelled.name, judge.version, _hash(cases), cases)


def words(verdicts: Sequence[Verdict | None]) -> tuple[Word, ...]:
    """Good, Bad or missing."""
    return tuple(None if verdict is None else verdict.good for verdict in verdicts)


def probe_set(faqs: Mapping[str, Faq], path: Path = PROBE) -> LabelledSet:
    """The probe set, people's word by the rubric; every case is a conversation of its own. Raises: AgreementError."""
    probes = read_probe(path)
    cases = tuple(LabelledCase(case, probe.good, probe.id, probe.kind)
                  for probe, case in zip(probes, probe_cases(probes, faqs), strict=True))
    return LabelledSet("probe", "people", probe_hash(probes, faqs), cases)


def replayed_set(sessions: Sequence[Session], world: World, name: str, progress: Callable[[int], None] | None = None) -> LabelledSet:
    """What the world's reader answered in each labelled turn, fetching and not, and what the labels say of it.

    The conversation goes on as if every turn had fetched, and each turn is answered both ways. The world's judge gives the truth.
    `progress` is told of each conversation. Raises: DatasetError when a gold id isn't in the knowledge base.
    """
    hearing = HearingJudge(world.judge, world.judge.version)
    cases: list[LabelledCase] = []
    for replay in replays(sessions, replace(world, judge=hearing)):
        for position, turn in enumerate(replay.session.turns):
            for action in replay.choices(position):
                replay.arm((Action.FETCH,) * position, action)
                case, verdict = hearing.heard[-1]
                if verdict is not None:
                    cases.append(LabelledCase(case, verdict.good, replay.session.id, turn.kind))
        if progress is not None:
            progress(1)
    return LabelledSet(name, f"gold:{world.judge.version}", _hash(cases), tuple(cases))


def human_set(answers: Sequence[RatedAnswer], *, good_from: int = GOOD_FROM, name: str = "mtrag-human") -> LabelledSet:
    """Rated answers against the consensus of all of their raters; those without one have no truth."""
    cases = [LabelledCase(one.case(), consensus(one, good_from=good_from), one.conversation, one.answerability) for one in answers]
    return LabelledSet(name, f"people:from-{good_from}", _hash(cases), tuple(cases))


def _hash(cases: Sequence[LabelledCase]) -> str:
    rows = [[one.case.query, [[past.query, past.answer] for past in one.case.history], [faq.text for faq in one.case.faqs], one.case.answer,
             one.truth] for one in cases]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8", errors="replace")).hexdigest()
