"""Figures of answers: finite for any text, of one answer by itself, and bounded however long a text is."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.answer_features import FEATURES, LONGEST, MOST_SENTENCES, features
from reward.preferences import Answer
from tests.fakes import HashEmbedder

QUESTION = "How much is the gold card?"
PASSAGES = ("The gold card costs ₹499 a year. It has no joining fee.", "Lost cards are blocked at once.")
texts = st.text(st.characters(codec="utf-8"), max_size=80)


def figures(text: str, prompt: str = QUESTION, context: tuple[str, ...] = PASSAGES) -> dict[str, float]:
    (row,) = features([Answer(prompt, context, text)], HashEmbedder())
    return dict(zip(FEATURES, row.tolist(), strict=True))


def test_every_figure_has_one_name() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
    assert features([], HashEmbedder()).shape == (0, len(FEATURES))


def test_an_answer_that_repeats_its_question_and_passage_is_as_like_them_as_can_be() -> None:
    same = figures("The card is gold.", "The card is gold.", ("The card is gold.",))
    alike = ("prompt", "context", "support_mean", "support_least", "known_1", "known_2", "known_3", "one_sentence", "echo")
    assert [same[name] for name in alike] == pytest.approx([1.0] * len(alike), abs=1e-6)
    assert [same[name] for name in ("new_1", "new_2", "new_4", "numbers_new", "repeats_3")] == [0.0] * 5


def test_words_and_numbers_are_counted_by_hand() -> None:
    found = figures("The gold card costs ₹499 a year. Pay ₹20 more.")
    assert found["log_words"] == pytest.approx(np.log1p(10))
    assert (found["sentences"], found["words_a_sentence"], found["first_words"]) == (2.0, 5.0, 7.0)
    assert (found["numbers_known"], found["numbers_new"]) == (1.0, 1.0)
    assert found["new_1"] == pytest.approx(np.log1p(3))  # pay, 20, more
    assert figures("It is not mentioned.")["hedges"] == 1.0


def test_a_supported_answer_stands_nearer_to_the_passages_than_an_invented_one() -> None:
    right, wrong = figures("The gold card costs ₹499 a year."), figures("Platinum holders enjoy 7 lounges abroad.")
    for name in ("context", "support_mean", "known_1", "known_2", "one_sentence", "covers_best"):
        assert right[name] > wrong[name]


@pytest.mark.parametrize("text", ["", " \n", "?!…", "₹", "हाँ, ज़रूर।"])
def test_an_answer_without_words_has_figures(text: str) -> None:
    for context in (PASSAGES, (), ("",)):
        found = figures(text, context=context)
        assert np.isfinite(list(found.values())).all()
        assert found["log_words"] == 0.0


@settings(max_examples=40)
@given(text=texts, prompt=texts, context=st.lists(texts, max_size=3))
def test_figures_are_finite_for_any_texts(text: str, prompt: str, context: list[str]) -> None:
    assert np.isfinite(features([Answer(prompt, tuple(context), text)], HashEmbedder())).all()


def test_figures_are_of_one_answer_by_itself() -> None:
    answers = [Answer(QUESTION, PASSAGES, text) for text in ("₹499.", "It costs ₹499 a year.", "Nothing.")]
    together = features(answers, HashEmbedder())
    assert np.array_equal(together, np.concatenate([features([one], HashEmbedder()) for one in answers]))


@pytest.mark.parametrize("text", [
    " ".join(map(str, range(200_000))), "word " * 200_000, "x" * 1_000_000, "Is it? " * 150_000, "Yes.\n" * 200_000, "A" + " Ab" * 333_000])
def test_a_megabyte_is_cut_and_takes_no_longer_than_its_beginning(text: str) -> None:
    began = time.process_time()
    found = figures(text, context=(text[: LONGEST // 2],))
    assert time.process_time() - began < 5
    assert found == figures(text[:LONGEST], context=(text[: LONGEST // 2],))
    assert found["sentences"] <= MOST_SENTENCES
