"""Has a judge changed? The verdicts of one probe set, run after run, and what differs between two runs.

A run is one JSON line, added to the end of a file: when, which version of which judge, which probe set, and the verdicts. A verdict
that turned from Good to Bad or back is tested with McNemar's exact test: were the turns as likely one way as the other? With few
turns, no p-value is small, so the verdicts that changed are listed too. Source: McNemar 1947; Fagerland et al. 2013 (exact test).
Leaves out the probe set (`probe.py`) and what is right (`agreement.py`).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from scipy.stats import binomtest

from reward.agreement import Word
from reward.errors import AgreementError


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """What a judge said about a probe set on one day."""

    time: str
    """ISO 8601."""
    judge: str
    """Its version."""
    probe_hash: str
    verdicts: Mapping[str, Word]
    """By the probe's id."""


@dataclass(frozen=True, slots=True)
class Change:
    """A verdict that isn't what it was."""

    id: str
    before: Word
    now: Word


@dataclass(frozen=True, slots=True)
class Drift:
    """What differs between two runs over one probe set."""

    previous: ProbeRun
    now: ProbeRun
    changes: tuple[Change, ...]
    to_good: int
    """Verdicts that were Bad and are Good."""
    to_bad: int
    p_value: float
    """Two-sided, that turns both ways are as likely; 1 where nothing turned."""

    @property
    def lost(self) -> int:
        """Verdicts that are missing now and weren't before."""
        return sum(change.now is None for change in self.changes)

    @property
    def same_judge(self) -> bool:
        """Both runs are of one version: a change is chance or a server's doing, and should be looked into."""
        return self.previous.judge == self.now.judge


def drift(previous: ProbeRun, now: ProbeRun) -> Drift:
    """What changed since the previous run. Raises: AgreementError when the runs aren't over one probe set."""
    if previous.probe_hash != now.probe_hash or set(previous.verdicts) != set(now.verdicts):
        raise AgreementError(f"drift: expected two runs over one probe set, got {previous.probe_hash[:12]} with "
                             f"{len(previous.verdicts)} verdicts and {now.probe_hash[:12]} with {len(now.verdicts)}; a changed set "
                             "begins a new series")
    changes = tuple(Change(one, previous.verdicts[one], word) for one, word in now.verdicts.items() if previous.verdicts[one] is not word)
    to_good = sum(change.before is False and change.now is True for change in changes)
    to_bad = sum(change.before is True and change.now is False for change in changes)
    return Drift(previous, now, changes, to_good, to_bad, mcnemar_p(to_good, to_bad))


def mcnemar_p(one_way: int, other_way: int) -> float:
    """The exact two-sided p-value of McNemar's test from the two counts of pairs that differ; 1 where none does."""
    turned = one_way + other_way
    return 1.0 if turned == 0 else float(binomtest(one_way, turned, 0.5).pvalue)


def latest_run(runs: tuple[ProbeRun, ...], probe_hash: str, judge_kind: str) -> ProbeRun | None:
    """The last run over this probe set by a judge of that kind (`local` of version `local:3f2a…`); None: there is none."""
    fitting = [run for run in runs if run.probe_hash == probe_hash and run.judge.split(":")[0] == judge_kind]
    return fitting[-1] if fitting else None


def read_runs(path: Path) -> tuple[ProbeRun, ...]:
    """The runs of a file, oldest first; () where there is no file. Raises: AgreementError naming file and line.

    A last line that a kill cut short is passed over.
    """
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AgreementError(f"{path}: expected a readable file of probe runs: {error}") from error
    return tuple(_run(f"{path}:{number}", line) for number, line in enumerate(lines[:-1], 1) if line.strip())


def add_run(path: Path, run: ProbeRun) -> None:
    """Add a run to the end of a file, on disk when this returns; what a kill cut short before is dropped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    line = json.dumps({**asdict(run), "verdicts": dict(run.verdicts)}, ensure_ascii=False) + "\n"
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(before[: before.rfind(b"\n") + 1] + line.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def _run(where: str, line: str) -> ProbeRun:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise AgreementError(f"{where}: expected a run as JSON, got what can't be parsed: {error}; take the line out") from error
    if not isinstance(row, dict) or not isinstance(row.get("verdicts"), dict):
        raise AgreementError(f"{where}: expected a run with its verdicts, got {line[:60]!r}")
    verdicts = row["verdicts"]
    if not all(word is None or isinstance(word, bool) for word in verdicts.values()):
        raise AgreementError(f"{where}: verdicts: expected true, false or null for each probe")
    for name in ("time", "judge", "probe_hash"):
        if not isinstance(row.get(name), str):
            raise AgreementError(f"{where}: {name}: expected text, got {row.get(name)!r}")
    return ProbeRun(row["time"], row["judge"], row["probe_hash"], verdicts)
