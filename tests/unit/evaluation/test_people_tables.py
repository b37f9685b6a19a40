"""The tables of people's ratings: what is planted is planted as said, and found."""

import numpy as np
import pytest

from evaluation.people_tables import (
    ATTACKS,
    RATERS,
    consensus_table,
    nearness_table,
    planted,
    poison_table,
    poisoned,
    recovered,
    signals_table,
)
from reward.consensus import consensus
from tests.fakes import HashEmbedder
from tests.unit.evaluation.played import CAR, MIXED, SHOP, turn


def test_raters_are_right_as_often_as_their_skill_says_and_so_many_rate_a_turn() -> None:
    """3,000 votes or 750 a rater: beyond 5 standard errors by chance less than once in 10^5; seeded."""
    for name, (skills, each) in RATERS.items():
        truth, votes = planted(0, skills, each, turns=3000)
        assert len(votes) == 3000 * (each or len(skills)), name
        for rater, skill in skills.items():
            own = [vote.good == truth[vote.turn_id] for vote in votes if vote.rater == rater]
            assert np.mean(own) == pytest.approx(skill, abs=5 * np.sqrt(skill * (1 - skill) / len(own)))
        assert 0.55 < np.mean(list(truth.values())) < 0.65


def test_recovery_counts_turns_whose_consensus_is_the_truth() -> None:
    truth, votes = planted(0, {"sure": 1.0}, None, turns=20)
    assert recovered(consensus(votes, "majority"), truth) == 1.0
    assert recovered(consensus(votes, "majority"), {turn: not good for turn, good in truth.items()}) == 0.0


def test_the_consensus_table_shows_that_weighing_raters_pays_where_most_are_poor() -> None:
    name = "two of .95 among three of .55"
    _, _, poor = consensus_table({name: RATERS[name]}, seeds=1)
    majority, dawid_skene = (float(cell.split()[0]) for cell in poor.split("|")[2:4])
    assert dawid_skene > majority + 0.04


def test_without_an_attack_sifting_changes_nothing_and_a_burst_is_found_and_a_slow_lie_is_held_to_its_share() -> None:
    found = {name: poisoned(0, attack) for name, attack in ATTACKS.items()}
    calm, _, burst, slow = found.values()
    assert calm.raw == pytest.approx(calm.sifted, abs=1e-3)
    assert (calm.hostile, burst.hostile) == (0.0, 0.0)
    assert burst.raw > 0.45
    assert burst.sifted == pytest.approx(calm.sifted, abs=1e-3)
    assert slow.hostile == pytest.approx(0.25)
    assert slow.honest_aside == 0.0
    assert len(list(poison_table(seeds=2))) == 2 + len(ATTACKS)


def test_signals_are_counted_by_the_kind_of_the_turn_at_which_they_fire() -> None:
    sessions = (SHOP, CAR, MIXED)
    rows = {row.split("|")[1].strip(): row for row in signals_table(sessions, HashEmbedder().embed) if row.startswith("|")}
    assert "| 1 | smalltalk 1 |" in rows["`thanked`"]
    assert "| 3 |" in rows["`left`"], "nobody thanks in a last turn"
    assert len(rows) == 2 + 5


def test_nearness_tells_neighbours_by_kind_and_queries_of_one_faq_from_others() -> None:
    asked = {"a": ["pay my bill", "pay my bill now"], "b": ["where is the office", "zzz qqq xxx"]}
    pay = turn("pay my bill please", ("a",))
    rows = list(nearness_table([SHOP, SHOP.__class__("s", (pay, pay))], asked, HashEmbedder(512).embed))
    assert any(row.startswith("| neighbours, faq | 1 | 1.00 | 100.00 %") for row in rows)
    assert any(row.startswith("| first messages about one FAQ | 2 | ") and row.endswith("| 50.00 % |") for row in rows)
    assert rows[-1].endswith("| 0.00 % |")
