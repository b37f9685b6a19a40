"""The measures of variety against closed forms and a slow twin."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evaluation.datasets import LabelledTurn, Session
from evaluation.diversity import (
    BLOCK,
    distinct,
    diversity,
    language_share,
    nearest_similarity,
    public_queries,
    quantiles,
    sample,
    session_lengths,
    shared_openings,
    unique_queries,
    words,
)
from evaluation.errors import DatasetError


def of_turns(*languages: str | None) -> Session:
    return Session("s", tuple(LabelledTurn("q", None, (), "ood", language) for language in languages))


def test_words_are_lower_case_letters_and_digits() -> None:
    assert words("WHAT's the ₹5,000 fee?!") == ("what", "s", "the", "5", "000", "fee")
    assert words("?? …") == ()


def test_texts_without_a_repeated_word_are_wholly_distinct() -> None:
    assert distinct(["a b c", "d e f"], 1) == distinct(["a b c", "d e f"], 2) == 1.0


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_divide_distinctness(copies: int) -> None:
    assert distinct(["a b c d"] * copies, 2) == pytest.approx(1 / copies)


def test_distinct_n_counts_within_a_text_and_not_across() -> None:
    assert distinct(["a b", "b a"], 2) == 1.0
    assert distinct(["a a a a"], 1) == 0.25
    assert distinct(["a", "b"], 2) == 0.0


def test_openings_are_shared_by_those_that_have_one() -> None:
    texts = ["how do i pay", "How do I close it", "my card broke", "how do", "hi"]
    assert shared_openings(texts) == pytest.approx(2 / 3)
    assert shared_openings(["hi", "ok"]) == 0.0


def test_a_twin_is_at_one_and_a_stranger_at_zero() -> None:
    nearest = nearest_similarity(["late fee?", "LATE fee", "xyz qqq"])
    assert nearest == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)
    assert nearest_similarity(["alone"]) == pytest.approx([0.0])


def test_nearest_similarity_is_that_of_the_slow_twin_over_several_blocks() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abc "), size=12)) for _ in range(BLOCK + 40)]
    found = nearest_similarity(texts)
    padded = [f" {' '.join(words(text))} " for text in texts]
    counts = [Counter(text[start : start + 3] for start in range(len(text) - 2)) for text in padded]
    for row in (0, BLOCK - 1, BLOCK, BLOCK + 39):
        slow = max(cosine(counts[row], other) for n, other in enumerate(counts) if n != row)
        assert found[row] == pytest.approx(slow, abs=1e-5)


def cosine(a: Counter[str], b: Counter[str]) -> float:
    return sum(a[gram] * b[gram] for gram in a) / math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))


def test_quantiles_are_values_that_occur() -> None:
    assert quantiles(range(1, 101)) == (5, 25, 50, 75, 95)
    assert quantiles([4, 9]) == (4, 4, 4, 9, 9)


def test_sessions_are_measured_in_turns() -> None:
    assert session_lengths([of_turns(*[None] * n) for n in range(1, 101)]) == (5, 25, 50, 75, 95)


def test_the_share_of_a_language_is_of_turns() -> None:
    assert language_share([of_turns("hinglish", None), of_turns(None, None)], "hinglish") == 0.25


def test_unique_queries_keep_the_first_of_each_wording() -> None:
    assert unique_queries(["Hi!", "bye", "hi", "?"]) == ("Hi!", "bye")


def test_a_sample_is_that_of_its_seed_and_never_repeats() -> None:
    texts = [str(n) for n in range(100)]
    assert sample(texts, 50, seed=1) == sample(texts, 50, seed=1) != sample(texts, 50, seed=2)
    assert len(set(sample(texts, 50, seed=1))) == 50
    assert sorted(sample(texts, 500, seed=1)) == sorted(texts)


def test_all_figures_of_one_set_agree_with_their_functions() -> None:
    texts = ["how do i pay it", "how do i close it", "is there a fee"]
    found = diversity(texts)
    assert found.queries == 3
    assert found.distinct == (distinct(texts, 1), distinct(texts, 2), distinct(texts, 3))
    assert found.shared_openings == pytest.approx(2 / 3)
    assert found.words == (4, 4, 5, 5, 5)


def test_no_queries_have_no_figures() -> None:
    with pytest.raises(ValueError, match="at least one query"):
        diversity([])


def test_public_sets_are_read_from_queries_or_sessions(tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").write_text('{"id": "a", "turns": [{"query": "one", "gold": null, "kind": "faq"}]}\n')
    assert public_queries(tmp_path) == ("one",)
    (tmp_path / "queries.jsonl").write_text('{"query": "two", "gold": []}\n{"query": "three", "gold": []}\n')
    assert public_queries(tmp_path) == ("two", "three")
    (tmp_path / "queries.jsonl").write_text('{"text": "two"}\n')
    with pytest.raises(DatasetError, match="query: expected this field"):
        public_queries(tmp_path)
