"""What people preferred, to learn from: pairs of answers, and single answers called good or bad.

    preferences.jsonl  {"group", "prompt", "context": [...], "chosen", "rejected", "margin"?}
    judged.jsonl       {"group", "prompt", "context": [...], "answer", "good"}

One JSON object a line; further fields are ignored. A `group` (a question, a conversation) never stands on both sides of a split.
`margin` is how much better the chosen answer is: 1 significantly, 2/3 better, 1/3 slightly, 0 negligibly or unsure. Leaves out who said
so and how ratings become pairs (`feedback.py`).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, TypeVar

from reward.errors import PreferenceError

MAX_REPORTED = 10
LARGEST_MARGIN = 1000.0
"""Of a pair; rewards that far apart are of no use, and a longer number is a slip."""
SURROGATE = re.compile(r"[\ud800-\udfff]")
PREFERENCES, JUDGED = "preferences.jsonl", "judged.jsonl"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reward model looks at: it gives one number for it, whatever it is compared with."""

    prompt: str
    context: tuple[str, ...]
    """Texts of the passages that stood in the prompt; () where there were none."""
    text: str


class Grouped(Protocol):
    """What can be split."""

    @property
    def group(self) -> str: ...


G = TypeVar("G", bound=Grouped)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two answers to one prompt over the same passages, somebody preferred the first."""

    group: str
    prompt: str
    context: tuple[str, ...]
    chosen: str
    rejected: str
    margin: float | None = None
    """How much better, from 0; None: nobody said."""

    @property
    def answers(self) -> tuple[Answer, Answer]:
        """The chosen and the rejected one."""
        return Answer(self.prompt, self.context, self.chosen), Answer(self.prompt, self.context, self.rejected)

    @property
    def swapped(self) -> "Preference":
        """The same pair, had it been preferred the other way round."""
        return Preference(self.group, self.prompt, self.context, self.rejected, self.chosen, self.margin)


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that somebody called good or bad, by itself."""

    group: str
    prompt: str
    context: tuple[str, ...]
    answer: str
    good: bool

    @property
    def answers(self) -> tuple[Answer]:
        return (Answer(self.prompt, self.context, self.answer),)


def read_preferences(path: Path) -> tuple[Preference, ...]:
    """The pairs of a file, or of the `preferences.jsonl` in a folder, in file order.

    Raises: PreferenceError naming file, line and field; up to ten bad records together.
    """
    return tuple(_read(path / PREFERENCES if path.is_dir() else path, _preference))


def read_judged(path: Path) -> tuple[Judged, ...]:
    """The judged answers of a file, or of the `judged.jsonl` in a folder. Raises: as `read_preferences`."""
    return tuple(_read(path / JUDGED if path.is_dir() else path, _judged))


def write_preferences(path: Path, pairs: Sequence[Preference]) -> None:
    """A file that `read_preferences` reads back as it was. Raises: PreferenceError when it can't be written."""
    lines = (_line({"group": pair.group, "prompt": pair.prompt, "context": list(pair.context), "chosen": pair.chosen,
                    "rejected": pair.rejected, **({} if pair.margin is None else {"margin": pair.margin})}) for pair in pairs)
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise PreferenceError(f"{path}: can't be written ({error.strerror}); check the path and its permissions") from error


def all_pairs(group: str, prompt: str, context: Sequence[str], ranked: Sequence[str]) -> tuple[Preference, ...]:
    """Each better answer before each worse one, K (K - 1) / 2 pairs of K answers given best first (InstructGPT, section 3.5)."""
    return tuple(Preference(group, prompt, tuple(context), better, worse) for better, worse in combinations(ranked, 2))


def split(items: Sequence[G], share: float, seed: int = 0) -> tuple[tuple[G, ...], tuple[G, ...]]:
    """What stays, and about `share` of the groups held out, by a hash of group and seed: a group falls as it does in any file."""
    held = {group for group in {item.group for item in items} if place(group, seed) < share}
    return tuple(item for item in items if item.group not in held), tuple(item for item in items if item.group in held)


def place(group: str, seed: int) -> float:
    """Of a group in [0, 1), by a hash: the same in any file and on any machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{group}".encode(errors="surrogatepass")).digest()[:8]) / 2**64


def _line(record: Mapping[str, Any]) -> str:
    """As JSON; escaped where a text has half a surrogate pair, which UTF-8 doesn't."""
    line = json.dumps(record, ensure_ascii=False)
    return line if line.isascii() or not SURROGATE.search(line) else json.dumps(record)


def _read(path: Path, record: Callable[[Mapping[str, Any]], R]) -> Iterator[R]:
    errors: list[str] = []
    found = []
    for line, text in _lines(path):
        try:
            found.append(record(_object(text)))
        except ValueError as error:
            errors.append(f"{path}:{line}: {error}")
            if len(errors) == MAX_REPORTED:
                errors.append("… (more not checked)")
                break
    if errors:
        raise PreferenceError("\n".join([*errors, "Nothing was loaded; mend these records and try again."]))
    if not found:
        raise PreferenceError(f"{path}: expected at least one record, got none")
    yield from found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            yield from ((number, text) for number, text in enumerate(file, 1) if text.strip())
    except UnicodeDecodeError as error:
        raise PreferenceError(f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#x}; save the file as UTF-8") from error
    except OSError as error:
        raise PreferenceError(f"{path}: can't be read ({error.strerror}); check the path and its permissions") from error


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected one JSON object, got text that doesn't parse ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"expected one JSON object, got {type(found).__name__}")
    return found


def _preference(record: Mapping[str, Any]) -> Preference:
    pair = Preference(_text(record, "group"), _text(record, "prompt"), _context(record), _text(record, "chosen"), _text(record, "rejected"),
                      _margin(record))
    if pair.chosen == pair.rejected:
        raise ValueError("rejected: expected another answer than the chosen one, got the same; leave ties out")
    return pair


def _margin(record: Mapping[str, Any]) -> float | None:
    found = record.get("margin")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= LARGEST_MARGIN:
        raise ValueError(f"margin: expected a number from 0 to {LARGEST_MARGIN:g}, null or no such field, got {_shown(record, 'margin')}")
    return float(found)


def _judged(record: Mapping[str, Any]) -> Judged:
    if not isinstance(record.get("good"), bool):
        raise ValueError(f"good: expected true or false, got {_shown(record, 'good')}")
    return Judged(_text(record, "group"), _text(record, "prompt"), _context(record), _text(record, "answer"), record["good"])


def _context(record: Mapping[str, Any]) -> tuple[str, ...]:
    found = record.get("context")
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"context: expected a list of texts, [] where there is none, got {_shown(record, 'context')}")
    return tuple(found)


def _text(record: Mapping[str, Any], name: str) -> str:
    found = record.get(name)
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{name}: expected text, got {_shown(record, name)}")
    return found


def _shown(record: Mapping[str, Any], name: str) -> str:
    return repr(record[name])[:60] if name in record else "no such field"
