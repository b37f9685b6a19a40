"""A judge beside people: what is counted, what is missing, and which judge may train."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from reward.agreement import (
    Agreement,
    Word,
    accept,
    accept_kept,
    agreement,
    confusion,
    read_agreement,
    record_of,
    write_agreement,
)
from reward.errors import AgreementError, JudgeRefusedError

word = st.sampled_from([True, False, None])


def measured(judged: list[Word], truth: list[Word], **more: object) -> Agreement:
    return agreement(judged, truth, judge="local:1", against="people", resamples=200, **more)  # type: ignore[arg-type]


def planted(right: float, cases: int = 400, missing: float = 0.0) -> Agreement:
    rng = np.random.default_rng(3)
    truth = [bool(one) for one in rng.random(cases) < 0.5]
    judged: list[Word] = [one if rng.random() < right else not one for one in truth]
    return measured([None if rng.random() < missing else one for one in judged], list(truth))


def test_six_counts_and_their_rates() -> None:
    counts = confusion([True, True, False, None, True, False, False, None], [True, True, True, True, False, False, False, False])
    assert (counts.good_good, counts.good_bad, counts.good_missing) == (2, 1, 1)
    assert (counts.bad_good, counts.bad_bad, counts.bad_missing) == (1, 2, 1)
    assert (counts.cases, counts.decided, counts.missing, counts.coverage) == (8, 6, 2, 0.75)
    assert counts.agreed == pytest.approx(4 / 6)
    assert counts.false_good.value == pytest.approx(1 / 3)
    assert counts.false_bad.value == pytest.approx(1 / 3)


@given(st.lists(st.tuples(word, word), min_size=1, max_size=40))
def test_every_labelled_case_is_counted_once_and_no_other(pairs: list[tuple[Word, Word]]) -> None:
    counts = confusion([judged for judged, _ in pairs], [truth for _, truth in pairs])
    assert counts.cases == sum(truth is not None for _, truth in pairs)
    assert counts.missing == sum(judged is None and truth is not None for judged, truth in pairs)


def test_missing_is_never_agreement_and_never_bad() -> None:
    """Were missing taken for Bad, the third and fourth case would agree; were it dropped from coverage, nobody would see it."""
    found = measured([True, False, None, None], [True, False, False, False])
    assert (found.confusion.bad_bad, found.confusion.bad_missing, found.confusion.coverage) == (1, 2, 0.5)
    assert found.kappa.value == 1.0
    assert found.strict_kappa.value == pytest.approx((2 / 4 - (1 / 4 * 1 / 4 + 3 / 4 * 1 / 4)) / (1 - 1 / 4))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=40))
def test_kappa_is_sklearn_s(pairs: list[tuple[bool, bool]]) -> None:
    judged, truth = [one for one, _ in pairs], [other for _, other in pairs]
    if len(set(judged + truth)) == 2:
        assert measured(list(judged), list(truth)).kappa.value == pytest.approx(cohen_kappa_score(judged, truth), abs=1e-9)


def test_a_case_that_people_said_nothing_about_is_left_out() -> None:
    assert measured([True, False, True], [True, False, None], kinds=["a", "b", "c"]).confusion.cases == 2
    assert [one.kind for one in measured([True, False, True], [True, False, None], kinds=["a", "b", "c"]).kinds] == ["a", "b"]


def test_kinds_come_in_their_order_and_add_up() -> None:
    found = measured([True, False, True, True], [True, False, False, True], kinds=["right", "negation", "negation", "right"])
    assert [(one.kind, one.confusion.cases) for one in found.kinds] == [("right", 2), ("negation", 2)]
    assert math.isnan(found.kinds[0].kappa), "both sides say Good throughout"


def test_the_conversation_is_what_is_drawn_again() -> None:
    found = measured([True, False] * 20, [True, False] * 20, conversations=["a", "b", "c", "d"] * 10)
    assert found.conversations == 4


@pytest.mark.parametrize(("judged", "truth", "more", "says"), [
    ([True], [True, False], {}, "judged"), ([True], [None], {}, "label"), ([True], [True], {"kinds": []}, "kinds"),
    ([True], [True], {"conversations": ["a", "b"]}, "conversations"),
])
def test_what_doesn_t_fit_together_is_refused(judged: list[Word], truth: list[Word], more: dict[str, object], says: str) -> None:
    with pytest.raises(AgreementError, match=says):
        measured(judged, truth, **more)


def test_a_judge_above_the_minimum_may_train() -> None:
    accept(planted(0.9), 0.6)


def test_a_judge_below_the_minimum_is_refused_with_its_figures_and_the_way_on() -> None:
    found = planted(0.7)
    with pytest.raises(JudgeRefusedError) as refused:
        accept(found, 0.6)
    for part in ("local:1", "at least 0.60", f"{found.kappa.value:.2f}", f"{found.kappa.low:.2f} to {found.kappa.high:.2f}",
                 "400 of 400 cases", "--force-judge"):
        assert part in str(refused.value)


def test_a_judge_that_decides_few_cases_is_refused_however_well_it_does() -> None:
    with pytest.raises(JudgeRefusedError, match="50% of the cases"):
        accept(planted(1.0, missing=0.7), 0.6)


def test_a_kappa_that_can_t_be_told_is_not_good_enough() -> None:
    with pytest.raises(JudgeRefusedError, match="none that can be told"):
        accept(measured([True] * 9, [True] * 9), 0.0)


def test_a_record_is_kept_and_replaced_by_the_next_of_its_set(tmp_path: Path) -> None:
    file = tmp_path / "some" / "agreement.json"
    first = record_of(planted(0.9), data="probe", data_hash="0" * 64, measured_at="2026-01-01T00:00:00+00:00")
    write_agreement(file, first)
    write_agreement(file, replace(first, data="others"))
    write_agreement(file, replace(first, cases=500))
    assert {(one.data, one.cases) for one in read_agreement(file)} == {("probe", 500), ("others", 400)}


def test_no_file_is_no_record_and_bars_nobody(tmp_path: Path) -> None:
    assert read_agreement(tmp_path / "agreement.json") == ()
    accept_kept((), "local:1")


def test_only_people_who_rated_a_log_bar_a_judge_and_only_that_version() -> None:
    ill = replace(record_of(planted(0.6), data="log", data_hash="", measured_at="2026-02-01T00:00:00+00:00"), against="people")
    for other in (replace(ill, data="probe"), replace(ill, against="llm:m"), replace(ill, judge="local:2"), replace(ill, kappa=0.8)):
        accept_kept((other,), "local:1")
    with pytest.raises(JudgeRefusedError, match="of log"):
        accept_kept((replace(ill, data="probe"), ill), "local:1")
    accept_kept((ill,), "local:1", minimum_kappa=0.0)


def test_what_can_t_be_told_is_null_in_a_record_and_comes_back(tmp_path: Path) -> None:
    record = record_of(measured([True] * 3, [True] * 3), data="a", data_hash="", measured_at="2026-01-01T00:00:00+00:00")
    write_agreement(tmp_path / "a.json", record)
    assert read_agreement(tmp_path / "a.json") == (record,)
    assert json.loads((tmp_path / "a.json").read_text())[0]["kappa"] is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"judge": "a"}]', "not JSON"])
def test_a_damaged_record_says_where(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(AgreementError, match=r"a\.json"):
        read_agreement(tmp_path / "a.json")
