"""Resplits of labelled queries, made so that their wrong share is known."""

import numpy as np
import pytest

from evaluation.static_tables import Resplit, resplit, row, thirds
from kb.calibrate import FEATURES, FITTING_SHARE, Searched, split

COUNT = 1200


def planted(error: float, *, seed: int = 0) -> Searched:
    """Half of the queries look sure and are wrong with this chance, the others look unsure and are wrong with 0.6."""
    rng = np.random.default_rng(seed)
    sure = rng.random(COUNT) < 0.5
    right = rng.random(COUNT) >= np.where(sure, error, 0.6)
    features = np.zeros((COUNT, len(FEATURES)))
    features[:, 0] = np.where(sure, 0.9, 0.3) + 0.02 * rng.random(COUNT)
    return Searched(features, tuple(f"faq-{n % 5}" for n in range(COUNT)), right, np.ones(COUNT, dtype=bool), np.zeros(COUNT, dtype=bool),
                    np.arange(COUNT))


def test_a_third_is_held_out_and_the_rest_is_halved_evenly_by_the_calibration() -> None:
    """The calibration draws by the same seed: were its draws these ones, a quarter would fit and three would certify."""
    data = planted(0.0)
    used, held_out = thirds(data, 3)
    assert len(held_out) == COUNT // 3
    assert not set(used.groups.tolist()) & set(held_out.groups.tolist())
    fit, held = split(used, FITTING_SHARE, np.random.default_rng(3))
    assert abs(2 * len(fit) - len(held)) < COUNT / 10
    assert set(thirds(data, 4)[1].groups.tolist()) != set(held_out.groups.tolist())


def test_conversations_are_never_torn_apart() -> None:
    data = planted(0.0)
    together = Searched(data.features, data.top, data.right, data.known, data.later, data.groups // 3)
    used, held_out = thirds(together, 0)
    assert not set(used.groups.tolist()) & set(held_out.groups.tolist())


def test_what_is_certified_answers_the_sure_ones_and_keeps_its_budget() -> None:
    """The sure ones are never wrong, so every certificate must hold and reach at least all of them."""
    found = [resplit(planted(0.0), 0.10, seed) for seed in range(10)]
    assert all(one.certified and one.queries == COUNT // 3 for one in found)
    assert sum(one.share > 0.10 for one in found) <= 2
    assert 0.45 < np.mean([one.answered / one.queries for one in found]) < 0.65


def test_a_budget_that_is_broken_shows_and_what_chance_can_do_stands_apart() -> None:
    within, above, far_above = (Resplit(400, 200, wrong, True, None) for wrong in (20, 22, 40))  # of a budget of 10 %
    nothing = Resplit(400, 0, 0, False, 300)
    cells = [cell.strip() for cell in row(0.10, [within, above, far_above, nothing]).split("|")[1:-1]]
    assert cells == ["10 %", "50.0 %", "25.0 %", "13.67", "37.5 (7.5, 50.0, 50.0)", "25.0 %", "300"]


def test_nothing_is_certified_where_even_the_sure_are_often_wrong_and_more_labels_are_named() -> None:
    found = [resplit(planted(0.15), 0.05, seed) for seed in range(5)]
    assert not any(one.certified or one.answered for one in found)
    assert all(one.more_needed is not None and one.more_needed > COUNT for one in found)
    assert row(0.05, found).split("|")[6].strip() == "100.0 %"


def test_labels_of_one_kind_certify_nothing_and_tell_nothing_of_how_many_it_takes() -> None:
    data = planted(0.0)
    all_right = Searched(data.features, data.top, np.ones(COUNT, dtype=bool), data.known, data.later, data.groups)
    found = resplit(all_right, 0.05, 0)
    assert found == Resplit(COUNT // 3, 0, 0, False, None)
    assert row(0.05, [found]).split("|")[-2].strip() == "–"


def test_the_bound_of_a_share_is_the_closed_form() -> None:
    assert Resplit(100, 20, 20, True, None).lower == pytest.approx(0.05 ** (1 / 20))
    assert Resplit(100, 20, 0, True, None).lower == 0
    assert Resplit(100, 20, 5, True, None).share == 0.25
    assert Resplit(100, 0, 0, False, None).share == 0
