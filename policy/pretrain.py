"""In-domain pre-training of a gate's encoder: masked language modelling for BERT, causal for GPT-2 (Kulkarni et al. 2024).

Texts in, an encoder folder out: weights without head, tokenizer with the tokens of a gate's state, and `pretraining.json` with
settings, data hash and figures. Leaves out the training itself (`language_model.py`) and the policy (`train.py`).
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kb.types import Faq
from policy.encoder import ENCODER_DEFAULT, KINDS, Kind, add_special_tokens, load_language_model, quiet_transformers
from policy.errors import CheckpointError, TrainingError
from policy.folder import check_replaceable, replaced

RECORD = "pretraining.json"
FORMAT = 1
WINDOW = 3
"""Queries of a text: the current one and those that the state shows before it."""
BETWEEN = " [SEP] [UNKNOWN] "
"""What stands between two queries: a gate's state, with the token for an action that isn't known."""


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """What is pre-trained, and how. `default_config` has the settings that suit a kind."""

    kind: Kind = "bert"
    encoder: str | None = None
    """The packaged default's name, a folder, or a hub id, of that kind. None: the packaged default for bert, a new small model
    for gpt2."""
    epochs: int = 10
    """Passes over the texts, at least 1; the weights of the one with the least dev loss are kept."""
    batch_size: int = 16
    """Texts a step, at least 1."""
    learning_rate: float = 1e-4
    """AdamW's highest, above 0."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises, in [0, 1); then it falls to 0."""
    mask_probability: float = 0.15
    """Share of the tokens that a BERT predicts, in (0, 1)."""
    max_tokens: int = 128
    """Of a text, with the marks around it, at least 4; a longer one is cut into several. All that a new GPT-2 can read."""
    seed: int = 0
    """Of order, masks, dropout and new weights, in [0, 2^63). The same seed gives the same weights on the same machine with the
    same number of threads."""
    layers: int = 4
    """Of a new GPT-2, at least 1."""
    width: int = 256
    """Of a new GPT-2: numbers in a token's vector, a multiple of `heads`."""
    heads: int = 4
    """Of a new GPT-2, at least 1."""
    vocabulary: int = 4000
    """Of a new GPT-2: tokens, special ones included, at least 300 (bytes alone are 256); fewer if the texts hold no more."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected {' or '.join(KINDS)}, got {self.kind!r}")
        for name, least in (("epochs", 1), ("batch_size", 1), ("max_tokens", 4), ("layers", 1), ("heads", 1), ("width", 1),
                            ("vocabulary", 300)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a number above 0, got {self.learning_rate}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup: expected 0 <= share < 1, got {self.warmup}")
        if not 0 < self.mask_probability < 1:
            raise ValueError(f"mask_probability: expected 0 < p < 1, got {self.mask_probability}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected 0 <= seed < 2^63, got {self.seed}")
        if self.width % self.heads:
            raise ValueError(f"width: expected a multiple of heads ({self.heads}), got {self.width}")


@dataclass(frozen=True, slots=True)
class Step:
    """How far a training is: what progress is told after each step."""

    step: int
    """Steps done, this one included."""
    steps: int
    epoch: int
    """From 1."""
    loss: float
    """Of this step's batch, in nats a predicted token."""
    learning_rate: float


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """What a pre-training came to."""

    dev_losses: tuple[float, ...]
    """In nats a predicted token: before the training, then after each epoch. A head that is new makes the first a guess."""
    best_epoch: int
    """The one whose weights were written; from 1."""
    steps: int
    seconds: float
    """Of training and measuring, without loading."""

    @property
    def loss_before(self) -> float:
        return self.dev_losses[0]

    @property
    def loss_after(self) -> float:
        return self.dev_losses[self.best_epoch]

    @property
    def perplexity_before(self) -> float:
        return _exp(self.loss_before)

    @property
    def perplexity_after(self) -> float:
        return _exp(self.loss_after)


Progress = Callable[[Step], None]


def default_config(kind: Kind) -> PretrainConfig:
    """The settings that suit a kind: the packaged MiniLM, or a small GPT-2 from nothing."""
    return PretrainConfig(kind) if kind == "bert" else PretrainConfig(kind, epochs=20, learning_rate=1e-3)


def corpus(faqs: Iterable[Faq], sessions_queries: Iterable[Sequence[str]]) -> list[str]:
    """Texts to pre-train on, each once, in order: every question, answer and paraphrase, then every turn as a gate reads it.

    `sessions_queries` holds the queries of each conversation, oldest first. A turn's text is its query after the two before it,
    laid out as a gate's state is, the actions unknown.
    """
    texts = [text for faq in faqs for text in (faq.question, faq.answer, *faq.paraphrases)]
    for queries in sessions_queries:
        texts += [BETWEEN.join(query.strip() for query in queries[max(0, n + 1 - WINDOW) : n + 1]) for n in range(len(queries))]
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


