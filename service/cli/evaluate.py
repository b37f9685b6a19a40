"""`fetchgate evaluate`: what a gate saves and breaks, on labelled sessions."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.cli.console import failures, printable, stderr

app = typer.Typer(no_args_is_help=True, help="Measure gates on labelled sessions.")


@app.callback()
def evaluate() -> None:
    """Measure gates on labelled sessions."""


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
    from evaluation.gate import flat

    with failures():
        found = evaluate_gate(GateRun(data, policy, kb, static, reader, gold, seeds))
    if as_json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
        return
    for name, value in flat(found).items():
        shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        print(f"{name:42} {printable(shown)}")
    stderr.print("shares from 0 to 1; intervals are 95 %, by conversation", style="dim")
