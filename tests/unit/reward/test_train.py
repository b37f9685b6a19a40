"""Fitting recovers what was planted; folders give the same rewards or are refused; calibration and length figures by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reward.answer_features import FEATURES
from reward.calibration import accuracy, ece, fit_temperature, measures, platt, reliability
from reward.errors import PreferenceError
from reward.model import NetworkConfig, RewardModel
from reward.preferences import Answer, Judged, Preference
from reward.saved import RECORD, WEIGHTS, load_reward, save_reward
from reward.train import Fitted, Table, TrainConfig, fit, tabulate, told
from tests.fakes import HashEmbedder

FIGURES = ("log_words", "prompt", "support_mean", "hedges")
WEIGHTS_PLANTED = np.array([1.0, -0.8, 0.5, 0.0])
COLUMNS = [FEATURES.index(name) for name in FIGURES]
NETWORK = NetworkConfig(members=3, figures=FIGURES)
CONFIG = TrainConfig(network=NETWORK, ridge=0.0, batch_groups=50)


def planted(groups: int = 600, seed: int = 0, margin: float | None = None) -> tuple[list[Preference], Table]:
    """Three pairs a group, preferred as Bradley-Terry has it by a utility linear in four figures of standard normal answers."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((6 * groups, len(FEATURES)))
    rows[:, COLUMNS] = rng.normal(size=(len(rows), len(FIGURES)))
    utility = rows[:, COLUMNS] @ WEIGHTS_PLANTED
    pairs = []
    for first in range(0, len(rows), 2):
        wins = rng.random() < 1 / (1 + math.exp(utility[first + 1] - utility[first]))
        one, other = (first, first + 1) if wins else (first + 1, first)
        pairs.append(Preference(f"g{first // 6}", "p", (), f"a{one}", f"a{other}", margin))
    return pairs, Table(rows, {Answer("p", (), f"a{row}"): row for row in range(len(rows))})


def judged_of(pairs: list[Preference], table: Table) -> list[Judged]:
    """Each answer by itself, good with probability sigmoid(utility - 0.5)."""
    rng = np.random.default_rng(1)
    groups = {answer: pair.group for pair in pairs for answer in pair.answers}
    odds = table.rows[:, COLUMNS] @ WEIGHTS_PLANTED - 0.5
    return [Judged(groups[answer], answer.prompt, answer.context, answer.text, bool(rng.random() < 1 / (1 + math.exp(-odds[row]))))
            for answer, row in table.place.items()]


def slopes(model: RewardModel) -> np.ndarray:
    """Reward for each unit of the figures: clipping aside, the model is linear."""
    rows = np.zeros((len(FIGURES) + 1, len(FEATURES)))
    rows[np.arange(len(FIGURES)), COLUMNS] = 1.0
    rewards = model.of_figures(rows)
    found: np.ndarray = rewards[:-1] - rewards[-1]
    return found


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit(*planted(), HashEmbedder(), CONFIG)


def test_a_planted_utility_is_recovered(fitted: Fitted) -> None:
    """1,800 noisy pairs: each weight within 0.15, about three of its standard errors, and new pairs told as well as the utility does."""
    assert slopes(fitted.model) == pytest.approx(WEIGHTS_PLANTED, abs=0.15)
    pairs, table = planted(300, seed=9)
    rewards = fitted.model.of_figures(table.rows)
    utility = table.rows[:, COLUMNS] @ WEIGHTS_PLANTED
    first, second = (table.of([pair.answers[n] for pair in pairs]) for n in (0, 1))
    assert np.corrcoef(rewards, utility)[0, 1] > 0.99
    best = accuracy(utility[first] - utility[second])
    assert accuracy(rewards[first] - rewards[second]) > best - 0.02
    assert best < 0.85  # people's noise, which no model can tell


def test_judged_answers_are_recovered_with_their_zero() -> None:
    pairs, table = planted(350)
    for objective in ("logistic", "kto"):
        model = fit(judged_of(pairs, table), table, HashEmbedder(), replace(CONFIG, objective=objective)).model
        assert slopes(model) == pytest.approx(WEIGHTS_PLANTED, abs=0.25)
        assert model.of_figures(np.zeros((1, len(FEATURES))))[0] == pytest.approx(-0.5, abs=0.2)


