"""`fetchgate evaluate`: what a gate saves and breaks, on labelled sessions; what a search finds, on labelled queries."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from service.cli.console import failures, printable, progress_bar, stderr

app = typer.Typer(no_args_is_help=True, help="Measure gates on labelled sessions, and retrieval on labelled queries.")


@app.callback()
def evaluate() -> None:
    """Measure gates on labelled sessions, and retrieval on labelled queries."""


@app.command()
def gate(
    data: Annotated[Path, typer.Option(help="Folder with sessions.jsonl and, unless --kb is given, faqs.jsonl.")],
    policy: Annotated[str, typer.Option(help="always, never, evidence, demo, a policy folder, or one that holds seed-N folders.")],
    kb: Annotated[Path | None, typer.Option(help="Index folder made by `fetchgate kb build`.")] = None,
    static: Annotated[Literal["off", "calibrated"], typer.Option(help="Whether an FAQ may answer by itself, from the calibrated "
                                                                     "similarity on.")] = "off",
    reader: Annotated[Literal["ideal", "distracted", "extractive"], typer.Option(help="Who reads the prompts and answers.")] = "ideal",
    gold: Annotated[Literal["any", "all"], typer.Option(help="Whether one gold FAQ is enough for a Good answer.")] = "any",
    seeds: Annotated[int, typer.Option(min=1, help="Trained seeds to average over: seed-N folders of the policy.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Play sessions under a policy and under always fetching; savings, accuracy, harmful skips, with 95 % intervals.

    Turns without labels are played and counted in tokens, and not scored. Figures are defined in docs/metrics.md.
    """
    from evaluation.command import GateRun, evaluate_gate

    with failures():
        found = evaluate_gate(GateRun(data, policy, kb, static, reader, gold, seeds))
    _print(found, "conversation", as_json=as_json)


@app.command()
def retrieval(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder with queries.jsonl and, unless --kb or --faqs is given, faqs.jsonl.")],
    kb: Annotated[Path | None, typer.Option(metavar="DIR", help="Index folder made by `fetchgate kb build`; its own encoder and "
                                                                "calibration are used.")] = None,
    embedder: Annotated[str | None, typer.Option(metavar="NAME_OR_FOLDER", help="Encoder that indexes the FAQs: the packaged one, a "
                                                                                "folder, or a hub id.")] = None,
    faqs: Annotated[Path | None, typer.Option(metavar="FILE", help="FAQ file, .jsonl or .csv, in place of the folder's.")] = None,
    lexical_weight: Annotated[float | None, typer.Option(help="Weight of a query's words beside its vector, from 0 to below 1.")] = None,
    budget: Annotated[float, typer.Option(help="Wrong share of static answers that is certified on a half of the queries.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search for labelled queries; what is found, what is told apart as out of domain, and what could be answered by an FAQ alone.

    Intervals are 95 %, by query. Figures are defined in docs/metrics.md.
    """
    from evaluation.retrieval_run import RetrievalRun, evaluate_retrieval

    with failures(), progress_bar("embedding texts") as advance:
        found = evaluate_retrieval(RetrievalRun(data, kb, embedder, faqs, lexical_weight, budget), advance)
    _print(found, "query", as_json=as_json)


def _print(found: dict[str, Any], unit: str, *, as_json: bool) -> None:
    from evaluation.gate import flat

    if as_json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
        return
    for name, value in flat(found).items():
        shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        print(f"{name:42} {printable(shown)}")
    stderr.print(f"shares from 0 to 1; intervals are 95 %, by {unit}", style="dim")
