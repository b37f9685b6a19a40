"""A planted bandit that every objective must solve, and a training that a kill can't change."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from chat.types import Evidence, State
from policy.decide import DecisionConfig
from policy.encoding import StateEncoder
from policy.errors import TrainingError
from policy.graph import END, NO_FETCH, Floats, StateGraph, curve
from policy.inputs import Inputs, TextReader, prepare
from policy.network import GateNetwork
from policy.progress import STATE, TENSORS
from policy.train import Epoch, Objective, TrainConfig, Trainer, TrainResult, epoch_objects, train, trained_weights
from tests.tiny_gate import constant_gate, tiny_gate

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
ROOT = Path(__file__).parents[3]
NAN = float("nan")
QUICK = TrainConfig(warm_start=0, epochs=25, rollouts=2, batch_size=32, learning_rate=2e-2, entropy_coef=0.02, patience=100)
"""Enough for the bandit."""


def patient(objective: Objective) -> TrainConfig:
    """REINFORCE sees one action a turn, and at the others' learning rate it settles on one action before it has seen enough."""
    if objective == "reinforce":
        return replace(QUICK, objective=objective, epochs=60, learning_rate=5e-3)
    return replace(QUICK, objective=objective, kl_coef=0.0, ppo_passes=2)


SHORT = replace(QUICK, warm_start=2, epochs=4, learning_rate=1e-2)


def planted(conversations: int = 120, seed: int = 0) -> StateGraph:
    """Conversations of one turn, where skipping is Good just above a similarity of 0.5, and saves six tokens of ten."""
    similarities = np.random.default_rng(seed).uniform(0.0, 1.0, conversations)
    similarities = np.where(np.abs(similarities - 0.5) < 0.05, 0.2, similarities)  # none so near that it takes precision
    states = tuple(State((), (), "words", Evidence(float(one), None, top1_in_prompt=False, turns_since_fetch=None)) for one in similarities)
    ones, numbers = np.ones(conversations), np.arange(conversations)
    good = np.stack([ones, similarities > 0.5], axis=1).astype(float)
    return StateGraph(states, np.full((conversations, 2), END), numbers, numbers, 0 * numbers, ones.astype(bool),
                      np.stack([10 * ones, 4 * ones], axis=1), good)


def rewards(graph: StateGraph, multiplier: float = 1.0) -> Floats:
    """0 for a fetch; for a skip 1 where it is Good, else -1."""
    return np.stack([np.zeros(len(graph.states)), np.where(graph.good[:, NO_FETCH] == 1, 1.0, -1.0)], axis=1)


def flipped(graph: StateGraph, multiplier: float) -> Floats:
    return -rewards(graph)


def fresh(bert: Path, graph: StateGraph, seed: int = 0, **options: Any) -> tuple[GateNetwork, TextReader]:
    """A network over evidence alone unless told otherwise, standardised by the graph's states."""
    network, states, _ = tiny_gate(bert, seed=seed, **({"text": False, "dropout": 0.1, "hidden": 16} | options))
    texts = TextReader(states)
    prepare(network, texts, graph.states)
    return network, texts


def run(bert: Path, config: TrainConfig, *, reward: Callable[[StateGraph, float], Floats] = rewards, graph: StateGraph | None = None,
        keep: Path | None = None, report: Callable[[Epoch], None] | None = None, decision: DecisionConfig | None = None,
        **options: Any) -> tuple[dict[str, Tensor], TrainResult]:
    """A training from the beginning: what the network holds at its end, and how it went."""
    made = planted() if graph is None else graph
    network, texts = fresh(bert, made, **options)
    result = train(network, texts, made, planted(60, seed=1), reward, config, decision, keep=keep, report=report)
    return trained_weights(network), result


def earned(network: GateNetwork, texts: TextReader, graph: StateGraph) -> float:
    """Mean reward of taking the likelier action in each state; the best is the share of good skips."""
    skips = Inputs(network, texts, graph.states).logits(network).softmax(-1).mean(dim=0).argmax(dim=1).numpy()
    return float(rewards(graph)[np.arange(len(skips)), skips].mean())


