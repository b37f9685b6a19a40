"""The probe set: answers about our own help desk that people called Good or Bad, judged again on each run to see a judge change.

It ships (`data/probe.jsonl`), written by hand for this project, and is for looking at judges alone: nothing is trained or tuned on it.
By the rubric, any fact that is added or changed is Bad, a question that was asked and not answered is Bad, and "I don't know" is Good
where no FAQ that was shown has the answer. Answers cite their FAQs, wrong ones too. Leaves out comparing (`agreement.py`, `drift.py`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat.citations import cited_ids
from chat.types import PastTurn
from kb.types import Faq
from reward.errors import AgreementError
from reward.judge import Case

PROBE = Path(__file__).parent / "data" / "probe.jsonl"


@dataclass(frozen=True, slots=True)
class Probe:
    """One answer and people's word on it."""

    id: str
    kind: str
    """`right`, `paraphrase`, `changed_number`, `negation`, `other_faq`, `half_answer`, `right_refusal`, `invented`, `wrong_refusal`,
    `small_talk`, `injection` or `hinglish`."""
    history: tuple[tuple[str, str], ...]
    """Queries and answers before it, oldest first."""
    query: str
    faqs: tuple[str, ...]
    """Ids of the FAQs that the answerer was shown."""
    answer: str
    gold: tuple[str, ...]
    """Ids of the FAQs that answer the query; () needs none, or there is none. For `ReferenceJudge` alone."""
    good: bool
    why: str
    """Of the label, for people."""


def read_probe(path: Path = PROBE) -> tuple[Probe, ...]:
    """The probe set of a file, in file order. Raises: AgreementError naming file, line and field of what can't be used."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AgreementError(f"{path}: expected a readable probe set, one JSON object a line: {error}") from error
    probes = tuple(_probe(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
    if len({probe.id for probe in probes}) < len(probes):
        raise AgreementError(f"{path}: expected each id once; give each answer of the probe set its own")
    return probes


def probe_cases(probes: Sequence[Probe], faqs: Mapping[str, Faq]) -> tuple[Case, ...]:
    """What a judge sees of each. Raises: AgreementError for a probe with an FAQ that isn't among `faqs`."""
    return tuple(_case(probe, faqs) for probe in probes)


def probe_hash(probes: Sequence[Probe], faqs: Mapping[str, Faq]) -> str:
    """sha256 of all that a judge sees and of the labels: runs of one hash may be compared."""
    seen = [[probe.id, probe.history, probe.query, [faqs[faq].text for faq in probe.faqs if faq in faqs],
             [faqs[faq].text for faq in probe.gold if faq in faqs], probe.answer, probe.good] for probe in probes]
    return hashlib.sha256(json.dumps(seen, ensure_ascii=False).encode()).hexdigest()


def _case(probe: Probe, faqs: Mapping[str, Faq]) -> Case:
    if missing := [faq for faq in (*probe.faqs, *probe.gold) if faq not in faqs]:
        raise AgreementError(f"probe {probe.id}: expected FAQs of the knowledge base it was written for, got {missing[0]!r}, which isn't "
                             "there; give that knowledge base, or a probe set of your own")
    past = tuple(PastTurn(query, answer) for query, answer in probe.history)
    shown = tuple(faqs[faq] for faq in probe.faqs)
    found = tuple(faqs[faq] for faq in dict.fromkeys((*probe.faqs, *probe.gold)))  # as a search that works finds
    return Case(probe.query, past, shown, probe.answer, cited_ids(probe.answer, probe.faqs), probe.gold, found)


def _probe(where: str, line: str) -> Probe:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise AgreementError(f"{where}: expected a JSON object, got what can't be parsed: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("good"), bool):
        raise AgreementError(f"{where}: expected a JSON object with `good` true or false, got {str(row)[:60]}")
    history = row.get("history", [])
    if not isinstance(history, list) or not all(_texts(pair) and len(pair) == 2 for pair in history):
        raise AgreementError(f"{where}: history: expected a list of [query, answer], got {str(history)[:60]}")
    for name in ("faqs", "gold"):
        if not _texts(row.get(name)):
            raise AgreementError(f"{where}: {name}: expected a list of FAQ ids, got {str(row.get(name))[:60]}")
    for name in ("id", "kind", "query", "answer"):
        if not isinstance(row.get(name), str):
            raise AgreementError(f"{where}: {name}: expected text, got {row.get(name)!r}")
    return Probe(row["id"], row["kind"], tuple((query, answer) for query, answer in history), row["query"], tuple(row["faqs"]),
                 row["answer"], tuple(row["gold"]), row["good"], str(row.get("why", "")))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
