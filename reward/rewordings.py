"""Short answers to customers' questions in words of one's own, right and wrong, written by hand for this project to learn judging from.

A right one says what was asked for and no more, as people do; a changed one says something else than the FAQ in as free words; one that
is beside the question is true and answers something else. All are about the help desk's FAQs (`data/rewordings.jsonl`). The probe set
(`probe.py`) is another, on which nothing is trained. Leaves out which FAQs are shown beside (`evaluation/judged_answers.py`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from reward.errors import JudgeError

REWORDINGS = Path(__file__).parent / "data" / "rewordings.jsonl"
Kind = Literal["right", "changed", "beside"]


@dataclass(frozen=True, slots=True)
class Rewording:
    """One answer."""

    faq: str
    """Id of the FAQ that settles the query."""
    query: str
    answer: str
    kind: Kind

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"expected a kind of {', '.join(get_args(Kind))}, got {self.kind!r}")


def read_rewordings(path: Path = REWORDINGS) -> tuple[Rewording, ...]:
    """The answers of a file, in file order. Raises: JudgeError naming file and line of what can't be used."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise JudgeError(f"{path}: expected a readable file, one JSON object a line: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
                found.append(Rewording(str(row["faq"]), str(row["query"]), str(row["answer"]), row["kind"]))
            except (ValueError, KeyError, TypeError) as error:
                raise JudgeError(f"{path}:{number}: expected faq, query, answer and kind: {error!r}") from error
    return tuple(found)