def to_the_end(bert: Path, config: TrainConfig, reward: Callable[[StateGraph, float], Floats], graph: StateGraph, **options: Any) -> float:
    """What the last epoch's network earns, whichever epoch would be kept."""
    network, texts = fresh(bert, graph, **options)
    trainer = Trainer(network, texts, graph, planted(60, seed=1), reward, config)
    while not trainer.done:
        trainer.epoch()
    return earned(network, texts, graph)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# what is learned


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_solves_the_bandit_and_with_flipped_rewards_none_does(objective: Objective, bert: Path) -> None:
    """The best is about 0.5 a turn, of which 0.1 may be missed; always the same action earns about 0. Flipped, it must lose as much."""
    graph = planted()
    best = rewards(graph).max(axis=1).mean()
    config = replace(patient(objective), verdict_coef=0.0)
    assert best > 0.4
    assert to_the_end(bert, config, rewards, graph) > best - 0.1
    assert to_the_end(bert, config, flipped, graph) < -0.2


@pytest.mark.parametrize("objective", ["all_action", "reinforce", "ppo"])
def test_what_a_skip_costs_later_turns_is_learned_only_with_a_discount_above_zero(objective: Objective, bert: Path) -> None:
    """A skip brings 0.3 now and loses 1 in the next turn, whatever is done there."""
    count = 40
    seen = [Evidence(similarity, None, top1_in_prompt=False, turns_since_fetch=None) for similarity in (0.2, 0.5, 0.8)]
    successors = [pair for n in range(count) for pair in ((3 * n + 1, 3 * n + 2), (END, END), (END, END))]
    ones = np.ones((3 * count, 2))
    graph = StateGraph(tuple(State((), (), "words", one) for _ in range(count) for one in seen), np.array(successors),
                       np.arange(0, 3 * count, 3), np.repeat(np.arange(count), 3), np.tile([0, 1, 1], count), ones[:, 0] > 0, ones, ones)
    table = np.tile([[0.0, 0.3], [0.0, 0.0], [-1.0, -1.0]], (count, 1))

    def skips_first(gamma: float) -> float:
        network, texts = fresh(bert, graph)
        trainer = Trainer(network, texts, graph, graph, lambda one, multiplier: table, replace(patient(objective), gamma=gamma))
        while not trainer.done:
            trainer.epoch()
        return float(Inputs(network, texts, graph.states[:1]).logits(network).softmax(-1).mean(dim=0)[0, NO_FETCH])

    assert skips_first(0.0) > 0.7
    assert skips_first(1.0) < 0.3


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_an_encoder_that_learns_is_changed_and_one_that_does_not_is_not(trainable: str, bert: Path) -> None:
    config = replace(SHORT, epochs=1, encoder_learning_rate=1e-3)
    graph = planted(20)
    for one, changes in ((trainable, True), ("head", False)):
        network, texts = fresh(bert, graph, text=True, trainable=one)
        before = {name: parameter.detach().clone() for name, parameter in network.named_parameters() if name.startswith("encoder.")}
        train(network, texts, graph, graph, rewards, config)
        moved = {name for name, parameter in network.named_parameters() if name in before and not torch.equal(parameter, before[name])}
        assert bool(moved) is changes
        assert all("lora_" in name for name in moved) or one == "full"


# gaps and what can't be learned from


def test_rewards_without_any_verdict_are_refused(bert: Path) -> None:
    graph = planted(5)
    for table in (np.full((5, 2), NAN), np.tile([NAN, 1.0], (5, 1))):
        network, texts = fresh(bert, graph)
        with pytest.raises(TrainingError, match="rewards: expected verdicts for some turns, got none; label the sessions, or have a judge"):
            train(network, texts, graph, graph, lambda one, multiplier, table=table: table, QUICK)  # type: ignore[misc]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_turn_without_both_verdicts_teaches_nothing(objective: Objective, bert: Path) -> None:
    """Whatever stands beside the gap, the weights are the same to the last bit."""
    graph = planted(60)
    gaps = np.arange(len(graph.states)) % 3 == 0

    def with_gaps(beside: float) -> dict[str, Tensor]:
        table = np.where(gaps[:, None], [[beside, NAN]], rewards(graph))
        return run(bert, replace(SHORT, objective=objective), reward=lambda one, multiplier: table, graph=graph)[0]

    unknown = with_gaps(NAN)
    assert same(unknown, with_gaps(0.0))
    assert same(unknown, with_gaps(1000.0))
    without = run(bert, replace(SHORT, objective=objective), graph=graph)[0]
    assert not same(unknown, without)


@pytest.mark.parametrize("objective", ["all_action", "reinforce"])
def test_a_gap_is_not_a_reward_of_zero(objective: Objective, bert: Path) -> None:
    """Half of the turns where a skip is good have no verdict, and all rewards are far above 0, so that a gap read as 0 would be a loss."""
    graph = planted()
    table = 5.0 + rewards(graph)
    table[np.flatnonzero(graph.good[:, NO_FETCH] == 1)[::2]] = NAN
    found = to_the_end(bert, replace(patient(objective), verdict_coef=0.0), lambda one, multiplier: table, graph)
    assert found > rewards(graph).max(axis=1).mean() - 0.1


