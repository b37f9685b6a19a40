"""Training a gate: epochs of rollouts over a state graph, losses of `objective.py`, early stop on dev.

Each epoch walks the conversations under the current policy, takes rewards from the table it is handed, and makes gradient steps. Every
epoch's chance comes from (seed, epoch) alone, so that a training that was killed goes on to the same result (`progress.py`). Leaves out
where graphs and rewards come from (`evaluation/training.py`) and what is written in the end (`checkpoint.py`).
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from policy import objective
from policy.decide import DecisionConfig
from policy.errors import TrainingError
from policy.graph import NO_FETCH, Floats, Ints, StateGraph, Walk, action_values, curve, walk
from policy.inputs import Inputs, TextReader
from policy.network import GateNetwork, encoder_frozen, trained_names
from policy.uncertainty import predictive_entropy

Objective = Literal["supervised", "best_of_k", "all_action", "reinforce", "ppo"]
Rewards = Callable[[StateGraph, float], Floats]
"""Rewards of both actions in each state, shape (N, A), nan without a verdict; the number is the multiplier of an error budget."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a gate is trained."""

    objective: Objective = "all_action"
    """What is optimised after the warm start."""
    warm_start: int = 20
    """Epochs of supervised learning, on the better-rewarded action in every state, before it."""
    epochs: int = 10
    """Epochs after the warm start."""
    rollouts: int = 3
    """Times that each epoch walks every conversation."""
    batch_size: int = 128
    learning_rate: float = 1e-3
    """Of the heads."""
    encoder_learning_rate: float = 5e-5
    """Of what is trained in the encoder."""
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    gamma: float = 0.1
    """Discount of what later turns bring, in [0, 1]."""
    entropy_coef: float = 0.1
    """Weight of the entropy bonus, per nat."""
    baseline_decay: float = 0.9
    """REINFORCE: share of the moving baseline that is kept."""
    verdict_coef: float = 0.5
    """Weight of the loss of a head that predicts both arms' verdicts from what the policy stands on; 0 leaves it untrained."""
    normalize: bool = True
    """REINFORCE and PPO: advantages to mean 0 and variance 1."""
    weight_clip: float = 5.0
    """REINFORCE: largest importance weight of a member's probability over that of the mixture that drew the action."""
    ppo_passes: int = 4
    clip: float = 0.2
    value_coef: float = 0.5
    kl_coef: float = 0.1
    """PPO: first weight of KL to the policy after the warm start; it adapts to `kl_target`."""
    kl_target: float = 0.05
    """Nats a state."""
    k: int = 4
    """best_of_k: actions drawn."""
    multiplier: float = 4.0
    """First multiplier of the error budget, for presets that have one."""
    budget: float | None = None
    """Harmful share of the skips that the multiplier is driven towards; None: it stays as it is."""
    dual_step: float = 5.0
    dual_cap: float = 50.0
    select_budgets: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15)
    """The epoch kept is the one with the largest mean saving on dev over thresholds that keep these harmful shares."""
    patience: int = 30
    """Epochs without a better one before it stops."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch did."""

    number: int
    objective: str
    loss: float
    """Mean over the epoch's steps."""
    reward: float
    """Mean a turn, under the policy with its own chance."""
    entropy: float
    """Of the policy's action, in nats, mean over the turns walked."""
    skip_rate: float
    multiplier: float
    dev: float
    """Mean saving on dev at `select_budgets`."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a training went; the network holds the best epoch's weights."""

    epochs: tuple[Epoch, ...]
    best: int
    """Number of the epoch kept."""


@dataclass(slots=True)
class TrainState:
    """All that an epoch leaves for the next one, tensors and numbers; what a killed training goes on from."""

    multiplier: float
    kl_coef: float
    baseline: float | None = None
    best: int = -1
    best_dev: float = -math.inf
    epochs: list[Epoch] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    reference: Tensor | None = None
    """PPO: logits of the policy after the warm start, (M, N, A)."""


