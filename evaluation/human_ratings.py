"""Answers that people rated: the rows of `mtrag-human`, the raters' consensus, and how well one rater agrees with the rest.

A rater finds an answer Good when it is faithful and appropriate: both at or above `GOOD_FROM` on the set's 1-4 scale. The consensus
is what more than half of an answer's raters find; a tie has none, and neither has a rater who left one of the two out. Completeness,
naturalness and the win rate are read and take no part. One rater against the consensus of the others is what a judge is held
against; no strict bound, since fewer raters make a noisier consensus. Leaves out the statistics (`reward/agreement.py`, `ranks.py`) and
judging. Source: Katsis et al. 2025, MTRAG (arXiv 2501.03468), human evaluation.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat.types import Message, PastTurn
from evaluation.errors import DatasetError
from kb.types import Faq
from reward.judge import Case

GOOD_FROM = 3
"""The upper half of 1-4: mostly or fully faithful, and mostly or fully appropriate."""
SCALE = (1, 2, 3, 4)
SCALES = ("faithfulness", "appropriateness", "completeness", "naturalness")


@dataclass(frozen=True, slots=True)
class HumanRating:
    """What one rater said about one answer, 1-4 each, 4 is best; None: left out."""

    rater: str
    faithfulness: int | None
    appropriateness: int | None
    completeness: int | None
    naturalness: int | None
    win_rate: float | None
    """Percent of the other systems' answers to the turn that this one is better than; a tie counts half."""

    def good(self, good_from: int = GOOD_FROM) -> bool | None:
        """Faithful and appropriate; None where either was left out."""
        lower = self.lower
        return None if lower is None else lower >= good_from

    @property
    def lower(self) -> int | None:
        """The lower of faithfulness and appropriateness: what `good` cuts."""
        both = (self.faithfulness, self.appropriateness)
        return None if both[0] is None or both[1] is None else min(both[0], both[1])


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """An answer of one system to one turn, with what it was given and what its raters said."""

    id: str
    conversation: str
    """The unit of every split and every resampling."""
    system: str
    """`reference` is the answer that people wrote for the turn."""
    answerability: str
    """`ANSWERABLE`, `PARTIAL`, `UNANSWERABLE` or `CONVERSATIONAL`."""
    history: tuple[Message, ...]
    """All that was said before, oldest first."""
    query: str
    passages: tuple[Faq, ...]
    """What was found for the turn; their questions are empty."""
    answer: str
    ratings: tuple[HumanRating, ...]

    @property
    def turn(self) -> tuple[str, int]:
        """The turn that it answers: the same for every system."""
        return self.conversation, len(self.history)

    def case(self) -> Case:
        """As a judge sees it: all that was said before, all passages, and no gold."""
        said = self.history
        past = tuple(PastTurn(asked.content, answered.content) for asked, answered in zip(said[::2], said[1::2], strict=False))
        return Case(self.query, past, self.passages, self.answer, used=(), found=self.passages)


def read_judgements(path: Path) -> tuple[RatedAnswer, ...]:
    """The rated answers of a `judgements.jsonl`, in file order.

    Raises: DatasetError naming file, line and field of what can't be used.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: expected a readable file of rated answers, one JSON object a line: {error}") from error
    answers = tuple(_answer(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
    if not answers:
        raise DatasetError(f"{path}: expected rated answers, one JSON object a line, got none")
    return answers


def consensus(answer: RatedAnswer, *, good_from: int = GOOD_FROM, without: str | None = None) -> bool | None:
    """What more than half of its raters find, one of them left out if named; None: a tie, or nobody to ask."""
    found = [good for one in answer.ratings if one.rater != without and (good := one.good(good_from)) is not None]
    votes = 2 * sum(found) - len(found)
    return None if votes == 0 else votes > 0


@dataclass(frozen=True, slots=True)
class OneAgainstRest:
    """One rater's word on an answer beside the consensus of its other raters."""

    number: int
    """Of the answer, in the order they were given."""
    conversation: str
    rater: str
    score: int
    """The lower of the rater's faithfulness and appropriateness, 1-4."""
    good: bool
    rest: bool


def one_against_rest(answers: Sequence[RatedAnswer], good_from: int = GOOD_FROM) -> tuple[OneAgainstRest, ...]:
    """Every rater of every answer against the other raters of it. Rows without a word of one side are left out."""
    return tuple(row for number, answer in enumerate(answers) for row in _against_rest(number, answer, good_from))


def _against_rest(number: int, answer: RatedAnswer, good_from: int) -> Iterator[OneAgainstRest]:
    for one in answer.ratings:
        good, rest = one.good(good_from), consensus(answer, good_from=good_from, without=one.rater)
        if one.lower is not None and good is not None and rest is not None:
            yield OneAgainstRest(number, answer.conversation, one.rater, one.lower, good, rest)


def _answer(where: str, line: str) -> RatedAnswer:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{where}: expected a JSON object, got what can't be parsed: {error}") from error
    if not isinstance(row, dict):
        raise DatasetError(f"{where}: expected a JSON object, got {type(row).__name__}")
    history = tuple(_message(f"{where}: history[{n}]", one) for n, one in enumerate(_rows(where, row, "history")))
    passages = tuple(_passage(f"{where}: context[{n}]", one) for n, one in enumerate(_rows(where, row, "context")))
    ratings = tuple(_rating(f"{where}: ratings[{n}]", one) for n, one in enumerate(_rows(where, row, "ratings")))
    if len({one.rater for one in ratings}) < len(ratings):
        raise DatasetError(f"{where}: ratings: expected each rater once, got {', '.join(one.rater for one in ratings)}")
    return RatedAnswer(_text(where, row, "id"), _text(where, row, "conversation"), _text(where, row, "system"),
                       _text(where, row, "answerability"), history, _text(where, row, "query"), passages,
                       _text(where, row, "answer", blank=True), ratings)


def _message(where: str, row: Mapping[str, Any]) -> Message:
    role = row.get("role")
    if role != "user" and role != "assistant":
        raise DatasetError(f"{where}.role: expected user or assistant, got {role!r}")
    return Message(role, _text(where, row, "content", blank=True))


def _passage(where: str, row: Mapping[str, Any]) -> Faq:
    return Faq(_text(where, row, "id"), "", _text(where, row, "text"))


def _rating(where: str, row: Mapping[str, Any]) -> HumanRating:
    for name in SCALES:
        if row.get(name) is not None and (isinstance(row[name], bool) or row[name] not in SCALE):
            raise DatasetError(f"{where}.{name}: expected 1, 2, 3 or 4, or no such field, got {row[name]!r}")
    win_rate = row.get("win_rate")
    if win_rate is not None and (isinstance(win_rate, bool) or not isinstance(win_rate, int | float) or not 0 <= win_rate <= 100):
        raise DatasetError(f"{where}.win_rate: expected 0..100, or no such field, got {win_rate!r}")
    faithful, appropriate, complete, natural = (row.get(name) for name in SCALES)
    return HumanRating(_text(where, row, "rater"), faithful, appropriate, complete, natural, None if win_rate is None else float(win_rate))


def _rows(where: str, row: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = row.get(name)
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise DatasetError(f"{where}: {name}: expected a list of JSON objects, got {str(rows)[:60]}")
    return rows


def _text(where: str, row: Mapping[str, Any], name: str, *, blank: bool = False) -> str:
    text = row.get(name)
    if not isinstance(text, str) or not (blank or text.strip()):
        raise DatasetError(f"{where}: {name}: expected text, got {str(text)[:60]!r}")
    return text
