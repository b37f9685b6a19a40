"""Wrong answers differ from right ones in the named way; the seed alone decides how."""

import numpy as np
import pytest

from kb.types import Faq
from reward.corruptions import CORRUPTIONS, RIGHT, Source
from reward.facts import facts

FAQ = Faq("fee", "What is the late fee?", "The late fee is ₹450 on Classic and ₹650 on Gold, charged within 3 working days, and shows on "
          "the next statement. You cannot pay it in cash, unless a branch agrees. It is free after 12 months if you ask in the app.")
OTHER = Faq("hours", "When are you open?", "Branches open at 9 am on weekdays.")
SOURCE = Source(FAQ.answer, "can i pay the late fee in cash at a branch", FAQ, (OTHER,))


@pytest.mark.parametrize("kind", [*CORRUPTIONS, *RIGHT])
def test_a_change_changes_and_the_seed_decides_how(kind: str) -> None:
    change = {**CORRUPTIONS, **RIGHT}[kind]
    made = [[change(SOURCE, np.random.default_rng(seed)) for seed in range(20)] for _ in range(2)]
    assert made[0] == made[1]
    assert any(answer is not None for answer in made[0])
    assert all(answer is None or (answer != FAQ.answer or kind == "reordered") for answer in made[0])


@pytest.mark.parametrize("seed", range(10))
def test_the_named_thing_is_what_changed(seed: int) -> None:
    rng, right = np.random.default_rng(seed), facts(FAQ.answer)
    number, unit, name = (CORRUPTIONS[kind](SOURCE, rng) for kind in ("changed number", "changed unit", "swapped name"))
    assert number is not None
    assert unit is not None
    assert name is not None
    values = [one.value for one in right.amounts]
    assert [one.value for one in facts(number).amounts] != values
    assert [one.value for one in facts(unit).amounts] == values
    assert [(one.value, one.unit) for one in facts(unit).amounts] != [(one.value, one.unit) for one in right.amounts]
    assert [one.value for one in facts(name).amounts] == values


def test_nothing_to_change_gives_none() -> None:
    bare = Source("Yes.", "ok?", Faq("a", "ok?", "Yes."), ())
    rng = np.random.default_rng(0)
    for kind in ("changed number", "changed unit", "swapped facts", "half answer", "another FAQ's answer", "another FAQ's sentence"):
        assert CORRUPTIONS[kind](bare, rng) is None, kind


@pytest.mark.parametrize("kind", RIGHT)
def test_right_changes_keep_the_amounts_that_they_keep(kind: str) -> None:
    there = {one.value for one in facts(FAQ.answer).amounts}
    for seed in range(20):
        answer = RIGHT[kind](SOURCE, np.random.default_rng(seed))
        assert answer is None or {one.value for one in facts(answer.replace("[fee]", "")).amounts} <= there
