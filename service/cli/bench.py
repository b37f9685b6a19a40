"""`fetchgate bench`: what the parts cost on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.console import failures, progress_bar, stderr

if TYPE_CHECKING:
    from policy.decide import NetworkPolicy

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
def gate(
    policy: Annotated[str | None, typer.Option(help="demo, or a policy folder. Default: demo, or, where it doesn't ship, a network of the "
                                                    "default configuration that nothing has trained: times are the same.")] = None,
    states: Annotated[int, typer.Option(min=4, help="States to decide, from the help desk's training sessions.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each state is decided in each way; its median counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """A decision with MC dropout (K = 10) in the head, off, and in the whole network, against one forward of the same encoder."""
    import json
    from dataclasses import asdict

    from evaluation.datasets import read_helpdesk
    from evaluation.gate import flat
    from evaluation.gate_bench import bench_gate, fetched_states
    from evaluation.world import load_knowledge, make_world

    with failures():
        loaded, encoder = _gate(policy)
        embedder, retriever = load_knowledge(None)
        decided = fetched_states(read_helpdesk("train"), make_world(embedder, retriever), states)
        figures = asdict(bench_gate(loaded, encoder, decided, repeats=repeats))
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in flat(figures).items():
        print(f"{name:22} {value:.3g}" if isinstance(value, float) else f"{name:22} {value}")
    stderr.print("times in ms; ratios are medians over states of this run", style="dim")


def _gate(name: str | None) -> "tuple[NetworkPolicy, str]":
    """A policy and the name of its encoder."""
    from policy.checkpoint import RECORD, load_policy
    from policy.decide import DecisionConfig, NetworkPolicy
    from policy.encoding import StateEncoder
    from policy.network import NetworkConfig, build_network
    from policy.shipped import DEMO, SHIPPED, policy_folder

    if name is not None or (SHIPPED / RECORD).exists():
        loaded, record = load_policy(policy_folder(DEMO if name is None else name))
        return loaded, record.network.encoder
    config = NetworkConfig()
    network, tokenizer = build_network(config, seed=0)
    states = StateEncoder(tokenizer, config.max_tokens, config.previous_queries)
    return NetworkPolicy(network, states, DecisionConfig(), "untrained"), config.encoder


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


@app.command(name="kb")
def kb_(
    kb: Annotated[Path | None, typer.Option(help="Index folder with the FAQs and vectors. Default: the help desk that ships.")] = None,
    sessions: Annotated[Path | None, typer.Option(help="Session file with queries. Default: the help desk's training sessions.")] = None,
    vectors: Annotated[list[int] | None, typer.Option(min=1, help="FAQs to search, of one vector each; may be given several times. "
                                                                  "Default: 1000 and 100000.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries to search for.")] = 300,
    faqs: Annotated[int, typer.Option(min=1, help="FAQs to encode.")] = 36,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Encoding against a plain sentence-transformers loop, search against FAISS itself, recall, load time, and memory per FAQ."""
    import json
    from dataclasses import asdict

    import numpy as np

    from evaluation.datasets import read_helpdesk, read_sessions
    from evaluation.kb_bench import bench_encode, bench_kb_search
    from kb.embedder import EmbedderConfig
    from kb.folder import read_manifest
    from service.settings import read_settings
    from service.wiring import build_retriever

    with failures():
        config = EmbedderConfig() if kb is None else read_manifest(kb).encoder
        embedder, retriever = build_retriever(read_settings(kb=kb), progress_bar)
        played = read_helpdesk("train") if sessions is None else read_sessions(sessions)
        asked = list(dict.fromkeys(turn.query for session in played for turn in session.turns))[:queries]
        known, index = retriever.faqs, retriever.index
        base = np.concatenate([index.vectors(faq.id) for faq in known])
        figures = {
            "encode": [asdict(row) for row in bench_encode(known[:faqs], config)],
            "search": [asdict(row) for row in bench_kb_search(base, embedder.embed(asked), known, vectors or [1000, 100_000])],
        }
    if as_json:
        print(json.dumps(figures))
        return
    for rows in figures.values():
        for name in rows[0]:
            print(f"{name:18}", *(f"{row[name]:>12.4g}" if isinstance(row[name], float) else f"{row[name]:>12}" for row in rows))
        print()
    stderr.print("times in ms unless a name ends in _s, rates in FAQs a second, memory in bytes per FAQ; ratios are medians of this run",
                 style="dim")
