"""A log's verdicts beside its people's ratings, or beside another judge's verdicts: nobody is asked anew.

People's word on a turn is the consensus of the ratings that count (`reward/sift.py`, `reward/consensus.py`), and is on the answer that
the turn gave; so a judge's verdict on an answer that was written afterwards isn't beside it. Two judges are compared on every answer
that both looked at. Leaves out giving verdicts (`labelling.py`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping

from chat.log.ratings import ratings
from chat.log.store import SqlConversationLog
from chat.log.verdicts import LoggedVerdict, latest_verdicts
from evaluation.errors import EvaluationError
from reward.agreement import Agreement, Word, agreement
from reward.consensus import consensus, votes_of
from reward.sift import sift

Answer = tuple[str, str]
"""A turn and an arm of it."""


def people_agreement(log: SqlConversationLog, judge: str, *, seed: int = 0) -> tuple[Agreement, str]:
    """The judge of this name or version against the raters, and the sha256 of what was compared.

    Cases are the rated turns whose given answer the judge looked at. Raises: EvaluationError when there are none; LogError.
    """
    version = judge_version(log, judge)
    agreed = {turn.turn_id: turn.good for turn in consensus(votes_of(sift(ratings(log)).kept)).turns}
    if not agreed:
        raise EvaluationError("log: expected ratings of people to compare with, got none that count; bring some with "
                              "`fetchgate feedback import`, or compare with another judge")
    own = {one.turn_id: one.good for one in latest_verdicts(log, judge=version, turn_ids=list(agreed)) if one.answer is None}
    truth = {(turn, ""): good for turn, good in agreed.items() if turn in own}
    return _agreement(log, {(turn, ""): own[turn] for turn, _ in truth}, truth, version, "people", seed)


def judges_agreement(log: SqlConversationLog, judge: str, against: str, *, seed: int = 0) -> tuple[Agreement, str]:
    """One judge against another, each by name or version, on every answer that both looked at; and the sha256 of what was compared.

    Raises: EvaluationError when there is no such judge, or no such answer; LogError.
    """
    one, other = judge_version(log, judge), judge_version(log, against)
    first, second = _answers(latest_verdicts(log, judge=one)), _answers(latest_verdicts(log, judge=other))
    both = [answer for answer in first if answer in second and first[answer].answer == second[answer].answer]
    judged, truth = ({answer: side[answer].good for answer in both} for side in (first, second))
    return _agreement(log, judged, truth, one, other, seed)


def judge_version(log: SqlConversationLog, judge: str) -> str:
    """The version that `judge` is, or of its name the one with the most verdicts. Raises: EvaluationError when there is none."""
    counts = Counter(one.judge for one in latest_verdicts(log))
    fitting = [version for version, _ in counts.most_common() if version == judge or version.split(":")[0] == judge]
    if not fitting:
        there = ", ".join(sorted(counts)) or "none"
        raise EvaluationError(f"judge {judge}: expected verdicts of it in the log, found those of {there}; give them with "
                              f"`fetchgate log label --judge {judge}`")
    return fitting[0]


def _agreement(log: SqlConversationLog, judged: Mapping[Answer, Word], truth: Mapping[Answer, Word], judge: str, against: str,
               seed: int) -> tuple[Agreement, str]:
    turns = {turn for turn, _ in truth}
    placed = {row["id"]: (f"{row['owner']}\0{row['conversation_id']}", row["kind"] or row["action"] or "unknown") for row in log.rows()
              if row["id"] in turns}
    answers = [answer for answer in truth if truth[answer] is not None and answer[0] in placed]
    if not answers:
        raise EvaluationError(f"log: expected answers on which {against} had a word and {judge} was asked, got none; label and rate more")
    seen = [[*answer, truth[answer], judged[answer]] for answer in answers]
    found = agreement([judged[answer] for answer in answers], [truth[answer] for answer in answers], judge=judge, against=against,
                      conversations=[placed[turn][0] for turn, _ in answers], kinds=[placed[turn][1] for turn, _ in answers], seed=seed)
    return found, hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _answers(given: Iterable[LoggedVerdict]) -> dict[Answer, LoggedVerdict]:
    return {(one.turn_id, one.arm.value): one for one in given}
