"""The tables on public data: gates on MTRAG by 5-fold cross-validation, and as detectors of knowledge-seeking turns on DSTC11.

Folds are by conversation; in DSTC11, dialogues that share a first query belong together. The commands are `tables.py`'s.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chat.prompt import PAPER
from chat.types import State
from evaluation.baselines import fit_query_embedding
from evaluation.comparison import Split, gate_turns
from evaluation.datasets import Session, read_sessions
from evaluation.frugal import frugal, sweep
from evaluation.gate import baseline
from evaluation.stats import Interval, ratio_difference, resampled, saving, share
from evaluation.tables import Gate, joined_baseline, learned, points, print_tables, simple_gates, split_of, supervised
from evaluation.training import GateData, gate_config, prepared
from evaluation.world import load_knowledge, make_world, read_queries
from policy.decide import DecisionConfig
from policy.encoding import StateEncoder
from policy.graph import END, Bools, Floats, Ints, StateGraph, walk
from policy.inputs import Inputs, TextReader, prepare
from policy.network import NetworkConfig, build_network
from policy.train import TrainConfig, train

FOLDS = 5
RIVAL = "logistic on the query's embedding"


def mtrag(options: argparse.Namespace) -> None:
    """Every gate on MTRAG, by 5-fold cross-validation: three folds train, one stops and chooses thresholds, one is measured."""
    sessions = read_sessions(options.data / "sessions.jsonl")
    embedder, retriever = load_knowledge(options.kb)
    read_queries(embedder, sessions)
    world = make_world(embedder, retriever, reader=options.reader, gold=options.gold)
    counts = sweep(sessions, world)
    fold = folds([session.id for session in sessions])
    parts: list[tuple[list[Gate], Split, Split]] = []
    for test in range(FOLDS):
        seen = np.flatnonzero(fold != test)
        train_on, dev = (tuple(sessions[n] for n in np.flatnonzero(chosen)) for chosen in
                         ((fold != test) & (fold != (test + 1) % FOLDS), fold == (test + 1) % FOLDS))
        setting = frugal(counts, among=seen)
        config = replace(gate_config(), prompt=setting)
        ready = prepared(GateData(train_on, dev, dev, world, retriever), config, chosen=setting)
        held_out = tuple(sessions[n] for n in np.flatnonzero(fold == test))
        gates = [learned("learned gate", ready, config, options.seeds), *simple_gates(ready.graphs["train"], embedder),
                 learned("supervised BERT, text alone", ready, supervised(config), options.seeds)]
        parts.append((gates, split_of(dev, world, setting, setting), split_of(held_out, world, setting, setting)))
        print(f"fold {test}: frugal {setting}", file=sys.stderr, flush=True)
    print_tables(parts, joined_baseline([baseline(test.sessions, world, PAPER) for _, _, test in parts]))


def folds(groups: Sequence[str], seed: int = 0) -> Ints:
    """A fold for each item, the same for items of one group."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    place = {name: int(order[n]) % FOLDS for n, name in enumerate(names)}
    return np.array([place[group] for group in groups], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """Labelled turns, and which of them a detector takes for knowledge-seeking; shape (T,)."""

    conversations: Ints
    needed: Bools
    found: Bools

    def counts(self, conversations: int) -> tuple[Floats, Floats]:
        """By conversation, what F1 is the ratio of: 2 TP, and 2 TP + FP + FN."""
        hit = 2.0 * (self.needed & self.found)
        missed = hit + (self.needed ^ self.found)
        ratio = [np.bincount(self.conversations, weights=one, minlength=conversations).astype(np.float64) for one in (hit, missed)]
        return ratio[0], ratio[1]


def dstc11(options: argparse.Namespace) -> None:
    """The gate as a detector of turns that need knowledge, against logistic regression on the query's embedding, and what it saves."""
    sessions = read_sessions(options.data / "sessions.jsonl")
    embedder, retriever = load_knowledge(options.kb)
    read_queries(embedder, sessions)
    world = make_world(embedder, retriever)
    setting = frugal(sweep(sessions[:: max(1, len(sessions) // 200)], world))  # some 200 dialogues: a sweep plays each 60 times
    whole = split_of(sessions, world, setting, setting)
    graph = whole.graph
    needed, labelled = _needed(sessions, graph), np.zeros(len(graph.states), dtype=bool)
    labelled[walk(graph, labelled).nodes] = True  # the states of a transcript that always fetches
    labelled &= ~np.isnan(needed)
    fold = folds([session.turns[0].query for session in sessions])[graph.conversations]
    configs = {"learned gate": gate_config().network, "learned gate, text alone": replace(gate_config().network, evidence=False)}
    texts = TextReader(StateEncoder(build_network(gate_config().network, seed=0)[1], previous_queries=0))
    skip_scores = {name: np.zeros(len(graph.states)) for name in (RIVAL, *configs)}
    for test in range(FOLDS):
        rows, held_out = np.flatnonzero((fold != test) & labelled), fold == test
        out = [graph.states[n] for n in np.flatnonzero(held_out)]
        rival = fit_query_embedding([graph.states[n] for n in rows], np.asarray(needed[rows] == 0), embedder, 1.0)
        skip_scores[RIVAL][held_out] = rival.scores(out)
        dev = fold == (test + 1) % FOLDS
        for name, config in configs.items():
            detectors = [_detector(graph, needed, labelled & ~held_out & ~dev, labelled & dev, texts, config, seed)
                         for seed in range(options.seeds)]
            skip_scores[name][held_out] = np.mean([detect(out) for detect in detectors], axis=0)
        print(f"fold {test}", file=sys.stderr, flush=True)
    _print_detection(skip_scores, whole, needed, labelled)


def _print_detection(skip_scores: dict[str, Floats], whole: Split, needed: Floats, labelled: Bools) -> None:
    count = len(whole.sessions)
    weights, rows = resampled(count), np.flatnonzero(labelled)
    found = {name: Detection(whole.graph.conversations[rows], needed[rows] == 1, scores[rows] < 0.5)
             for name, scores in skip_scores.items()}
    first = found[RIVAL].counts(count)
    print("| detector | F1 | F1, less the logistic's | saving vs frugal | accuracy | harmful, of skips |\n|---|--:|--:|--:|--:|--:|")
    for name, detection in found.items():
        mine, turns = detection.counts(count), gate_turns(whole, skip_scores[name] >= 0.5)
        saved = saving(turns.by_conversation(turns.tokens), turns.by_conversation(whole.frugal.tokens), weights)
        print(f"| {name} | {_three(share(*mine, weights))} | {_three(ratio_difference(*mine, *first, weights))} | {points(saved)} | "
              f"{100 * np.nanmean(turns.good):.1f} | {100 * np.nanmean(turns.harm[turns.skipped]):.1f} |")
    print(f"\n{len(rows)} labelled turns of {count} dialogues; always fetching: accuracy {100 * np.nanmean(whole.frugal.good):.1f}")


def _detector(graph: StateGraph, needed: Floats, train_on: Bools, dev: Bools, texts: TextReader, config: NetworkConfig,
              seed: int) -> Callable[[Sequence[State]], Floats]:
    """The network trained to tell which turns need knowledge."""
    network, _ = build_network(config, seed=seed)
    learn, stop = (_single_states(graph, needed, np.flatnonzero(rows)) for rows in (train_on, dev))
    prepare(network, texts, learn.states)
    train(network, texts, learn, stop, lambda one, _: one.good, TrainConfig(epochs=0, warm_start=20, seed=seed))
    return lambda states: Inputs(network, texts, states).scores(network, DecisionConfig())


def _single_states(graph: StateGraph, needed: Floats, rows: Ints) -> StateGraph:
    """Labelled states, each a conversation of its own; Good is fetching where knowledge is needed, and skipping where not."""
    count = len(rows)
    good = np.stack([needed[rows], 1.0 - needed[rows]], axis=1)
    return StateGraph(tuple(graph.states[row] for row in rows), np.full((count, 2), END), np.arange(count), np.arange(count),
                      np.zeros(count, dtype=np.int64), np.ones(count, dtype=bool), graph.tokens[rows], good)


def _needed(sessions: Sequence[Session], graph: StateGraph) -> Floats:
    """Whether each state's turn needs knowledge: 1, 0, or nan without a label; shape (N,)."""
    golds = [sessions[c].turns[t].gold for c, t in zip(graph.conversations, graph.turns, strict=True)]
    return np.array([np.nan if gold is None else float(bool(gold)) for gold in golds])


def _three(found: Interval) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