class Trainer:
    """One training run over one graph."""

    def __init__(self, network: GateNetwork, texts: TextReader, graph: StateGraph, dev: StateGraph, rewards: Rewards,
                 config: TrainConfig, decision: DecisionConfig | None = None) -> None:
        """Raises: TrainingError when there is nothing to learn from."""
        self.network, self.config = network, config
        self._graph, self._dev, self._rewards = graph, dev, rewards
        self.decision = decision or DecisionConfig()
        self.graphs = (graph, dev)
        self.first_rewards = rewards(graph, config.multiplier)
        if not np.isfinite(self.first_rewards).all(axis=1).any():
            raise TrainingError("rewards: expected verdicts for some turns, got none; label the sessions, or have a judge grade them")
        self._inputs, self._dev_inputs = (Inputs(network, texts, one.states) for one in (graph, dev))
        heads = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
        body = [p for name, p in network.named_parameters() if name.startswith("encoder.") and p.requires_grad]
        groups = [{"params": heads, "lr": config.learning_rate}, {"params": body, "lr": config.encoder_learning_rate}]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=config.weight_decay)
        self.state = TrainState(config.multiplier, config.kl_coef)

    @property
    def done(self) -> bool:
        """Whether all epochs are done, or none of the last ones was better."""
        ran, config = len(self.state.epochs), self.config
        tired = self.state.best >= 0 and ran - 1 - self.state.best >= config.patience and ran > config.warm_start
        return ran >= config.warm_start + config.epochs or tired

    def epoch(self) -> Epoch:
        """Run the next epoch. Raises: TrainingError when the loss isn't a number any more."""
        with threads(1 if encoder_frozen(self.network) else torch.get_num_threads()):
            return self._epoch()

    def _epoch(self) -> Epoch:
        number, config, state = len(self.state.epochs), self.config, self.state
        kind: Objective = "supervised" if number < config.warm_start else config.objective
        rng = np.random.default_rng([config.seed, number])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            logits = self._inputs.logits(self.network)
            if kind == "ppo" and state.reference is None:
                state.reference = logits.clone()
            skip_probs = logits.softmax(-1)[..., NO_FETCH].mean(dim=0).double().numpy()
            walked = self._everywhere() if kind in ("supervised", "best_of_k") else self._walk(skip_probs, rng)
            rewards = self._rewards(self._graph, state.multiplier)
            loss = self._steps(kind, walked, rewards, logits, skip_probs, rng)
        self._ascend(walked, skip_probs)
        taken = rewards[walked.nodes, walked.actions]
        entropy = predictive_entropy(logits[:, walked.nodes].softmax(-1))
        done = Epoch(number, kind, loss, float(np.nanmean(taken)), float(entropy.mean()), float(walked.actions.mean()), state.multiplier,
                     self._dev_saving())
        self._remember(done)
        return done

    def finish(self) -> TrainResult:
        """Put the best epoch's weights into the network."""
        self.network.load_state_dict(self.state.best_weights, strict=False)
        return TrainResult(tuple(self.state.epochs), self.state.best)

    def _walk(self, skip_probs: Floats, rng: np.random.Generator) -> Walk:
        """Every conversation, several times, under the policy."""
        walks = [walk(self._graph, skip_probs, rng) for _ in range(self.config.rollouts)]
        return Walk(*(np.concatenate([getattr(one, name) for one in walks]) for name in ("nodes", "actions", "starts")))

    def _everywhere(self) -> Walk:
        """Every state once, whatever leads to it: what is learned from single states needs no transcript."""
        count = len(self._graph.states)
        return Walk(np.arange(count), np.zeros(count, dtype=np.int64), np.ones(count, dtype=bool))

    def _steps(self, kind: Objective, walked: Walk, rewards: Floats, logits: Tensor, skip_probs: Floats,
               rng: np.random.Generator) -> float:
        """Gradient steps over the turns walked; the mean loss."""
        judged = np.asarray(np.isfinite(rewards).all(axis=1))
        usable = np.flatnonzero(judged[walked.nodes] & self._graph.decided[walked.nodes])
        losses: list[float] = []
        targets = self._targets(kind, walked, usable, rewards, logits, skip_probs, rng)
        for _ in range(self.config.ppo_passes if kind == "ppo" else 1):
            # PPO's ratio is of one policy before and after: dropout is off on both sides
            self.network.train(kind != "ppo")
            order = rng.permutation(usable)
            for first in range(0, len(order), self.config.batch_size):
                losses.append(self._step(kind, walked, order[first : first + self.config.batch_size], targets, logits))
        self.network.eval()
        if kind == "ppo":
            self._adapt_kl(walked)
        return float(np.mean(losses)) if losses else 0.0

    def _targets(self, kind: Objective, walked: Walk, usable: Ints, rewards: Floats, logits: Tensor, skip_probs: Floats,
                 rng: np.random.Generator) -> Tensor:
        """What each turn walked is pulled towards: an action (B,), values of both actions (B, A), or an advantage and a return (B, 2)."""
        known = np.nan_to_num(rewards)  # a missing verdict brings nothing to the turns before, and its own turn isn't learned from
        table = torch.from_numpy(known[walked.nodes])
        if kind == "supervised":
            return table.argmax(dim=1)
        if kind == "best_of_k":
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            mixture = logits[:, walked.nodes].softmax(-1).mean(dim=0).log()
            return objective.best_of_k(table.float(), mixture, self.config.k, generator)
        if kind == "all_action":
            return torch.from_numpy(action_values(self._graph, known, skip_probs, self.config.gamma)[walked.nodes]).float()
        taken = torch.from_numpy(known[walked.nodes, walked.actions]).float()
        returns = objective.discounted_returns(taken, torch.from_numpy(walked.starts), self.config.gamma)
        gains = torch.zeros_like(returns)
        if len(usable):  # what isn't learned from moves neither the baseline nor the scale of what is
            gains[usable] = self._advantages(kind, walked.nodes[usable], returns[usable])
        return torch.stack([gains, returns], dim=1)

    def _advantages(self, kind: Objective, nodes: Ints, returns: Tensor) -> Tensor:
        """Of turns at these nodes, (B,): over the value head's estimate in PPO, over a moving mean in REINFORCE."""
        if kind == "ppo":
            return objective.advantages(returns, self._inputs.values(self.network).mean(dim=0)[nodes], normalize=self.config.normalize)
        self.state.baseline = objective.moving_baseline(self.state.baseline, returns, self.config.baseline_decay)
        return objective.advantages(returns, self.state.baseline, normalize=self.config.normalize)

    def _step(self, kind: Objective, walked: Walk, rows: Ints, targets: Tensor, old_logits: Tensor) -> float:
        config, nodes = self.config, walked.nodes[rows]
        good = torch.from_numpy(self._graph.good[nodes]).float()
        members = self.network.config.members  # each learns for itself, from turns that their mixture walked
        logits, values, verdicts = (one.flatten(0, 1) for one in self._inputs.forward(self.network, nodes))
        actions = torch.from_numpy(walked.actions[rows]).repeat(members)
        wanted = targets[rows].repeat(members, *[1] * (targets.ndim - 1))
        mixture = old_logits[:, nodes].softmax(-1).mean(dim=0).log()  # what drew the actions
        old = mixture.gather(1, torch.from_numpy(walked.actions[rows]).unsqueeze(1)).squeeze(1).repeat(members)
        if kind in ("supervised", "best_of_k"):
            loss = objective.supervised_loss(logits, wanted, torch.ones(len(wanted)))
        elif kind == "all_action":
            loss = objective.all_action_loss(logits, wanted, entropy_coef=config.entropy_coef)
        elif kind == "reinforce":
            drawn, own = old.exp(), logits.detach().softmax(-1).gather(1, actions.unsqueeze(1)).squeeze(1)
            weights = objective.importance_weights(own, drawn, clip=config.weight_clip)
            loss = objective.policy_gradient_loss(logits, actions, weights * wanted[:, 0], entropy_coef=config.entropy_coef)
        else:
            loss = objective.ppo_loss(logits, values, actions, old, wanted[:, 0], wanted[:, 1], clip=config.clip,
                                      value_coef=config.value_coef, entropy_coef=config.entropy_coef)
            assert self.state.reference is not None
            loss = loss + self.state.kl_coef * objective.kl_divergence(logits, self.state.reference[:, nodes].flatten(0, 1))
        loss = loss + config.verdict_coef * objective.verdict_loss(verdicts, good.repeat(members, 1))
        if not torch.isfinite(loss):
            raise TrainingError(f"epoch {len(self.state.epochs)}: expected a finite loss, got {float(loss.detach())}; lower the learning "
                                "rate. Nothing was written")
        self.optimizer.zero_grad()
        (members * loss).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), members * config.max_grad_norm)
        self.optimizer.step()
        return float(loss.detach())

    def _adapt_kl(self, walked: Walk) -> None:
        assert self.state.reference is not None
        with torch.inference_mode():
            now, before = (one[:, walked.nodes].flatten(0, 1) for one in (self._inputs.logits(self.network), self.state.reference))
            kl = objective.kl_divergence(now, before)
        self.state.kl_coef = objective.adaptive_kl_coef(self.state.kl_coef, float(kl), self.config.kl_target)

    def _ascend(self, walked: Walk, skip_probs: Floats) -> None:
        """Move the budget's multiplier by how harmful the policy's skips were."""
        if self.config.budget is None:
            return
        harms, skips = self._graph.harm[walked.nodes], skip_probs[walked.nodes] * self._graph.decided[walked.nodes]
        known = np.isfinite(harms)
        self.state.multiplier = objective.dual_step(
            self.state.multiplier, torch.from_numpy(skips[known]), torch.from_numpy(harms[known]), budget=self.config.budget,
            step=self.config.dual_step, cap=self.config.dual_cap,
        )

    def _dev_saving(self) -> float:
        scores = self._dev_inputs.scores(self.network, self.decision)
        found = curve(self._dev, scores)
        return float(np.mean([found.best(budget)[0] for budget in self.config.select_budgets]))

    def _remember(self, done: Epoch) -> None:
        self.state.epochs.append(done)
        if done.dev > self.state.best_dev:
            self.state.best, self.state.best_dev = done.number, done.dev
            self.state.best_weights = trained_weights(self.network)


