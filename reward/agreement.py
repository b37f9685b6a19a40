"""Does a judge agree with people, or with another judge? Confusion, kappa, and whether the judge may train a policy.

Of two sides, `truth` is people's word (or the other judge's) and `judged` the judge's, True for Good. A case without a word of the
truth is left out. A case on which the judge gave none is *missing*: counted in the confusion and in `coverage`, never as agreement
and never as Bad. Rates and `kappa` are of the cases that both decided; `strict_kappa` takes missing as an answer that always disagrees.

What was measured of which version of a judge, on which set, is kept as a record (`AgreementRecord`, JSON), so that a training can
refuse a judge whom nobody has measured. Leaves out the statistics (`kappa.py`), and verdicts that change between runs (`drift.py`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from reward.errors import AgreementError, JudgeRefusedError
from reward.kappa import RESAMPLES, Estimate, Tables, by_conversation, cohen_kappa, exact_share

Word = bool | None
"""Good, Bad, or nothing said."""
MINIMUM_KAPPA = 0.6
"""From which agreement is called substantial (Landis & Koch 1977); one of `mtrag-human`'s raters reaches .56 against the others."""
MINIMUM_COVERAGE = 0.5
"""Share of cases that a judge must decide; below, its kappa is of the cases that it chose."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of cases, the truth's word first and the judge's second."""

    good_good: int
    good_bad: int
    good_missing: int
    bad_good: int
    bad_bad: int
    bad_missing: int

    @property
    def cases(self) -> int:
        return self.decided + self.missing

    @property
    def decided(self) -> int:
        return self.good_good + self.good_bad + self.bad_good + self.bad_bad

    @property
    def missing(self) -> int:
        return self.good_missing + self.bad_missing

    @property
    def coverage(self) -> float:
        """Share of the cases that the judge decided; of none it is nan."""
        return self.decided / self.cases if self.cases else math.nan

    @property
    def agreed(self) -> float:
        """Share of the decided cases with one and the same word; of none it is nan."""
        return (self.good_good + self.bad_bad) / self.decided if self.decided else math.nan

    @property
    def false_good(self) -> Estimate:
        """Share of the truth's Bad cases that the judge called Good, of those it decided: what lets a policy learn wrong answers."""
        return exact_share(self.bad_good, self.bad_good + self.bad_bad)

    @property
    def false_bad(self) -> Estimate:
        """Share of the truth's Good cases that the judge called Bad, of those it decided: what keeps a policy from saving."""
        return exact_share(self.good_bad, self.good_bad + self.good_good)


@dataclass(frozen=True, slots=True)
class KindAgreement:
    """One kind of turn."""

    kind: str
    confusion: Confusion
    kappa: float
    """nan where it can't be told: one side says one thing throughout."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a judge did against a truth."""

    judge: str
    """Its version."""
    against: str
    """Whose word the truth is: people, a rater's rest, gold labels, another judge's version."""
    confusion: Confusion
    kappa: Estimate
    """Cohen's, of the cases that both decided; the interval is by conversation."""
    strict_kappa: Estimate
    """The same with missing as an answer of its own, which the truth never gives."""
    conversations: int
    kinds: tuple[KindAgreement, ...] = ()
    """By kind of turn, in the order in which they came."""


def confusion(judged: Sequence[Word], truth: Sequence[Word]) -> Confusion:
    """Counts of what the judge said beside the truth. Raises: AgreementError when they aren't as many."""
    if len(judged) != len(truth):
        raise AgreementError(f"judged: expected a verdict or None for each of {len(truth)} cases of the truth, got {len(judged)}")
    return Confusion(*(sum(word is said and (true is sure) for word, true in zip(judged, truth, strict=True))
                       for sure in (True, False) for said in (True, False, None)))


def agreement(judged: Sequence[Word], truth: Sequence[Word], *, judge: str, against: str, conversations: Sequence[str] | None = None,
              kinds: Sequence[str] | None = None, resamples: int = RESAMPLES, seed: int = 0) -> Agreement:
    """How far the judge agrees with the truth, with intervals by conversation; without their ids each case is one.

    Raises: AgreementError when the sequences differ in length, or the truth says nothing about any case.
    """
    cases = len(truth)
    groups = [str(number) for number in range(cases)] if conversations is None else list(conversations)
    for name, values in (("conversations", groups), ("kinds", kinds if kinds is not None else groups)):
        if len(values) != cases:
            raise AgreementError(f"{name}: expected one for each of {cases} cases, got {len(values)}")
    total = confusion(judged, truth)
    if total.cases == 0:
        raise AgreementError(f"truth: expected a word on some case, got none on {cases}; label cases first")
    tables = _tables(judged, truth, groups)
    return Agreement(judge, against, total, by_conversation(cohen_kappa, tables[:, :2, :2], resamples=resamples, seed=seed),
                     by_conversation(cohen_kappa, tables, resamples=resamples, seed=seed), len(tables),
                     () if kinds is None else _by_kind(judged, truth, kinds))


def kappa_of(counts: Confusion) -> float:
    """Cohen's kappa of the cases that both decided."""
    return float(cohen_kappa(np.array([[counts.good_good, counts.good_bad], [counts.bad_good, counts.bad_bad]], dtype=np.float64)))


@dataclass(frozen=True, slots=True)
class AgreementRecord:
    """What was measured of one version of a judge on one set."""

    judge: str
    """Its version."""
    against: str
    data: str
    """Name of the set."""
    data_hash: str
    """sha256 of the set's file or cases, so that a changed set is another one."""
    measured_at: str
    """ISO 8601."""
    cases: int
    decided: int
    conversations: int
    kappa: float | None
    """None: it can't be told."""
    kappa_low: float | None
    kappa_high: float | None
    false_good: float | None
    false_bad: float | None

    @property
    def coverage(self) -> float:
        return self.decided / self.cases if self.cases else 0.0


