"""The rules of a word filter, read from a file: what is refused, as which category, and what is said in its place.

    {"texts": {category: text}, "sets": {name: "words"},
     "rules": [{"category", "where": "input" | "output" | "both", "patterns": [...], "not"?: "words"}]}

A pattern is groups of words in order: `hack|break ~2 $someone account`. `a|b` is either word, `$name` any word of a set, `#4-8` a number
of so many digits, `~2` up to two other words between, `word?` a group that may be missing, and a last `!a|b` a word that must not follow.
`not` names words that make a sentence harmless when they stand before the end of what matched. There are no regular expressions: what an
owner writes can't take more than linear time. `{contact}` in a text is whom to turn to, where that is set.

Leaves out matching (`filters.py`) and what a written word stands for (`filter_words.py`).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from chat.errors import FilterError
from chat.types import Where

BUNDLED = Path(__file__).parent / "data" / "filters.json"
DEFAULT = "default"
"""Category whose text stands in for those that have none."""
MAX_GROUPS, MAX_GAP = 12, 8
NUMBER = re.compile(r"#(\d)-(\d)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Groups of words in order."""

    category: str
    groups: tuple[frozenset[str], ...]
    digits: tuple[tuple[int, int] | None, ...]
    """For each group, from how many to how many digits a number may have there; None: no number."""
    gaps: tuple[int, ...]
    """Other words that may stand before each group; the first is 0."""
    harmless: frozenset[str]
    """Words that make the sentence harmless when they come before the match ends."""
    not_before: frozenset[str]
    """Words that must not follow at once."""

    @property
    def span(self) -> int:
        """The most words that a match takes."""
        return len(self.groups) + sum(self.gaps)


@dataclass(frozen=True, slots=True)
class Rules:
    """A file of rules."""

    version: str
    """Hash of the file."""
    patterns: Mapping[Where, tuple[Pattern, ...]]
    texts: Mapping[str, str]

    def text(self, category: str, contact: str = "") -> str:
        """What is said in the place of what is refused."""
        return " ".join(self.texts.get(category, self.texts[DEFAULT]).replace("{contact}", contact).split())


def read_rules(path: Path = BUNDLED) -> Rules:
    """The rules of a file. Raises: FilterError that names file, rule and pattern."""
    try:
        raw = path.read_bytes()
        record = json.loads(raw)
    except OSError as error:
        raise FilterError(f"{path}: can't be read ({error.strerror}); check the path and its permissions") from error
    except ValueError as error:
        raise FilterError(f"{path}: expected one JSON object, got text that doesn't parse ({error})") from error
    try:
        return _rules(record, hashlib.sha256(raw).hexdigest()[:12])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise FilterError(f"{path}: {error}; see chat/filter_rules.py for what a file of rules holds") from error


def echo_patterns(texts: Sequence[str], category: str, *, words: int = 8) -> tuple[Pattern, ...]:
    """Patterns for any so many words of these texts in a row: an answer that repeats them gives our instructions away."""
    spoken = [re.findall(r"[^\W_]+", text.replace("'", "").casefold()) for text in texts]
    windows = {tuple(said[n : n + words]) for said in spoken for n in range(len(said) - words + 1)}
    nothing = frozenset[str]()
    return tuple(Pattern(category, tuple(frozenset({word}) for word in window), (None,) * words, (0,) * words, nothing, nothing)
                 for window in sorted(windows))


def _rules(record: Mapping[str, Any], version: str) -> Rules:
    texts, rules = record["texts"], record["rules"]
    if DEFAULT not in texts or not all(isinstance(text, str) and text.strip() for text in texts.values()):
        raise ValueError(f"texts: expected a text for each category, {DEFAULT!r} among them")
    sets = {name: tuple(words.casefold().split()) for name, words in record.get("sets", {}).items()}
    found: dict[Where, list[Pattern]] = {where: [] for where in get_args(Where)}
    for n, rule in enumerate(rules):
        if rule["where"] not in (*found, "both"):
            raise ValueError(f"rules[{n}].where: expected input, output or both, got {rule['where']!r}")
        harmless = frozenset(_named(rule.get("not", "").split(), sets))
        for m, written in enumerate(rule["patterns"]):
            try:
                read = list(_patterns(written, rule["category"], harmless, sets))
            except ValueError as error:
                raise ValueError(f"rules[{n}].patterns[{m}]: {error}, got {written!r}") from error
            for where in found if rule["where"] == "both" else (rule["where"],):
                found[where] += read
    return Rules(version, {where: tuple(patterns) for where, patterns in found.items()}, dict(texts))


def _patterns(written: str, category: str, harmless: frozenset[str], sets: Mapping[str, tuple[str, ...]]) -> Iterator[Pattern]:
    """A written pattern: one for each choice of the groups that may be missing."""
    gap, parts, not_before = 0, list[tuple[int, str]](), frozenset[str]()
    for item in written.casefold().split():
        if not_before:
            raise ValueError("expected `!` in the last place")
        if item.startswith("~"):
            gap = int(item[1:])
        elif item.startswith("!"):
            not_before = frozenset(_named(item[1:].split("|"), sets))
        else:
            parts.append((gap, item))
            gap = 0
    if not parts or len(parts) > MAX_GROUPS or max(gap for gap, _ in parts) > MAX_GAP or parts[0][0]:
        raise ValueError(f"expected 1 to {MAX_GROUPS} groups, the first without `~`, and gaps of up to {MAX_GAP}")
    choices = [(True, False) if item.endswith("?") else (True,) for _, item in parts]
    for taken in product(*choices):
        chosen = [(gap, item.rstrip("?")) for (gap, item), there in zip(parts, taken, strict=True) if there]
        if not chosen:
            raise ValueError("expected a group that can't be missing")
        yield Pattern(category, tuple(frozenset(_named(_words(item), sets)) for _, item in chosen),
                      tuple(_number(item) for _, item in chosen), (0, *(gap for gap, _ in chosen[1:])), harmless, not_before)


def _words(item: str) -> list[str]:
    return [word for word in item.split("|") if not word.startswith("#")]


def _number(item: str) -> tuple[int, int] | None:
    for word in item.split("|"):
        if word.startswith("#"):
            if (found := NUMBER.fullmatch(word)) is None:
                raise ValueError("expected a number as `#4-8`")
            return int(found[1]), int(found[2])
    return None


def _named(words: Sequence[str], sets: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for word in words:
        if not word:
            raise ValueError("expected words between `|`")
        if not word.startswith("$"):
            yield word
        elif word[1:] not in sets:
            raise ValueError(f"expected one of the sets {', '.join(sets) or '(none)'} for {word}")
        else:
            yield from sets[word[1:]]
