"""A reward model: one number for an answer, learned from what people preferred. Its losses, pure, and its network.

Losses are scalars to minimise. Shapes: B pairs or answers, N answers, R prompts. The network is an ensemble of small heads over an
answer's figures (`answer_features.py`) on the frozen packaged encoder. Leaves out fitting (`train.py`) and folders (`saved.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kb.embedder import Embedder, Progress
from reward.answer_features import FEATURES, features
from reward.errors import PreferenceError
from reward.preferences import Answer, Preference

Floats = NDArray[np.float64]
Objective = Literal["bradley_terry", "logistic", "kto"]

SAFETY_THRESHOLD = 0.15
"""A safety score below it overrules helpfulness (Llama 2, on reinforcement learning: the combined reward)."""
CLIPPED_AT = 4.0
"""Standard deviations: a figure further out is an odd text, not that much better a one."""


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """Mean of `-log sigmoid(r_c - r_r - m)`, shapes (B,); m = 0 without margins.

    Source: Bradley & Terry 1952 as InstructGPT (arXiv 2203.02155) trains its reward model; the margin is Llama 2's (arXiv 2307.09288, on
    training objectives of reward models). TRL's RewardTrainer has the same.
    """
    gap = chosen - rejected
    return -logsigmoid(gap if margin is None else gap - margin).mean()


def all_pairs_loss(rewards: Tensor, chosen: Tensor, rejected: Tensor, prompts: Tensor, margin: Tensor | None = None) -> Tensor:
    """Mean over prompts of the mean over each prompt's pairs: every pair weighs `1 / (K choose 2)`, all of a prompt in one batch.

    A prompt's ties have no pair, so its weight is one over the pairs that it has. Shapes: rewards (N,), each answer once; chosen,
    rejected (B,) its rows; prompts (B,) numbers from 0. Source: InstructGPT
    (arXiv 2203.02155), on its reward model.
    """
    gap = rewards[chosen] - rewards[rejected]
    losses = -logsigmoid(gap if margin is None else gap - margin)
    pairs = torch.bincount(prompts)
    return (losses / pairs[prompts]).sum() / torch.count_nonzero(pairs)


def logistic_loss(rewards: Tensor, good: Tensor) -> Tensor:
    """Mean cross-entropy of `P(good) = sigmoid(r)`, shapes (B,); good is 1 or 0."""
    return -(good * logsigmoid(rewards) + (1 - good) * logsigmoid(-rewards)).mean()


def kto_loss(rewards: Tensor, good: Tensor, reference: Tensor, *, beta: float = 1.0, good_weight: float = 1.0,
             bad_weight: float = 1.0) -> Tensor:
    """Mean of `lambda - v` with `v = lambda sigmoid(beta (r - z0))` of a good answer, `lambda sigmoid(beta (z0 - r))` of a bad one.

    Shapes: rewards, good (B,); reference z0, a scalar that no gradient passes through. Source: KTO (Ethayarajh et al. 2024, arXiv
    2402.01306, on its loss and value function). There r is beta-free log(pi / pi_ref) and z0 the policy's KL divergence. A reward model
    has no policy, so r is the network's own number and z0 is what the caller takes for an answer of no consequence (`train.py`: the
    batch's mean).
    """
    gap = beta * (rewards - reference.detach())
    gains = good_weight * (1 - torch.sigmoid(gap))
    losses = bad_weight * (1 - torch.sigmoid(-gap))
    return torch.where(good > 0, gains, losses).mean()


def combined(helpfulness: Floats, safety: Floats, is_safety: NDArray[np.bool_]) -> Floats:
    """The safety score where the prompt is one of safety or the score is below 0.15, else the helpfulness score; shapes (B,).

    Both are probabilities in [0, 1]. Source: Llama 2, on reinforcement learning: `R_c = R_s if is_safety(p) or R_s < 0.15 else R_h`.
    Raises: PreferenceError for scores outside [0, 1].
    """
    for name, scores in (("helpfulness", helpfulness), ("safety", safety)):
        if not (np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()):
            raise PreferenceError(f"{name}: expected probabilities in [0, 1], got others; give sigmoid(reward)")
    return np.where(is_safety | (safety < SAFETY_THRESHOLD), safety, helpfulness)


def whitened(scores: Floats, *, edge: float = 1e-6) -> Floats:
    """`WHITEN(LOGIT(R_c))` over a batch: mean 0, standard deviation 1; all 0 where the scores are alike (Llama 2, as above)."""
    if not scores.size:
        return np.zeros(0)
    inside = np.clip(scores, edge, 1 - edge)
    logits: Floats = np.log(inside / (1 - inside))
    spread = logits.std()
    return (logits - logits.mean()) / spread if spread > 1e-12 else np.zeros_like(logits)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The heads."""

    members: int = 5
    """Heads whose mean is the reward; each begins at other weights."""
    hidden: int = 0
    """Units of each head's hidden layer; 0: a head is one weight a figure."""
    dropout: float = 0.0
    """Share of hidden units switched off in training; of figures, 2/5 of that."""
    figures: tuple[str, ...] = FEATURES
    """Names of the figures that it reads."""

    def __post_init__(self) -> None:
        if self.members < 1 or self.hidden < 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"members, hidden, dropout: expected from 1, from 0, and in [0, 1), got {self.members}, {self.hidden} and "
                             f"{self.dropout}")
        if not self.figures or set(self.figures) - set(FEATURES):
            raise ValueError("figures: expected some of reward.answer_features.FEATURES, got "
                             f"{sorted(set(self.figures) - set(FEATURES))[:3] or 'none'}")


