"""`fetchgate bench`: what the parts cost on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import failures, progress_bar, stderr

app = typer.Typer(no_args_is_help=True, help="Measure time and memory on this machine.")


@app.command()
def turn(
    kb: Annotated[Path | None, typer.Option(help="Index folder. Default: the help desk that ships.")] = None,
    sessions: Annotated[Path | None, typer.Option(help="Session file to play. Default: the help desk's training sessions.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Turns to measure, after ten to warm up.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """A turn's own time against one encoder pass of its query, the search's share, and resident memory."""
    import json
    from dataclasses import asdict

    from evaluation.bench import bench_turns
    from evaluation.datasets import read_helpdesk, read_sessions
    from service.settings import read_settings
    from service.wiring import build_retriever

    with failures():
        embedder, retriever = build_retriever(read_settings(kb=kb), progress_bar)
        played = read_helpdesk("train") if sessions is None else read_sessions(sessions)
        figures = asdict(bench_turns(embedder, retriever, played, turns=turns))
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:22} {value:.3g}" if isinstance(value, float) else f"{name:22} {value}")
    stderr.print("times in ms; ratios are medians over queries of this run", style="dim")


@app.command()
def search(
    sizes: Annotated[str, typer.Option(help="Numbers of vectors, by commas.")] = "5000,10000,20000,50000",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Exact and HNSW search against one encoder pass, over random clustered vectors of each size."""
    import json
    from dataclasses import asdict

    from evaluation.bench import bench_search
    from kb.embedder import EmbedderConfig, SentenceEmbedder

    with failures():
        rows = [asdict(row) for row in bench_search(SentenceEmbedder(EmbedderConfig()), [int(size) for size in sizes.split(",")])]
    if as_json:
        print(json.dumps(rows))
        return
    print("  ".join(f"{name:>16}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:16.3f}" if isinstance(value, float) else f"{value:16}" for value in row.values()))
