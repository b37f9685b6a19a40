"""The learned gate as a policy: State to Decision, fetching when unsure.

NO_FETCH when mean P(NO_FETCH) - c * sd >= skip_threshold, over the passes of MC dropout; deterministic given the state, since masks are
seeded by the policy. Exploration comes on top, with a rate of its own towards each action, and is logged as `behavior_prob`. Leaves
out choosing the threshold (`evaluation/certify.py`) and files (`checkpoint.py`).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chat.types import Action, Decision, State
from policy.encoding import StateEncoder
from policy.errors import PolicyError
from policy.network import GateNetwork
from policy.uncertainty import McDropout, head_passes, mc_probs, mean_and_spread

BATCH = 64


@dataclass(frozen=True, slots=True)
class DecisionConfig:
    """How probabilities become an action."""

    skip_threshold: float = 1.01
    """NO_FETCH from this lower estimate of P(NO_FETCH) on; above 1 it is never taken, until a threshold is certified."""
    mc_dropout: McDropout = "head"
    """Whether units are dropped when deciding: off, in the heads, or in the whole network."""
    samples: int = 10
    """K, the passes of MC dropout."""
    uncertainty_penalty: float = 0.5
    """c: standard deviations that are taken off the mean; 0 ignores how unsure the network is."""
    seed: int = 0
    """Of the dropout masks."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: expected at least 1, got {self.samples}")
        if not 0 <= self.uncertainty_penalty < math.inf:
            raise ValueError(f"uncertainty_penalty: expected 0 or more, got {self.uncertainty_penalty}")
        if math.isnan(self.skip_threshold):
            raise ValueError("skip_threshold: expected a number, got nan")


@dataclass(frozen=True, slots=True)
class Exploration:
    """How often the other action is tried, so that logs can tell what it would have brought."""

    to_fetch: float = 0.0
    """Probability of FETCH where the policy would skip, in [0, 1)."""
    to_skip: float = 0.0
    """Probability of NO_FETCH where it would fetch; at 0 the value of skipping there can't be learned from logs."""

    def __post_init__(self) -> None:
        for name in ("to_fetch", "to_skip"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: expected 0 <= rate < 1, got {getattr(self, name)}")


class NetworkPolicy:
    """A trained network that decides; safe for many threads."""

    def __init__(self, network: GateNetwork, encoder: StateEncoder, config: DecisionConfig, version: str, *,
                 exploration: Exploration | None = None, rng: random.Random | None = None) -> None:
        self._network = network.eval()
        self._encoder = encoder
        self._config = config
        self._version = version
        self._passes = head_passes(network, config.mc_dropout, config.samples, config.seed)
        """The same for every state, so they are drawn once."""
        self._exploration = exploration or Exploration()
        self._rng = rng or random.SystemRandom()

    @property
    def version(self) -> str:
        return self._version

    @property
    def name(self) -> str:
        """As a gate among others."""
        return self._version

    @property
    def network(self) -> GateNetwork:
        return self._network

    @property
    def encoder(self) -> StateEncoder:
        """What makes of a state what the network reads."""
        return self._encoder

    @property
    def config(self) -> DecisionConfig:
        return self._config

    def at(self, skip_threshold: float) -> "NetworkPolicy":
        """The same network with another threshold, and no exploration: what is measured."""
        return NetworkPolicy(self._network, self._encoder, replace(self._config, skip_threshold=skip_threshold), self._version)

    def scores(self, states: Sequence[State]) -> NDArray[np.float64]:
        """Lower estimates of P(NO_FETCH), which the threshold is compared with; shape (B,)."""
        probability, spread = self._estimates(states)
        return probability - self._config.uncertainty_penalty * spread

    def decide(self, state: State) -> Decision:
        """The action for a state. Raises: PolicyError when the network gives no number, so that the turn fetches."""
        probability, spread = (float(values[0]) for values in self._estimates([state]))
        score = probability - self._config.uncertainty_penalty * spread
        skips = score >= self._config.skip_threshold
        rate = self._exploration.to_fetch if skips else self._exploration.to_skip
        explores = rate > 0.0 and self._rng.random() < rate
        action = Action.NO_FETCH if skips is not explores else Action.FETCH
        return Decision(action, 1.0 - probability, spread, rate if explores else 1.0 - rate, self._version,
                        self._reason(probability, spread, skips=skips, explores=explores))

    def _estimates(self, states: Sequence[State]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and spread of P(NO_FETCH), each (B,)."""
        means, spreads = [np.zeros(0)], [np.zeros(0)]
        for first in range(0, len(states), BATCH):
            batch = self._encoder.batch(states[first : first + BATCH])
            probs = mc_probs(self._network, batch, mode=self._config.mc_dropout, samples=self._config.samples, seed=self._config.seed,
                             passes=self._passes)
            mean, spread = mean_and_spread(probs)
            means.append(mean[:, 1].double().cpu().numpy())
            spreads.append(spread.double().cpu().numpy())
        probability, spread_ = np.concatenate(means), np.concatenate(spreads)
        if not np.isfinite(probability).all():
            raise PolicyError(f"{self._version}: expected finite probabilities, got NaN; the weights are damaged, load another policy")
        return np.clip(probability, 0.0, 1.0), spread_

    def _reason(self, probability: float, spread: float, *, skips: bool, explores: bool) -> str:
        if explores:
            return "tries the other action, to learn what it brings"
        if skips:
            return f"{probability:.0%} sure that a fetch would not help"
        if probability >= self._config.skip_threshold:
            return f"{probability:.0%} for answering without a fetch, but too unsure (±{spread:.0%})"
        return "a fetch may help"
