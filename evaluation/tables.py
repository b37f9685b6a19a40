"""The tables of docs/results.md: `python -m evaluation.tables NAME …` prints them as Markdown, here those of gates.

Each gate is given the threshold that keeps a harmful share on sessions that it wasn't trained on, and is measured on others. Slow:
minutes to an hour. Leaves out what is measured (`comparison.py`, `gate.py`) and tables of retrieval (`retrieval_tables.py`).
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chat.prompt import PAPER, PromptSettings
from evaluation.baselines import (
    EvidenceScore,
    GateScore,
    PreviousQueryScore,
    WordListScore,
    best_plan,
    fit_logistic,
    fit_query_embedding,
    oracle_needed,
    oracle_useful,
)
from evaluation.comparison import Split, against, gate_turns, merged, reward, threshold_at
from evaluation.datasets import Session, read_helpdesk
from evaluation.gate import Baseline, baseline
from evaluation.graph import state_graph
from evaluation.rollout import World, replays, with_setting
from evaluation.stats import Interval, Weights, resampled, saving, share
from evaluation.training import GateConfig, GateData, Prepared, gate_config, prepared, trained
from evaluation.turns import Bools, Turns
from evaluation.world import load_knowledge, make_world, read_queries
from kb.embedder import Embedder
from policy.graph import Floats, StateGraph
from policy.inputs import Inputs

HARMS = (0.05, 0.10)
"""Harmful shares at which gates are compared."""
SLICES = ("followup", "same_faq", "return", "smalltalk", "ood", "unanswerable", "faq", "hinglish")
SEEDS = 5

Scores = Callable[[StateGraph], Floats]


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate by its name, as one function from states to scores for each seed."""

    name: str
    seeds: tuple[Scores, ...]


def split_of(sessions: Sequence[Session], world: World, prompt: PromptSettings, frugal: PromptSettings) -> Split:
    """Sessions laid out in a setting, beside always fetching in the frugal one."""
    fetching = baseline(sessions, world, frugal)
    return Split(tuple(sessions), state_graph(replays(sessions, with_setting(world, prompt))), fetching)


def learned(name: str, ready: Prepared, config: GateConfig, seeds: int = SEEDS) -> Gate:
    """A gate that is trained here, with so many seeds."""
    def one(seed: int) -> Scores:
        seeded = replace(config, train=replace(config.train, seed=seed), decision=replace(config.decision, seed=seed))
        network, _, texts, _ = trained(ready, seeded)
        print(f"trained {name}, seed {seed}", file=sys.stderr, flush=True)
        return lambda graph: Inputs(network, texts, graph.states).scores(network, seeded.decision)

    return Gate(name, tuple(one(seed) for seed in range(seeds)))


def simple_gates(train: StateGraph, embedder: Embedder) -> list[Gate]:
    """The rivals that need no network."""
    decided = train.decided & ~np.isnan(train.harm)
    states = [state for state, use in zip(train.states, decided, strict=True) if use]
    scores: list[GateScore] = [EvidenceScore(), WordListScore(), PreviousQueryScore(), fit_logistic(train),
                               fit_query_embedding(states, np.asarray(train.harm[decided] == 0), embedder, 0.003)]
    return [Gate(score.name, (lambda graph, score=score: score.scores(graph.states),)) for score in scores]  # type: ignore[misc]


def supervised(config: GateConfig) -> GateConfig:
    """RAGate's idea: the same network on the text alone, by supervised learning."""
    return replace(config, network=replace(config.network, evidence=False), train=replace(config.train, epochs=0))


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """Gates on the same turns, each at its threshold, one set of turns a seed; the first is ours."""

    gates: Mapping[str, Sequence[Turns]]
    references: Mapping[str, Turns]
    """What looks at the verdicts: no gate can."""
    frugal: Baseline


def played_at(gates: Sequence[Gate], chosen_on: Split, test: Split, harm: float) -> Played:
    """Each gate at the threshold that keeps the harm on `chosen_on`, on the turns of `test`."""
    graph = test.graph
    looking = {"oracle_needed": oracle_needed(graph), "oracle_useful": oracle_useful(graph), "best plan": best_plan(graph, price=np.inf)}
    return Played({gate.name: [_at_harm(scores, chosen_on, test, harm) for scores in gate.seeds] for gate in gates},
                  {name: gate_turns(test, skips) for name, skips in looking.items()}, test.frugal)


