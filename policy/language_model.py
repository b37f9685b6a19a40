"""Masked and causal language modelling: texts to batches, a batch to its loss, epochs of both; a small GPT-2 from nothing.

Importing it loads torch, so `pretrain.py` does that only when something is trained. Leaves out where texts come from and what
is written (`pretrain.py`).
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from kb.embedder import encodable
from policy.encoder import GPT2_ROLES, SPECIAL_TOKENS
from policy.errors import TrainingError
from policy.pretrain import PretrainConfig, Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
"""Label of a position whose token isn't predicted; `cross_entropy` leaves it out."""
DEV_BATCH, DEV_SEED = 32, 20240601
"""Of the dev loss: fixed, so that figures of different settings are of the same masks."""
TOGETHER = 16
"""Batches whose pieces are sorted by length together: enough for little padding, few enough to stay a shuffle."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts side by side, padded on the right. All of shape (B, T)."""

    inputs: Tensor
    attention: Tensor
    """1 for a token, 0 for padding."""
    labels: Tensor
    """The token to predict at each position, IGNORED where none is."""


def pieces(texts: Iterable[str], tokenizer: "PreTrainedTokenizerBase", max_tokens: int) -> list[list[int]]:
    """Token ids of each text between `[CLS]` and `[SEP]`; a longer text is cut into several pieces of at most `max_tokens`.

    Special tokens that stand in a text are read as such. Pieces without any other token are left out.
    """
    room = max_tokens - 2
    special = special_ids(tokenizer)
    found: list[list[int]] = []
    readable = [encodable(text) for text in texts if text.strip()]
    for ids in tokenizer(readable, add_special_tokens=False, verbose=False)["input_ids"] if readable else ():
        cut = (ids[start : start + room] for start in range(0, len(ids), room))
        found += [[tokenizer.cls_token_id, *part, tokenizer.sep_token_id] for part in cut if not special.issuperset(part)]
    return found


def special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Ids of all tokens that are no text."""
    return {*tokenizer.all_special_ids, *(id for id, token in tokenizer.added_tokens_decoder.items() if token.special)}


def shuffled(found: Sequence[list[int]], size: int, generator: torch.Generator) -> list[list[list[int]]]:
    """The pieces in batches of `size`, in random order, those of like length together."""
    order = torch.randperm(len(found), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), size * TOGETHER):
        rows = sorted(order[start : start + size * TOGETHER], key=lambda row: len(found[row]))
        batches += [[found[row] for row in rows[first : first + size]] for first in range(0, len(rows), size)]
    return [batches[n] for n in torch.randperm(len(batches), generator=generator).tolist()]


class Masked:
    """The task of a BERT: predict the tokens that are hidden (Devlin et al. 2019, 3.1). New masks with each batch."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", probability: float) -> None:
        special = special_ids(tokenizer)
        self._pad, self._mask, self._probability = tokenizer.pad_token_id, tokenizer.mask_token_id, probability
        self._ordinary = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - special))

    def batch(self, rows: Sequence[list[int]], generator: torch.Generator) -> Batch:
        ids, attention = padded(rows, self._pad)
        inputs, labels = masked(ids, torch.isin(ids, self._ordinary), ordinary=self._ordinary, mask_id=self._mask,
                                probability=self._probability, generator=generator)
        return Batch(inputs, attention, labels)


class Causal:
    """The task of a GPT-2: predict each next token."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._pad = tokenizer.pad_token_id

    def batch(self, rows: Sequence[list[int]], generator: torch.Generator) -> Batch:
        ids, attention = padded(rows, self._pad)
        labels = torch.full_like(ids, IGNORED)
        labels[:, :-1] = torch.where(attention[:, 1:] == 1, ids[:, 1:], IGNORED)
        return Batch(ids, attention, labels)


def padded(rows: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and attention, both (B, T), padded on the right."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def masked(
    ids: Tensor, maskable: Tensor, *, ordinary: Tensor, mask_id: int, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs and labels: of the tokens chosen, 80 % become the mask, 10 % any ordinary token, and 10 % stay.

    Shapes: ids, maskable and both results (B, T); ordinary (N,). At least one token is chosen, whatever the probability, or
    the batch would have no loss; one of `maskable` must be true.
    """
    draws = torch.rand(ids.shape, generator=generator).masked_fill(~maskable, 2.0)
    chosen = maskable & ((draws < probability) | (draws == draws.min()))
    fate = torch.rand(ids.shape, generator=generator)
    others = ordinary[torch.randint(len(ordinary), ids.shape, generator=generator)]
    inputs = torch.where(chosen & (fate < 0.8), mask_id, ids)
    inputs = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), others, inputs)
    return inputs, torch.where(chosen, ids, IGNORED)