class RewardNetwork(nn.Module):
    """Figures (N, F) to rewards, shape (M, N): one row a head."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: NetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        width = len(config.figures)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        with torch.random.fork_rng(devices=()):  # the caller's random state stays as it was
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(_head(config, width) for _ in range(config.members))

    def standardise(self, rows: Floats) -> None:
        """Take mean and spread of the figures from these answers, shape (N, F); a figure that is constant stays at 0."""
        spread = rows.std(axis=0)
        self.mean.copy_(torch.from_numpy(rows.mean(axis=0)))
        self.spread.copy_(torch.from_numpy(np.where(spread > 1e-9, spread, np.inf)))

    def scaled(self, rows: Tensor) -> Tensor:
        """Figures in standard deviations from the training answers' mean, clipped."""
        return ((rows - self.mean) / self.spread).clamp(-CLIPPED_AT, CLIPPED_AT)

    def forward(self, rows: Tensor) -> Tensor:
        scaled = self.scaled(rows)
        return torch.stack([head(scaled).squeeze(-1) for head in self.heads])


def _head(config: NetworkConfig, width: int) -> nn.Module:
    if not config.hidden:
        head = nn.Linear(width, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(nn.Dropout(0.4 * config.dropout), head)
    return nn.Sequential(nn.Dropout(0.4 * config.dropout), nn.Linear(width, config.hidden), nn.Tanh(), nn.Dropout(config.dropout),
                         nn.Linear(config.hidden, 1))


@dataclass(frozen=True, slots=True)
class Scale:
    """What is done to the network's number after training."""

    temperature: float = 1.0
    """The reward is divided by it, so that sigmoid(r_a - r_b) is the share of people who prefer a."""
    bias: float = 0.0
    """Added, so that sigmoid(r) is P(good) where judged answers were learned from; 0 for pairs, which tell no zero."""
    length_slope: float = 0.0
    """Taken off for each unit of log(1 + words): what of the reward is owed to length alone; 0: not debiased."""

    def __post_init__(self) -> None:
        if not (0 < self.temperature < np.inf and np.isfinite(self.bias) and np.isfinite(self.length_slope)):
            raise ValueError("temperature, bias, length_slope: expected above 0, and finite numbers, got "
                             f"{self.temperature}, {self.bias} and {self.length_slope}")


class RewardModel:
    """Rewards of answers, higher is better. A pair's logit is a difference, so swapping the two negates it: there is no place to prefer."""

    def __init__(self, network: RewardNetwork, embedder: Embedder, scale: Scale = Scale()) -> None:
        self.network, self.embedder, self.scale = network.eval(), embedder, scale
        self._columns = [FEATURES.index(name) for name in network.config.figures]

    def rewards(self, answers: Sequence[Answer], *, progress: Progress | None = None) -> Floats:
        """Of each answer, shape (N,). Raises: EmbedderError."""
        return self.of_figures(features(answers, self.embedder, progress=progress))

    def of_figures(self, rows: Floats) -> Floats:
        """Of answers whose figures are known, shape (N, len(FEATURES)) to (N,)."""
        with torch.no_grad():
            raw: Floats = self.network(torch.from_numpy(rows[:, self._columns]).float()).mean(dim=0).double().numpy()
        length = rows[:, FEATURES.index("log_words")]
        return (raw - self.scale.length_slope * length) / self.scale.temperature + self.scale.bias

    def logits(self, pairs: Sequence[Preference]) -> Floats:
        """`r(chosen) - r(rejected)` of each pair, shape (B,): above 0 where the model prefers as people did."""
        rewards = self.rewards([answer for pair in pairs for answer in pair.answers]).reshape(-1, 2)
        return rewards[:, 0] - rewards[:, 1]
