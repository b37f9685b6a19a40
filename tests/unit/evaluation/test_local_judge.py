"""Answers made to fit and measure a judge, and the figures that come of them, on a few conversations."""

from functools import cache
from pathlib import Path

import numpy as np

from evaluation.datasets import HELPDESK_FAQS, read_helpdesk
from evaluation.embedding import RememberingEmbedder
from evaluation.judged_answers import CLAIM_NOTHING, played, right_answers, wrong_answers
from evaluation.local_judge import table
from evaluation.local_judge_ratings import auroc, by_group, rated_examples
from evaluation.stats import Interval
from kb.embedder import Embedder
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from reward.corruptions import CORRUPTIONS, RIGHT
from reward.judge import ReferenceJudge
from reward.local_training import Example
from tests.fakes import HashEmbedder


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


def test_auroc_is_the_chance_that_a_good_answer_scores_higher() -> None:
    good = np.array([True, True, False, False])
    assert auroc(good, np.array([4.0, 3.0, 2.0, 1.0])) == 1.0
    assert auroc(good, np.array([1.0, 1.0, 1.0, 1.0])) == 0.5
    assert auroc(good, np.array([4.0, 1.0, 2.0, 3.0])) == 0.5
    assert np.isnan(auroc(np.array([True]), np.array([1.0])))


def test_an_interval_draws_whole_conversations() -> None:
    found = by_group(np.repeat(["a", "b"], 50), lambda rows: float(rows.mean() < 50), resamples=200)
    assert found.too_small
    assert (found.low, found.high) == (0.0, 1.0)


def test_a_table_has_a_row_for_each_result() -> None:
    lines = table([{"type": "negation", "recall": Interval(0.9, 0.8, 0.95), "answers": 3}]).split("\n")
    assert lines[0] == "| type | recall | answers |"
    assert lines[2] == "| negation | 0.900 (0.800 to 0.950) | 3 |"


def test_rated_answers_become_examples_where_raters_agree(shared_data: Path) -> None:

    from evaluation.human_ratings import read_judgements

    found = rated_examples(read_judgements(shared_data / "mtrag-human" / "judgements.jsonl"))
    assert 300 < len(found) <= 375
    assert {one.settled for one in found} == {True, False}
