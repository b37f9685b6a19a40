"""A gate small enough to count by hand: a network over a tiny encoder, or over evidence alone, and states for it to read."""

import math
from pathlib import Path
from typing import Any

import torch

from chat.types import Action, Evidence, State
from policy.decide import DecisionConfig, NetworkPolicy
from policy.encoding import EVIDENCE, StateEncoder
from policy.network import GateNetwork, NetworkConfig, build_network

TOKENS = 48


def gate_state(query: str, similarity: float | None = None, *before: tuple[str, Action | None]) -> State:
    """A query after others; with a similarity, retrieval's evidence too."""
    evidence = None if similarity is None else Evidence(similarity, None, top1_in_prompt=similarity > 0.5, turns_since_fetch=None)
    return State(tuple(text for text, _ in before), tuple(action for _, action in before), query, evidence)


STATES = (
    gate_state("block my card", 0.9),
    gate_state("and then", 0.1, ("block my card", Action.FETCH)),
    gate_state("thanks", None, ("block my card", Action.FETCH), ("and then", Action.NO_FETCH)),
    gate_state("a far longer query than all of these", 0.4, ("hi", None), ("open now", Action.STATIC)),
)


def tiny_gate(encoder: Path, *, seed: int = 0, **options: Any) -> tuple[GateNetwork, StateEncoder, Any]:
    """A network with fresh heads, what encodes states for it, and its tokenizer; `options` are `NetworkConfig`'s."""
    sizes: dict[str, Any] = {"max_tokens": TOKENS, "hidden": 8, "text_width": 4, "members": 3, "pooling": "query", "previous_queries": 2}
    config = NetworkConfig(str(encoder), **(sizes | options))
    network, tokenizer = build_network(config, seed=seed)
    return network, StateEncoder(tokenizer, config.max_tokens, config.previous_queries), tokenizer


def tiny_policy(encoder: Path, decision: DecisionConfig, **options: Any) -> NetworkPolicy:
    """A policy of that network, whose weights are as they were drawn."""
    network, states, _ = tiny_gate(encoder, **options)
    return NetworkPolicy(network, states, decision, "tiny:1")


@torch.no_grad()
def constant_gate(probability: float, **options: Any) -> GateNetwork:
    """A network over evidence alone that gives every state this probability of NO_FETCH, whatever is dropped."""
    sizes: dict[str, Any] = {"text": False, "hidden": 8, "members": 1}
    network = GateNetwork(None, 4, NetworkConfig(**(sizes | options)))
    for parameter in network.parameters():
        parameter.zero_()
    network.action.bias[..., 1] = math.log(probability / (1.0 - probability))
    return network.eval()


@torch.no_grad()
def similarity_gate(gain: float = 4.0, **options: Any) -> GateNetwork:
    """A network over evidence alone whose P(NO_FETCH) rises with the top-1 similarity; one unit carries it, so dropping one matters."""
    network = constant_gate(0.5, **options)
    network.body.weight[:, EVIDENCE.index("top1_similarity"), 0] = 2.0  # (M, in, out)
    network.deep.weight[:, 0, 0] = 2.0
    network.action.weight[:, 0, 1] = gain
    return network
