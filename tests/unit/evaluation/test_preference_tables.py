"""Cross-validation of the reward model: on made-up pairs whose preferred answer is the one that the passage supports."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.preference_folds import Paired, folds_of, held_out, paired, with_figures, with_ridge
from evaluation.preference_tables import KeptVectors, arms, leads, report, target
from evaluation.stats import Interval
from kb.embedder import EmbedderConfig, load_embedder
from reward.answer_features import FEATURES, LENGTH
from reward.preferences import Preference
from reward.train import Table, TrainConfig

PAIRS = tuple(Preference(f"g{n // 2}", f"What does lamp {n} cost?", (f"Lamp {n} costs {n + 20} rupees.",),
                         f"Lamp {n} costs {n + 20} rupees.", f"Lamp {n} costs {n + 70} dollars.") for n in range(40))


@pytest.fixture(scope="module")
def data() -> Paired:
    return paired(PAIRS, load_embedder(EmbedderConfig()))


def test_a_group_lies_in_one_fold_and_folds_are_of_one_size(data: Paired) -> None:
    fold = folds_of(data, 4, seed=3)
    assert all(len({fold[n], fold[n + 1]}) == 1 for n in range(0, 40, 2))
    assert np.bincount(fold).tolist() == [10, 10, 10, 10]
    assert (fold != folds_of(data, 4, seed=4)).any()


def test_the_ridge_is_chosen_from_the_training_pairs_alone(data: Paired) -> None:
    seen: list[set[str]] = []

    def choose(training: Paired, config: TrainConfig) -> TrainConfig:
        seen.append({pair.group for pair in training.pairs})
        return config

    fold = folds_of(data, 2, seed=0)
    held_out(data, TrainConfig(epochs=2), 2, choose)
    assert seen == [{pair.group for pair, n in zip(PAIRS, fold, strict=True) if n != number} for number in range(2)]
    small = with_ridge(data, TrainConfig(epochs=20), ridges=(0.02, 50.0), folds=2)
    assert small.ridge == 0.02  # so strong a ridge learns nothing


def test_kinds_of_figures_that_only_add_noise_are_dropped_and_the_one_that_tells_is_kept(data: Paired) -> None:
    """A planted preference for what "length" says, 120 groups, everything else noise: 8 kinds are free to go."""
    rng = np.random.default_rng(0)
    pairs = tuple(Preference(f"g{n}", "q?", (), f"a{n}", f"b{n}") for n in range(120))
    rows = rng.normal(size=(240, len(FEATURES)))
    rows[::2, FEATURES.index("log_words")] += 2.0
    planted = Paired(pairs, Table(rows, {answer: n for n, answer in enumerate(a for pair in pairs for a in pair.answers)}), data.embedder)
    figures = with_figures(planted, TrainConfig()).network.figures
    assert set(LENGTH) <= set(figures)
    assert len(figures) < len(FEATURES) / 2


def test_the_table_shows_a_planted_preference_ahead_of_length_and_says_what_was_chosen(data: Paired) -> None:
    found = arms(data, folds=2, seeds=1, ridges=(0.05,))
    ahead = leads(data, found)
    assert ahead["longer is better"].value == 0.5  # all of one length: ties
    text = "\n".join(report(data, found, folds=2, ridges=(0.05,)))
    assert "40 pairs of 20 groups" in text
    assert "**reward model, kinds of figures chosen too** | 100.0" in text
    assert "Chosen inside each of 2 training folds" in text
    assert "0.05 2 times" in text


def test_the_target_needs_five_points_and_every_interval_above_zero() -> None:
    wide, narrow = Interval(0.06, 0.01, 0.1), Interval(0.04, 0.03, 0.05)
    assert ": met." in target({"a": wide})
    assert "isn't shown" in target({"a": wide})
    assert "not met" in target({"a": wide, "b": narrow})
    assert "not met" in target({"a": wide, "b": Interval(0.2, -0.01, 0.4)})


def test_kept_vectors_are_read_back_for_the_same_texts_alone(data: Paired, tmp_path: Path) -> None:
    first = KeptVectors(data.embedder, tmp_path).embed(["one", "two"])
    assert np.array_equal(KeptVectors(data.embedder, tmp_path).embed(["one", "two"]), first)
    KeptVectors(data.embedder, tmp_path).embed(["two", "one"])
    assert len(list(tmp_path.iterdir())) == 2
