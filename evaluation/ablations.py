"""One base run and what changes when one thing does, at the paper's scale (168 training queries) and at ours.

The counterpart of the paper's comparison of policy models (Kulkarni et al. 2024), with labels for a judge: no GPT-4 class model reads
these prompts. The command is `tables.py`'s.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from evaluation.comparison import Split
from evaluation.datasets import Session, read_helpdesk
from evaluation.stats import resampled
from evaluation.tables import Gate, learned, played_at, row_of, split_of
from evaluation.training import GateConfig, GateData, gate_config, prepared
from evaluation.world import load_knowledge, make_world, read_queries
from policy.train import Objective

PAPER_QUERIES = 168


def variants(base: GateConfig, gpt2: str | None, pretrained: str | None) -> Iterator[tuple[str, GateConfig]]:
    """The base, then one factor changed at a time."""
    network, train, decision = base.network, base.train, base.decision
    yield "base: MiniLM, heads, evidence, `budget`, all-action, K = 10 over heads", base
    yield "no evidence", replace(base, network=replace(network, evidence=False))
    yield "no text", replace(base, network=replace(network, text=False))
    yield "two previous queries in the text", replace(base, network=replace(network, previous_queries=2))
    yield "one member", replace(base, network=replace(network, members=1))
    yield "preset `kulkarni2024`", replace(base, preset="kulkarni2024")
    yield "preset `symmetric`", replace(base, preset="symmetric")
    objectives: tuple[Objective, ...] = ("supervised", "best_of_k", "all_action", "reinforce", "ppo")
    for objective in objectives:  # the warm start is most of what a small set teaches, and would hide what follows it
        alone = replace(train, objective=objective, warm_start=0, epochs=train.warm_start + train.epochs)
        yield f"no warm start, {objective}", replace(base, train=alone)
    yield "dual ascent on the budget", replace(base, train=replace(train, budget=base.budget))
    yield "MC dropout off", replace(base, decision=replace(decision, mc_dropout="off"))
    yield "uncertainty not counted (c = 0)", replace(base, decision=replace(decision, uncertainty_penalty=0.0))
    if pretrained is not None:
        yield "MiniLM pre-trained in-domain", replace(base, network=replace(network, encoder=pretrained))
    if gpt2 is not None:
        yield "GPT-2, pre-trained here", replace(base, network=replace(network, encoder=gpt2, pooling="last"))


def ablations(options: argparse.Namespace) -> None:
    """Print the table at the scale that is asked for."""
    embedder, retriever = load_knowledge(None)
    train, dev, calibration, test = (read_helpdesk(split) for split in ("train", "dev", "calibration", "test"))
    for sessions in (train, dev, calibration, test):
        read_queries(embedder, sessions)
    world = make_world(embedder, retriever)
    used = first_queries(train, PAPER_QUERIES) if options.scale == "paper" else train
    base = gate_config()
    ready = prepared(GateData(used, dev, calibration, world, retriever), base)
    chosen_on, measured = (split_of(sessions, world, ready.prompt, ready.frugal) for sessions in (calibration, test))
    queries, states = sum(len(session.turns) for session in used), len(ready.graphs["train"].states)
    print(f"{queries} training queries, {states} states with both arms judged; {options.seeds} seeds\n")
    print("| variant | saving vs frugal | harmful, of skips | skipped | accuracy | reward a turn |\n|---|--:|--:|--:|--:|--:|")
    for name, config in variants(base, options.gpt2, options.pretrained):
        if options.only in name:
            print(_row(learned(name, ready, config, options.seeds), chosen_on, measured, options.harm), flush=True)


def first_queries(sessions: Sequence[Session], queries: int) -> tuple[Session, ...]:
    """The first sessions that hold so many queries together."""
    ends = np.cumsum([len(session.turns) for session in sessions])
    return tuple(sessions[: int(np.searchsorted(ends, queries)) + 1])


def _row(gate: Gate, chosen_on: Split, test: Split, harm: float) -> str:
    played = played_at([gate], chosen_on, test, harm)
    return f"| {gate.name} | {' | '.join(row_of(played.gates[gate.name], played.frugal, resampled(len(test.sessions))))} |"
