"""Searching in mid-conversation: rankings joined by hand, and what each way makes of a follow-up."""

import numpy as np
import pytest

from evaluation.datasets import LabelledTurn, Session
from evaluation.followup_tables import ALONE, AddedVectors, fused, measured, table
from evaluation.stats import resampled
from kb.retriever import FaqRetriever
from kb.types import Faq, Hit, better_of
from tests.fakes import HashEmbedder

FAQS = (
    Faq("gold-fee", "What is the annual fee of the gold card?", ""),
    Faq("gold-limit", "What is the credit limit of the gold card?", ""),
    Faq("green-fee", "What is the annual fee of the green card?", ""),
    Faq("hours", "When are you open?", "Nine to five."),
)


def turn(query: str, gold: tuple[str, ...] | None, kind: str = "followup") -> LabelledTurn:
    return LabelledTurn(query, None, gold, kind, None)


SESSIONS = (
    Session("one", (turn("annual fee of the gold card", ("gold-fee",), "faq"), turn("and its credit limit", ("gold-limit",)),
                    turn("thanks", (), "smalltalk"), turn("xx", None))),
    Session("two", (turn("annual fee of the green card", ("green-fee",), "faq"), turn("when are you open", ("hours",), "faq"))),
)


def retriever() -> FaqRetriever:
    return FaqRetriever.build(HashEmbedder(), FAQS)


def test_only_turns_with_a_query_before_and_a_gold_faq_count() -> None:
    turns = measured(SESSIONS, HashEmbedder(), retriever())
    assert [(one.conversation, one.kind) for one in turns] == [(0, "followup"), (1, "faq")]
    assert len({tuple(one.places) for one in turns}) == 1


def test_added_vectors_are_searched_as_compare_takes_two_queries_together() -> None:
    plain = retriever()
    adding = AddedVectors(HashEmbedder())
    together = FaqRetriever(adding, plain.index, plain.faqs, lexical_weight=plain.lexical_weight)
    for before, query in (("gold card", "and its credit limit"), ("when are you open", "fee of the green one")):
        nearest = plain.compare(query, before, ()).joined_top1
        found = together.search(adding.joined(before, query), k=4)
        assert nearest is not None
        assert found[0].faq.id == nearest.faq.id
        assert found[0].similarity == pytest.approx(nearest.similarity, abs=1e-6)
        both = plain.compare(query, before, [hit.faq.id for hit in found]).joined_faqs
        assert [hit.similarity for hit in found] == pytest.approx(list(both), abs=1e-6)


def test_ranks_are_fused_by_their_reciprocals() -> None:
    assert fused(("a", "b", "c"), ("b", "c", "a")) == ("b", "a", "c")  # 1/62 + 1/61, 1/61 + 1/63, 1/63 + 1/62
    assert fused(("a",), ("b",)) == ("a", "b")


def test_the_more_similar_of_two_hits_counts() -> None:
    alone = [Hit(FAQS[0], 0.9), Hit(FAQS[1], 0.3)]
    assert tuple(hit.faq.id for hit in better_of(alone, [Hit(FAQS[1], 0.95), Hit(FAQS[3], 0.5)])) == ("gold-limit", "gold-fee", "hours")


def test_a_rewriter_is_given_what_was_asked_before_and_is_searched_with() -> None:
    asked: list[tuple[list[str], str]] = []

    def rewrite(before: object, query: str) -> str:
        asked.append((list(before), query))  # type: ignore[call-overload]
        return "When are you open?"

    turns = measured(SESSIONS, HashEmbedder(), retriever(), rewrite)
    assert asked == [(["annual fee of the gold card"], "and its credit limit"), (["annual fee of the green card"], "when are you open")]
    assert [one.places["rewritten"] == 1 for one in turns] == [False, True]


def test_a_table_compares_each_way_with_the_query_alone() -> None:
    turns = measured(SESSIONS, HashEmbedder(), retriever())
    lines = table("all turns", turns, resampled(2)).splitlines()
    assert lines[0] == "### all turns: 2 turns of 2 conversations"
    cells = {row[1].strip(): [one.strip() for one in row[2:-1]] for row in (line.split("|") for line in lines[4:])}
    assert [*cells] == [*turns[0].places]
    assert cells[ALONE][3:] == ["", "", ""]
    hits = np.mean([one.places[ALONE] == 1 for one in turns])
    assert cells[ALONE][0].startswith(f"{100 * hits:.1f} (")
    assert all(len(row) == 6 for row in cells.values())
