"""Always-fetch settings: what each costs, and which one is the baseline."""

import numpy as np
import pytest

from chat.prompt import PAPER, PromptSettings
from evaluation.frugal import SWEEP, SettingCounts, frugal, sweep
from evaluation.rollout import always, replays, with_setting
from tests.unit.evaluation.played import CAR, MIXED, SHOP, world

CHEAP, MIDDLE, RICH = PromptSettings(k=1), PromptSettings(k=2), PromptSettings(k=5)


def counts(setting: PromptSettings, tokens: float, good: float) -> SettingCounts:
    """A hundred scored turns of one conversation."""
    return SettingCounts(setting, np.array([tokens]), np.array([good]), np.array([100.0]))


def test_it_is_the_cheapest_within_the_margin_of_the_best() -> None:
    found = [counts(PAPER, 1000, 80), counts(CHEAP, 400, 78.9), counts(MIDDLE, 600, 79.5), counts(RICH, 900, 80.0)]
    assert frugal(found) == MIDDLE
    assert frugal(found, margin=0.02) == CHEAP


def test_a_setting_that_costs_more_than_paper_is_no_rival_however_good() -> None:
    assert frugal([counts(PAPER, 1000, 80), counts(CHEAP, 900, 80), counts(RICH, 1001, 95)]) == CHEAP


def test_some_conversations_may_choose() -> None:
    two = [SettingCounts(PAPER, np.array([10.0, 10.0]), np.array([1.0, 1.0]), np.array([1.0, 1.0])),
           SettingCounts(CHEAP, np.array([5.0, 5.0]), np.array([1.0, 0.0]), np.array([1.0, 1.0]))]
    assert frugal(two, among=np.array([0])) == CHEAP
    assert frugal(two, among=np.array([1])) == PAPER


def test_a_sweep_counts_what_always_fetching_counts() -> None:
    sessions, one = (SHOP, CAR, MIXED), world()
    found = sweep(sessions, one, [CHEAP])
    assert [row.setting for row in found] == [PAPER, CHEAP]
    for row in found:
        arms = [always(replay) for replay in replays(sessions, with_setting(one, row.setting))]
        assert row.tokens.tolist() == [sum(arm.tokens for arm in play) for play in arms]
        assert row.good.tolist() == [sum(bool(arm.good) for arm in play) for play in arms]
        assert row.scored.tolist() == [3, 2, 4]


def test_the_sweep_holds_the_settings_of_a_turn_once_each() -> None:
    assert len(set(SWEEP)) == len(SWEEP) > 40
    assert {setting.k for setting in SWEEP} == set(range(1, 9))
    assert PAPER not in SWEEP or SWEEP.count(PAPER) == 1


@pytest.mark.parametrize("setting", SWEEP[:3])
def test_a_setting_without_faqs_in_history_keeps_none(setting: PromptSettings) -> None:
    assert (setting.history_faqs == "none") is (setting.faq_turns == 0)
