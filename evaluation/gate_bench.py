"""What a gate's decision costs: against one forward of its own encoder on the same text, for each kind of MC dropout.

Encoder and decisions are measured in turn on the same state in the same run, tokenisation included in all of them, so that a machine
whose speed drifts drifts for all. Leaves out retrieval, whose evidence a state holds already (`bench.py` measures turns).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter

import numpy as np
import torch

from chat.types import Action, State
from evaluation.bench import resident_mb
from evaluation.datasets import Session
from evaluation.errors import EvaluationError
from evaluation.rollout import Replay, World
from policy.decide import NetworkPolicy
from policy.uncertainty import McDropout

MODES: tuple[McDropout, ...] = ("off", "head", "all")
WARM_UP = 3
"""States that are decided first, unmeasured."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """One kind of MC dropout; times in milliseconds, of each state's median."""

    p50: float
    p95: float
    over_encoder: float
    """Median over states of (a decision) / (one encoder forward), each a median of the state's own."""


@dataclass(frozen=True, slots=True)
class GateBench:
    """Figures of a run; times in milliseconds."""

    policy: str
    encoder: str
    samples: int
    """K of MC dropout."""
    members: int
    states: int
    tokens_p50: float
    """Length of a state's text."""
    threads: int
    """That torch computes with."""
    encoder_p50: float
    encoder_p95: float
    off: Decisions
    head: Decisions
    all: Decisions
    """Of dropout in the whole network."""
    resident_mb: float
    """Resident memory after the run, in MiB."""


def fetched_states(sessions: Sequence[Session], world: World, count: int) -> tuple[State, ...]:
    """The first states of these conversations, each turn before having fetched; at most `count`."""
    played = (Replay(session, world) for session in sessions)  # one after the other: most sessions aren't needed
    found = (replay.state((Action.FETCH,) * turn) for replay in played for turn in range(len(replay)))
    return tuple(islice(found, count))


def bench_gate(policy: NetworkPolicy, encoder_name: str, states: Sequence[State], *, samples: int = 10, repeats: int = 3) -> GateBench:
    """Decide every state `repeats` times in each way. Raises: EvaluationError for a policy that reads no text."""
    encoder = policy.network.encoder
    if encoder is None:
        raise EvaluationError(f"{policy.version}: expected a policy that reads the text, got one of evidence alone, which runs no encoder; "
                              "name another with --policy")
    if len(states) <= WARM_UP:
        raise EvaluationError(f"states: expected more than {WARM_UP}, got {len(states)}; give more sessions")
    by_mode = {mode: _twin(policy, mode, samples) for mode in MODES}
    tasks: dict[str, Callable[[State], object]] = {"encoder": lambda state: _forward(policy, state)}
    tasks |= {mode: twin.decide for mode, twin in by_mode.items()}
    for state in states[:WARM_UP]:
        for task in tasks.values():
            task(state)
    times = np.array([_medians(tasks, state, repeats) for state in states]) * 1e3
    alone, decided = times[:, 0], {mode: times[:, 1 + n] for n, mode in enumerate(MODES)}
    found = {mode: Decisions(_quantile(each, 0.5), _quantile(each, 0.95), _quantile(each / alone, 0.5)) for mode, each in decided.items()}
    lengths = np.array([len(policy.encoder.ids(state)) for state in states], dtype=float)
    return GateBench(
        policy.version, encoder_name, samples, policy.network.config.members, len(states), _quantile(lengths, 0.5), torch.get_num_threads(),
        _quantile(alone, 0.5), _quantile(alone, 0.95), found["off"], found["head"], found["all"], resident_mb(),
    )


def _twin(policy: NetworkPolicy, mode: McDropout, samples: int) -> NetworkPolicy:
    config = replace(policy.config, mc_dropout=mode, samples=samples)
    return NetworkPolicy(policy.network, policy.encoder, config, policy.version)


@torch.inference_mode()
def _forward(policy: NetworkPolicy, state: State) -> None:
    """The encoder with nothing before it but the tokenizer, and nothing after it."""
    ids = torch.tensor([policy.encoder.ids(state)])
    policy.network.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))  # type: ignore[misc]


def _medians(tasks: dict[str, Callable[[State], object]], state: State, repeats: int) -> list[float]:
    """Median seconds of each task, all of them done in turn."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            began = perf_counter()
            task(state)
            times[name].append(perf_counter() - began)
    return [float(np.median(each)) for each in times.values()]


def _quantile(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", share: float) -> float:
    return float(np.quantile(values, share))
