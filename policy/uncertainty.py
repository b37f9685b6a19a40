"""Monte Carlo dropout: how sure the network is, from K passes with units dropped (Gal & Ghahramani 2016).

Masks are drawn once, by the policy's version, so a state always meets the same ones and decisions are deterministic. Over the heads
alone, the encoder is run once and K light passes follow in one batched product; over the whole network, K copies of the state go
through the encoder together. Leaves out what is decided by it (`decide.py`).
"""

import threading
from typing import Literal

import torch
from torch import Tensor

from policy.encoding import Batch
from policy.network import GateNetwork

McDropout = Literal["off", "head", "all"]

_drawing = threading.Lock()
"""Held while the whole network draws its masks from torch's global generator."""


def head_masks(network: GateNetwork, samples: int, seed: int) -> tuple[Tensor, ...]:
    """Dropout masks for the heads, scaled by 1 / (1 - p): one (K, 1, width) for each place where dropout falls."""
    generator = torch.Generator().manual_seed(seed)
    keep = 1.0 - network.config.dropout
    return tuple((torch.rand(samples, 1, width, generator=generator) < keep).float() / keep for width in network.mask_widths)


@torch.inference_mode()
def mc_probs(network: GateNetwork, batch: Batch, *, mode: McDropout, samples: int, seed: int) -> Tensor:
    """Probabilities of (FETCH, NO_FETCH) in each of K passes, shape (K, B, 2); K is 1 where dropout is off."""
    if mode == "all":
        return torch.stack([_whole(network, batch, row, samples, seed) for row in range(len(batch.input_ids))], dim=1)
    return head_probs(network, network.scaled(network.pooled(batch)), batch.evidence, mode=mode, samples=samples, seed=seed)


@torch.inference_mode()
def head_probs(network: GateNetwork, pooled: Tensor, evidence: Tensor, *, mode: McDropout, samples: int, seed: int) -> Tensor:
    """As `mc_probs` for texts that were pooled already, shape (B, D); dropout over the heads or off."""
    if mode == "off":
        return network.heads(pooled, evidence)[0].softmax(-1).unsqueeze(0)
    masks = [mask.to(pooled.device) for mask in head_masks(network, samples, seed)]
    return network.heads(pooled.unsqueeze(0).expand(samples, -1, -1), evidence, masks)[0].softmax(-1)


def mean_and_spread(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean probability of each action (B, A), and the standard deviation of P(NO_FETCH) over the passes (B,), of mc_probs (K, B, A)."""
    return probs.mean(dim=0), probs[..., 1].std(dim=0, correction=0)


def predictive_entropy(probs: Tensor) -> Tensor:
    """Entropy of the mean probabilities, in nats, shape (B,): all there is to be unsure about."""
    return _entropy(probs.mean(dim=0))


def mutual_information(probs: Tensor) -> Tensor:
    """What the passes disagree about, in nats, shape (B,): predictive entropy less the passes' mean entropy (Houlsby et al. 2011)."""
    return (predictive_entropy(probs) - _entropy(probs).mean(dim=0)).clamp_min(0.0)


def _entropy(probs: Tensor) -> Tensor:
    return -torch.xlogy(probs, probs).sum(dim=-1)


def _whole(network: GateNetwork, batch: Batch, row: int, samples: int, seed: int) -> Tensor:
    """One state's K passes with dropout in encoder and heads, shape (K, 2); a state by itself, so that others can't move its masks."""
    length = int(batch.attention_mask[row].sum())
    ids, attention, query = (tensor[row : row + 1, :length].expand(samples, -1)
                             for tensor in (batch.input_ids, batch.attention_mask, batch.query_mask))
    copies = Batch(ids, attention, query, batch.evidence[row : row + 1].expand(samples, -1))
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.train()
        try:
            logits: Tensor = network(copies)[0]
        finally:
            network.eval()
    return logits.softmax(-1)
