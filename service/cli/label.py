"""`fetchgate log label`: judge what has no verdict yet; or say what that would cost.

Leaves out the work, which is `evaluation/labelling.py`'s; here are options, progress with the cost so far, and the summary.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.console import failures, printable, progress_bar, stderr
from service.cli.database import DEFAULT_DB, Db

if TYPE_CHECKING:
    from chat.log.store import SqlConversationLog
    from evaluation.labelling import Labelled, LabelOptions
    from reward.judge import Judge
    from service.judges import Labelling
    from service.settings import Settings

MEASURED_TURNS = 300
"""Turns on which an estimate is made, where no limit is given."""


def label(
    judge: Annotated[Literal["local", "llm", "reference"], typer.Option(
        help="Who judges: the model that ships, an LLM at a server, or gold labels of imported sessions.")] = "local",
    judge_model: Annotated[str | None, typer.Option(help="The LLM judge's name at its server. Default: the setting's.")] = None,
    judge_base_url: Annotated[str | None, typer.Option(metavar="URL", help="Its server, `…/v1`; its key is a setting.")] = None,
    votes: Annotated[int, typer.Option(min=1, help="Replies of the LLM judge a case; more than half must agree.")] = 1,
    both_arms: Annotated[float, typer.Option(min=0, max=1, help="Share of the turns of which the other arm is judged, too.")] = 0.1,
    budget: Annotated[float | None, typer.Option(min=0, help="Money that this run may spend, in the price table's currency.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Judge at most so many turns, the latest conversations' first.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Cases that are asked, and conversations that are answered, at once.")] = 8,
    kb: Annotated[Path | None, typer.Option(metavar="DIR", help="Index folder made by `fetchgate kb build`.")] = None,
    faqs: Annotated[Path | None, typer.Option(metavar="FILE", help="FAQ file. Default: the help desk that ships.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy that served, whose prompt setting the other arm gets.")] = None,
    llm: Annotated[str | None, typer.Option(help="Who writes the other arm's answer: extractive, openai or local.")] = None,
    model: Annotated[str | None, typer.Option(help="That LLM's name at its server, or folder or hub id.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Ask nobody: print what 10,000 such verdicts cost with each judge.")] = False,
    local_seconds: Annotated[float | None, typer.Option(min=0, help="For --estimate: measured seconds of one local verdict.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    db: Db = DEFAULT_DB,
) -> None:
    """Judge the turns of the log that this judge hasn't judged yet: the taken arm always, both arms on a share of the turns.

    Imported sessions are played with a fetch on every turn, and answered by --llm where they hold no answers. A run that was broken off,
    or stopped at its budget, goes on with the same command. Figures are defined in docs/metrics.md.
    """
    from service.settings import read_settings

    if judge != "llm" and not estimate and (votes != 1 or budget is not None):
        raise typer.BadParameter(f"expected --judge llm with --votes or --budget, got {judge}, which is asked once and costs no money")
    with failures("interrupted; what was judged is stored, and the same command goes on"):
        settings = read_settings(kb=kb, faqs=faqs, policy=policy, llm="extractive" if estimate else llm, llm_model=model,
                                 judge_model=judge_model, judge_base_url=judge_base_url)
        with _opened(db) as log, _labelling(settings) as labelling:
            options = _options(both_arms, concurrency, limit)
            if estimate:
                _print(_estimated(log, labelling, options, settings, votes, local_seconds), as_json=as_json)
                return
            chosen = _judge(judge, labelling, settings, votes, concurrency, budget)
            done = _labelled(log, chosen, labelling, options)
            _print(_summary(log, done), as_json=as_json)
    if done.stopped:
        stderr.print(f"stopped: {done.stopped}; the rest isn't judged, and the same command goes on with a new budget", style="yellow")


def _options(both_arms: float, concurrency: int, limit: int | None) -> "LabelOptions":
    from evaluation.labelling import LabelOptions

    return LabelOptions(both_arms, concurrency, limit)


@contextmanager
def _opened(db: str) -> "Iterator[SqlConversationLog]":
    from chat.log.store import SqlConversationLog

    with SqlConversationLog(db, create=False) as log:
        yield log


@contextmanager
def _labelling(settings: "Settings") -> "Iterator[Labelling]":
    from service.judges import build_labelling

    built = build_labelling(settings, progress_bar)
    try:
        yield built
    finally:
        built.close()


def _judge(name: str, labelling: "Labelling", settings: "Settings", votes: int, concurrency: int, budget: float | None) -> "Judge":
    if name == "llm":
        from service.judges import build_llm_judge

        return build_llm_judge(settings, labelling.answering.counter, votes=votes, concurrency=concurrency, budget=budget)
    if name == "local":
        from reward.local_judge import load_local_judge

        return load_local_judge(labelling.embedder, retriever=labelling.answering.retriever)
    from reward.judge import ReferenceJudge

    return ReferenceJudge()


def _labelled(log: "SqlConversationLog", judge: "Judge", labelling: "Labelling", options: "LabelOptions") -> "Labelled":
    from evaluation.labelling import label_log

    with _cost_bar("judging turns", log.turn_count()) as progress:
        return label_log(log, judge, labelling.answering, options, progress)


@contextmanager
def _cost_bar(doing: str, total: int) -> Iterator[Callable[[int, float | None, str | None], None]]:
    """A progress bar over the turns that are looked at, with the cost so far; nothing where standard error isn't a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = TextColumn("{task.fields[cost]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), shown)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(doing, total=total, cost="")
        yield lambda done, cost, currency: bar.update(task, advance=done, cost=_money(cost, currency))