def record_of(found: Agreement, *, data: str, data_hash: str, measured_at: str) -> AgreementRecord:
    """The record of a measurement."""
    counts, kappa = found.confusion, found.kappa
    return AgreementRecord(found.judge, found.against, data, data_hash, measured_at, counts.cases, counts.decided, found.conversations,
                           known(kappa.value), known(kappa.low), known(kappa.high), known(counts.false_good.value),
                           known(counts.false_bad.value))


def known(value: float) -> float | None:
    """The number, or None in the place of nan: JSON has none."""
    return None if math.isnan(value) else value


LOG, PEOPLE = "log", "people"
"""Set and truth of a measurement that bars a judge from training."""


def accept(found: Agreement | AgreementRecord, minimum_kappa: float = MINIMUM_KAPPA) -> None:
    """Let a judge pass whose kappa is at least the minimum and who decided at least half of the cases.

    The kappa itself is compared, not its lower bound: with a few hundred labels, the bound would refuse judges that are well above.
    Raises: JudgeRefusedError, with the kappa, its interval, how many cases, and how to go on all the same.
    """
    record = found if isinstance(found, AgreementRecord) else record_of(found, data="", data_hash="", measured_at="")
    on = f"{record.decided} of {record.cases} cases" + (f" of {record.data}" if record.data else "")
    force = "measure it on more cases, take another judge, or go on all the same with --force-judge"
    if record.coverage < MINIMUM_COVERAGE:
        raise JudgeRefusedError(f"judge {record.judge}: expected a verdict on at least {MINIMUM_COVERAGE:.0%} of the cases, got {on}; "
                                f"{force}")
    if record.kappa is None or record.kappa < minimum_kappa:
        found_kappa = ("none that can be told" if record.kappa is None else
                       f"{record.kappa:.2f} (95 % interval {record.kappa_low:.2f} to {record.kappa_high:.2f})")
        raise JudgeRefusedError(f"judge {record.judge}: expected kappa against {record.against} of at least {minimum_kappa:.2f}, got "
                                f"{found_kappa} on {on}; {force}")


def accept_kept(records: Sequence[AgreementRecord], judge: str, minimum_kappa: float = MINIMUM_KAPPA) -> None:
    """Let this version of a judge pass unless what is kept says that people who rated a log's answers disagree with it.

    One that nobody has measured so passes: a training measures it anyway, on its own labels. Other sets don't bar. The probe set is made
    of what judges get wrong, others' rated answers are about other FAQs, and another judge's word is no truth.
    Raises: JudgeRefusedError.
    """
    for record in records:
        if (record.judge, record.data, record.against) == (judge, LOG, PEOPLE):
            accept(record, minimum_kappa)


def read_agreement(path: Path) -> tuple[AgreementRecord, ...]:
    """The records of a file, in file order; () where there is no file.

    Raises: AgreementError naming the file and the record that can't be used.
    """
    if not path.exists():
        return ()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AgreementError(f"{path}: expected a JSON list of agreement records: {error}") from error
    if not isinstance(rows, list):
        raise AgreementError(f"{path}: expected a JSON list of agreement records, got {type(rows).__name__}")
    return tuple(_record(f"{path}: record {number}", row) for number, row in enumerate(rows))


def write_agreement(path: Path, record: AgreementRecord) -> None:
    """Add a record to a file; one of the same judge, truth and set's name is replaced."""
    same = (record.judge, record.against, record.data)
    kept = [one for one in read_agreement(path) if (one.judge, one.against, one.data) != same]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(one) for one in (*kept, record)], ensure_ascii=False, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


_TEXTS = ("judge", "against", "data", "data_hash", "measured_at")
_COUNTS = ("cases", "decided", "conversations")


def _record(where: str, row: Any) -> AgreementRecord:
    names = {field.name for field in fields(AgreementRecord)}
    if not isinstance(row, Mapping) or set(row) != names:
        raise AgreementError(f"{where}: expected the fields {', '.join(sorted(names))}, got {str(row)[:80]}")
    for name, value in row.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        right = (isinstance(value, str) if name in _TEXTS else isinstance(value, int) and number and value >= 0 if name in _COUNTS
                 else value is None or number)
        if not right:
            raise AgreementError(f"{where}.{name}: expected {'text' if name in _TEXTS else 'a number'}, got {value!r}")
    return AgreementRecord(**row)


def _tables(judged: Sequence[Word], truth: Sequence[Word], groups: Sequence[str]) -> Tables:
    """Counts by conversation, (conversations, 3, 3): the truth by row, the judge by column, each Good, Bad, missing."""
    place = {True: 0, False: 1, None: 2}
    labelled = [number for number, word in enumerate(truth) if word is not None]
    rank = {group: number for number, group in enumerate(dict.fromkeys(groups[number] for number in labelled))}
    tables = np.zeros((len(rank), 3, 3))
    for number in labelled:
        tables[rank[groups[number]], place[truth[number]], place[judged[number]]] += 1.0
    return tables


def _by_kind(judged: Sequence[Word], truth: Sequence[Word], kinds: Sequence[str]) -> tuple[KindAgreement, ...]:
    found = []
    for kind in dict.fromkeys(kinds):
        of_kind = [number for number, one in enumerate(kinds) if one == kind]
        counts = confusion([judged[number] for number in of_kind], [truth[number] for number in of_kind])
        if counts.cases:
            found.append(KindAgreement(kind, counts, kappa_of(counts)))
    return tuple(found)