def test_a_static_turn_is_walked_and_not_learned_from(bert: Path) -> None:
    graph = planted(40)
    static = replace(graph, decided=np.arange(40) % 2 == 0)
    doubled = np.where(static.decided[:, None], rewards(graph), 77.0)
    one, other = (run(bert, SHORT, reward=lambda g, m, table=table: table, graph=static)[0]  # type: ignore[misc]
                  for table in (rewards(graph), doubled))
    assert same(one, other)


def test_a_loss_that_is_no_number_ends_the_training_with_a_message(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"epoch \d: expected a finite loss, got nan; lower the learning rate. Nothing was written"):
        run(bert, replace(QUICK, learning_rate=1e30, weight_decay=1e10), keep=tmp_path / "keep")
    assert not (tmp_path / "keep").exists(), "it was lost within the first epoch"


def test_a_network_that_is_damaged_to_begin_with_is_not_trained(bert: Path) -> None:
    graph = planted(30)
    network, texts = fresh(bert, graph)
    with torch.no_grad():
        network.body.weight[0, 0, 0] = NAN
    with pytest.raises(TrainingError, match="epoch 0: expected a finite loss, got nan"):
        train(network, texts, graph, graph, rewards, QUICK)


# chance, selection, budget


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_seed_determines_the_weights(objective: Objective, bert: Path) -> None:
    config = replace(SHORT, objective=objective)
    state = torch.get_rng_state()
    one, course = run(bert, config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(9)  # whatever else was drawn
    two, again = run(bert, config)
    assert same(one, two)
    assert course == again
    assert not same(one, run(bert, replace(config, seed=1))[0])


def test_an_epoch_says_what_it_did(bert: Path) -> None:
    seen: list[Epoch] = []
    _, result = run(bert, SHORT, report=seen.append)
    assert tuple(seen) == result.epochs
    assert [one.number for one in seen] == list(range(6))
    assert [one.objective for one in seen] == ["supervised"] * 2 + ["all_action"] * 4
    assert all(0.0 <= one.skip_rate <= 1.0 and 0.0 <= one.entropy <= np.log(2) + 1e-6 and -1.0 <= one.reward <= 1.0 for one in seen)
    assert json.loads(json.dumps(epoch_objects(seen))) == [asdict(one) for one in seen]


def test_the_best_epoch_on_dev_is_kept(bert: Path) -> None:
    graph, dev, off = planted(), planted(200, seed=1), DecisionConfig(mc_dropout="off")
    network, texts = fresh(bert, graph)
    train(network, texts, graph, dev, rewards, replace(QUICK, epochs=6, learning_rate=1e-2), off)
    worse = replace(QUICK, learning_rate=3e-3)
    result = train(network, texts, graph, dev, flipped, worse, off)  # it unlearns what it knew
    course = [one.dev for one in result.epochs]
    assert result.best == int(np.argmax(course)), "the first of the best"
    assert course[-1] < max(course) - 0.1, "else there was nothing to choose"
    scores = Inputs(network, texts, dev.states).scores(network, off)
    assert np.mean([curve(dev, scores).best(budget)[0] for budget in worse.select_budgets]) == pytest.approx(max(course), abs=1e-12)


@pytest.mark.parametrize(("warm", "ran"), [(0, 4), (2, 4), (6, 7)])
def test_it_stops_when_no_epoch_was_better_for_a_while_but_not_in_the_warm_start(warm: int, ran: int, bert: Path) -> None:
    still = replace(QUICK, warm_start=warm, learning_rate=0.0, patience=3)
    _, result = run(bert, still)
    assert (len(result.epochs), result.best) == (ran, 0)


def constant(bert: Path, graph: StateGraph, config: TrainConfig, seen: list[float] | None = None) -> Trainer:
    """A trainer over a network that skips with a probability of 0.8 and doesn't learn."""
    def table(one: StateGraph, multiplier: float) -> Floats:
        if seen is not None:
            seen.append(multiplier)
        return rewards(one)

    _, texts = fresh(bert, graph)
    return Trainer(constant_gate(0.8), texts, graph, graph, table, replace(config, learning_rate=0.0))


def test_the_multiplier_rises_while_skips_harm_more_than_the_budget_and_falls_while_less(bert: Path) -> None:
    graph = planted()
    harm = float(graph.harm.mean())
    assert 0.3 < harm < 0.7
    seen: list[float] = []
    strict = constant(bert, graph, replace(QUICK, multiplier=4.0, budget=0.1, dual_step=5.0), seen)
    course = [strict.epoch().multiplier for _ in range(3)]
    step = 5.0 * 0.8 * (harm - 0.1)
    assert course == pytest.approx([4.0 + step, 4.0 + 2 * step, 4.0 + 3 * step], abs=1e-5)
    assert seen == pytest.approx([4.0, 4.0, 4.0 + step, 4.0 + 2 * step], abs=1e-5), "the next epoch's rewards are under it"
    lax = constant(bert, graph, replace(QUICK, multiplier=4.0, budget=0.9, dual_step=5.0))
    assert lax.epoch().multiplier == pytest.approx(4.0 - 4.0 * (0.9 - harm), abs=1e-5)


@pytest.mark.parametrize(("budget", "step", "expected"), [(0.1, 1e6, 7.0), (0.9, 1e6, 0.0), (None, 5.0, 4.0)])
def test_the_multiplier_stays_within_zero_and_its_cap_and_without_a_budget_as_it_is(
    budget: float | None, step: float, expected: float, bert: Path
) -> None:
    trainer = constant(bert, planted(), replace(QUICK, multiplier=4.0, budget=budget, dual_step=step, dual_cap=7.0))
    assert trainer.epoch().multiplier == expected


def test_harm_that_is_not_known_moves_no_multiplier(bert: Path) -> None:
    graph = planted()
    unknown = np.arange(len(graph.states)) % 2 == 0
    gaps = replace(graph, good=np.where(unknown[:, None], NAN, graph.good))
    harm = float(graph.harm[~unknown].mean())
    trainer = constant(bert, gaps, replace(QUICK, multiplier=4.0, budget=0.1, dual_step=5.0))
    assert trainer.epoch().multiplier == pytest.approx(4.0 + 4.0 * (harm - 0.1), abs=1e-5)


# a training that was killed


class Killed(BaseException):
    """Stands for a kill between two epochs."""


def stop_after(epoch: int) -> Callable[[Epoch], None]:
    def report(done: Epoch) -> None:
        if done.number == epoch:
            raise Killed

    return report


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(objective: Objective, bert: Path, tmp_path: Path) -> None:
    config = replace(SHORT, objective=objective, budget=0.1)
    weights, course = run(bert, config)
    keep = tmp_path / "keep"
    for epoch in (0, 2, 4):
        with pytest.raises(Killed):
            run(bert, config, keep=keep, report=stop_after(epoch))
    assert {path.suffix for path in keep.iterdir()} == {".json", ".safetensors"}
    again: list[Epoch] = []
    resumed, result = run(bert, config, keep=keep, report=again.append)
    assert same(resumed, weights)
    assert result == course
    assert tuple(again) == course.epochs, "also those that were done before are reported"
    assert not keep.exists()


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_so_does_one_that_trains_the_encoder(trainable: str, bert: Path, tmp_path: Path) -> None:
    config = replace(SHORT, warm_start=1, epochs=2, encoder_learning_rate=1e-3)
    options: dict[str, Any] = {"graph": planted(24), "text": True, "trainable": trainable}
    weights, course = run(bert, config, **options)
    with pytest.raises(Killed):
        run(bert, config, keep=tmp_path / "keep", report=stop_after(1), **options)
    resumed, result = run(bert, config, keep=tmp_path / "keep", **options)
    assert same(resumed, weights)
    assert result == course


def killable(bert: Path, keep: Path) -> None:
    """What the test below runs in a process of its own."""
    run(bert, KILLED, keep=keep, report=lambda epoch: print(epoch.number, flush=True))


KILLED = replace(SHORT, objective="ppo", epochs=400, patience=1000)


def test_a_process_that_is_killed_in_the_middle_changes_nothing(bert: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    code = "import sys; from pathlib import Path; from tests.unit.policy.test_train import killable; killable(*map(Path, sys.argv[1:]))"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen([sys.executable, "-c", code, str(bert), str(keep)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          cwd=ROOT, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 5:
                break
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    kept = json.loads((keep / STATE).read_text())["epochs"]
    assert 6 <= len(kept) < 402
    through = len(kept) + 5  # far enough that what was kept matters, and not all 400

    def until(where: Path | None) -> tuple[dict[str, Tensor], list[Epoch]]:
        seen: list[Epoch] = []

        def report(epoch: Epoch) -> None:
            seen.append(epoch)
            if epoch.number == through:
                raise Killed

        network, texts = fresh(bert, planted())
        with pytest.raises(Killed):
            train(network, texts, planted(), planted(60, seed=1), rewards, KILLED, keep=where, report=report)
        return trained_weights(network), seen

    weights, course = until(None)
    resumed, again = until(keep)
    assert same(resumed, weights)
    assert again == course


def stopped(bert: Path, keep: Path) -> None:
    """A training of `SHORT` that stands after its third epoch."""
    with pytest.raises(Killed):
        run(bert, SHORT, keep=keep, report=stop_after(2))


OTHERS: dict[str, dict[str, Any]] = {
    "learning rate": {"config": replace(SHORT, learning_rate=0.5)},
    "seed": {"config": replace(SHORT, seed=1)},
    "network": {"hidden": 9},
    "sessions": {"graph": planted(seed=7)},
    "rewards": {"reward": flipped},
    "way to decide": {"decision": DecisionConfig(samples=3)},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_training_of_another_configuration_is_refused_and_left_alone(other: dict[str, Any], bert: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    stopped(bert, keep)
    before = {path.name: path.read_bytes() for path in keep.iterdir()}
    with pytest.raises(TrainingError, match="keep: expected a training with this configuration on these data, got another one; delete it"):
        run(bert, other.get("config", SHORT), keep=keep, **{name: value for name, value in other.items() if name != "config"})
    assert {path.name: path.read_bytes() for path in keep.iterdir()} == before


def _edited(keep: Path, **changes: Any) -> None:
    numbers = json.loads((keep / STATE).read_text())
    kept = {name: value for name, value in numbers.items() if changes.get(name, 0) is not None}
    (keep / STATE).write_text(json.dumps(kept | {name: value for name, value in changes.items() if value is not None}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated numbers": lambda keep: (keep / STATE).write_text((keep / STATE).read_text()[:100]),
    "empty numbers": lambda keep: (keep / STATE).write_bytes(b""),
    "numbers that are a list": lambda keep: (keep / STATE).write_text("[1]"),
    "numbers that are not text": lambda keep: (keep / STATE).write_bytes(b"\xff\xfe\x00"),
    "a number that is missing": lambda keep: _edited(keep, kl_coef=None),
    "epochs that are none": lambda keep: _edited(keep, epochs=[{"number": 0}]),
    "truncated tensors": lambda keep: (keep / TENSORS).write_bytes((keep / TENSORS).read_bytes()[:500]),
    "missing tensors": lambda keep: (keep / TENSORS).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_training_is_refused_with_what_to_do(damage: Callable[[Path], object], bert: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    stopped(bert, keep)
    damage(keep)
    with pytest.raises(TrainingError, match="keep: expected a training.*delete it to begin anew"):
        run(bert, SHORT, keep=keep)
    assert keep.exists()


def test_tensors_of_another_training_are_refused(bert: Path, tmp_path: Path) -> None:
    stopped(bert, tmp_path / "keep")
    with pytest.raises(Killed):
        run(bert, SHORT, keep=tmp_path / "other", report=stop_after(2), hidden=9)
    (tmp_path / "keep" / TENSORS).write_bytes((tmp_path / "other" / TENSORS).read_bytes())
    with pytest.raises(TrainingError, match="keep: expected a training.*delete it to begin anew"):
        run(bert, SHORT, keep=tmp_path / "keep")


# texts


def test_a_frozen_encoder_reads_each_text_once_for_all_networks(bert: Path) -> None:
    class Counting(StateEncoder):
        read = 0

        def batch(self, states: Any) -> Any:
            Counting.read += len(states)
            return super().batch(states)

    graph = planted(30)  # thirty states of one text
    first, _, tokenizer = tiny_gate(bert, seed=0)
    second, _, _ = tiny_gate(bert, seed=1)
    texts = TextReader(Counting(tokenizer, 48))
    one, two = (texts.pooled(network, graph.states) for network in (first, second))
    assert torch.equal(one, two)
    assert one.shape == (30, first.width)
    assert Counting.read == 1


def test_states_of_unlike_length_are_pooled_as_each_is_alone(bert: Path) -> None:
    network, states, _ = tiny_gate(bert)
    texts = TextReader(states)
    many = tuple(State((), (), "card " * (n % 9), None) for n in range(70))
    pooled = texts.pooled(network, many)
    for n in (0, 8, 69):
        assert torch.allclose(pooled[n], network.pooled(states.batch([many[n]]))[0], atol=1e-5)