def _at_harm(scores: Scores, chosen_on: Split, test: Split, harm: float) -> Turns:
    threshold = threshold_at(chosen_on, scores(chosen_on.graph), harm)
    return gate_turns(test, np.asarray(scores(test.graph) >= threshold))


def compare(played: Played, weights: Weights) -> str:
    """The gates in one table, the first against each."""
    ours = next(iter(played.gates.values()))
    rows = ["| gate | saving vs frugal | harmful, of skips | skipped | accuracy | reward a turn | saving, ours less its "
            "| reward, ours less its |", "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for name, seeds in played.gates.items():
        versus = against(ours, seeds, played.frugal, weights)
        cells = ("", "") if seeds is ours else (points(versus.saving), _plain(versus.reward))
        rows.append(f"| {name} | {' | '.join(row_of(seeds, played.frugal, weights))} | {' | '.join(cells)} |")
    for name, turns in played.references.items():
        rows.append(f"| *{name}* | {' | '.join(row_of([turns], played.frugal, weights))} | | |")
    return "\n".join(rows)


def by_slice(played: Played, weights: Weights) -> str:
    """Savings slice by slice, as the paired difference of the first gate and each other."""
    ours, *_ = played.gates.values()
    theirs = dict(list(played.gates.items())[1:])
    rows = [f"| slice | turns | skipped | accuracy, ours less frugal | {' | '.join(f'saving, ours less {name}' for name in theirs)} |",
            f"|---|--:|--:|--:|{'--:|' * len(theirs)}"]
    for label in SLICES:
        def within(turns: Turns, label: str = label) -> Bools:
            return turns.within(label)

        chosen = ours[0].within(label)
        if chosen.any():
            skipped = np.mean([turns.skipped[turns.within(label)].mean() for turns in ours])
            lost = np.mean([np.nanmean(turns.good[turns.within(label)]) for turns in ours]) - np.nanmean(played.frugal.good[chosen])
            cells = " | ".join(points(against(ours, seeds, played.frugal, weights, within).saving) for seeds in theirs.values())
            rows.append(f"| {label} | {chosen.sum()} | {skipped:.0%} | {100 * lost:+.1f} | {cells} |")
    return "\n".join(rows)


def helpdesk(options: argparse.Namespace) -> None:
    """Every gate on the help desk: thresholds by calibration, figures of test."""
    embedder, retriever = load_knowledge(None)
    splits = {split: read_helpdesk(split) for split in ("train", "dev", "calibration", "test")}
    for sessions in splits.values():
        read_queries(embedder, sessions)
    world = make_world(embedder, retriever, reader=options.reader, gold=options.gold)
    config = gate_config()
    ready = prepared(GateData(splits["train"], splits["dev"], splits["calibration"], world, retriever), config)
    print(f"frugal: {ready.frugal}; reader {options.reader}, gold {options.gold}\n")
    calibration, test = (split_of(splits[split], world, ready.prompt, ready.frugal) for split in ("calibration", options.split))
    gates = [learned("learned gate", ready, config, options.seeds), *simple_gates(ready.graphs["train"], embedder),
             learned("supervised BERT, text alone", ready, supervised(config), options.seeds)]
    print_tables([(gates, calibration, test)], baseline(test.sessions, world, PAPER))


def print_tables(parts: Sequence[tuple[Sequence[Gate], Split, Split]], paper: Baseline) -> None:
    """Both tables at each harm, over one part or several folds."""
    for harm in HARMS:
        folds = [played_at(gates, chosen_on, test, harm) for gates, chosen_on, test in parts]
        played = folds[0] if len(folds) == 1 else _joined(folds)
        weights = resampled(next(iter(played.gates.values()))[0].count)
        print(f"### Thresholds that keep {harm:.0%} harmful skips\n\n{compare(played, weights)}\n")
        print(by_slice(played, weights), end="\n\n", flush=True)
    frugal = played.frugal
    print(f"{weights.shape[1]} conversations, {len(frugal.tokens)} turns; frugal: accuracy {np.nanmean(frugal.good):.1%}, "
          f"{1 - frugal.tokens.sum() / paper.tokens.sum():.1%} cheaper than paper, whose accuracy is {np.nanmean(paper.good):.1%}")


def _joined(folds: Sequence[Played]) -> Played:
    """Folds as one; a gate's seed N is its seed N of every fold."""
    gates = {name: [merged([fold.gates[name][n] for fold in folds]) for n in range(len(seeds))] for name, seeds in folds[0].gates.items()}
    references = {name: merged([fold.references[name] for fold in folds]) for name in folds[0].references}
    return Played(gates, references, joined_baseline([fold.frugal for fold in folds]))


def joined_baseline(folds: Sequence[Baseline]) -> Baseline:
    """The folds' turns one after the other."""
    return Baseline(np.concatenate([fold.tokens for fold in folds]), np.concatenate([fold.good for fold in folds]))


def row_of(seeds: Sequence[Turns], frugal: Baseline, weights: Weights) -> tuple[str, ...]:
    first = seeds[0]

    def sums(values: Callable[[Turns], Floats | Bools]) -> Floats:
        return np.stack([turns.by_conversation(values(turns)) for turns in seeds])

    saved = saving(sums(lambda t: t.tokens), first.by_conversation(frugal.tokens), weights)
    harm = share(sums(lambda t: t.harm * t.skipped), sums(lambda t: t.skipped & t.scored), weights)
    turns = first.by_conversation(np.ones(len(first.tokens), dtype=bool))
    accuracy = share(sums(lambda t: t.good), first.by_conversation(first.scored), weights)
    rewards = np.mean([reward(one, frugal.tokens).mean() for one in seeds])
    return (points(saved), f"{100 * harm.value:.1f}", f"{100 * share(sums(lambda t: t.skipped), turns, weights).value:.0f} %",
            f"{100 * accuracy.value:.1f}", f"{rewards:.3f}")


def points(found: Interval) -> str:
    """A share as percentage points, with its interval."""
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _plain(found: Interval) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def main() -> None:
    """Print the table that is asked for."""
    from evaluation import followup_tables, retrieval_tables, static_tables
    from evaluation.ablations import ablations
    from evaluation.public_tables import dstc11, mtrag

    parser = argparse.ArgumentParser("python -m evaluation.tables", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    desk = commands.add_parser("helpdesk", help="every gate on the help desk")
    desk.add_argument("--split", default="test", choices=["dev", "calibration", "test"])
    desk.add_argument("--reader", default="ideal", choices=["ideal", "distracted"])
    desk.add_argument("--gold", default="any", choices=["any", "all"])
    desk.add_argument("--seeds", type=int, default=SEEDS)
    desk.set_defaults(run=helpdesk)
    for name, run, told in (("mtrag", mtrag, "every gate on MTRAG, 5-fold"), ("dstc11", dstc11, "detectors of turns that need knowledge")):
        public = commands.add_parser(name, help=told)
        public.add_argument("--data", type=Path, required=True, help="folder with sessions.jsonl")
        public.add_argument("--kb", type=Path, required=True, help="index folder of its FAQs")
        public.add_argument("--reader", default="ideal", choices=["ideal", "distracted"])
        public.add_argument("--gold", default="any", choices=["any", "all"])
        public.add_argument("--seeds", type=int, default=SEEDS)
        public.set_defaults(run=run)
    factors = commands.add_parser("ablations", help="one factor changed at a time, on the help desk")
    factors.add_argument("--scale", default="paper", choices=["paper", "ours"])
    factors.add_argument("--harm", type=float, default=0.10, help="harmful share that thresholds keep on calibration")
    factors.add_argument("--seeds", type=int, default=SEEDS)
    factors.add_argument("--only", default="", help="variants whose name holds this text")
    factors.add_argument("--pretrained", help="encoder folder of `policy pretrain --kind bert`")
    factors.add_argument("--gpt2", help="encoder folder of `policy pretrain --kind gpt2`")
    factors.set_defaults(run=ablations)
    for module in (retrieval_tables, static_tables, followup_tables):
        module.add_command(commands)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
