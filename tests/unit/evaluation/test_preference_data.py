"""Preferences made of labelled sessions, and those that a log's rankings and ratings hold."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chat.log.ratings import Rating, record_ratings
from chat.log.sessions import import_sessions
from chat.log.store import SqlConversationLog
from evaluation.errors import EvaluationError
from evaluation.preference_data import helpdesk_preferences, log_judged, log_preferences
from kb.retriever import FaqRetriever
from kb.types import Faq
from reward.preferences import Preference
from tests.fakes import HashEmbedder
from tests.unit.evaluation.played import CAR, MIXED, SHOP, turn

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FAQS = (Faq("hours", "When are you open?", "We open at 9 and close at 17, also on Saturdays."),
        Faq("returns", "Can I return things?", "Yes, within 30 days, if they weren't used."),
        Faq("parking", "Where can I park?", "Behind the house, free of charge for 2 hours."))


@pytest.fixture
def retriever() -> FaqRetriever:
    return FaqRetriever.build(HashEmbedder(), FAQS)


@pytest.fixture
def log(tmp_path: Path) -> SqlConversationLog:
    """Two answers each to three questions; the first of each is called Good by two raters, the second Bad."""
    turns: list[dict[str, object]] = [{"query": query, "answer": answer, "gold": [], "kind": "faq"}
             for query in ("When are you open?", "when  are you OPEN?", "Where can I park?") for answer in ("At nine.", "No idea.")]
    (tmp_path / "sessions.jsonl").write_text(json.dumps({"id": "s", "turns": turns}) + "\n")
    log = SqlConversationLog(str(tmp_path / "log.db"))
    import_sessions(log, [tmp_path / "sessions.jsonl"])
    return log


def unknown(faq_id: str) -> None:
    """No FAQ's text is known."""


def ids(log: SqlConversationLog) -> list[str]:
    return [row["id"] for row in log.rows()]


def test_the_gold_answer_is_preferred_to_another_faq_s_and_to_corrupted_ones(retriever: FaqRetriever) -> None:
    pairs = helpdesk_preferences([CAR], retriever)
    parking = [pair for pair in pairs if pair.prompt == "Where can I park?"]
    others = {faq.answer for faq in FAQS if faq.id != "parking"}
    assert len({pair.chosen for pair in parking}) == 1
    assert sum(pair.rejected in others for pair in parking) == 1
    assert 2 <= len(parking) <= 3
    for pair in pairs:
        assert pair.chosen != pair.rejected
        assert set(pair.context) == {faq.text for faq in FAQS}, "the gold FAQ among those that were found"


def test_a_query_is_taken_once_however_it_is_written_and_only_where_an_faq_settles_it(retriever: FaqRetriever) -> None:
    again = replace(SHOP, id="again", turns=(turn("when are  you OPEN?", ("hours",)),))
    pairs = helpdesk_preferences([SHOP, again, MIXED], retriever)
    assert {pair.prompt for pair in pairs} == {"When are you open?", "Can I return things?", "Can I park and return things?",
                                               "Where can I park things?"}
    assert len({pair.group for pair in pairs}) == 4


def test_the_seed_decides_the_pairs(retriever: FaqRetriever) -> None:
    one, same, other = (helpdesk_preferences([SHOP, CAR, MIXED], retriever, seed=seed) for seed in (0, 0, 1))
    assert one == same != other


def test_about_half_of_the_chosen_answers_are_in_other_words() -> None:
    """200 queries, each a fair coin, and of other words a few change nothing: outside 70 to 150 by chance once in 10^4; seeded."""
    faqs = [Faq(f"f{n}", f"What does lamp {n} cost?", f"Lamp {n} costs {n + 20} rupees. It comes within {n + 2} days.")
            for n in range(200)]
    session = replace(SHOP, turns=tuple(turn(faq.question, (faq.id,)) for faq in faqs))
    pairs = helpdesk_preferences([session], FaqRetriever.build(HashEmbedder(), faqs))
    chosen = {pair.group: pair.chosen for pair in pairs}
    verbatim = sum(answer in {faq.answer for faq in faqs} for answer in chosen.values())
    assert 70 <= verbatim <= 150


def test_a_gold_id_that_no_faq_has_is_named(retriever: FaqRetriever) -> None:
    with pytest.raises(EvaluationError, match="nowhere"):
        helpdesk_preferences([replace(SHOP, turns=(turn("Where?", ("nowhere",)),))], retriever)


def test_a_log_s_rankings_are_pairs_of_the_texts_with_their_strength(log: SqlConversationLog) -> None:
    first, second, *_ = ids(log)
    record_ratings(log, [Rating(first, "import", "ann", "expert", NOON, ranking=(first, second), strength="significantly")])
    (pair,) = log_preferences(log, unknown)
    assert pair == Preference(pair.group, "When are you open?", (), "At nine.", "No idea.", 1.0)
    assert log_judged(log, unknown) == ()


def test_a_log_s_ratings_are_judged_answers_by_consensus_and_one_question_is_one_group(log: SqlConversationLog) -> None:
    turns = ids(log)
    said = [Rating(one, "import", rater, "user", NOON, good=n % 2 == 0) for n, one in enumerate(turns[:4]) for rater in ("ann", "bob")]
    split = [Rating(turns[4], "import", rater, "user", NOON, good=rater == "ann") for rater in ("ann", "bob")]
    record_ratings(log, [*said, *split])
    judged = log_judged(log, unknown)
    assert [(one.answer, one.good) for one in judged] == [("At nine.", True), ("No idea.", False)] * 2, "an even split is no word"
    assert len({one.group for one in judged}) == 1
    assert log_preferences(log, unknown) == ()
