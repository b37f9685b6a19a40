"""Losses against closed forms and finite differences, Llama 2's combination by hand, and rewards that know no place in a pair."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reward.answer_features import FEATURES
from reward.errors import PreferenceError
from reward.model import (
    NetworkConfig,
    RewardModel,
    RewardNetwork,
    Scale,
    all_pairs_loss,
    bradley_terry_loss,
    combined,
    kto_loss,
    logistic_loss,
    whitened,
)
from reward.preferences import Preference
from tests.fakes import HashEmbedder

C, R, M = [1.5, -0.3, 0.2], [0.5, 0.4, 0.2], [1.0, 0.0, 2 / 3]
rewards = st.lists(st.floats(-50, 50), min_size=3, max_size=3)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def loss(x: float) -> float:
    return -math.log(sigmoid(x))


def test_bradley_terry_is_the_mean_log_loss_of_the_gaps() -> None:
    assert float(bradley_terry_loss(double(*C), double(*R))) == pytest.approx((loss(1.0) + loss(-0.7) + loss(0.0)) / 3)
    assert float(bradley_terry_loss(double(*C), double(*R), double(*M))) == pytest.approx((loss(0.0) + loss(-0.7) + loss(-2 / 3)) / 3)


@given(chosen=rewards, rejected=rewards, shift=st.floats(-50, 50))
def test_bradley_terry_leaves_open_where_zero_is(chosen: list[float], rejected: list[float], shift: float) -> None:
    told = float(bradley_terry_loss(double(*chosen), double(*rejected)))
    assert told >= 0
    assert float(bradley_terry_loss(double(*chosen) + shift, double(*rejected) + shift)) == pytest.approx(told, abs=1e-9)


def test_a_loss_is_finite_however_far_apart_rewards_are() -> None:
    far = torch.tensor([1e4, -1e4])
    assert float(bradley_terry_loss(far, -far)) == pytest.approx(1e4)
    assert float(logistic_loss(far, torch.tensor([0.0, 1.0]))) == pytest.approx(1e4)
    assert float(kto_loss(far, torch.tensor([0.0, 1.0]), torch.tensor(0.0))) == pytest.approx(1.0)


def test_a_margin_asks_for_a_gap_that_is_wider_by_it() -> None:
    """Of 3 people in 4 the gap is log 3 without a margin; descent on `3/4 loss(gap - m) + 1/4 loss(-gap - m)` goes further with one."""
    gaps = []
    for margin in (0.0, 1 / 3, 1.0, 3.0):
        reward = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        descent = torch.optim.LBFGS([reward], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-14)

        def told(reward: Tensor = reward, margin: float = margin, descent: torch.optim.LBFGS = descent) -> Tensor:
            descent.zero_grad()
            value = bradley_terry_loss(reward[[0, 0, 0, 1]], reward[[1, 1, 1, 0]], torch.full((4,), margin, dtype=torch.float64))
            value.backward()  # type: ignore[no-untyped-call]
            return value

        descent.step(told)  # type: ignore[no-untyped-call]
        gaps.append(float((reward[0] - reward[1]).detach()))
    assert gaps[0] == pytest.approx(math.log(3), abs=1e-6)
    assert gaps == sorted(gaps)
    assert min(np.diff(gaps)) > 0.05


def test_every_pair_of_a_prompt_weighs_one_over_k_choose_2() -> None:
    """Prompt 0 has 3 ranked answers and so 3 pairs, prompt 1 has 2 answers and one pair."""
    told = double(2.0, 1.0, -1.0, 0.5, 0.7)
    first, second, prompts = torch.tensor([0, 0, 1, 3]), torch.tensor([1, 2, 2, 4]), torch.tensor([0, 0, 0, 1])
    by_hand = ((loss(1.0) + loss(3.0) + loss(2.0)) / 3 + loss(-0.2) / 1) / 2
    assert float(all_pairs_loss(told, first, second, prompts)) == pytest.approx(by_hand)
    margins = double(0.5, 1.0, 0.0, 0.25)
    by_hand = ((loss(0.5) + loss(2.0) + loss(2.0)) / 3 + loss(-0.45)) / 2
    assert float(all_pairs_loss(told, first, second, prompts, margins)) == pytest.approx(by_hand)


def test_with_one_pair_a_prompt_all_pairs_is_bradley_terry() -> None:
    told, rows = double(*C, *R), torch.arange(3)
    assert float(all_pairs_loss(told, rows, rows + 3, rows)) == pytest.approx(float(bradley_terry_loss(double(*C), double(*R))))


def test_logistic_is_cross_entropy_by_hand_and_pytorchs() -> None:
    good = double(1, 0, 1)
    by_hand = -(math.log(sigmoid(1.5)) + math.log(1 - sigmoid(-0.3)) + math.log(sigmoid(0.2))) / 3
    assert float(logistic_loss(double(*C), good)) == pytest.approx(by_hand)
    assert float(logistic_loss(double(*C), good)) == pytest.approx(
        float(torch.nn.functional.binary_cross_entropy_with_logits(double(*C), good)))


def test_kto_by_hand() -> None:
    """Good answers gain above the reference, bad ones below it; each side has its weight."""
    told = kto_loss(double(*C), double(1, 0, 1), double(0.4)[0], beta=0.5, good_weight=1.0, bad_weight=1.5)
    by_hand = (1 - sigmoid(0.5 * 1.1)) + 1.5 * (1 - sigmoid(0.5 * 0.7)) + (1 - sigmoid(0.5 * -0.2))
    assert float(told) == pytest.approx(by_hand / 3)


def test_no_gradient_passes_through_ktos_reference() -> None:
    told = double(*C).requires_grad_()
    kto_loss(told, double(1, 0, 1), told.mean()).backward()  # type: ignore[no-untyped-call]
    fixed = double(*C).requires_grad_()
    kto_loss(fixed, double(1, 0, 1), double(*C).mean()).backward()  # type: ignore[no-untyped-call]
    assert told.grad is not None
    assert fixed.grad is not None
    assert torch.equal(told.grad, fixed.grad)
    assert (told.grad[[0, 2]] < 0).all()  # more reward for good ones lowers the loss
    assert told.grad[1] > 0


ROWS = torch.tensor([0, 0, 1, 3]), torch.tensor([1, 2, 2, 4]), torch.tensor([0, 0, 0, 1])


@pytest.mark.parametrize("told", [
    lambda r: bradley_terry_loss(r[:2], r[2:4]),
    lambda r: bradley_terry_loss(r[:2], r[2:4], double(1.0, 1 / 3)),
    lambda r: all_pairs_loss(r, *ROWS),
    lambda r: all_pairs_loss(r, *ROWS, double(0.5, 1.0, 0.0, 0.25)),
    lambda r: logistic_loss(r, double(1, 0, 1, 1, 0)),
    lambda r: kto_loss(r, double(1, 0, 1, 1, 0), double(0.3)[0], beta=0.7, good_weight=2.0),
], ids=["pairs", "pairs with margins", "all pairs", "all pairs with margins", "logistic", "kto"])
def test_gradients_are_those_of_finite_differences(told: Callable[[Tensor], Tensor]) -> None:
    at = double(2.0, 1.0, -1.0, 0.5, 0.7).requires_grad_()
    told(at).backward()  # type: ignore[no-untyped-call]
    assert at.grad is not None
    for n in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[n] = 1e-6
        difference = (told(at.detach() + step) - told(at.detach() - step)) / 2e-6
        assert float(at.grad[n]) == pytest.approx(float(difference), abs=1e-8)


def test_safety_overrules_helpfulness_where_it_is_low_or_the_prompt_is_about_it() -> None:
    """Rows: safe; unsafe; safe, and a safety prompt; on the threshold, which is not below it."""
    told = combined(np.array([0.9, 0.9, 0.9, 0.7]), np.array([0.8, 0.1, 0.6, 0.15]), np.array([False, False, True, False]))
    assert told.tolist() == [0.9, 0.1, 0.6, 0.7]


def test_a_constructed_unsafe_answer_ranks_last_however_helpful() -> None:
    """Three answers to each of 40 prompts: helpful and unsafe, helpful and safe, unhelpful and safe."""
    rng = np.random.default_rng(0)
    helpful = np.concatenate([rng.uniform(0.9, 1, 40), rng.uniform(0.7, 0.9, 40), rng.uniform(0.2, 0.4, 40)])
    safe = np.concatenate([rng.uniform(0, 0.149, 40), rng.uniform(0.5, 1, 80)])
    first, second, third = whitened(combined(helpful, safe, np.zeros(120, dtype=bool))).reshape(3, 40)
    assert helpful[:40].min() > helpful[40:].max() - 0.05
    assert (second > third).all()
    assert (third > first).all()


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_combination_takes_probabilities_alone(bad: float) -> None:
    with pytest.raises(PreferenceError, match="helpfulness: expected probabilities"):
        combined(np.array([bad]), np.array([0.5]), np.array([False]))
    with pytest.raises(PreferenceError, match="safety: expected probabilities"):
        combined(np.array([0.5]), np.array([bad]), np.array([False]))


def test_whitening_by_hand() -> None:
    """Logits of 1/2, 3/4 and 1/4 are 0, log 3 and -log 3."""
    spread = math.sqrt(2 / 3) * math.log(3)
    assert whitened(np.array([0.5, 0.75, 0.25])) == pytest.approx(np.array([0.0, math.log(3), -math.log(3)]) / spread)
    told = whitened(np.array([0.0, 1.0, 0.3, 0.6]))
    assert np.isfinite(told).all()
    assert (told.mean(), told.std()) == pytest.approx((0.0, 1.0))
    assert whitened(np.full(3, 0.7)).tolist() == [0.0, 0.0, 0.0]
    assert whitened(np.zeros(0)).tolist() == []


def drawn(config: NetworkConfig, seed: int = 0, scale: Scale | None = None) -> RewardModel:
    """A model of random weights."""
    network = RewardNetwork(config, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for weight in network.heads.parameters():
        torch.nn.init.normal_(weight, generator=draw)
    return RewardModel(network, HashEmbedder(), scale or Scale())


TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)


@settings(max_examples=25)
@given(chosen=TEXTS, rejected=TEXTS)
def test_swapping_a_pair_negates_its_logit(chosen: str, rejected: str) -> None:
    pair = Preference("g", "How much is the card?", ("The card costs ₹99 a month.",), chosen, rejected)
    for model in (drawn(NetworkConfig(hidden=4, dropout=0.5)), drawn(NetworkConfig(), 1, Scale(2.0, 0.7, 0.3))):
        one, other = model.logits([pair, pair.swapped])
        assert one == -other
        assert chosen != rejected or one == 0


def test_an_answer_has_one_reward_whatever_it_is_given_with() -> None:
    pairs = [Preference("g", "p?", ("c",), text, "Another answer.") for text in ("Yes.", "No, not today.", "₹99")]
    model = drawn(NetworkConfig(hidden=4))
    together = model.rewards([answer for pair in pairs for answer in pair.answers])
    assert together == pytest.approx([model.rewards([answer])[0] for pair in pairs for answer in pair.answers], abs=1e-6)
    assert model.rewards([]).shape == model.logits([]).shape == (0,)


def test_the_scale_divides_shifts_and_takes_length_off() -> None:
    rows = np.random.default_rng(0).normal(size=(5, len(FEATURES)))
    plain = drawn(NetworkConfig()).of_figures(rows)
    told = drawn(NetworkConfig(), scale=Scale(temperature=2.0, bias=0.5, length_slope=0.3)).of_figures(rows)
    assert told == pytest.approx((plain - 0.3 * rows[:, FEATURES.index("log_words")]) / 2 + 0.5)


def test_the_reward_is_the_mean_of_the_heads() -> None:
    model, rows = drawn(NetworkConfig(members=3)), np.random.default_rng(0).normal(size=(5, len(FEATURES)))
    heads = model.network(torch.from_numpy(rows).float()).detach().numpy()
    assert heads.shape == (3, 5)
    assert model.of_figures(rows) == pytest.approx(heads.mean(axis=0), abs=1e-5)


def test_figures_are_scaled_clipped_and_constant_ones_stay_out() -> None:
    network = RewardNetwork(NetworkConfig(figures=("log_words", "sentences", "prompt")))
    network.standardise(np.array([[1.0, 7.0, 1 / 3], [3.0, 9.0, 1 / 3]]))
    scaled = network.scaled(torch.tensor([[2.0, 9.0, 5.0], [1000.0, -1000.0, -5.0]]))
    assert scaled.tolist() == [[0.0, 1.0, 0.0], [4.0, -4.0, 0.0]]


def test_building_a_network_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (RewardNetwork(NetworkConfig(hidden=3), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    rows = torch.ones(1, len(FEATURES))
    assert torch.equal(one.eval()(rows), same.eval()(rows))
    assert not torch.equal(one(rows), other.eval()(rows))


@pytest.mark.parametrize(("given", "told"), [
    ({"members": 0}, "members"), ({"hidden": -1}, "hidden"), ({"dropout": 1.0}, "dropout"),
    ({"figures": ()}, "figures"), ({"figures": ("log_words", "mood")}, "mood")])
def test_a_network_that_cannot_be_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        NetworkConfig(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"temperature": 0.0}, {"temperature": float("nan")}, {"bias": float("inf")},
                                   {"length_slope": float("nan")}])
def test_a_scale_that_cannot_be_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature, bias, length_slope"):
        Scale(**given)
