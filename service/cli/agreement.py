"""`fetchgate reward agreement`: does a judge agree with people, with labels, or with another judge?

Leaves out the work, which is `evaluation/agreement_run.py`'s and `evaluation/log_agreement.py`'s; here are options and tables.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.console import fail, failures, printable, progress_bar

if TYPE_CHECKING:
    from evaluation.agreement_run import Measurement
    from kb.embedder import Embedder
    from kb.retriever import FaqRetriever
    from reward.drift import Drift
    from reward.judge import Judge
    from service.settings import Settings

    Knowledge = tuple[Embedder, FaqRetriever]

Name = Literal["local", "reference", "llm"]
Against = Literal["people", "local", "reference", "llm"]


def agreement(
    judge: Annotated[Name, typer.Option(help="Who is measured: the model that ships, gold labels, or an LLM at a server.")] = "local",
    against: Annotated[Against, typer.Option(
        help="Whose word it is measured by: the labels of each set (people's on the probe set, rated answers and a log; gold on "
             "sessions), or another judge's.")] = "people",
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="Rated answers (judgements.jsonl) in place of what ships.")] = None,
    db: Annotated[str | None, typer.Option(metavar="URL_OR_PATH", help="A log in place of what ships: the verdicts in it, beside its "
                                                                       "ratings or another judge's verdicts.")] = None,
    conversations: Annotated[int | None, typer.Option(min=0, help="Answer only the first so many of the dev sessions that ship; 0 is the "
                                                                  "probe set alone.")] = None,
    min_kappa: Annotated[float, typer.Option(min=-1, max=1, help="Kappa from which a judge is good enough to train a policy.")] = 0.6,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 when the judge isn't good enough by any of the sets.")] = False,
    judge_model: Annotated[str | None, typer.Option(help="The LLM judge's name at its server. Default: the setting's.")] = None,
    judge_base_url: Annotated[str | None, typer.Option(metavar="URL", help="Its server, `…/v1`; its key is a setting.")] = None,
    kept: Annotated[Path | None, typer.Option(metavar="DIR", help="Where measurements are kept. Default: the data folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a judge: confusion, kappa, false-Good and false-Bad rates, by kind of turn, and whether its verdicts changed since last time.

    Without --data and --db: the probe set, and the extractive answerer's turns over the dev sessions that ship. `policy train` measures a
    judge itself, on its own labels; it also refuses one that was measured here with --db against people and fell short.
    Intervals are 95 %, by conversation; of the two rates exact. Figures are defined in docs/metrics.md.
    """
    from service.settings import read_settings

    if data is not None and db is not None:
        raise typer.BadParameter("expected --data or --db, got both")
    with failures():
        settings = read_settings(judge_model=judge_model, judge_base_url=judge_base_url)
        run = _Run(settings, judge, against, kept or settings.data_dir, min_kappa)
        found = run.of_log(db) if db is not None else run.of_rated(data) if data is not None else run.of_shipped(conversations)
        _print(found, min_kappa, as_json=as_json)
    if strict and (refused := [one.refusal for one in found if one.refusal is not None]):
        fail(refused[0])


