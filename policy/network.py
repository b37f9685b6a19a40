"""The policy network: a BERT or GPT-2 encoder with heads for two actions and a value, behind one class.

BERT is read at `[CLS]`, or by the mean of all tokens or of the current query's; GPT-2 at the last `[SEP]`. A narrow, strongly
regularised layer reads the text, so that a few hundred conversations can't be learned by heart; what retrieval says joins it there.
Which part of the encoder learns is one setting: nothing, its top layers, low-rank updates of its attention (LoRA, Hu et al. 2021),
or everything. Leaves out what is optimised (`objective.py`), dropout at decision time (`uncertainty.py`) and files (`checkpoint.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from kb.embedder import DEFAULT_MODEL
from policy.encoding import DEFAULT_MAX_TOKENS, EVIDENCE, Batch

Trainable = Literal["head", "top_layers", "lora", "full"]
Pooling = Literal["cls", "mean", "query", "last"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What the network is made of."""

    encoder: str = DEFAULT_MODEL
    """The packaged MiniLM, a folder or a hub id of a BERT or GPT-2."""
    pooling: Pooling = "mean"
    """What the heads read of the text: `[CLS]`, the mean of all tokens, that of the current query's, or the last token, as of GPT-2."""
    trainable: Trainable = "head"
    """The heads always learn; `top_layers` adds the encoder's last ones, `lora` low-rank updates, `full` all of it."""
    top_layers: int = 2
    lora_rank: int = 8
    evidence: bool = True
    """Whether the heads see what retrieval says."""
    text: bool = True
    """Whether they see the text; False leaves the evidence alone, and no encoder is run."""
    text_width: int = 16
    """Numbers that are made of the text before evidence joins it."""
    hidden: int = 32
    """Width of the heads' two common layers."""
    members: int = 10
    """Heads that learn side by side from different beginnings and dropout; their mean is the policy."""
    text_dropout: float = 0.8
    """Of what the text layer reads, in training, in [0, 1)."""
    dropout: float = 0.2
    """In the heads, in training and in MC dropout, in [0, 1)."""
    previous_queries: int = 0
    """Of the state, how many the text holds, with the actions taken for them. An encoder that is not trained reads the query best alone
    (docs/results.md): what came before then reaches the heads through the evidence."""
    max_tokens: int = DEFAULT_MAX_TOKENS
    """Of a state; the oldest query is dropped first."""

    def __post_init__(self) -> None:
        for name in ("dropout", "text_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: expected 0 <= p < 1, got {getattr(self, name)}")
        for name in ("top_layers", "lora_rank", "text_width", "hidden"):
            if getattr(self, name) < 1:  # no top layers would be all of them: [-0:]
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.previous_queries < 0:
            raise ValueError(f"previous_queries: expected 0 or more, got {self.previous_queries}")
        if self.members < 1:
            raise ValueError(f"members: expected at least 1, got {self.members}")
        if not (self.text or self.evidence):
            raise ValueError("text, evidence: expected at least one of them, got neither")


