"""Which FAQs an answer cites."""

from time import perf_counter

import pytest

from chat.citations import cited_ids


@pytest.mark.parametrize(("answer", "cited"), [
    ("Nine to five [hours].", ("hours",)),
    ("[hours] first, then [returns]", ("hours", "returns")),
    ("[returns] before [hours], and [returns] again", ("returns", "hours")),
    ("both [hours, returns]", ("hours", "returns")),
    ("both [hours;returns]", ("hours", "returns")),
    ("spaces [ hours ]", ("hours",)),
    ("[[hours]]", ("hours",)),
    ("hours", ()),
    ("(hours)", ()),
    ("[hour]", ()),
    ("[HOURS]", ()),
    ("[hours", ()),
    ("[ho\nurs]", ()),
    ("[parking]", ()),
    ("[]", ()),
    ("", ()),
])
def test_ids_in_brackets_that_were_shown_are_cited_once_and_in_order(answer: str, cited: tuple[str, ...]) -> None:
    assert cited_ids(answer, ("hours", "returns")) == cited


def test_an_id_may_hold_a_comma() -> None:
    assert cited_ids("Two days [shipping,eu].", ("shipping,eu", "hours")) == ("shipping,eu",)


def test_nothing_is_cited_when_nothing_was_shown() -> None:
    assert cited_ids("Nine to five [hours].", ()) == ()


@pytest.mark.parametrize("answer", ["[" * 200_000, "[a" * 100_000, "]" * 200_000, "[" + "a," * 100_000 + "]"])
def test_a_hostile_answer_is_read_in_time_linear_in_its_length(answer: str) -> None:
    began = perf_counter()
    assert cited_ids(answer, ("hours",)) == ()
    assert perf_counter() - began < 5.0
