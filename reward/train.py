"""What people preferred to a reward model: fit, calibrate, and say how well it does on groups it hasn't seen.

    config = TrainConfig(objective="bradley_terry", seed=0)
    kept, held = split(pairs, 0.2)
    fitted = fit(kept, tabulate(kept, embedder), embedder, config)

A batch element is a group with all its pairs, as a prompt with all of its is in InstructGPT. Leaves out files (`preferences.py`,
`saved.py`) and cross-validation (`evaluation/preference_tables.py`). A training takes seconds, so there is nothing to resume.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kb.embedder import Embedder, Progress
from reward.answer_features import FEATURES, Floats, features
from reward.calibration import fit_temperature, platt
from reward.errors import PreferenceError
from reward.model import NetworkConfig, Objective, RewardModel, RewardNetwork, Scale, all_pairs_loss, kto_loss, logistic_loss
from reward.preferences import Answer, Judged, Preference, place

Ints = NDArray[np.int64]
LOG_WORDS = FEATURES.index("log_words")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a reward model is fitted."""

    objective: Objective = "bradley_terry"
    """bradley_terry learns from pairs; logistic and kto from answers that are good or bad (of a pair, the chosen and the rejected)."""
    margin_scale: float = 0.0
    """By which the pairs' margins are multiplied: 0 leaves them out, 1 is Llama 2's small, 3 its large margin."""
    epochs: int = 60
    """Passes at most."""
    patience: int = 10
    """Passes without a lower dev loss after which it ends; the weights of the lowest are kept."""
    batch_groups: int = 48
    """Groups, with all their pairs, a step."""
    learning_rate: float = 5e-3
    ridge: float = 0.05
    """Weight of the sum of a head's squared weights in its loss: figures are many and correlated, preferences few and noisy."""
    centre: float = 0.001
    """Weight of the mean squared sum of a pair's rewards, which pairs leave open (as TRL's `center_rewards_coefficient`)."""
    debias_length: bool = False
    """Whether what a reward owes to length alone is taken off after training."""
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.batch_groups) < 1:
            raise ValueError("epochs, patience, batch_groups: expected at least 1, got "
                             f"{self.epochs}, {self.patience} and {self.batch_groups}")
        if self.seed < 0:
            raise ValueError(f"seed: expected from 0, got {self.seed}")
        if not self.learning_rate > 0 or self.ridge < 0 or self.centre < 0 or self.margin_scale < 0:
            raise ValueError("learning_rate, ridge, centre, margin_scale: expected above 0, and from 0, got "
                             f"{self.learning_rate}, {self.ridge}, {self.centre} and {self.margin_scale}")