def test_margins_widen_the_gaps_that_are_learned() -> None:
    """Before calibration, which divides by what widened them."""
    gaps = []
    for scale in (0.0, 1.0, 3.0):
        pairs, table = planted(100, margin=1.0)
        fitted = fit(pairs, table, HashEmbedder(), replace(CONFIG, margin_scale=scale))
        model = RewardModel(fitted.model.network, HashEmbedder())
        rewards = model.of_figures(table.rows)
        first, second = (table.of([one.answers[n] for one in pairs]) for n in (0, 1))
        gaps.append(float(np.mean(rewards[first] - rewards[second])))
    assert gaps[0] < gaps[1] < gaps[2]


def test_the_seed_decides_all_and_the_callers_random_state_is_untouched() -> None:
    pairs, table = planted(60)
    config = TrainConfig(epochs=3, network=replace(NETWORK, hidden=4, dropout=0.3))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, same, other = (fit(pairs, table, HashEmbedder(), replace(config, seed=seed)).model.of_figures(table.rows) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)


def test_the_kept_pass_has_the_lowest_dev_loss_and_training_ends_on_patience(fitted: Fitted) -> None:
    for course in fitted.courses:
        losses = [epoch.dev_loss for epoch in course.epochs]
        assert course.best == int(np.argmin(losses)) + 1
        assert len(losses) <= course.best + CONFIG.patience


def test_few_groups_are_learned_from_without_folds_and_without_calibration() -> None:
    pairs, table = planted(2)
    found = fit(pairs, table, HashEmbedder(), replace(CONFIG, epochs=4))
    assert [course.best for course in found.courses] == [4, 4, 4]
    assert found.model.scale.temperature == 1.0


def test_a_fold_of_good_answers_alone_is_no_error_but_all_of_one_kind_is() -> None:
    pairs, table = planted(12)
    judged = [replace(one, good=one.group not in ("g0", "g1", "g2")) for one in judged_of(pairs, table)]
    config = replace(CONFIG, objective="logistic", epochs=2, network=replace(NETWORK, members=6))
    assert len(fit(judged, table, HashEmbedder(), config).courses) == 6
    with pytest.raises(PreferenceError, match="got good ones alone"):
        fit([replace(one, good=True) for one in judged], table, HashEmbedder(), config)


def test_what_cannot_be_learned_from_is_refused() -> None:
    pairs, table = planted(4)
    with pytest.raises(PreferenceError, match="at least one preference"):
        fit([], table, HashEmbedder(), CONFIG)
    with pytest.raises(PreferenceError, match="bradley_terry expects pairs"):
        fit(judged_of(pairs, table), table, HashEmbedder(), CONFIG)
    with pytest.raises(PreferenceError, match="lower the learning rate"):
        fit(pairs, table, HashEmbedder(), replace(CONFIG, learning_rate=1e30))


@pytest.mark.parametrize("given", [{"epochs": 0}, {"patience": 0}, {"batch_groups": 0}, {"learning_rate": 0.0},
                                   {"learning_rate": float("nan")}, {"ridge": -1.0}, {"centre": -1.0}, {"margin_scale": -1.0},
                                   {"seed": -1}])
def test_a_configuration_that_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        TrainConfig(**given)


def test_debiasing_takes_off_what_length_alone_brings() -> None:
    pairs, table = planted()
    model = fit(pairs, table, HashEmbedder(), replace(CONFIG, debias_length=True)).model
    assert slopes(model) == pytest.approx(np.array([0.0, *WEIGHTS_PLANTED[1:]]), abs=0.2)
    assert model.scale.length_slope > 0


def test_a_table_holds_each_answer_once() -> None:
    pair = Preference("g", "p?", ("c.",), "Yes.", "No.")
    table = tabulate([pair, pair.swapped, Judged("g", "p?", ("c.",), "Yes.", good=True)], HashEmbedder())
    assert table.rows.shape == (2, len(FEATURES))
    assert table.of(pair.answers).tolist() == [0, 1]


def test_a_saved_model_gives_the_same_rewards_and_is_replaced_whole(fitted: Fitted, tmp_path: Path) -> None:
    folder, table = tmp_path / "models" / "one", planted(20, seed=5)[1]
    for _ in range(2):
        record = save_reward(folder, fitted.model, told(CONFIG), {"accuracy": 0.7, "accuracy_longer": float("nan")})
    model, found = load_reward(folder, HashEmbedder())
    assert np.array_equal(model.of_figures(table.rows), fitted.model.of_figures(table.rows))
    assert found == record
    assert (found.version, found.metrics) == (record.version, {"accuracy": 0.7, "accuracy_longer": None})
    assert found.training["network"]["figures"] == list(FIGURES)
    assert sorted(path.name for path in folder.iterdir()) == sorted([RECORD, WEIGHTS])
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