def loss_of(model: "PreTrainedModel", batch: Batch) -> Tensor:
    """Cross-entropy in nats, the mean over the tokens that are predicted: a scalar to minimise.

    The head reads only those tokens; over all of them, it would cost as much as a small encoder does.
    """
    hidden = model.base_model(input_ids=batch.inputs, attention_mask=batch.attention).last_hidden_state
    predicted = batch.labels != IGNORED
    head = model.cls if model.config.model_type == "bert" else model.lm_head
    return cross_entropy(head(hidden[predicted]), batch.labels[predicted])


def dev_loss(model: "PreTrainedModel", task: Masked | Causal, found: Sequence[list[int]]) -> float:
    """Mean loss in nats a predicted token, dropout off, under masks that are always the same."""
    generator = torch.Generator().manual_seed(DEV_SEED)
    rows = sorted(found, key=len)
    total, count = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), DEV_BATCH):
            batch = task.batch(rows[start : start + DEV_BATCH], generator)
            tokens = int((batch.labels != IGNORED).sum())
            total += float(loss_of(model, batch)) * tokens
            count += tokens
    return total / count


def epochs(
    model: "PreTrainedModel", task: Masked | Causal, found: Sequence[list[int]], config: PretrainConfig,
    progress: Callable[[Step], None] | None,
) -> Iterator[int]:
    """Train in place; gives the number of each epoch, from 1, when it is done. Dropout draws from torch's global generator.

    AdamW, gradients clipped to norm 1. Raises: TrainingError when the loss or a gradient is no finite number.
    """
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    total, step = steps(found, config), 0
    for epoch in range(1, config.epochs + 1):
        model.train()
        for rows in shuffled(found, config.batch_size, generator):
            rate = config.learning_rate * warmup_then_decay(step, total, config.warmup)
            loss = loss_of(model, task.batch(rows, generator))
            step += 1
            _update(model, optimizer, loss, rate, where=f"step {step} of {total}")
            if progress is not None:
                progress(Step(step, total, epoch, float(loss.detach()), rate))
        yield epoch


def steps(found: Sequence[list[int]], config: PretrainConfig) -> int:
    """Of all epochs together."""
    return config.epochs * math.ceil(len(found) / config.batch_size)


def warmup_then_decay(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate at a step (from 0): up linearly over the first `warmup` of all steps, then down to nearly 0."""
    up = warmup * steps
    if step < up:
        return (step + 1) / (up + 1)
    return (steps - step) / (steps - up)


def new_gpt2(texts: Sequence[str], config: PretrainConfig) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """An untrained GPT-2 with a byte-level BPE of these texts; its weights are drawn from torch's global generator."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _new_bpe(texts, config.vocabulary, config.max_tokens)
    shape = GPT2Config(vocab_size=len(tokenizer), n_layer=config.layers, n_embd=config.width, n_head=config.heads,
                       n_positions=config.max_tokens, bos_token_id=tokenizer.cls_token_id, eos_token_id=tokenizer.sep_token_id,
                       pad_token_id=tokenizer.pad_token_id)
    return GPT2LMHeadModel._from_config(shape, attn_implementation="sdpa"), tokenizer


def _new_bpe(texts: Sequence[str], vocabulary: int, max_tokens: int) -> "PreTrainedTokenizerBase":
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [*GPT2_ROLES.values(), *SPECIAL_TOKENS]
    bpe = Tokenizer(models.BPE())
    # with a space before the first word, a word is the same token wherever it stands
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
        special_tokens=[AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True) for token in special],
    )
    between = re.compile("|".join(map(re.escape, special)))
    bpe.train_from_iterator((part.strip() for text in texts for part in between.split(encodable(text))), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=max_tokens, extra_special_tokens=list(SPECIAL_TOKENS),
                                   **GPT2_ROLES)


def _update(model: "PreTrainedModel", optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, *, where: str) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = clip_grad_norm_(model.parameters(), 1.0)
    if not (loss.isfinite() and norm.isfinite()):
        raise TrainingError(f"{where}: expected a finite loss and gradient, got {float(loss.detach())} and {float(norm)}; nothing is "
                            "written; lower the learning rate")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
