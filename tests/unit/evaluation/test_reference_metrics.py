"""BLEU, ROUGE-L and BERTScore: worked examples, a slow twin, and how blind all three are to one changed number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.reference_metrics import Overlap, TokenEncoder, TokenVectors, bert_score, bleu, rouge_l

TRUE = "For a total amount due between ₹5,001 and ₹10,000 the late payment fee is ₹650, plus 18% GST."
CHANGED = TRUE.replace("650", "850")
OTHER = "Voyager points never expire, and the oldest points are always used first."


@pytest.fixture(scope="module")
def encoder() -> TokenEncoder:
    return TokenEncoder(batch_size=2)


def slow_bert_score(answer: TokenVectors, reference: TokenVectors) -> Overlap:
    """Equations 1 to 3 of Zhang et al. 2020, token by token."""
    recall = sum(max(float(x @ y) for y in answer) for x in reference) / len(reference)
    precision = sum(max(float(x @ y) for x in reference) for y in answer) / len(answer)
    return Overlap(precision, recall, 2 * precision * recall / (precision + recall))


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_greedy_matching_is_its_slow_twin_s(one: int, other: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = [np.abs(rng.normal(size=(tokens, 5))).astype(np.float32) for tokens in (one, other)]
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors)
    fast, slow = bert_score(first, second), slow_bert_score(first, second)
    for name in ("precision", "recall", "f1"):
        assert getattr(fast, name) == pytest.approx(getattr(slow, name), abs=1e-5)


def test_precision_is_of_the_answer_and_recall_of_the_reference() -> None:
    """An answer that is one of two orthogonal reference tokens: all of it is there, half of the reference isn't."""
    found = bert_score(np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32))
    assert (found.precision, found.recall) == (1.0, 0.5)
    assert found.f1 == pytest.approx(2 / 3)


def test_nothing_on_one_side_is_zero(encoder: TokenEncoder) -> None:
    (empty, some) = encoder.encode(["", "a card"])
    assert len(empty) == 0
    assert bert_score(empty, some) == bert_score(some, empty) == Overlap(0.0, 0.0, 0.0)


def test_an_answer_like_the_reference_scores_above_another_subject_s(encoder: TokenEncoder) -> None:
    true, same, other = encoder.encode([TRUE, "The late fee is ₹650 plus GST where ₹5,001 to ₹10,000 is due.", OTHER])
    assert bert_score(true, true).f1 == pytest.approx(1.0, abs=1e-5)
    assert bert_score(same, true).f1 > bert_score(other, true).f1 + 0.2


def test_a_batch_gives_what_each_text_gives_alone(encoder: TokenEncoder) -> None:
    texts = [TRUE, "hi", OTHER * 40, "", "a lone \ud800 half"]
    for together, text in zip(encoder.encode(texts), texts, strict=True):
        (alone,) = encoder.encode([text])
        assert together == pytest.approx(alone, abs=2e-5)


def test_rouge_l_of_a_worked_example() -> None:
    """Lin 2004: "police killed the gunman" and "police kill the gunman" share police, the, gunman: 3 of 4 either way."""
    assert rouge_l("police kill the gunman", "police killed the gunman") == Overlap(0.75, 0.75, 0.75)
    assert rouge_l("the gunman kill police", "police killed the gunman").f1 == 0.5
    assert rouge_l("", "police") == Overlap(0.0, 0.0, 0.0)


def test_bleu_is_one_for_the_reference_and_takes_the_best_of_several() -> None:
    assert bleu(TRUE, [TRUE]) == pytest.approx(1.0)
    assert bleu(TRUE, [OTHER, TRUE]) == pytest.approx(1.0)
    assert bleu(OTHER, [TRUE]) < 0.1
    assert bleu(TRUE, []) == 0.0


def test_none_of_them_sees_a_changed_number_so_none_may_be_a_reward(encoder: TokenEncoder) -> None:
    """Documented weakness: by the rubric, the changed answer is as Bad as one about something else."""
    true, changed = encoder.encode([TRUE, CHANGED])
    assert bleu(CHANGED, [TRUE]) > 0.75
    assert rouge_l(CHANGED, TRUE).f1 > 0.9
    assert bert_score(changed, true).f1 > 0.9
