"""States as a network in training takes them: evidence as arrays, texts pooled once where the encoder doesn't learn.

Leaves out single decisions (`decide.py`), for which a state is read by itself.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from chat.types import State
from policy.decide import BATCH, DecisionConfig
from policy.encoding import StateEncoder, evidence_features
from policy.graph import NO_FETCH, Floats, Ints
from policy.network import GateNetwork, encoder_frozen
from policy.uncertainty import McDropout, head_passes, head_probs, mean_and_spread


class Inputs:
    """States as the network takes them, read once; texts are pooled once where the encoder doesn't learn."""

    def __init__(self, network: GateNetwork, texts: "TextReader", states: Sequence[State]) -> None:
        self._texts, self._states = texts, states
        self._evidence = torch.from_numpy(evidence_features(states))
        self._pooled = texts.pooled(network, states) if encoder_frozen(network) else None

    def forward(self, network: GateNetwork, nodes: Ints) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (M, B, A), values (M, B) and logits of Good verdicts (M, B, A) of some states, with gradients."""
        if self._pooled is not None:
            pooled = self._pooled[nodes]
        else:
            pooled = network.pooled(self._texts.encoder.batch([self._states[node] for node in nodes]))
        hidden = network.trunk(network.scaled(pooled), self._evidence[nodes])
        return network.action(hidden), network.value(hidden).squeeze(-1), network.verdict(hidden)

    def logits(self, network: GateNetwork) -> Tensor:
        """Of all states, dropout off, shape (M, N, A)."""
        return self._all(network)[0]

    def values(self, network: GateNetwork) -> Tensor:
        """Of all states, dropout off, shape (M, N)."""
        return self._all(network)[1]

    def scores(self, network: GateNetwork, decision: DecisionConfig) -> Floats:
        """What the skip threshold is compared with, shape (N,); with dropout in the heads where it is in the whole network."""
        mode: McDropout = "off" if decision.mc_dropout == "off" else "head"
        passes = head_passes(network, mode, decision.samples, decision.seed)
        probs = head_probs(network, self._scaled(network), self._evidence, passes)
        mean, spread = mean_and_spread(probs)
        found: Floats = (mean[:, NO_FETCH] - decision.uncertainty_penalty * spread).double().numpy()
        return found

    @torch.no_grad()
    def _all(self, network: GateNetwork) -> tuple[Tensor, Tensor]:
        network.eval()
        return network.heads(self._scaled(network), self._evidence)

    def _scaled(self, network: GateNetwork) -> Tensor:
        return network.scaled(self._pooled if self._pooled is not None else self._texts.pooled(network, self._states))


class TextReader:
    """Pools the texts of states; a frozen encoder reads each text once, however many networks stand on it."""

    def __init__(self, encoder: StateEncoder) -> None:
        self.encoder = encoder
        self._read: dict[tuple[int, ...], Tensor] = {}

    def pooled(self, network: GateNetwork, states: Sequence[State]) -> Tensor:
        """The encoder's reading of each state's text, not scaled, shape (N, D); (N, 0) where the network reads none."""
        if network.encoder is None:
            return torch.zeros(len(states), 0)
        if not encoder_frozen(network):
            return pooled_texts(network, self.encoder, states)
        keys = [tuple(self.encoder.ids(state)) for state in states]
        new = {key: state for key, state in zip(keys, states, strict=True) if key not in self._read}
        self._read |= zip(new, pooled_texts(network, self.encoder, list(new.values())), strict=True)
        return torch.stack([self._read[key] for key in keys])


@torch.no_grad()
def pooled_texts(network: GateNetwork, encoder: StateEncoder, states: Sequence[State]) -> Tensor:
    """The encoder's reading of each state's text, not scaled, shape (N, D); states of like length are read together."""
    order = sorted(range(len(states)), key=lambda n: sum(map(len, states[n].previous_queries)) + len(states[n].query))
    pooled = torch.zeros(len(states), network.width)
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        pooled[rows] = network.pooled(encoder.batch([states[row] for row in rows])).cpu()
    return pooled


def prepare(network: GateNetwork, texts: TextReader, states: Sequence[State], *, sample: int = 512, seed: int = 0) -> None:
    """Standardise a fresh network's inputs by training states; texts by a sample of them."""
    chosen = np.random.default_rng(seed).choice(len(states), size=min(sample, len(states)), replace=False)
    network.standardise(texts.pooled(network, [states[n] for n in chosen]), torch.from_numpy(evidence_features(states)))