@pytest.mark.parametrize(("change", "message"), [
    ({"format": 2}, "expected format 1, got 2"), ({"encoder": "hash/9"}, "expected the encoder hash/9"),
    ({"scale": {"temperature": 0}}, "temperature"), ({"network": None}, "network"), ({"weights_sha256": "0"}, "expected SHA-256 0"),
    ({"network": {"members": 4, "figures": FIGURES}}, "don't load")])
def test_a_damaged_record_is_refused(fitted: Fitted, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_reward(tmp_path / "one", fitted.model, {}, {})
    path = tmp_path / "one" / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PreferenceError, match=message):
        load_reward(tmp_path / "one", HashEmbedder())


def test_damaged_or_absent_parts_are_refused(fitted: Fitted, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    save_reward(folder, fitted.model, {}, {})
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1] + b"x")
    with pytest.raises(PreferenceError, match="damaged or another model's"):
        load_reward(folder, HashEmbedder())
    (folder / WEIGHTS).unlink()
    with pytest.raises(PreferenceError, match="don't load"):
        load_reward(folder, HashEmbedder())
    (folder / RECORD).write_text("{")
    with pytest.raises(PreferenceError, match="train the model anew"):
        load_reward(folder, HashEmbedder())
    with pytest.raises(PreferenceError, match="can't be read"):
        load_reward(tmp_path / "absent", HashEmbedder())


def test_somebody_elses_folder_is_not_replaced(fitted: Fitted, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(PreferenceError, match="expected a free name"):
        save_reward(tmp_path, fitted.model, {}, {})
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    model = fit(*planted(2), HashEmbedder(), replace(CONFIG, epochs=1)).model
    next(model.network.heads.parameters()).data.fill_(float("nan"))
    with pytest.raises(PreferenceError, match="expected finite weights"):
        save_reward(tmp_path / "one", model, {}, {})
    assert not (tmp_path / "one").exists()


def test_a_temperature_lowers_the_loss_of_an_overconfident_model_and_finds_what_was_planted() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=20_000)
    logits = 3 * np.abs(true) * np.where(rng.random(20_000) < 1 / (1 + np.exp(-np.abs(true))), 1, -1)
    temperature = fit_temperature(logits)
    assert temperature == pytest.approx(3.0, rel=0.05)
    before, after = (measures(values, np.zeros(20_000)) for values in (logits, logits / temperature))
    assert after.log_loss < before.log_loss - 0.1
    assert after.ece < 0.02 < before.ece
    assert after.accuracy == before.accuracy


def test_platt_finds_a_planted_temperature_and_zero() -> None:
    rng = np.random.default_rng(0)
    rewards = rng.normal(scale=2, size=20_000)
    good = (rng.random(20_000) < 1 / (1 + np.exp(-(rewards / 2 - 0.7)))).astype(float)
    assert platt(rewards, good) == pytest.approx((2.0, -0.7), abs=0.1)


def test_length_figures_by_hand() -> None:
    """Five pairs: the chosen is longer in two, shorter in two, as long in one."""
    found = measures(np.array([2.0, -1.0, 1.0, 0.0, 3.0]), np.array([0.5, 0.2, -0.4, -0.1, 0.0]))
    assert found.accuracy == pytest.approx((1 + 0 + 1 + 0.5 + 1) / 5)
    assert (found.accuracy_longer, found.accuracy_shorter) == (0.5, 0.75)
    assert found.longer_preferred == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert found.longer_preferred_by_people == 0.5
    assert found.length_correlation == pytest.approx(np.corrcoef([2, -1, 1, 0, 3], [0.5, 0.2, -0.4, -0.1, 0])[0, 1])
    assert found.log_loss == pytest.approx(np.mean([math.log1p(math.exp(-x)) for x in (2, -1, 1, 0, 3)]))


def test_confidence_is_binned_and_its_error_weighed_by_hand() -> None:
    """Confidences .55, .55 (one right) and .95 (right) in five bins from .5 to 1."""
    low, high = math.log(0.55 / 0.45), math.log(0.95 / 0.05)
    bins = reliability(np.array([low, -low, high]))
    assert [one.confidence for one in bins] == pytest.approx([0.55, 0.95])
    assert [(one.accuracy, one.pairs) for one in bins] == [(0.5, 2), (1.0, 1)]
    assert ece(bins) == pytest.approx((2 * 0.05 + 1 * 0.05) / 3)


def test_figures_of_no_pairs_are_not_numbers() -> None:
    found = measures(np.zeros(0), np.zeros(0))
    assert found.pairs == 0
    assert math.isnan(found.accuracy)
    assert math.isnan(found.log_loss)
