"""What each reader uses of a prompt, and how often the distracted one misses it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.types import Message, Prompt
from kb.types import Faq
from reward.readers import DistractedReader, ExtractiveReader, IdealReader, Question, gold_shown, session_answer

A, B, C = (Faq(name, f"About {name}?", f"This is {name}.") for name in "abc")
ids = st.lists(st.sampled_from([f"f{n}" for n in range(12)]), unique=True)


def shown(*faq_ids: str) -> Prompt:
    return Prompt((), shown=tuple(faq_ids))


def crowd(size: int) -> Prompt:
    """The gold FAQ among so many."""
    return shown("a", *(f"x{n}" for n in range(size - 1)))


def test_the_ideal_reader_uses_every_gold_faq_that_is_shown_and_nothing_else() -> None:
    question = Question("q", "As people wrote it.", (A, B))
    read = IdealReader().read(question, shown("c", "b", "x"))
    assert (read.answer, read.used) == ("As people wrote it.", ("b",))
    assert IdealReader().read(question, shown("b", "a")).used == ("a", "b")
    assert IdealReader().read(question, shown()).used == ()


@pytest.mark.parametrize("gold", [(), None])
def test_where_no_gold_is_known_or_needed_readers_use_nothing(gold: tuple[Faq, ...] | None) -> None:
    question = Question("q", None, gold)
    for reader in (IdealReader(), DistractedReader()):
        assert reader.read(question, shown("a", "b")).used == ()
        assert reader.fixed_answers


def test_an_answer_that_nobody_wrote_is_the_gold_faqs_own() -> None:
    assert session_answer(Question("q", None, (A, C))) == "This is a.\nThis is c."
    assert session_answer(Question("q", "", (A,))) == "", "an empty answer was written"
    assert session_answer(Question("q", None, ())) == session_answer(Question("q", None, None)) == "I don't know."
    assert session_answer(Question("q", None, (Faq("route", "To a person?", ""),))) == "I don't know."


def test_what_is_missed_grows_with_the_crowd_as_the_formula_says() -> None:
    reader = DistractedReader(0.03)
    assert [reader.miss_probability(n) for n in (0, 1, 2, 3)] == pytest.approx([0.0, 0.0, 0.03, 1 - 0.97**2])
    assert DistractedReader(0.0).miss_probability(1000) == 0.0


@pytest.mark.parametrize("per_faq", [-0.1, 1.0, float("nan")])
def test_a_probability_that_is_none_is_refused(per_faq: float) -> None:
    with pytest.raises(ValueError, match="per_faq: expected 0 <= p < 1"):
        DistractedReader(per_faq)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_gold_faq_is_missed_as_often_as_the_probability_says(size: int) -> None:
    """Over 10,000 queries a share is off by more than 0.02 with a chance below 7e-4 at most; the seed is fixed, so it is drawn once."""
    reader = DistractedReader(0.1, seed=0)
    misses = sum(not reader.read(Question(f"query {n}", "a", (A,)), crowd(size)).used for n in range(10_000))
    assert misses / 10_000 == pytest.approx(reader.miss_probability(size), abs=0.02)
    assert misses > 0 or size == 1


def test_of_two_gold_faqs_each_is_missed_by_a_chance_of_its_own() -> None:
    """Both of 2,000 queries' FAQs are always missed together with a chance below 1e-100."""
    found = [DistractedReader(0.3).read(Question(f"query {n}", "a", (A, B)), shown("a", "b", "c")).used for n in range(2_000)]
    assert {(), ("a",), ("b",), ("a", "b")} == set(found)


@given(query=st.text(max_size=20), small=st.integers(1, 20), more=st.integers(0, 20), seed=st.integers(0, 5))
def test_what_is_found_in_a_crowd_is_found_in_a_smaller_one(query: str, small: int, more: int, seed: int) -> None:
    reader, question = DistractedReader(0.1, seed), Question(query, "a", (A,))
    assert set(reader.read(question, crowd(small + more)).used) <= set(reader.read(question, crowd(small)).used)


@given(query=st.text(max_size=20), others=ids, elsewhere=st.integers(0, 3))
def test_arms_that_show_as_many_faqs_read_alike_whichever_they_are(query: str, others: Sequence[str], elsewhere: int) -> None:
    question = Question(query, "a", (A,))
    one = DistractedReader(0.2).read(question, shown("a", *others))
    other = DistractedReader(0.2).read(question, shown(*(f"y{n}" for n in range(len(others))), "a"))
    assert one == other == DistractedReader(0.2).read(Question(query, "a", (A,)), shown(*others, "a"))


def test_another_seed_misses_others() -> None:
    """All 500 alike with a chance below 1e-20."""
    questions = [Question(f"query {n}", "a", (A,)) for n in range(500)]
    one, other = ([DistractedReader(0.2, seed).read(question, crowd(5)).used for question in questions] for seed in (0, 1))
    assert one != other


def test_it_never_finds_more_than_the_ideal_reader() -> None:
    for n in range(200):
        question, prompt = Question(f"query {n}", "a", (A, B)), shown("b", "x", "y", "a")
        assert set(DistractedReader(0.3).read(question, prompt).used) <= set(IdealReader().read(question, prompt).used)


def test_the_extractive_reader_says_what_its_answerer_says_and_uses_what_that_cites() -> None:
    heard: list[Sequence[Message]] = []

    def answer(messages: Sequence[Message]) -> str:
        heard.append(messages)
        return "Both [a] and [c], not [gone]."

    reader, prompt = ExtractiveReader(answer), Prompt((Message("user", "q"),), shown=("a", "b", "c"))
    read = reader.read(Question("q", "people wrote this", (B,)), prompt)
    assert (read.answer, read.used, reader.fixed_answers) == ("Both [a] and [c], not [gone].", ("a", "c"), False)
    assert heard == [prompt.messages]


def test_gold_that_is_shown_twice_counts_once() -> None:
    assert gold_shown(Question("q", None, (A, B)), ["a", "a", "x"]) == ("a",)
