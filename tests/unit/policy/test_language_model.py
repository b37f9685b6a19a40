"""Masks, batches, learning rate and the tokenizer of a new GPT-2."""

import math

import pytest
import torch

from policy.language_model import IGNORED, Causal, Masked, masked, new_gpt2, padded, pieces, shuffled, special_ids, warmup_then_decay
from policy.pretrain import PretrainConfig

TEXTS = ["how do i block my card", "block my card [SEP] [UNKNOWN] and now", "what is the late fee, ß?"]
TINY = PretrainConfig("gpt2", layers=1, width=16, heads=2, vocabulary=300, max_tokens=16)
MASK_ID, ORDINARY = 1, torch.arange(10, 1000)


def a_mask(ids: torch.Tensor, probability: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return masked(ids, ids >= 10, ordinary=ORDINARY, mask_id=MASK_ID, probability=probability,
                  generator=torch.Generator().manual_seed(seed))


def test_of_the_tokens_chosen_eight_in_ten_are_hidden_and_one_in_ten_is_swapped() -> None:
    """Shares of 200,000 draws with a fixed seed; each bound is more than ten standard deviations."""
    ids = torch.full((200, 1000), 500)
    ids[:, :100] = 3  # special
    inputs, labels = a_mask(ids, 0.15)
    chosen = labels != IGNORED
    assert not chosen[:, :100].any()
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(inputs[~chosen], ids[~chosen])
    assert chosen[:, 100:].float().mean() == pytest.approx(0.15, abs=0.01)
    hidden, kept = inputs[chosen] == MASK_ID, inputs[chosen] == 500
    assert hidden.float().mean() == pytest.approx(0.8, abs=0.025)
    assert kept.float().mean() == pytest.approx(0.1, abs=0.02)
    swapped = inputs[chosen][~hidden & ~kept]
    assert swapped.min() >= 10
    assert len(set(swapped.tolist())) > 900


def test_one_token_is_chosen_where_chance_chose_none() -> None:
    ids = torch.tensor([[3, 500, 600, 4], [3, 700, 4, 0]])
    for seed in range(20):
        assert (a_mask(ids, 1e-9, seed)[1] != IGNORED).sum() == 1


def test_masks_change_with_each_batch_and_repeat_with_the_seed() -> None:
    ids = torch.full((4, 50), 500)
    assert torch.equal(a_mask(ids, 0.15)[0], a_mask(ids, 0.15)[0])
    generator = torch.Generator().manual_seed(0)
    _, tokenizer = new_gpt2(TEXTS, TINY)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    task, rows = Masked(tokenizer, 0.5), pieces(TEXTS, tokenizer, 16)
    first, second = task.batch(rows, generator), task.batch(rows, generator)
    assert not torch.equal(first.labels, second.labels)
    assert not set(first.labels.flatten().tolist()) & special_ids(tokenizer)


def test_causal_labels_are_the_next_tokens_and_padding_is_none() -> None:
    _, tokenizer = new_gpt2(TEXTS, TINY)
    batch = Causal(tokenizer).batch([[0, 20, 21, 1], [0, 22, 1]], torch.Generator())
    assert batch.labels.tolist() == [[20, 21, 1, IGNORED], [22, 1, IGNORED, IGNORED]]
    assert batch.attention.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert padded([[5], [6, 7]], 9)[0].tolist() == [[5, 9], [6, 7]]


def test_a_long_text_is_cut_into_pieces_that_hold_all_of_it() -> None:
    _, tokenizer = new_gpt2(TEXTS, TINY)
    text = "how do i block my card and what is the late fee " * 3
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    found = pieces([text, "[SEP]", " "], tokenizer, 16)
    assert [token for piece in found for token in piece[1:-1]] == ids
    assert max(map(len, found)) == 16
    assert {(piece[0], piece[-1]) for piece in found} == {(tokenizer.cls_token_id, tokenizer.sep_token_id)}


def test_half_a_surrogate_pair_is_no_crash() -> None:
    _, tokenizer = new_gpt2(["my \ud83d card"], TINY)
    assert len(pieces(["my \ud83d card"], tokenizer, 16)) == 1


def test_every_piece_stands_in_one_batch_beside_others_of_its_length() -> None:
    found = [[n] * (1 + n % 50) for n in range(1000)]
    batches = shuffled(found, 8, torch.Generator().manual_seed(0))
    assert sorted(piece[0] for rows in batches for piece in rows) == list(range(1000))
    padding = sum(max(map(len, rows)) * len(rows) for rows in batches) / sum(map(len, found))
    assert padding < 1.15
    assert batches != shuffled(found, 8, torch.Generator().manual_seed(1))


def test_the_learning_rate_rises_to_its_highest_and_falls_to_nearly_nothing() -> None:
    rates = [warmup_then_decay(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == max(rates) == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(1 / 90)
    assert [warmup_then_decay(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert all(0 < warmup_then_decay(0, 1, share) <= 1 and math.isfinite(share) for share in (0.0, 0.5, 0.99))


def test_a_new_tokenizer_reads_a_word_the_same_wherever_it_stands_and_gives_any_text_back() -> None:
    _, tokenizer = new_gpt2(TEXTS, TINY)
    alone = tokenizer("block my card", add_special_tokens=False)["input_ids"]
    assert tokenizer("now [SEP] [FETCH] block my card", add_special_tokens=False)["input_ids"][-len(alone) :] == alone
    text = "नया card, ß 😀"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]).strip() == text