def _money(cost: float | None, currency: str | None) -> str:
    return "cost unknown" if cost is None else f"{cost:.4f} {currency or ''}".strip()


def _summary(log: "SqlConversationLog", done: "Labelled") -> dict[str, Any]:
    """What a run did, and what this judge says of both arms in the whole log."""
    from evaluation.labelling import harm_of

    harm = harm_of(log, done.judge)
    found = asdict(done) | {name: dict(getattr(done, name)) for name in ("missing", "failed", "passed_over", "one_arm")}
    bound = harm.skips
    skips = None if bound is None else {
        "skips": bound.skips, "value": None if bound.missing == bound.skips else bound.value, "missing": bound.missing,
        "upper_conversation": bound.upper_conversation, "upper_turn": bound.upper_turn, "too_small": bound.too_small,
    }
    return found | {"both_arms": {"turns": harm.turns, "known": harm.known, "harm_if_skipped": harm.harm_if_skipped}, "harmful_skip": skips}


def _estimated(
    log: "SqlConversationLog", labelling: "Labelling", options: "LabelOptions", settings: "Settings", votes: int,
    local_seconds: float | None,
) -> dict[str, Any]:
    """What 10,000 verdicts on cases like the log's cost with each judge."""
    from dataclasses import replace

    from chat.prices import BUNDLED, load_prices
    from evaluation.labelling import sample
    from reward.costs import VERDICTS, judge_costs, measured_tokens

    options = replace(options, limit=options.limit or MEASURED_TURNS)
    with progress_bar("measuring cases") as advance:
        cases = []
        for one in sample(log, labelling.answering, options):
            cases.append(one.case)
            advance(1)
    if not cases:
        raise ValueError("estimate: expected turns in the log to measure, got none that can be judged; import or serve some first")
    tokens = measured_tokens(cases, labelling.answering.counter)
    costs = judge_costs(tokens, load_prices(settings.prices or BUNDLED), votes=votes, local_seconds=local_seconds)
    return {"verdicts": VERDICTS, "votes": votes, **asdict(tokens), "costs": [asdict(cost) for cost in costs]}


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
        return
    for name, value in _flat(found):
        shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        print(f"{printable(name):44} {printable(shown)}")


def _flat(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested figures as lines; of a list of costs, one line a judge."""
    for name, value in found.items():
        if name == "costs":
            for cost in value:
                money = _money(cost["cost"], cost["currency"]) if cost["currency"] else "no money"
                time = "" if cost["seconds"] is None else f", {cost['seconds']:.0f} s"
                most = "" if cost["cost_at_most"] == cost["cost"] else f" to {cost['cost_at_most']:.4f}"
                yield f"{cost['verdicts']:,} verdicts by {cost['judge']}", f"{money}{most}{time}"
        elif isinstance(value, dict):
            yield from ((f"{name}: {key}", one) for key, one in value.items())
        else:
            yield name, value
