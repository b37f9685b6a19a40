"""A judge by name."""

from typing import cast

import pytest

from evaluation.errors import EvaluationError
from evaluation.judges import JUDGES, JudgeName, make_judge
from reward.judge import ReferenceJudge
from tests.fakes import HashEmbedder


def test_the_reference_judge_reads_labels_as_it_is_told() -> None:
    assert make_judge("reference", HashEmbedder(), gold="all") == ReferenceJudge("all")


def test_an_llm_judge_is_the_one_that_was_handed_over() -> None:
    ready = ReferenceJudge()
    assert make_judge("llm", HashEmbedder(), llm=ready) is ready


def test_without_an_llm_the_message_says_what_needs_none() -> None:
    with pytest.raises(EvaluationError, match="--judge local"):
        make_judge("llm", HashEmbedder())


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(EvaluationError, match="reference, local, llm"):
        make_judge(cast(JudgeName, "gpt"), HashEmbedder())
    assert JUDGES == ("reference", "local", "llm")