def pretrain(
    texts: Sequence[str], dev_texts: Sequence[str], config: PretrainConfig, out: Path, progress: Progress | None = None
) -> PretrainResult:
    """Pre-train an encoder on texts, and write it to the folder `out`, which is replaced at the end or not at all.

    Raises: CheckpointError when the encoder can't be loaded or `out` not written; TrainingError when there is nothing to train
    on, the training diverges, or the dev loss doesn't fall.
    """
    import torch

    check_replaceable(out, RECORD)
    for name, given in (("texts", texts), ("dev_texts", dev_texts)):
        if not any(text.strip() for text in given):
            raise TrainingError(f"{name}: expected at least one text, got none; give FAQs or sessions")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model, tokenizer = _begin(texts, config)
        result = _train(model, tokenizer, texts, dev_texts, config, progress)
    _check_fell(result)
    with replaced(out, RECORD) as folder, quiet_transformers():
        model.base_model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / RECORD).write_text(_record(texts, dev_texts, config, result))
    return result


def _begin(texts: Sequence[str], config: PretrainConfig) -> tuple[Any, Any]:
    """Model and tokenizer to train. Raises: CheckpointError."""
    from policy.language_model import new_gpt2

    if config.kind == "gpt2" and config.encoder is None:
        model, tokenizer = new_gpt2(texts, config)
    else:
        name = ENCODER_DEFAULT if config.encoder is None else config.encoder
        model, tokenizer = load_language_model(name)
        if model.config.model_type != config.kind:
            raise CheckpointError(f"{name}: expected a {config.kind} encoder, got {model.config.model_type}; "
                                  "choose its kind, or another encoder")
        if config.kind == "bert" and tokenizer.mask_token_id is None:
            raise CheckpointError(f"{name}: expected a tokenizer with a mask token, got one without; "
                                  "use the tokenizer that the encoder was trained with")
    add_special_tokens(model, tokenizer, config.seed)
    if config.max_tokens > model.config.max_position_embeddings:
        raise CheckpointError(f"{config.encoder}: expected max_tokens of at most {model.config.max_position_embeddings}, the "
                              f"encoder's positions, got {config.max_tokens}")
    return model, tokenizer


def _train(
    model: Any, tokenizer: Any, texts: Sequence[str], dev_texts: Sequence[str], config: PretrainConfig, progress: Progress | None
) -> PretrainResult:
    """Train in place; the model ends with the weights of its best epoch. Raises: TrainingError."""
    from policy.language_model import Causal, Masked, dev_loss, epochs, pieces, steps

    began = time.monotonic()
    task: Masked | Causal = Masked(tokenizer, config.mask_probability) if config.kind == "bert" else Causal(tokenizer)
    train, dev = (pieces(part, tokenizer, config.max_tokens) for part in (texts, dev_texts))
    if not (train and dev):
        raise TrainingError(f"{'dev_texts' if train else 'texts'}: expected words, got only special tokens; give FAQs or sessions")
    losses = [dev_loss(model, task, dev)]
    best_epoch, best = 0, {}
    for epoch in epochs(model, task, train, config, progress):
        losses.append(dev_loss(model, task, dev))
        if best_epoch == 0 or losses[epoch] < losses[best_epoch]:
            best_epoch = epoch
            best = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best)
    return PretrainResult(tuple(losses), best_epoch, steps(train, config), round(time.monotonic() - began, 3))


def _check_fell(result: PretrainResult) -> None:
    if not result.loss_after < result.loss_before:  # also where one of them is NaN
        raise TrainingError(f"expected the loss on dev_texts to fall below {result.loss_before:.4f}, got {result.loss_after:.4f} "
                            "at best; nothing is written; lower the learning rate, or train for more epochs")


def _record(texts: Sequence[str], dev_texts: Sequence[str], config: PretrainConfig, result: PretrainResult) -> str:
    """The JSON of `pretraining.json`."""
    if config.kind == "bert" and config.encoder is None:
        config = replace(config, encoder=ENCODER_DEFAULT)
    data = {"texts": len(texts), "sha256": _sha256(texts), "dev_texts": len(dev_texts), "dev_sha256": _sha256(dev_texts)}
    figures = asdict(result) | {name: getattr(result, name) for name in
                                ("loss_before", "loss_after", "perplexity_before", "perplexity_after")}
    return json.dumps({"format": FORMAT, "config": asdict(config), "data": data, "figures": figures}, indent=2) + "\n"


def _sha256(texts: Sequence[str]) -> str:
    """Of the texts and their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf  # beyond, a float overflows
