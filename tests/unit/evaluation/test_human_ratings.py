"""What raters said: the rows of the file, the consensus, and one rater beside the rest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat.types import Message
from evaluation.errors import DatasetError
from evaluation.human_ratings import HumanRating, RatedAnswer, consensus, one_against_rest, read_judgements

ROW: dict[str, Any] = {
    "id": "a", "conversation": "c", "system": "reference", "answerability": "ANSWERABLE", "query": "q", "answer": "a",
    "history": [{"role": "user", "content": "before"}, {"role": "assistant", "content": "said"}],
    "context": [{"id": "p", "text": "passage"}],
    "ratings": [{"rater": "1", "faithfulness": 4, "appropriateness": 3, "completeness": 2, "naturalness": 1, "win_rate": 50.0}],
}


def rated(*lowers: int | None) -> RatedAnswer:
    ratings = tuple(HumanRating(str(number), lower, 4, 4, 4, None) for number, lower in enumerate(lowers))
    return RatedAnswer("a", "c", "s", "ANSWERABLE", (), "q", (), "a", ratings)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(**changed: Any) -> Path:
        file = tmp_path / "judgements.jsonl"
        file.write_text(json.dumps({**ROW, **changed}) + "\n")
        return file

    return write


def test_a_row_is_read_whole(written: Callable[..., Path]) -> None:
    (answer,) = read_judgements(written())
    assert answer.history == (Message("user", "before"), Message("assistant", "said"))
    assert answer.ratings == (HumanRating("1", 4, 3, 2, 1, 50.0),)
    assert answer.turn == ("c", 2)
    case = answer.case()
    assert (case.query, case.answer, case.gold, [faq.answer for faq in case.faqs]) == ("q", "a", None, ["passage"])
    assert [(past.query, past.answer) for past in case.history] == [("before", "said")]


def test_a_scale_that_a_rater_left_out_is_none(written: Callable[..., Path]) -> None:
    (answer,) = read_judgements(written(ratings=[{"rater": "1", "faithfulness": 4, "win_rate": 0.0}]))
    assert answer.ratings[0].good() is None
    assert consensus(answer) is None


@pytest.mark.parametrize(("field", "value", "says"), [
    ("query", "", "query"), ("answer", None, "answer"), ("history", "x", "history"),
    ("history", [{"role": "judge", "content": ""}], "role"),
    ("ratings", [{"rater": "1", "faithfulness": 5}], "faithfulness"), ("ratings", [{"rater": "1", "win_rate": 101}], "win_rate"),
    ("ratings", [{"rater": "1"}, {"rater": "1"}], "once"), ("context", [{"id": "a"}], "text"),
])
def test_a_damaged_row_says_file_line_and_field(written: Callable[..., Path], field: str, value: object, says: str) -> None:
    with pytest.raises(DatasetError, match=rf"judgements\.jsonl:1.*{says}"):
        read_judgements(written(**{field: value}))


@pytest.mark.parametrize("text", ["", "\n", "[]\n", "prose\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "judgements.jsonl").write_text(text)
    with pytest.raises(DatasetError, match="judgements"):
        read_judgements(tmp_path / "judgements.jsonl")


@pytest.mark.parametrize(("lowers", "good"), [
    ((4, 3, 1), True), ((4, 2, 1), False), ((4, 1), None), ((3,), True), ((), None), ((4, None, None), True), ((None,), None),
])
def test_the_consensus_is_what_more_than_half_find(lowers: tuple[int | None, ...], good: bool | None) -> None:
    assert consensus(rated(*lowers)) is good


def test_from_where_an_answer_is_good_can_be_set() -> None:
    assert (consensus(rated(4, 3, 3)), consensus(rated(4, 3, 3), good_from=4)) == (True, False)


def test_one_rater_stands_against_the_others_alone_and_not_against_itself() -> None:
    """Without the second rater the others are 4 and 4; without either of these, 4 and 1 tie, which is no word."""
    (row,) = one_against_rest([rated(4, 1, 4)])
    assert (row.rater, row.good, row.rest, row.score) == ("1", False, True, 1)


def test_the_real_file_has_375_answers_of_16_conversations(shared_data: Path) -> None:
    answers = read_judgements(shared_data / "mtrag-human" / "judgements.jsonl")
    assert (len(answers), len({one.conversation for one in answers}), len({one.turn for one in answers})) == (375, 16, 125)
    assert {one.system for one in answers} == {"reference", "gpt-4o", "llama-3.1-405b-instruct"}
    assert {rating.rater for one in answers for rating in one.ratings} == {"46542882", "47200615", "46545976", "46544861", "46373812",
                                                                          "47344984", "46545946"}
    words = [consensus(one) for one in answers]
    assert (words.count(True), words.count(False), words.count(None)) == (304, 67, 4)
    assert len(one_against_rest(answers)) == 883
