"""Entropy and mutual information by closed forms, dropout by masks that a state keeps whatever is decided beside it."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy.encoding import EVIDENCE, Batch, evidence_features
from policy.network import GateNetwork, Passes
from policy.uncertainty import McDropout, head_passes, head_probs, mc_probs, mean_and_spread, mutual_information, predictive_entropy
from tests.tiny_gate import STATES, constant_gate, similarity_gate, tiny_gate


def head_masks(network: GateNetwork, samples: int, seed: int) -> tuple[Tensor, ...]:
    masks = head_passes(network, "head", samples, seed).masks
    assert None not in masks
    return masks  # type: ignore[return-value]


MODES: tuple[McDropout, ...] = ("off", "head", "all")
passes = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8)


def of(*skips: float) -> Tensor:
    """mc_probs of one state, by the probability of NO_FETCH in each pass."""
    return torch.tensor([[[1.0 - skip, skip]] for skip in skips], dtype=torch.float64)


def evidence_batch() -> Batch:
    """The states of `STATES` as a network over evidence alone takes them."""
    empty = torch.ones(len(STATES), 1, dtype=torch.int64)
    return Batch(empty, empty, empty, torch.from_numpy(evidence_features(STATES)))


def entropy(skip: float) -> float:
    return -sum(p * math.log(p) for p in (skip, 1.0 - skip) if p > 0.0)


@pytest.mark.parametrize(("skips", "total", "disagreement"), [
    ((0.5, 0.5), math.log(2), 0.0),  # every pass is unsure, and all agree
    ((0.0, 1.0), math.log(2), math.log(2)),  # every pass is sure, and they contradict each other
    ((1.0, 1.0, 1.0), 0.0, 0.0),
    ((0.25,), entropy(0.25), 0.0),  # one pass can't disagree
    ((0.1, 0.5), entropy(0.3), entropy(0.3) - (entropy(0.1) + entropy(0.5)) / 2),
])
def test_entropy_and_mutual_information_in_nats(skips: tuple[float, ...], total: float, disagreement: float) -> None:
    assert predictive_entropy(of(*skips)).tolist() == pytest.approx([total], abs=1e-12)
    assert mutual_information(of(*skips)).tolist() == pytest.approx([disagreement], abs=1e-12)


@settings(deadline=None)
@given(passes)
def test_what_passes_disagree_about_is_part_of_all_there_is_to_be_unsure_about(skips: list[float]) -> None:
    total, disagreement = predictive_entropy(of(*skips)).item(), mutual_information(of(*skips)).item()
    assert 0.0 <= disagreement <= total + 1e-12
    assert total <= math.log(2) + 1e-12


def test_mean_and_spread_are_over_the_passes() -> None:
    mean, spread = mean_and_spread(torch.cat([of(0.2, 0.6), of(0.5, 0.5)], dim=1))
    assert mean[:, 1].tolist() == pytest.approx([0.4, 0.5])
    assert spread.tolist() == pytest.approx([0.2, 0.0])  # divided by K
    assert mean_and_spread(of(0.3))[1].tolist() == [0.0]


def test_masks_are_the_seeds_and_keep_the_mean() -> None:
    """Of K * width = 168,000 units a share of 0.8 is kept: ±0.01 is 10 standard errors, false with a chance below 1e-20."""
    network = constant_gate(0.5, dropout=0.2)
    one, two, other = (head_masks(network, 8_000, seed) for seed in (3, 3, 4))
    assert [mask.shape for mask in one] == [(8_000, 1, width) for width in network.mask_widths]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert set(one[0].flatten().tolist()) == {0.0, 1.25}
    assert (one[0] > 0).float().mean().item() == pytest.approx(0.8, abs=0.01)
    state = torch.get_rng_state()
    head_masks(network, 3, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_more_passes_than_one_differ_in_their_masks() -> None:
    masks = head_masks(constant_gate(0.5, dropout=0.5), 10, 0)
    assert len({tuple(row.flatten().tolist()) for row in masks[0]}) == 10


@pytest.mark.parametrize(("mode", "count"), [("off", 1), ("head", 7), ("all", 7)])
def test_dropout_that_is_off_makes_one_pass_without_spread(mode: McDropout, count: int, encoder: Path) -> None:
    network, states, _ = tiny_gate(encoder, members=1)
    probs = mc_probs(network, states.batch(STATES), mode=mode, samples=7, seed=0)
    assert probs.shape == (count, len(STATES), 2)
    assert torch.allclose(probs.sum(dim=-1), torch.ones(count, len(STATES)))
    assert (mean_and_spread(probs)[1] > 0).all().item() is (mode != "off")
    assert not network.training


@pytest.mark.parametrize("mode", ["head", "all"])
def test_a_dropout_of_zero_makes_no_spread(mode: McDropout) -> None:
    network = similarity_gate(dropout=0.0)
    probs = mc_probs(network, evidence_batch(), mode=mode, samples=5, seed=0)
    exact = mc_probs(network, evidence_batch(), mode="off", samples=1, seed=0)
    assert torch.allclose(probs, exact.expand_as(probs), atol=1e-7)
    assert mean_and_spread(probs)[1].max().item() < 1e-7


def test_dropout_that_is_off_still_asks_every_member(bert: Path) -> None:
    network, states, _ = tiny_gate(bert, members=3)
    batch = states.batch(STATES)
    probs = mc_probs(network, batch, mode="off", samples=50, seed=0)
    with torch.inference_mode():
        assert torch.equal(probs, network(batch)[0].softmax(-1))
    assert (mean_and_spread(probs)[1] > 0).all()


@pytest.mark.parametrize("mode", ["head", "all"])
def test_each_pass_goes_through_every_member(mode: McDropout, bert: Path) -> None:
    network, states, _ = tiny_gate(bert, members=3, dropout=0.0)
    with torch.no_grad():
        network.action.weight.zero_()
        network.action.bias[:, 0, 1] = torch.tensor([-1.0, 0.0, 1.0])
    probs = mc_probs(network, states.batch(STATES), mode=mode, samples=7, seed=0)[:, 0, 1]
    assert torch.allclose(probs, torch.sigmoid(torch.tensor([-1.0, 0.0, 1.0] * 7)))


def test_without_dropout_in_the_heads_the_whole_network_still_has_the_encoders(bert: Path) -> None:
    network, states, _ = tiny_gate(bert, dropout=0.0, text_dropout=0.0, members=1)
    batch = states.batch(STATES)
    assert mean_and_spread(mc_probs(network, batch, mode="head", samples=5, seed=0))[1].max().item() < 1e-6
    assert mean_and_spread(mc_probs(network, batch, mode="all", samples=5, seed=0))[1].min().item() > 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_a_state_gives_the_same_whatever_stands_beside_it(mode: McDropout, encoder: Path) -> None:
    """Exactly over the whole network; else to 1e-5 of a probability, as padding changes the order of sums."""
    network, states, _ = tiny_gate(encoder)

    def probs(*rows: int) -> Tensor:
        return mc_probs(network, states.batch([STATES[row] for row in rows]), mode=mode, samples=6, seed=2)

    together, turned = probs(0, 1, 2, 3), probs(3, 2, 1, 0)
    tolerance = 0.0 if mode == "all" else 1e-5
    for row in range(len(STATES)):
        assert torch.allclose(probs(row)[:, 0], together[:, row], atol=tolerance, rtol=0.0)
        assert torch.allclose(turned[:, len(STATES) - 1 - row], together[:, row], atol=tolerance, rtol=0.0)
    assert torch.allclose(probs(1, 1)[:, 0], probs(1, 1)[:, 1], atol=tolerance, rtol=0.0)
    assert torch.equal(probs(0, 1, 2, 3), together)


@pytest.mark.parametrize("mode", ["head", "all"])
def test_the_seed_alone_draws_what_is_dropped(mode: McDropout, bert: Path) -> None:
    network, states, _ = tiny_gate(bert)
    batch = states.batch(STATES)
    first = mc_probs(network, batch, mode=mode, samples=4, seed=1)
    torch.rand(5)  # whatever else was drawn
    before = torch.get_rng_state()
    assert torch.equal(mc_probs(network, batch, mode=mode, samples=4, seed=1), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.allclose(mc_probs(network, batch, mode=mode, samples=4, seed=2), first, atol=1e-4)


def test_more_passes_begin_with_the_same_network_over_the_head(bert: Path) -> None:
    network, states, _ = tiny_gate(bert)
    batch = states.batch(STATES)
    pooled = network.scaled(network.pooled(batch))
    passes = head_passes(network, "head", 9, 0)
    probs = head_probs(network, pooled, batch.evidence, passes)
    assert torch.allclose(probs, mc_probs(network, batch, mode="head", samples=9, seed=0))
    for sample in range(9):  # one pass after another instead of one product
        first, second, third = (mask[sample : sample + 1] for mask in head_masks(network, 9, 0))
        logits, _ = network.heads(pooled, batch.evidence, Passes(passes.members[sample : sample + 1], (first, second, third)))
        assert torch.allclose(logits[0].softmax(-1), probs[sample], atol=1e-6)


@torch.no_grad()
def two_units(dropout: float) -> GateNetwork:
    """Only the last dropout, on two units that are always on, can change what it gives."""
    network = constant_gate(0.5, hidden=2, dropout=dropout)
    network.deep.bias[:] = torch.tensor([1.0, 0.5])
    network.action.weight[..., 1] = torch.tensor([3.0, 2.0])
    return network


def test_the_mean_over_many_masks_approaches_the_mean_over_all_masks() -> None:
    """By Hoeffding, the mean of 20,000 numbers in [0, 1] is off by more than 0.02 with a chance below 3e-7."""
    network = two_units(0.3)
    units = [math.tanh(1.0), math.tanh(0.5)]
    exact = 0.0
    for kept in itertools.product((0, 1), repeat=2):
        chance = math.prod(0.7 if one else 0.3 for one in kept)
        logit = sum(weight * unit * one / 0.7 for weight, unit, one in zip((3.0, 2.0), units, kept, strict=True))
        exact += chance / (1.0 + math.exp(-logit))
    probs = mc_probs(network, evidence_batch(), mode="head", samples=20_000, seed=0)
    assert len(EVIDENCE) == network.mask_widths[0]
    assert probs[..., 1].mean(dim=0).tolist() == pytest.approx([exact] * len(STATES), abs=0.02)
    off = mc_probs(network, evidence_batch(), mode="off", samples=1, seed=0)[0, 0, 1].item()
    assert abs(off - exact) > 0.02, "the pass without dropout is no mean of the passes with it"


def test_a_failure_in_the_whole_network_leaves_it_ready_to_decide(bert: Path) -> None:
    network, states, _ = tiny_gate(bert)
    batch = states.batch(STATES)
    broken = Batch(batch.input_ids + 10_000, batch.attention_mask, batch.query_mask, batch.evidence)
    with pytest.raises(IndexError):
        mc_probs(network, broken, mode="all", samples=2, seed=0)
    assert not network.training
    assert torch.isfinite(mc_probs(network, batch, mode="all", samples=2, seed=0)).all()
