"""Sets that a judge is measured on: what it sees, whose word the truth is, and what is kept of a measurement."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.agreement_run import RECORDS, RUNS, Kept, as_json, measure_set, rated_set, rater_ceiling
from evaluation.agreement_sets import LabelledCase, LabelledSet, against_judge, agreement_on, human_set, judged_by, replayed_set, words
from evaluation.human_ratings import HumanRating, RatedAnswer
from reward.agreement import read_agreement
from reward.drift import read_runs
from reward.judge import Case, ReferenceJudge, Verdict
from tests.unit.evaluation.played import CAR, SHOP, world


class SayingJudge:
    """Good where the answer says so; silent on riddles."""

    version = "saying:1"

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        return tuple(None if "riddle" in case.query else Verdict("good" in case.answer, "says so", probability=0.5) for case in cases)


class SourJudge(SayingJudge):
    version = "saying:2"

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        return tuple(Verdict(False, "sour") for _ in cases)


def case(query: str, answer: str, truth: bool | None, conversation: str = "c", kind: str = "faq") -> LabelledCase:
    return LabelledCase(Case(query, (), (), answer, ()), truth, conversation, kind)


def rated(*lowers: int) -> RatedAnswer:
    ratings = tuple(HumanRating(str(number), lower, 4, 4, 4, None) for number, lower in enumerate(lowers))
    return RatedAnswer("a", "c", "s", "PARTIAL", (), "q", (), "a", ratings)


SET = LabelledSet("probe", "people", "0" * 64, (
    case("one", "good", True, "1"), case("two", "bad", False, "2"), case("a riddle", "good", True, "3"), case("three", "good", False, "4"),
    case("four", "bad", False, "5"), case("five", "good", True, "6")))


def kept(folder: Path, day: int = 1) -> Kept:
    return Kept(folder, f"2026-01-0{day}T00:00:00+00:00")


def test_every_labelled_turn_is_answered_with_a_fetch_and_without_one() -> None:
    played = replayed_set([SHOP, CAR], world(), "played")
    assert (played.against, len(played.cases)) == ("gold:reference:any", 2 * 5)
    assert [(one.conversation, one.kind, one.truth) for one in played.cases[:4]] == [
        ("shop", "faq", True), ("shop", "faq", False), ("shop", "smalltalk", True), ("shop", "smalltalk", True)]


def test_a_judge_sees_what_a_search_finds_in_both_arms_and_only_the_fetch_shows_it() -> None:
    fetch, skip = replayed_set([CAR], world(), "played").cases[:2]
    assert [[faq.id for faq in one.case.found] for one in (fetch, skip)] == [["parking"], ["parking"]]
    assert [[faq.id for faq in one.case.faqs] for one in (fetch, skip)] == [["parking"], []]


def test_the_judge_that_gives_the_truth_agrees_with_itself() -> None:
    played = replayed_set([SHOP, CAR], world(), "played")
    found = agreement_on(played, words(judged_by(ReferenceJudge(), played)), "reference:any", resamples=50)
    assert found.confusion.agreed == 1.0
    assert [one.kind for one in found.kinds] == ["faq", "smalltalk", "return", "unanswerable"]


def test_judge_against_judge_has_the_other_s_words_for_the_truth() -> None:
    compared = against_judge(SET, SourJudge())
    assert compared.against == "saying:2"
    assert compared.hash != SET.hash
    assert {one.truth for one in compared.cases} == {False}


def test_rated_answers_stand_against_their_consensus_from_the_cut_that_is_asked_for() -> None:
    answers = [rated(4, 3, 3), rated(1, 2, 4), rated(4, 1)]
    assert [one.truth for one in human_set(answers).cases] == [True, False, None]
    assert [one.truth for one in human_set(answers, good_from=4).cases] == [False, False, None]
    assert human_set(answers).hash != human_set(answers, good_from=4).hash


def test_one_rater_beside_the_others_is_the_ceiling() -> None:
    found = rater_ceiling([rated(4, 4, 4), rated(1, 1, 1), rated(4, 4, 1)])
    assert (found.confusion.good_good, found.confusion.bad_bad, found.confusion.good_bad) == (3, 3, 1)


def test_a_measurement_leaves_a_record_and_a_probe_run_and_says_whether_the_judge_may_train(tmp_path: Path) -> None:
    found = measure_set(SayingJudge(), SET, kept(tmp_path), 0.6)
    assert found.refusal is None
    assert found.agreement.confusion.missing == 1
    assert found.agreement.kappa.value == pytest.approx((4 / 5 - 12 / 25) / (1 - 12 / 25))
    (record,) = read_agreement(tmp_path / RECORDS)
    assert (record.judge, record.data, record.cases, record.decided) == ("saying:1", "probe", 6, 5)
    (run,) = read_runs(tmp_path / RUNS)
    assert dict(run.verdicts) == {"1": True, "2": False, "3": None, "4": True, "5": False, "6": True}


def test_a_judge_below_the_minimum_may_not_train_and_is_recorded_all_the_same(tmp_path: Path) -> None:
    assert "--force-judge" in str(measure_set(SayingJudge(), SET, kept(tmp_path), 0.9).refusal)
    assert len(read_agreement(tmp_path / RECORDS)) == 1


def test_the_next_run_says_which_verdicts_changed(tmp_path: Path) -> None:
    assert measure_set(SayingJudge(), SET, kept(tmp_path), 0.6).drift is None
    same = measure_set(SayingJudge(), SET, kept(tmp_path, 2), 0.6).drift
    assert same is not None
    assert same.changes == ()
    changed = measure_set(SourJudge(), SET, kept(tmp_path, 3), 0.6).drift
    assert changed is not None
    assert (changed.same_judge, changed.to_bad, changed.to_good, [one.id for one in changed.changes]) == (False, 3, 0, ["1", "3", "4", "6"])


def test_another_set_begins_a_new_series(tmp_path: Path) -> None:
    measure_set(SayingJudge(), SET, kept(tmp_path), 0.6)
    assert measure_set(SayingJudge(), replace(SET, hash="1" * 64), kept(tmp_path, 2), 0.6).drift is None


def test_the_json_has_null_for_what_can_t_be_told(tmp_path: Path) -> None:
    one_sided = replace(SET, cases=SET.cases[:1], name="one")
    found = as_json([measure_set(SayingJudge(), one_sided, kept(tmp_path), 0.6)], 0.6)["sets"][0]
    json.dumps(found, allow_nan=False)
    assert (found["kappa"]["value"], found["may_train"], found["kinds"][0]["kappa"]) == (None, False, None)
    assert found["false_good"] == {"value": None, "low": 0.0, "high": 1.0}


def test_real_raters_reach_kappa_of_about_a_half_with_each_other(shared_data: Path) -> None:
    labelled, ceiling = rated_set(shared_data / "mtrag-human" / "judgements.jsonl")
    assert (labelled.name, len(labelled.cases)) == ("mtrag-human", 375)
    assert ceiling.kappa.value == pytest.approx(0.563, abs=0.001)
    assert 0.35 < ceiling.kappa.low < ceiling.kappa.high < 0.7
