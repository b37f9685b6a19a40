"""What a training learns from: who is whose positive and negative, by planted vectors, and what judged answers add."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb.embedder import Vectors
from kb.errors import EmbedderError
from kb.pairs import NO_FAQ, SOME_FAQ, Examples, divided, draw_pairs
from kb.queries import LabelledQuery, read_queries
from kb.types import Faq
from tests.fakes import HashEmbedder

PAY = Faq("pay", "pay", "", paraphrases=("pay by card", "pay cash"))
REFUND = Faq("refund", "refund", "", paraphrases=("money back",))
SHIP = Faq("ship", "ship", "", paraphrases=("parcel",))
FAQS = (PAY, REFUND, SHIP)


def drawn(
    queries: Sequence[LabelledQuery], faqs: Sequence[Faq] = FAQS, *, vectors: Mapping[str, Vectors] | None = None, rounds: int = 30,
    hard: int = 0, seed: int = 0,
) -> list[tuple[str, str, str, list[int]]]:
    examples = Examples.of(faqs, queries)
    texts = examples.all_texts()
    known = vectors or dict(zip(texts, HashEmbedder().embed(texts), strict=True))
    pairs: Any = draw_pairs(examples, known, rounds=rounds, hard=hard, rng=np.random.default_rng(seed))
    assert pairs.column_names == ["anchor", "positive", "negative", "label"]
    return [(row["anchor"], row["positive"], row["negative"], row["label"]) for row in pairs]


def test_examples_number_the_faqs_of_passages_and_queries() -> None:
    found = Examples.of(FAQS, [LabelledQuery("both", ("ship", "pay"), ("refund",)), LabelledQuery("weather", ()),
                               LabelledQuery("bad", None, ("pay",))])
    assert found.passages == (("pay", 0), ("pay by card", 0), ("pay cash", 0), ("refund", 1), ("money back", 1), ("ship", 2), ("parcel", 2))
    assert (found.queries, found.strangers, found.wrong) == ((("both", 2), ("both", 0)), ("weather",), (("both", 1), ("bad", 0)))


def test_every_text_is_embedded_once() -> None:
    train = Examples.of([PAY], [LabelledQuery("both", ("pay",)), LabelledQuery("weather", ()), LabelledQuery("bad", None, ("pay",))])
    dev = Examples.of([PAY], [LabelledQuery("both", ("pay",)), LabelledQuery("new", ("pay",))])
    assert train.all_texts(dev) == ("pay", "pay by card", "pay cash", "both", "weather", "bad", "new")


def test_each_text_is_an_anchor_once_a_round_beside_its_faq_and_against_another() -> None:
    rows = drawn([LabelledQuery("cash?", ("pay",))], rounds=5)
    owners = dict(Examples.of(FAQS, []).passages)
    assert Counter(anchor for anchor, *_ in rows) == dict.fromkeys([*owners, "cash?"], 5)
    for anchor, positive, negative, (own, other) in rows:
        assert anchor != positive
        assert owners[positive] == own == owners.get(anchor, 0)
        assert owners[negative] == other != own


def test_a_query_has_its_faqs_only_passage_for_a_positive_and_that_passage_alone_has_none() -> None:
    short = [Faq("pay", "pay", ""), Faq("refund", "refund", "")]
    rows = drawn([LabelledQuery("cash?", ("pay",)), LabelledQuery("back?", ("refund",))], short)
    assert {(anchor, positive) for anchor, positive, *_ in rows} == {("cash?", "pay"), ("back?", "refund")}


def test_hard_negatives_are_the_nearest_of_other_faqs() -> None:
    angles = {"pay": 0.0, "pay by card": 0.1, "pay cash": 0.2, "refund": 0.3, "money back": 0.4, "ship": 1.0, "parcel": 1.1}
    vectors = {text: np.array([np.cos(a), np.sin(a)], dtype=np.float32) for text, a in angles.items()}
    for hard, of_pay, of_ship in ((1, {"refund"}, {"money back"}), (2, {"refund", "money back"}, {"money back", "refund"})):
        rows = drawn([], vectors=vectors, hard=hard)
        assert {negative for anchor, _, negative, _ in rows if anchor == "pay"} == of_pay
        assert {negative for anchor, _, negative, _ in rows if anchor == "ship"} == of_ship


def test_without_mining_every_other_faqs_passages_are_drawn() -> None:
    rows = drawn([])
    assert {negative for anchor, _, negative, _ in rows if anchor == "pay"} == {"refund", "money back", "ship", "parcel"}


def test_what_else_settles_a_query_is_no_negative_of_it() -> None:
    rows = drawn([LabelledQuery("pay or refund", ("pay", "refund"))])
    of_query = [row for row in rows if row[0] == "pay or refund"]
    assert {label[0] for *_, label in of_query} == {0, 1}
    assert {negative for _, _, negative, _ in of_query} == {"ship", "parcel"}


def test_a_query_that_every_faq_settles_is_left_out() -> None:
    rows = drawn([LabelledQuery("all", ("pay", "refund", "ship"))])
    assert {anchor for anchor, *_ in rows} == {text for text, _ in Examples.of(FAQS, []).passages}
    with pytest.raises(EmbedderError, match="expected queries that some FAQ doesn't settle, got none"):
        drawn([LabelledQuery("all", ("a", "b"))], [Faq("a", "a", ""), Faq("b", "b", "")])


def test_a_text_of_two_faqs_is_no_negative_of_itself() -> None:
    twin = Faq("twin", "pay", "", paraphrases=("twin",))
    assert all(negative not in ("pay", "pay by card", "pay cash", "twin") for anchor, _, negative, _ in drawn([], [*FAQS, twin])
               if anchor == "pay")


def test_queries_of_no_faq_are_negatives_that_say_so() -> None:
    rows = drawn([LabelledQuery("weather", ())])
    assert {label[1] for _, _, negative, label in rows if negative == "weather"} == {NO_FAQ}
    assert {label[0] for _, _, negative, label in rows if negative == "weather"} == {0, 1, 2}
    assert "weather" not in {anchor for anchor, *_ in rows}


def test_judged_answers_are_positives_and_hard_negatives(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (
        {"query": "cash?", "cited": ["pay"], "good": True}, {"query": "cash?", "cited": ["ship"], "good": False},
        {"query": "lost", "cited": ["ship"], "good": False}, {"query": "unsure", "cited": ["pay"], "good": None})))
    angles = {"pay": 0.0, "pay by card": 0.0, "pay cash": 0.0, "cash?": 0.0, "refund": 0.1, "money back": 0.1, "ship": 3.0, "parcel": 3.0,
              "lost": 2.0}
    vectors = {text: np.array([np.cos(a), np.sin(a)], dtype=np.float32) for text, a in angles.items()}
    rows = drawn(read_queries(path, ("pay", "refund", "ship")), vectors=vectors, hard=2)
    assert {positive for anchor, positive, *_ in rows if anchor == "cash?"} == {"pay", "pay by card", "pay cash"}
    assert {negative for anchor, _, negative, _ in rows if anchor == "cash?"} == {"refund", "money back", "ship", "parcel"}
    assert {negative for anchor, _, negative, _ in rows if anchor == "pay"} == {"refund", "money back"}, "ship is far from it"
    # of "lost" it is known only that ship doesn't settle it
    assert {(label[0], label[1]) for _, _, negative, label in rows if negative == "lost"} == {(2, SOME_FAQ)}
    assert not {"lost", "unsure"} & {anchor for anchor, *_ in rows}


def test_a_wrongly_answered_query_of_no_faq_is_a_hard_negative_of_that_faq_and_anybodys() -> None:
    rows = drawn([LabelledQuery("weather", (), ("ship",))])
    assert {label[1] for _, _, negative, label in rows if negative == "weather"} == {NO_FAQ}
    share = Counter(label[0] for _, _, negative, label in rows if negative == "weather")
    assert share[2] / 60 > share[0] / 90  # 60 and 90 pairs


def test_labels_of_a_text_that_contradict_each_other_make_no_negative() -> None:
    rows = drawn([LabelledQuery("cash?", ("pay",)), LabelledQuery("cash?", None, ("pay",))])
    assert all(label[0] != label[1] for *_, label in rows)
    assert "cash?" not in {negative for _, _, negative, _ in rows}


def test_the_same_generator_draws_the_same_pairs_and_another_others() -> None:
    assert drawn([], seed=3) == drawn([], seed=3) != drawn([], seed=4)


@pytest.mark.parametrize("faqs", [(), (PAY,), (PAY, Faq("refund", "refund", ""))])
def test_a_training_needs_pairs_of_two_faqs(faqs: tuple[Faq, ...]) -> None:
    with pytest.raises(EmbedderError, match="expected pairs of at least two FAQs, got fewer: give FAQs paraphrases, or labelled queries"):
        drawn([], faqs)


# what stops a training


def test_given_dev_queries_are_taken_as_they_are() -> None:
    train, dev = [LabelledQuery("cash?", ("pay",))], [LabelledQuery("back?", ("refund",))]
    assert divided(FAQS, train, dev) == (Examples.of(FAQS, train), Examples.of(FAQS, dev))
    assert divided(FAQS, train, []) == (Examples.of(FAQS, train), Examples.of(FAQS, []))


def test_else_a_tenth_of_the_queries_with_all_that_is_known_of_their_texts() -> None:
    queries = [LabelledQuery(f"q{n}", ("pay",)) for n in range(40)]
    judged = [LabelledQuery(query.query, None, ("ship",)) for query in queries]
    train, dev = divided(FAQS, [*queries, *judged, LabelledQuery("weather", ())])
    held = {text for text, _ in dev.queries}
    assert len(held) == 4
    assert {text for text, _ in train.queries} == {query.query for query in queries} - held
    assert {text for text, _ in train.wrong} == {query.query for query in queries} - held
    assert train.strangers == ("weather",)
    assert train.passages == dev.passages == Examples.of(FAQS, []).passages


def test_else_a_paraphrase_of_every_other_faq_that_is_then_no_passage() -> None:
    faqs = [Faq(f"f{n}", f"question {n}", "", paraphrases=(f"other {n}", f"third {n}")) for n in range(6)]
    train, dev = divided(faqs, [])
    assert [number for _, number in dev.queries] == [0, 2, 4]
    assert not {text for text, _ in dev.queries} & {text for text, _ in train.passages}
    assert len(train.passages) == 18 - 3
    assert divided(FAQS[1:], []) == (Examples.of(FAQS[1:], []), Examples.of(FAQS[1:], [])), "one paraphrase is not taken away"
