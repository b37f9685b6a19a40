"""The share of a query's words that an FAQ holds: BM25 by hand, and what must hold of any words."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kb.lexical import LexicalIndex, words
from kb.types import Faq

PAY = Faq("pay", "card card", "pay")
REFUND = Faq("refund", "refund card", "", paraphrases=("money back",))
SHIP = Faq("ship", "ship", "")
# words: 3, 4 and 1
K1, B, MEAN_LENGTH = 1.5, 0.75, 8 / 3


def idf(holders: int, faqs: int = 3) -> float:
    return math.log(1 + (faqs - holders + 0.5) / (holders + 0.5))


def term(times: int, length: int) -> float:
    """Lucene's term frequency part, in [0, 1)."""
    return times / (times + K1 * (1 - B + B * length / MEAN_LENGTH))


def overlaps(query: str, *faqs: Faq) -> list[float]:
    return [float(value) for value in LexicalIndex(faqs or (PAY, REFUND, SHIP)).overlaps(query)]


def test_an_overlap_is_bm25_by_hand_as_a_share_of_the_idfs_that_were_asked_for() -> None:
    reachable = idf(2) + idf(1)
    found = overlaps("Card? Refund!")
    assert found == pytest.approx([idf(2) * term(2, 3) / reachable, (idf(2) * term(1, 4) + idf(1) * term(1, 4)) / reachable, 0.0])


def test_a_paraphrase_counts_as_the_question_and_the_answer_do() -> None:
    assert overlaps("money") == pytest.approx([0.0, term(1, 4), 0.0])


def test_the_order_of_the_overlaps_is_that_of_the_faqs() -> None:
    index = LexicalIndex((PAY, REFUND, SHIP))
    assert index.ids == ("pay", "refund", "ship")
    assert index.positions == {"pay": 0, "refund": 1, "ship": 2}
    assert [faq_id for faq_id, overlap in zip(index.ids, index.overlaps("ship"), strict=True) if overlap] == ["ship"]


def test_a_word_that_no_faq_holds_lowers_every_overlap_by_the_most() -> None:
    known, with_unknown, with_known = overlaps("refund"), overlaps("refund zebra"), overlaps("refund ship")
    assert with_unknown[1] == pytest.approx(known[1] * idf(1) / (idf(1) + idf(0)))
    assert with_unknown[1] < with_known[1] < known[1]


def test_words_of_no_faq_alone_reach_nothing() -> None:
    assert overlaps("zebra zoo") == [0.0, 0.0, 0.0]


def test_a_word_that_is_asked_twice_counts_once() -> None:
    assert overlaps("card CARD refund card") == overlaps("card refund")


@pytest.mark.parametrize("query", ["", " \n\t", "?!…", "🤷"])
def test_a_query_without_words_reaches_nothing(query: str) -> None:
    assert overlaps(query) == [0.0, 0.0, 0.0]


def test_an_faq_without_words_is_never_reached_and_is_in_nobodys_way() -> None:
    assert overlaps("card", PAY, Faq("mute", "?!", "…")) == pytest.approx([
        2 / (2 + K1 * (1 - B + B * 3 / 1.5)), 0.0])  # the mean length is 1.5
    assert overlaps("card", Faq("mute", "?!", "…")) == [0.0]


def test_no_faqs_give_no_overlaps() -> None:
    assert LexicalIndex(()).overlaps("card").shape == (0,)


def test_words_are_lower_case_letters_and_digits_of_any_script() -> None:
    assert words("Wie geht's, Größe 42-B? 支払い") == ["wie", "geht", "s", "größe", "42", "b", "支払い"]


LETTERS = st.sampled_from("abcdefgh")
TEXTS = st.lists(LETTERS, min_size=1, max_size=12).map(" ".join)


@given(st.lists(TEXTS, min_size=1, max_size=6), st.lists(LETTERS, min_size=1, max_size=5), st.sampled_from("abcdefghxyz"))
@example(["a"], ["a"], "x")
@settings(max_examples=150, deadline=None)
def test_a_word_that_an_faq_lacks_never_raises_its_overlap(texts: list[str], asked: list[str], more: str) -> None:
    index = LexicalIndex([Faq(f"f{n}", text, "") for n, text in enumerate(texts)])
    before, after = index.overlaps(" ".join(asked)), index.overlaps(" ".join([*asked, more]))
    for text, low, high in zip(texts, after.tolist(), before.tolist(), strict=True):
        if more not in text.split():
            assert low <= high + 1e-6


@given(st.lists(TEXTS, min_size=1, max_size=6), st.lists(LETTERS, max_size=5))
@example(["a " * 5000], ["a"])
@settings(max_examples=150, deadline=None)
def test_an_overlap_is_a_share_below_one_and_is_zero_just_where_no_word_is_shared(texts: list[str], asked: list[str]) -> None:
    found = LexicalIndex([Faq(f"f{n}", text, "") for n, text in enumerate(texts)]).overlaps(" ".join(asked))
    for text, overlap in zip(texts, found.tolist(), strict=True):
        assert 0 <= overlap < 1
        assert (overlap > 0) == bool(set(text.split()) & set(asked))