@dataclass(frozen=True, slots=True)
class Table:
    """Figures of answers, worked out once."""

    rows: Floats
    """Shape (N, len(FEATURES))."""
    place: Mapping[Answer, int]

    def of(self, answers: Sequence[Answer]) -> Ints:
        """Rows of these answers."""
        return np.array([self.place[answer] for answer in answers], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a pass of a head over the training data came to."""

    head: int
    number: int
    loss: float
    dev_loss: float


@dataclass(frozen=True, slots=True)
class Course:
    """How a head was trained."""

    epochs: tuple[Epoch, ...]
    best: int
    """The pass whose weights were kept."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model and the course of each head's training."""

    model: RewardModel
    courses: tuple[Course, ...]


def tabulate(items: Sequence[Preference | Judged], embedder: Embedder, *, progress: Progress | None = None) -> Table:
    """The figures of all answers of the data, each once. Raises: EmbedderError."""
    answers = list(dict.fromkeys(answer for item in items for answer in item.answers))
    return Table(features(answers, embedder, progress=progress), {answer: row for row, answer in enumerate(answers)})


def fit(items: Sequence[Preference | Judged], table: Table, embedder: Embedder, config: TrainConfig, *,
        report: Callable[[Epoch], None] | None = None) -> Fitted:
    """A calibrated model. The same data, configuration and seed give the same weights; the caller's random state isn't touched.

    Each head is fitted without a fold of the groups, which ends its training and chooses its pass; all heads' folds together calibrate.
    With a single head, or fewer than two groups a head, there are no folds: each head takes its last pass, uncalibrated.
    Raises: PreferenceError when there is nothing to learn from, or the loss isn't finite.
    """
    if not items:
        raise PreferenceError("training data: expected at least one preference, got none")
    _check_both(_examples(items, table, config))
    network = RewardNetwork(config.network, seed=config.seed)
    columns = [FEATURES.index(name) for name in config.network.figures]
    used = table.rows[table.of(list(dict.fromkeys(answer for item in items for answer in item.answers)))]
    network.standardise(used[:, columns])
    rows = torch.from_numpy(table.rows[:, columns]).float()
    courses, held = [], []
    with torch.random.fork_rng(devices=()):
        for number, dev in enumerate(_folds(items, config)):
            torch.manual_seed(config.seed * 1009 + number)
            kept = [item for item in items if item.group not in dev]
            checked = _examples([item for item in items if item.group in dev], table, config)
            courses.append(_run(network, number, rows, _examples(kept, table, config), checked, config, report))
            held.append((number, checked))
    model = RewardModel(network, embedder)
    slope = length_slope(model.of_figures(table.rows), table.rows, _examples(items, table, config)) if config.debias_length else 0.0
    return Fitted(RewardModel(network, embedder, _scale(network, rows, table, held, slope)), tuple(courses))


def _folds(items: Sequence[Preference | Judged], config: TrainConfig) -> list[frozenset[str]]:
    """Groups that each head doesn't learn from, in an order that a hash gives."""
    groups = sorted({item.group for item in items}, key=lambda group: place(group, config.seed))
    heads = config.network.members
    if len(groups) < 2 * heads or heads < 2:
        return [frozenset()] * heads
    return [frozenset(groups[head::heads]) for head in range(heads)]


@dataclass(frozen=True, slots=True)
class Examples:
    """Training data as rows of a table."""

    first: Ints
    """Of each pair's chosen answer, or of each judged one, shape (B,)."""
    second: Ints | None
    """Of each pair's rejected answer; None: judged answers."""
    target: Floats
    """Margin of each pair, or 1 for good and 0 for bad."""
    group: Ints
    groups: int


def _examples(items: Sequence[Preference | Judged], table: Table, config: TrainConfig) -> Examples:
    pairs = [item for item in items if isinstance(item, Preference)]
    judged = [item for item in items if isinstance(item, Judged)]
    names = {group: number for number, group in enumerate(dict.fromkeys(item.group for item in items))}
    if config.objective == "bradley_terry":
        if judged:
            raise PreferenceError("objective: bradley_terry expects pairs, got answers judged by themselves; choose logistic or kto")
        margins = np.array([(pair.margin or 0.0) * config.margin_scale for pair in pairs])
        return Examples(table.of([pair.answers[0] for pair in pairs]), table.of([pair.answers[1] for pair in pairs]), margins,
                        np.array([names[pair.group] for pair in pairs], dtype=np.int64), len(names))
    told = [(answer, good, names[pair.group]) for pair in pairs for answer, good in zip(pair.answers, (1.0, 0.0), strict=True)]
    told += [(one.answers[0], float(one.good), names[one.group]) for one in judged]
    good = np.array([good for _, good, _ in told])
    return Examples(table.of([answer for answer, _, _ in told]), None, good, np.array([g for _, _, g in told], dtype=np.int64), len(names))


def _check_both(data: Examples) -> None:
    """Of all judged answers together; a fold may well hold good ones alone."""
    if data.second is None and data.target.min() == data.target.max():
        raise PreferenceError(f"good: expected good and bad answers, got {'good' if data.target[0] else 'bad'} ones alone; add the others")


def _run(network: RewardNetwork, head: int, rows: Tensor, learned: Examples, checked: Examples, config: TrainConfig,
         report: Callable[[Epoch], None] | None) -> Course:
    own = network.heads[head]
    optimiser = torch.optim.Adam(own.parameters(), config.learning_rate)
    rng = np.random.default_rng((config.seed, head))
    scaled = network.scaled(rows)
    epochs: list[Epoch] = []
    best, kept = 0, copy.deepcopy(own.state_dict())
    for number in range(1, config.epochs + 1):
        own.train()
        losses = []
        for groups in np.array_split(rng.permutation(learned.groups), max(1, learned.groups // config.batch_groups)):
            loss = _loss(own, scaled, learned, np.flatnonzero(np.isin(learned.group, groups)), config) + config.ridge * _squares(own)
            if not torch.isfinite(loss):
                raise PreferenceError("loss: expected a finite one, got NaN or infinity; lower the learning rate")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        own.eval()
        with torch.no_grad():
            dev_loss = float(_loss(own, scaled, checked, np.arange(len(checked.first)), config)) if checked.groups else float("nan")
        epochs.append(Epoch(head, number, float(np.mean(losses)), dev_loss))
        if report is not None:
            report(epochs[-1])
        if not checked.groups or best == 0 or dev_loss < epochs[best - 1].dev_loss:
            best, kept = number, copy.deepcopy(own.state_dict())
        elif number - best >= config.patience:
            break
    own.load_state_dict(kept)
    return Course(tuple(epochs), best)


def _squares(head: nn.Module) -> Tensor:
    """Sum of the squared weights, without biases."""
    return torch.stack([weight.square().sum() for weight in head.parameters() if weight.ndim > 1]).sum()


def _loss(head: nn.Module, scaled: Tensor, data: Examples, chosen: Ints, config: TrainConfig) -> Tensor:
    parts = [data.first[chosen]] if data.second is None else [data.first[chosen], data.second[chosen]]
    unique, inverse = np.unique(np.concatenate(parts), return_inverse=True)
    rewards = head(scaled[torch.from_numpy(unique)]).squeeze(-1)  # each answer once, however many pairs it is in
    target, row = torch.from_numpy(data.target[chosen]).float(), torch.from_numpy(inverse)
    if data.second is None:
        told = rewards[row]
        return logistic_loss(told, target) if config.objective == "logistic" else kto_loss(told, target, told.mean())
    first, second = row[:len(chosen)], row[len(chosen):]
    prompts = torch.from_numpy(np.unique(data.group[chosen], return_inverse=True)[1])
    centre = config.centre * (rewards[first] + rewards[second]).square().mean()
    loss: Tensor = all_pairs_loss(rewards, first, second, prompts, target) + centre
    return loss


def length_slope(rewards: Floats, rows: Floats, data: Examples) -> float:
    """Reward for each unit of log(1 + words) among the answers of one group, by least squares; 0 where all are of one length."""
    used = np.unique(np.stack([np.tile(data.group, 1 if data.second is None else 2),
                               data.first if data.second is None else np.append(data.first, data.second)]), axis=1)
    group, row = used
    length, reward = rows[row, LOG_WORDS], rewards[row]
    size = np.maximum(np.bincount(group), 1)
    length = length - (np.bincount(group, length) / size)[group]
    reward = reward - (np.bincount(group, reward) / size)[group]
    spread = float(length @ length)
    return float(length @ reward) / spread if spread > 1e-9 else 0.0


def _scale(network: RewardNetwork, rows: Tensor, table: Table, held: Sequence[tuple[int, Examples]], slope: float) -> Scale:
    """Temperature, and for judged answers the zero, that make each head's fold most likely to it."""
    rewards, targets = [], []
    pairs = False
    for head, data in held:
        with torch.no_grad():
            own = network.heads[head](network.scaled(rows)).squeeze(-1).double().numpy() - slope * table.rows[:, LOG_WORDS]
        pairs |= data.second is not None
        rewards.append(own[data.first] - (0.0 if data.second is None else own[data.second]))
        targets.append(data.target)
    told, target = np.concatenate(rewards), np.concatenate(targets)
    if not told.size:
        return Scale(length_slope=slope)
    temperature, bias = (fit_temperature(told), 0.0) if pairs else platt(told, target)
    return Scale(temperature, bias, slope)


def told(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON holds it."""
    record = asdict(config)
    record["network"]["figures"] = list(record["network"]["figures"])
    return record