def train(network: GateNetwork, texts: TextReader, graph: StateGraph, dev: StateGraph, rewards: Rewards, config: TrainConfig,
          decision: DecisionConfig | None = None, *, keep: Path | None = None,
          report: Callable[[Epoch], None] | None = None) -> TrainResult:
    """Train a network in place. With a folder `keep`, every epoch is kept there, and a training that was killed goes on from it.

    Raises: TrainingError when there is nothing to learn from, the loss diverges, or `keep` is of another training.
    """
    from policy.progress import forget, restore, store

    trainer = Trainer(network, texts, graph, dev, rewards, config, decision)
    if keep is not None:
        for epoch in restore(trainer, keep):
            if report is not None:
                report(epoch)
    while not trainer.done:
        epoch = trainer.epoch()
        if keep is not None:
            store(trainer, keep)
        if report is not None:
            report(epoch)
    if keep is not None:
        forget(keep)
    return trainer.finish()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch meanwhile. The heads' products are so small that sharing them costs many times what they take alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trained_weights(network: GateNetwork) -> dict[str, Tensor]:
    """A copy of the tensors that a checkpoint must hold."""
    names = trained_names(network)
    return {name: copy.deepcopy(tensor.detach().cpu()) for name, tensor in network.state_dict().items() if name in names}


def epoch_objects(epochs: Sequence[Epoch]) -> list[dict[str, object]]:
    """Epochs as JSON objects."""
    return [asdict(epoch) for epoch in epochs]
