"""Confidences by hand and where the truth is known, and what a calibrated knowledge base makes of them."""

import math
from pathlib import Path

import numpy as np
import pytest

from kb.bounds import needed_without_failure
from kb.calibrate import (
    FEATURES,
    FITTING_SHARE,
    OFFSET_PRIOR,
    Calibration,
    Certified,
    Logistic,
    Searched,
    calibrate,
    confidences,
    features_of,
    fit_right,
    read_calibration,
    save_calibration,
    search_all,
    searched,
    split,
)
from kb.errors import CalibrationError
from kb.queries import LabelledQuery
from kb.retriever import FaqRetriever
from kb.types import Faq, Hit
from tests.fakes import HashEmbedder

PAY, REFUND, SHIP = (Faq(name, name, "") for name in ("pay", "refund", "ship"))


def hits(*similarities: float, overlap: float = 0.25) -> list[Hit]:
    return [Hit(Faq(f"f{n}", "q", ""), similarity, overlap) for n, similarity in enumerate(similarities)]


def alone(count: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Every query is its own conversation."""
    return np.arange(count)


def made(count: int, *, seed: int = 0, later: bool = False, error: float = 0.5) -> Searched:
    """Queries that stand alone; the first feature tells how probably the first hit is wrong: from `error` at 0 to 0 at 1."""
    rng = np.random.default_rng(seed)
    features = np.zeros((count, len(FEATURES)))
    features[:, 0] = rng.uniform(0, 1, count)
    right = rng.random(count) >= error * (1 - features[:, 0])
    return Searched(features, ("pay",) * count, right, np.ones(count, dtype=bool), np.full(count, later), alone(count))


def joined(one: Searched, two: Searched) -> Searched:
    """Both; no conversation is in both."""
    return Searched(np.concatenate([one.features, two.features]), one.top + two.top, np.concatenate([one.right, two.right]),
                    np.concatenate([one.known, two.known]), np.concatenate([one.later, two.later]),
                    np.concatenate([one.groups, two.groups + one.groups.max() + 1]))


# features and labels


def test_features_by_hand() -> None:
    found = features_of([hits(0.9, 0.7, 0.5, 0.3, 0.1, 0.0), hits(0.9, 0.7), hits(0.9), []])
    assert found == pytest.approx(np.array([[0.9, 0.2, 0.9 - 0.3, 0.25], [0.9, 0.2, 0.2, 0.25], [0.9, 0.9, 0.9, 0.25], [0, 0, 0, 0]]))


def test_a_first_hit_is_right_when_it_settles_the_query_and_the_conversation_had_not_it_already() -> None:
    queries = [LabelledQuery("a", ("refund", "pay")), LabelledQuery("b", ("refund",)), LabelledQuery("c", ()),
               LabelledQuery("d", ("pay",), conversation="x", previous="before", known=("pay",)),
               LabelledQuery("e", ("pay",), conversation="x")]
    found = searched(queries, [[Hit(PAY, 0.9), Hit(REFUND, 0.8)]] * 4 + [[]])
    assert found.right.tolist() == [True, False, False, False, False]
    assert found.known.tolist() == [True, True, False, True, True]
    assert found.later.tolist() == [False, False, False, True, False]
    assert found.top == ("pay", "pay", "pay", "pay", "")
    assert len(set(found.groups.tolist())) == 4
    assert found.groups[3] == found.groups[4]


def test_a_split_keeps_conversations_whole_and_loses_nothing() -> None:
    data = made(90)
    data = Searched(data.features, data.top, data.right, data.known, data.later, np.arange(90) // 3)
    one, two = split(data, 1 / 3, np.random.default_rng(0))
    assert (len(one), len(two)) == (30, 60)
    assert not set(one.groups.tolist()) & set(two.groups.tolist())
    assert sorted([*one.features[:, 0], *two.features[:, 0]]) == sorted(data.features[:, 0])
    again, other = (split(data, 1 / 3, np.random.default_rng(seed))[0] for seed in (0, 1))
    assert (again.features == one.features).all()
    assert set(other.groups.tolist()) != set(one.groups.tolist())


# the model


def test_confidences_are_frequencies_where_the_truth_is_known() -> None:
    # the truth is a line and the model a curve, up to 0.05 apart; of 6000 queries, 600 in each tenth have a frequency that is off by
    # another 0.07 with a chance of 6e-4 at most
    data, fresh = made(6000, error=0.8), made(6000, seed=1, error=0.8)
    scores = confidences(fresh, *fit_right(data))
    for tenth in range(10):
        rows = (fresh.features[:, 0] * 10).astype(int) == tenth
        assert scores[rows].mean() == pytest.approx(fresh.right[rows].mean(), abs=0.12)


def test_an_offset_is_one_shrunk_newton_step_from_what_the_similarity_says() -> None:
    data = made(400)
    rare = [3, 77, 200]
    top = tuple("rare" if row in rare else "pay" for row in range(400))
    data = Searched(data.features, top, data.right, data.known, data.later, data.groups)
    model, offsets = fit_right(data)
    chance = 1 / (1 + np.exp(-model.logits(data.features)[rare]))
    assert offsets["rare"] == pytest.approx((data.right[rare] - chance).sum() / ((chance * (1 - chance)).sum() + OFFSET_PRIOR))
    assert set(offsets) == {"pay", "rare"}
    plain = confidences(data, model, {})
    assert confidences(data, model, {"rare": 2.0})[rare] == pytest.approx(1 / (1 + np.exp(-(np.log(plain[rare] / (1 - plain[rare])) + 2))))
    others = [row for row in range(400) if row not in rare]
    assert (confidences(data, model, {"rare": 2.0})[others] == plain[others]).all(), "an FAQ without labels has no offset"


def test_an_offset_grows_with_an_faqs_labels_from_nothing() -> None:
    """An FAQ whose first hits are always wrong, among ones that are right half of the time."""
    sizes = (0, 1, 5, 20, 80)
    found = []
    for size in sizes:
        count = 2000 + size
        right = np.arange(count) % 2 == 0
        right[:size] = False
        data = Searched(np.zeros((count, len(FEATURES))), ("odd",) * size + ("pay",) * 2000, right, right, right, alone(count))
        found.append(fit_right(data)[1].get("odd", 0.0))
    assert found[0] == 0.0
    assert found == sorted(found, reverse=True)
    assert found[1] == pytest.approx(-0.5 / (0.25 + OFFSET_PRIOR), abs=0.01)
    assert found[-1] < -1


def test_what_was_always_the_same_tells_nothing() -> None:
    data = made(300)
    features = data.features.copy()
    features[:, 3] = 0.1 + 0.2  # no float says this exactly, nor the mean of many of it
    model, _ = fit_right(Searched(features, data.top, data.right, data.known, data.later, data.groups))
    assert model.weights[3] == pytest.approx(0, abs=1e-9)
    assert model.weights[0] > 1


# the whole


def test_queries_in_mid_conversation_are_calibrated_apart() -> None:
    early, late = made(1500, error=0.2), made(1500, seed=1, later=True, error=0.2)
    right = late.right & (np.arange(1500) % 3 > 0)  # a third is wrong
    late = Searched(late.features, late.top, right, late.known, late.later, late.groups)
    found = calibrate(joined(early, late), "v1", budget=0.1)
    assert found.first.threshold is not None
    assert found.later.threshold is None
    assert found.later.more_needed > 0
    without = calibrate(early, "v1", budget=0.1)
    assert (without.later.threshold, without.later.trials, without.later.more_needed) == (None, 0, needed_without_failure(0.1))
    assert (without.version, without.budget, without.fitted, without.certified_on) == ("v1", 0.1, 500, 1000)


def test_labels_of_one_kind_and_no_labels_are_refused() -> None:
    data = made(100)
    for right in (np.ones(100, dtype=bool), np.zeros(100, dtype=bool)):
        with pytest.raises(CalibrationError, match="labels: expected both right and wrong first hits, got 34 queries of one kind; add"):
            calibrate(Searched(data.features, data.top, right, data.known, data.later, data.groups), "v")
    with pytest.raises(CalibrationError, match="labels: expected labelled queries, got none"):
        calibrate(searched([], []), "v")


def test_whether_any_faq_settles_a_query_is_told_only_where_labels_tell_it() -> None:
    data = made(2000)
    assert calibrate(data, "v").known is None
    assert calibrate(data, "v").known_threshold is None
    assert calibrate(data, "v").known_probability(hits(0.9)) is None
    known = np.random.default_rng(3).random(2000) < data.features[:, 0]
    data = Searched(data.features, data.top, data.right & known, known, data.later, data.groups)
    found = calibrate(data, "v")
    low, high = found.known_probability(hits(0.1)), found.known_probability(hits(0.9))
    assert low is not None
    assert high is not None
    assert 0 < low < 0.35 < 0.65 < high < 1
    assert found.known_probability([]) == 0.0
    assert found.known_threshold is not None
    held = split(data, FITTING_SHARE, np.random.default_rng(0))[1]
    assert found.known is not None
    chance = 1 / (1 + np.exp(-found.known.logits(held.features[held.known])))
    assert np.mean(chance >= found.known_threshold) == pytest.approx(0.95, abs=0.01)


def calibration(first: float | None, later: float | None) -> Calibration:
    one, two = (Certified(threshold, 0, 0, 1.0, 0) for threshold in (first, later))
    return Calibration("v", 0.05, Logistic((4.0, 2.0, 0.0, 1.0), -3.0), {"f0": 0.5}, None, one, two, None, 0, 0, 0)


def test_a_confidence_is_the_models_with_the_first_hits_offset() -> None:
    found = calibration(None, None).confidence(hits(0.8, 0.5))
    assert found == pytest.approx(1 / (1 + math.exp(-(4 * 0.8 + 2 * 0.3 + 0.25 - 3 + 0.5))))
    other = calibration(None, None).confidence([Hit(PAY, 0.8, 0.25), Hit(SHIP, 0.5)])
    assert other == pytest.approx(1 / (1 + math.exp(-(4 * 0.8 + 2 * 0.3 + 0.25 - 3))))
    assert calibration(None, None).confidence([]) is None


@pytest.mark.parametrize(("first", "later", "expected"), [
    (None, None, "never"), (0.5, None, "first"), (0.5, 0.5, "always"), (0.5, 0.99, "first"), (0.99, 0.99, "never"), (None, 0.5, "never"),
    (0.0, 0.0, "always")])
def test_an_faq_answers_alone_from_the_threshold_of_the_kind_of_query(first: float | None, later: float | None, expected: str) -> None:
    found = calibration(first, later)
    assert found.alone(found.confidence(hits(0.8, 0.5))) == expected
    assert found.alone(found.confidence([])) == "never"


def test_a_confidence_of_exactly_the_threshold_is_enough() -> None:
    confidence = calibration(None, None).confidence(hits(0.8))
    assert calibration(confidence, confidence).alone(confidence) == "always"


# with a knowledge base


FAQS = tuple(Faq(f"f{n}", f"how do I do thing number {n}", f"Press {n}.") for n in range(12))
LABELLED = (*(LabelledQuery(f"{start} thing number {n}", (f"f{n}",)) for start in ("how to do", "do", "about") for n in range(12)),
            *(LabelledQuery(f"{start} {n}", ()) for start in ("weather on day", "who won game") for n in range(10)))


def test_what_a_knowledge_base_finds_is_calibrated_with_what_it_serves() -> None:
    retriever = FaqRetriever.build(HashEmbedder(), FAQS)
    told: list[int] = []
    data = search_all(retriever, [*LABELLED, LabelledQuery("only wrong", None, ("f1",))], told.append)
    assert len(data) == len(LABELLED) == sum(told)
    found = calibrate(data, retriever.version, budget=0.3)
    retriever.adopt(found)
    scores = confidences(data, found.right, found.offsets)
    for query, score in zip(LABELLED, scores, strict=True):
        for k in (1, 3, 9):
            served = retriever.search(query.query, k=k)
            assert served[0].confidence == pytest.approx(score)
            assert served[0].alone == found.alone(found.confidence(retriever.search(query.query, k=9)))
            assert {hit.confidence for hit in served[1:]} <= {None}
            assert len(served) == k


def test_a_calibration_is_void_once_an_faq_changes_and_one_of_another_version_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    retriever = FaqRetriever.build(HashEmbedder(), FAQS)
    found = calibrate(search_all(retriever, LABELLED), retriever.version)
    retriever.adopt(found)
    assert retriever.search("thing", k=1)[0].confidence is not None
    retriever.put([Faq("new", "another thing", "")])
    assert (retriever.calibration, retriever.search("thing", k=1)[0].confidence) == (None, None)
    retriever.adopt(found)
    assert retriever.calibration is None
    assert "no FAQ answers by itself until `fetchgate kb calibrate` is run again" in caplog.text
    retriever.remove(["new"])
    retriever.adopt(found)
    assert retriever.calibration == found


def test_what_is_saved_comes_back_and_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    found = calibrate(made(600), "v1", seed=7)
    assert read_calibration(path) is None
    save_calibration(path, found)
    assert read_calibration(path) == found
    assert [one.name for one in tmp_path.iterdir()] == ["calibration.json"]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CalibrationError, match="calibration.json: expected a calibration as `fetchgate kb calibrate` writes it"):
        read_calibration(path)
    with pytest.raises(CalibrationError, match="can't be written .*; a calibration that was there is unchanged"):
        save_calibration(tmp_path / "none" / "calibration.json", found)
