"""Answers made to fit and measure a judge, and the figures that come of them, on a few conversations."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from chat.log.ratings import Rating, record_ratings
from chat.log.store import SqlConversationLog
from evaluation.datasets import HELPDESK_FAQS, read_helpdesk
from evaluation.embedding import RememberingEmbedder
from evaluation.judged_answers import CLAIM_NOTHING, hand_written, played, right_answers, wrong_answers
from evaluation.local_judge import table
from evaluation.local_judge_ratings import logged_examples, rated_examples
from evaluation.stats import Interval
from kb.embedder import Embedder
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from reward.corruptions import CORRUPTIONS, RIGHT
from reward.judge import ReferenceJudge
from reward.local_training import Example
from reward.rewordings import read_rewordings
from tests.fakes import HashEmbedder
from tests.unit.chat.log.conftest import TURN


@cache
def desk() -> tuple[Embedder, FaqRetriever]:
    embedder = RememberingEmbedder(HashEmbedder())
    return embedder, FaqRetriever.build(embedder, read_faqs(HELPDESK_FAQS))


@cache
def ideal() -> tuple[Example, ...]:
    return played(read_helpdesk("train")[:4], *desk(), "ideal")


def test_both_arms_of_every_turn_are_played_and_labelled_by_the_reference_judge() -> None:
    sessions = read_helpdesk("train")[:4]
    assert len(ideal()) == 2 * sum(len(session.turns) for session in sessions)
    for example in ideal():
        (verdict,) = ReferenceJudge().judge([example.case])
        assert verdict is not None
        assert (bool(example.settled) and example.supported is not False) == verdict.good
        assert example.case.found


def test_made_answers_show_the_faq_that_they_are_made_of_and_say_what_was_done() -> None:
    _, retriever = desk()
    right, wrong = (make(ideal(), retriever, each=3, seed=5) for make in (right_answers, wrong_answers))
    assert {one.kind for one in right} <= set(RIGHT)
    assert {one.kind for one in wrong} <= set(CORRUPTIONS)
    for one in (*right, *wrong):
        assert one.case.gold
        assert one.case.gold[0] in {faq.id for faq in one.case.faqs}
    assert all(one.supported and one.settled for one in right)
    assert all(one.supported is (None if one.kind in CLAIM_NOTHING else False) for one in wrong)
    assert right == right_answers(ideal(), retriever, each=3, seed=5) != right_answers(ideal(), retriever, each=3, seed=6)


def test_answers_written_by_hand_show_the_faq_that_they_are_about() -> None:
    _, retriever = desk()
    found = hand_written(retriever)
    assert {one.kind for one in found} == {"hand: right", "hand: changed", "hand: beside"}
    assert len(found) == len(read_rewordings())
    for one in found:
        assert one.case.gold is not None
        assert one.case.gold[0] in {faq.id for faq in one.case.faqs}
        assert one.supported is (one.kind == "hand: right")


def test_feedback_of_a_log_becomes_examples_where_its_raters_agree(tmp_path: Path) -> None:
    _, retriever = desk()
    url, faq = str(tmp_path / "log.db"), retriever.faqs[0]
    with SqlConversationLog(url) as log:
        for name in ("t1", "t2", "t3"):
            log.append(replace(TURN, id=name, conversation_id=f"c-{name}", shown=(faq.id,), degraded=()))
        said = {"t1": (True, True), "t2": (False, False), "t3": (True, False)}
        record_ratings(log, [Rating(turn, "key", rater, "expert", datetime(2026, 11, 20, tzinfo=UTC), good)
                             for turn, votes in said.items() for rater, good in zip(("a", "b"), votes, strict=True)])
    found = logged_examples(url, retriever)
    assert [one.supported for one in found] == [True, False]
    assert {one.case.faqs for one in found} == {(faq,)}


def test_a_table_has_a_row_for_each_result() -> None:
    lines = table([{"type": "negation", "recall": Interval(0.9, 0.8, 0.95), "answers": 3}]).split("\n")
    assert lines[0] == "| type | recall | answers |"
    assert lines[2] == "| negation | 0.900 (0.800 to 0.950) | 3 |"


def test_rated_answers_become_examples_where_raters_agree(shared_data: Path) -> None:

    from evaluation.human_ratings import read_judgements

    found = rated_examples(read_judgements(shared_data / "mtrag-human" / "judgements.jsonl"))
    assert 300 < len(found) <= 375
    assert {one.supported for one in found} == {True, False}