class GateNetwork(nn.Module):
    """States to logits over (FETCH, NO_FETCH) and a value, by each member of an ensemble of heads on one encoder.

    Axes: M members, B states, D width of the encoder, E evidence, T text, H hidden.
    """

    evidence_mean: Tensor
    evidence_scale: Tensor
    text_mean: Tensor
    text_scale: Tensor

    def __init__(self, encoder: nn.Module | None, width: int, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.width = width
        text, evidence = config.text_width * config.text, len(EVIDENCE) * config.evidence
        self.register_buffer("evidence_mean", torch.zeros(len(EVIDENCE)))
        self.register_buffer("evidence_scale", torch.ones(len(EVIDENCE)))
        self.register_buffer("text_mean", torch.zeros(width))
        self.register_buffer("text_scale", torch.ones(1))
        self.read = Ensemble(config.members, width, config.text_width) if config.text else None
        self.body = Ensemble(config.members, text + evidence, config.hidden)
        self.deep = Ensemble(config.members, config.hidden, config.hidden)
        self.action = Ensemble(config.members, config.hidden, 2)
        self.value = Ensemble(config.members, config.hidden, 1)
        self.verdict = Ensemble(config.members, config.hidden, 2)
        """Logits that the answer is Good after each action: learned beside the policy, as what it must know."""

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (M, B, 2) and values (M, B); dropout is on in training mode."""
        return self.heads(self.scaled(self.pooled(batch)), batch.evidence)

    def scaled(self, pooled: Tensor) -> Tensor:
        """Pooled texts (..., D) as the heads read them."""
        return (pooled - self.text_mean) / self.text_scale if pooled.shape[-1] else pooled

    def pooled(self, batch: Batch) -> Tensor:
        """The encoder's reading of each text, shape (B, D), or (B, 0) where the text isn't read."""
        if self.encoder is None:
            return torch.zeros(len(batch.input_ids), 0)
        device = self.text_mean.device
        mask = batch.attention_mask.to(device)
        hidden: Tensor = self.encoder(input_ids=batch.input_ids.to(device), attention_mask=mask).last_hidden_state
        return self._pool(hidden, mask, batch.query_mask.to(device))

    def heads(self, pooled: Tensor, evidence: Tensor, passes: "Passes | None" = None) -> tuple[Tensor, Tensor]:
        """Logits (M, B, 2) and values (M, B) of scaled texts (B, D) and evidence (B, E); with passes, one of each a pass."""
        hidden = self.trunk(pooled, evidence, passes)
        members = None if passes is None else passes.members
        return self.action(hidden, members), self.value(hidden, members).squeeze(-1)

    def trunk(self, pooled: Tensor, evidence: Tensor, passes: "Passes | None" = None) -> Tensor:
        """What all heads stand on, shape (M, B, H), or (K, B, H) with K passes; texts may be (K, B, D) then."""
        members = None if passes is None else passes.members
        rows = self.config.members if members is None else len(members)
        parts = []
        if self.read is not None:
            # dropout in the heads falls behind this layer, so each member reads a text once, however many passes follow
            shared = members is not None and pooled.ndim == 2
            seen_by = None if shared else members
            dropped = dropout(pooled.expand(self.config.members if shared else rows, *pooled.shape[-2:]), self.config.text_dropout,
                              self.training)
            read = torch.tanh(self.read(dropped, seen_by))
            parts.append(read[members] if shared else read)
        if self.config.evidence:
            seen = (evidence.to(self.evidence_mean.device) - self.evidence_mean) / self.evidence_scale
            parts.append(seen.expand(rows, -1, -1))
        sites: Sequence[Tensor | None] = (None, None, None) if passes is None else passes.masks
        hidden = torch.tanh(self.body(self._drop(torch.cat(parts, dim=-1), sites[0]), members))
        return self._drop(torch.tanh(self.deep(self._drop(hidden, sites[1]), members)), sites[2])

    @property
    def mask_widths(self) -> tuple[int, ...]:
        """Widths of the three places in the heads where dropout falls."""
        return self.body.weight.shape[1], self.config.hidden, self.config.hidden

    @torch.no_grad()
    def standardise(self, pooled: Tensor, evidence: Tensor) -> None:
        """Take mean and scale of training states: text as the untrained encoder pools it (B, D), evidence (B, E)."""
        self.evidence_mean.copy_(evidence.mean(dim=0))
        self.evidence_scale.copy_(evidence.std(dim=0, correction=0).clamp_min(1e-3))
        if pooled.shape[1]:
            self.text_mean.copy_(pooled.mean(dim=0))
            self.text_scale.copy_((pooled - pooled.mean(dim=0)).square().mean().sqrt().clamp_min(1e-6))

    def _pool(self, hidden: Tensor, mask: Tensor, query_mask: Tensor) -> Tensor:
        if self.config.pooling == "cls":
            return hidden[:, 0]
        if self.config.pooling == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
        weights = (query_mask if self.config.pooling == "query" else mask).unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def _drop(self, values: Tensor, mask: Tensor | None) -> Tensor:
        return dropout(values, self.config.dropout, self.training) if mask is None else values * mask


class Ensemble(nn.Module):
    """A linear layer of each of M members, in one product."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, values: Tensor, members: Tensor | None = None) -> Tensor:
        """Values (M, B, in) to (M, B, out), or (K, B, in) to (K, B, out) by the members that are named, shape (K,)."""
        if members is None:
            return values @ self.weight + self.bias
        return values @ self.weight[members] + self.bias[members]


@dataclass(frozen=True, slots=True)
class Passes:
    """K passes through the heads: which member each takes, and which units it drops."""

    members: Tensor
    """Shape (K,)."""
    masks: tuple[Tensor | None, Tensor | None, Tensor | None]
    """Scaled by 1 / (1 - p), shape (K, 1, width) for each of `mask_widths`; None: dropout goes by the network's mode."""


def build_network(config: NetworkConfig, *, seed: int) -> tuple[GateNetwork, Any]:
    """A network with fresh heads, in evaluation mode, and the tokenizer of its encoder. The seed draws the heads and low-rank updates;
    the embeddings of new tokens are the same for every seed, so that one reading of the texts serves all.

    Raises: PolicyError when the encoder is missing or of another architecture; ValueError when it reads fewer tokens.
    """
    from policy.encoder import add_special_tokens, load_encoder

    encoder, tokenizer = load_encoder(config.encoder)
    if encoder.config.model_type == "gpt2" and config.pooling == "cls":
        config = replace(config, pooling="last")  # its first token has seen nothing else
    known = encoder.config.max_position_embeddings
    if config.max_tokens > known:
        raise ValueError(f"max_tokens: expected at most {known}, which {config.encoder} reads, got {config.max_tokens}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        add_special_tokens(encoder, tokenizer, generator_seed=0)
        network = GateNetwork(_adapted(encoder, config) if config.text else None, encoder.config.hidden_size, config)
    _choose_trainable(network)
    return network.eval(), tokenizer


def trained_names(network: GateNetwork) -> set[str]:
    """Names of the tensors that training changes or that were drawn for this policy: what a checkpoint must hold.

    The embeddings of the action tokens aren't among them while the encoder is frozen: they are drawn alike again.
    """
    changed = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return changed | {name for name in network.state_dict() if not name.startswith("encoder.")}


def encoder_frozen(network: GateNetwork) -> bool:
    """Whether a text is pooled alike before and after training, so that it need be read only once."""
    return network.encoder is None or not any(parameter.requires_grad for parameter in network.encoder.parameters())


def _choose_trainable(network: GateNetwork) -> None:
    """Freeze what the configuration doesn't train."""
    config = network.config
    if network.encoder is None:
        return
    layers = network.encoder.h if hasattr(network.encoder, "h") else network.encoder.encoder.layer  # type: ignore[union-attr]
    top = {id(parameter) for layer in list(layers)[-config.top_layers :] for parameter in layer.parameters()}  # type: ignore[arg-type]
    for name, parameter in network.encoder.named_parameters():
        parameter.requires_grad = (
            config.trainable == "full" or (config.trainable == "top_layers" and id(parameter) in top)
            or (config.trainable == "lora" and "lora_" in name)
        )


def _adapted(encoder: Any, config: NetworkConfig) -> Any:
    """The encoder, with low-rank updates beside its attention's projections where they are to be trained."""
    if config.trainable != "lora":
        return encoder
    from peft import LoraConfig, inject_adapter_in_model

    gpt2 = encoder.config.model_type == "gpt2"
    lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, lora_dropout=0.0, fan_in_fan_out=gpt2,
                      target_modules=["c_attn"] if gpt2 else ["query", "value"])
    return inject_adapter_in_model(lora, encoder)
