"""Fitting on examples small enough to read: hand-set weights hold where nothing is learnt, none rises above 0, seeds decide all."""

from pathlib import Path

import pytest

from kb.types import Faq
from reward import support
from reward.errors import JudgeError
from reward.examining import Examiner
from reward.judge import Case
from reward.local_judge import LocalJudge
from reward.local_model import load_model, save_model
from reward.local_training import PRIOR, Example, FitConfig, fit, fit_support, with_band
from tests.fakes import HashEmbedder

FAQS = tuple(Faq(f"f{n}", f"What about {thing}?", f"The {thing} costs ₹{100 + n} and takes {n + 2} days.") for n, thing in
             enumerate(("apple", "banana", "cherry", "damson", "elder", "fig", "grape", "hazel")))
CONFIG = FitConfig(nets=2, hidden=4, epochs=20, folds=2)


def examples() -> list[Example]:
    made = []
    for n, faq in enumerate(FAQS):
        other, group = FAQS[(n + 1) % len(FAQS)], f"g{n}"
        def one(answer: str, kind: str, supported: bool | None, settled: bool | None, *, faq: Faq = faq, other: Faq = other,
                group: str = group) -> Example:
            return Example(Case(faq.question, (), (faq, other), answer, (), gold=(faq.id,)), group, kind, supported, settled, played=True)
        made += [one(faq.answer, "right", True, True), one(other.answer, "other", True, False),
                 one("I don't know.", "refusal", None, False),
                 one(faq.answer.replace("₹1", "₹9"), "number", False, None),
                 Example(Case("hello there", (), (other,), "I don't know.", (), gold=()), group, "ood", None, True, played=True)]
    return made


def test_a_fitted_judge_tells_what_it_was_taught_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    found = examples()
    seen = Examiner(HashEmbedder()).examine([one.case for one in found])
    model = with_band(fit(found, seen, seen, "hash/64", CONFIG), seen, FitConfig(unsure=0.0), searched=False)
    save_model(tmp_path, model, {"about": "a test"})
    loaded = load_model(tmp_path)
    assert loaded.version == model.version
    judge = LocalJudge(loaded, HashEmbedder())
    verdicts = judge.judge([one.case for one in found])
    assert verdicts == LocalJudge(model, HashEmbedder()).judge([one.case for one in found])
    wrong = [verdict.good for verdict, one in zip(verdicts, found, strict=True) if verdict is not None and one.kind == "number"]
    assert wrong == [False] * len(FAQS)


def test_the_same_seed_fits_the_same_weights_and_another_does_not() -> None:
    found = examples()
    seen = Examiner(HashEmbedder()).examine([one.case for one in found])
    versions = [fit(found, seen, seen, "hash/64", FitConfig(nets=1, hidden=3, epochs=5, folds=2, seed=seed)).version for seed in (0, 0, 1)]
    assert versions[0] == versions[1] != versions[2]


def test_a_fault_that_no_example_has_keeps_its_hand_set_weight_and_none_is_above_zero() -> None:
    found = examples()
    seen = Examiner(HashEmbedder()).examine([one.case for one in found])
    weights = dict(zip(support.FEATURES, fit_support(found, seen, CONFIG)["weights"].tolist(), strict=True))
    assert weights["denial"] == pytest.approx(PRIOR["denial"], abs=1e-3)
    assert all(weight <= 0 for weight in weights.values())


def test_the_band_holds_the_share_that_it_is_told_to() -> None:
    found = examples()
    seen = Examiner(HashEmbedder()).examine([one.case for one in found])
    model = fit(found, seen, seen, "hash/64", CONFIG)
    wide = with_band(model, seen, FitConfig(unsure=0.5), searched=False)
    assert wide.band[0] < 0.5 < wide.band[1]
    missing = sum(verdict is None for verdict in LocalJudge(wide, HashEmbedder()).judge([one.case for one in found]))
    assert abs(missing / len(found) - 0.5) < 0.25


def test_examples_of_one_kind_alone_are_refused() -> None:
    found = [one for one in examples() if one.kind == "right"]
    seen = Examiner(HashEmbedder()).examine([one.case for one in found])
    with pytest.raises(JudgeError, match="both kinds"):
        fit(found, seen, seen, "hash/64", CONFIG)
