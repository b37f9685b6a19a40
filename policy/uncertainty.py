"""Monte Carlo dropout: how sure the network is, from K passes with units dropped (Gal & Ghahramani 2016).

Each pass goes through every member of the ensemble, so that what members disagree about counts. Masks are drawn by a seed that the
policy holds, so a state always meets the same ones and decisions are deterministic. Over the heads alone, the encoder is run once and K
light passes follow in one batched product; over the whole network, K copies of the state go through the encoder together. Leaves out
what is decided by it (`decide.py`).
"""

import threading
from typing import Literal

import torch
from torch import Tensor

from policy.encoding import Batch
from policy.network import GateNetwork, Passes

McDropout = Literal["off", "head", "all"]

_drawing = threading.Lock()
"""Held while the whole network draws its masks from torch's global generator."""


def head_passes(network: GateNetwork, mode: McDropout, samples: int, seed: int) -> Passes:
    """The passes through the heads: K through every member, each dropping units of its own, or one with dropout off."""
    members = network.config.members
    if mode == "off":
        return Passes(torch.arange(members), (None, None, None))
    generator = torch.Generator().manual_seed(seed)
    keep = 1.0 - network.config.dropout
    rows = samples * members
    first, second, third = ((torch.rand(rows, 1, width, generator=generator) < keep).float() / keep for width in network.mask_widths)
    return Passes(torch.arange(members).repeat(samples), (first, second, third))


@torch.inference_mode()
def mc_probs(network: GateNetwork, batch: Batch, *, mode: McDropout, samples: int, seed: int, passes: Passes | None = None) -> Tensor:
    """Probabilities of (FETCH, NO_FETCH) of each of M members in each of K passes, shape (K M, B, 2); K is 1 with dropout off.

    `passes` are the `head_passes` of these arguments, where they were drawn before; the whole network draws its own.
    """
    if mode == "all":
        return torch.stack([_whole(network, batch, row, samples, seed) for row in range(len(batch.input_ids))], dim=1)
    drawn = head_passes(network, mode, samples, seed) if passes is None else passes
    return head_probs(network, network.scaled(network.pooled(batch)), batch.evidence, drawn)


@torch.inference_mode()
def head_probs(network: GateNetwork, scaled: Tensor, evidence: Tensor, passes: Passes) -> Tensor:
    """As `mc_probs` for texts that were pooled and scaled already, shape (B, D)."""
    logits: Tensor = network.action(network.trunk(scaled, evidence, passes), passes.members)
    return logits.softmax(-1)


def mean_and_spread(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean probability of each action (B, A), and the standard deviation of P(NO_FETCH) over the passes (B,), of mc_probs (K M, B, A)."""
    return probs.mean(dim=0), probs[..., 1].std(dim=0, correction=0)


def predictive_entropy(probs: Tensor) -> Tensor:
    """Entropy of the mean probabilities, in nats, shape (B,): all there is to be unsure about."""
    return _entropy(probs.mean(dim=0))


def mutual_information(probs: Tensor) -> Tensor:
    """What the passes disagree about, in nats, shape (B,): predictive entropy less the passes' mean entropy (Houlsby et al. 2011)."""
    return (predictive_entropy(probs) - _entropy(probs).mean(dim=0)).clamp_min(0.0)


def _entropy(probs: Tensor) -> Tensor:
    entropy: Tensor = -torch.special.xlogy(probs, probs).sum(dim=-1)
    return entropy


def _whole(network: GateNetwork, batch: Batch, row: int, samples: int, seed: int) -> Tensor:
    """One state's K passes with dropout in encoder and heads, shape (K, 2); a state by itself, so that others can't move its masks."""
    length = int(batch.attention_mask[row].sum())
    ids, attention, query = (tensor[row : row + 1, :length].expand(samples, -1)
                             for tensor in (batch.input_ids, batch.attention_mask, batch.query_mask))
    copies = Batch(ids, attention, query, batch.evidence[row : row + 1])
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.train()
        try:
            members = network.config.members
            texts = network.scaled(network.pooled(copies)).repeat_interleave(members, dim=0).unsqueeze(1)
            passes = Passes(torch.arange(members).repeat(samples), (None, None, None))
            logits = network.heads(texts, batch.evidence[row : row + 1], passes)[0].squeeze(1)
        finally:
            network.eval()
    return logits.softmax(-1)