class _Run:
    """One measurement with its options."""

    def __init__(self, settings: "Settings", judge: Name, against: Against, kept: Path, min_kappa: float) -> None:
        from evaluation.agreement_run import Kept

        self._settings, self._judge, self._against, self._min_kappa = settings, judge, against, min_kappa
        self._kept = Kept.now(kept)

    def of_log(self, db: str) -> "tuple[Measurement, ...]":
        """The verdicts that a log holds."""
        from chat.log.store import SqlConversationLog
        from evaluation.agreement_run import keep
        from evaluation.log_agreement import judges_agreement, people_agreement

        with SqlConversationLog(db, create=False) as log:
            found, data_hash = (people_agreement(log, self._judge) if self._against == "people" else
                                judges_agreement(log, self._judge, self._against))
        return (keep(found, "log", data_hash, self._kept, self._min_kappa),)

    def of_rated(self, data: Path) -> "tuple[Measurement, ...]":
        """Rated answers, which are about other FAQs than those that ship."""
        from evaluation.agreement_run import measure_set, rated_set

        rated, ceiling = rated_set(data)
        judge, other = self._judges(self._knowledge(needed=False), search=False)
        return (measure_set(judge, rated, self._kept, self._min_kappa, against=other, ceiling=ceiling),)

    def of_shipped(self, conversations: int | None) -> "tuple[Measurement, ...]":
        """The probe set, and answers to the first so many dev sessions."""
        from evaluation.agreement_run import measure_set, shipped_probe, shipped_replay

        sets = [shipped_probe()]
        known = self._knowledge(needed=conversations != 0)
        judge, other = self._judges(known, search=True)
        if known is not None and conversations != 0:
            with progress_bar("answering conversations") as advance:
                sets.append(shipped_replay(*known, conversations, advance))
        return tuple(measure_set(judge, one, self._kept, self._min_kappa, against=other) for one in sets)

    def _knowledge(self, *, needed: bool) -> "Knowledge | None":
        """The help desk's encoder and FAQs, where the sets or a judge need them."""
        from evaluation.world import load_knowledge

        return load_knowledge(None) if needed or "local" in (self._judge, self._against) else None

    def _judges(self, known: "Knowledge | None", *, search: bool) -> "tuple[Judge, Judge | None]":
        """The judge that is measured, and the one that it is measured by; None: the set's own labels."""
        from evaluation.judges import make_judge

        embedder, retriever = (None, None) if known is None else known
        llm = self._llm() if "llm" in (self._judge, self._against) else None
        judge, other = (None if name == "people" else make_judge(name, embedder, llm=llm, retriever=retriever if search else None)
                        for name in (self._judge, self._against))
        assert judge is not None, "people aren't measured"
        return judge, other

    def _llm(self) -> "Judge":
        from chat.tokens import TiktokenCounter
        from service.judges import build_llm_judge

        return build_llm_judge(self._settings, TiktokenCounter())


def _print(found: "Sequence[Measurement]", min_kappa: float, *, as_json: bool) -> None:
    from evaluation.agreement_run import as_json as whole

    if as_json:
        print(json.dumps(whole(found, min_kappa), ensure_ascii=False, allow_nan=False))
        return
    for one in found:
        for line in _lines(one):
            print(printable(line))


def _lines(one: "Measurement") -> Iterator[str]:
    found, counts = one.agreement, one.agreement.confusion
    yield f"{one.data}: {found.judge} against {found.against}, {counts.cases} cases of {found.conversations} conversations"
    yield f"  {'kind':16} {'cases':>6} {'missing':>8} {'agreed':>7} {'kappa':>6} {'false good':>11} {'false bad':>10}"
    rows = [*((kind.kind, kind.confusion, kind.kappa) for kind in found.kinds), ("all", counts, found.kappa.value)]
    for name, row, kappa in rows:
        figures = (f"{row.missing:>8} {_share(row.agreed):>7} {_number(kappa):>6} {_of(row.bad_good, row.bad_bad):>11} "
                   f"{_of(row.good_bad, row.good_good):>10}")
        yield f"  {name:16} {row.cases:>6} {figures}"
    yield f"  kappa {found.kappa}; with missing as disagreement {found.strict_kappa}"
    yield f"  called Good of the Bad {counts.false_good}; called Bad of the Good {counts.false_bad}"
    if one.ceiling is not None:
        yield f"  one rater against the others, for comparison: kappa {one.ceiling.kappa} on {one.ceiling.confusion.cases} ratings"
    yield "  good enough to train a policy" if one.refusal is None else f"  not good enough to train a policy: {one.refusal}"
    if one.drift is not None:
        yield from _drift_lines(one.drift)


def _drift_lines(changed: "Drift") -> Iterator[str]:
    who = "the same judge" if changed.same_judge else changed.previous.judge
    yield (f"  since {changed.previous.time} ({who}): {changed.to_good} verdicts turned Good, {changed.to_bad} turned Bad, {changed.lost} "
           f"went missing; chance of turns as uneven {changed.p_value:.3f} (McNemar)")
    words = {True: "Good", False: "Bad", None: "missing"}
    for change in changed.changes:
        yield f"    {change.id}: {words[change.before]}, now {words[change.now]}"


def _of(part: int, rest: int) -> str:
    return f"{part}/{part + rest}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
