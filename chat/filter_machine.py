"""Patterns of a word filter, laid out by the words that they are made of, and what each word of a text does to them.

A word is worked out once and kept. Sets of patterns are integers, a bit each, so that whether a word concerns what is open is one look.
Leaves out the walk over a text (`filters.py`), the file of rules (`filter_rules.py`) and what a word may stand for (`filter_words.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from chat.filter_rules import Pattern
from chat.filter_words import Word, words_of

MOST_JOINED = 400
"""Ways of writing a pattern of neighbouring words as one word; patterns with more of them aren't looked for in that form."""
KEPT_CHUNKS = 20_000
"""Pieces of text whose words are remembered at once."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word as the machine sees it."""

    begins: tuple[tuple[int, int], ...]
    """(pattern, 0) for each pattern that may begin with it."""
    goes_on: tuple[tuple[int, int], ...]
    """(pattern, group), later groups first."""
    harmless: frozenset[str]
    keys: frozenset[str]
    digits: str
    letter: str
    opens_next: int
    """Patterns, a bit each, that begin with it and whose second group must follow at once."""
    opens_later: int
    """Those whose second group may come after other words."""
    needs_next: int
    """Patterns of which it may be a group that must follow at once."""
    needs_later: int
    """Those of which it may be a group that other words may come before."""
    openings: tuple[tuple[tuple[int, int], int], ...]
    """Of `begins` those of several groups, each with how many other words may follow."""
    reach: int
    """The most of these."""
    matches: bool
    """By itself it is all of some pattern."""

    @property
    def is_simple(self) -> bool:
        """It does no more than begin patterns, go on with them, and make a sentence harmless."""
        return not (self.digits or self.letter or self.matches)


PLAIN = Token((), (), frozenset(), frozenset(), "", "", 0, 0, 0, 0, (), 0, matches=False)
Chunk = tuple[tuple[Token, ...], bool]
"""The words of characters without white space, and whether a sentence ends with them."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Patterns by the words that they are made of."""

    patterns: tuple[Pattern, ...]
    words: Mapping[str, tuple[tuple[int, int], ...]]
    """Word to (pattern, group), later groups of a pattern first."""
    numbers: tuple[tuple[int, int, int, int], ...]
    """(least digits, most digits, pattern, group)."""
    harmless: frozenset[str]
    following: frozenset[str]
    """Words that undo a match by coming after it."""
    cards: bool
    """Whether card numbers are looked for."""
    gap_after: Mapping[tuple[int, int], int]
    """Other words that may stand after a (pattern, group), at most."""
    read: dict[str, Chunk] = field(default_factory=dict)
    """What was read already, as far as it is kept."""
    simple: dict[str, Token] = field(default_factory=dict)
    """Of that, the words by themselves that only begin patterns or go on with them, or that no pattern holds."""

    def chunk(self, chunk: str) -> Chunk:
        """What characters without white space are."""
        known = self.read.get(chunk)
        if known is None:
            words, ends = words_of(chunk)
            known = tuple(_token(word, self) for word in words), ends
            if len(self.read) >= KEPT_CHUNKS:  # begin anew: else one text of made-up words would make all later ones slow
                self.read.clear()
                self.simple.clear()
            self.read[chunk] = known
            if len(known[0]) == 1 and not known[1] and known[0][0].is_simple:
                self.simple[chunk] = known[0][0]
        return known


def _token(word: Word, machine: Machine) -> Token:
    digits = word.text if word.text.isascii() and word.text.isdecimal() else ""
    hits = [hit for key in word.keys for hit in machine.words.get(key, ())]
    hits += [(pattern, group) for least, most, pattern, group in machine.numbers if digits and least <= len(digits) <= most]
    letter = next((key for key in reversed(word.keys) if len(key) == 1), "") if len(word.text) == 1 else ""
    harmless = machine.harmless.intersection(word.keys)
    if not (hits or digits or letter or harmless or machine.following.intersection(word.keys)):
        return PLAIN
    begins, goes_on = parted(hits)
    openings = tuple((key, machine.gap_after[key]) for key in begins if len(machine.patterns[key[0]].groups) > 1)
    gaps = {key: machine.patterns[key[0]].gaps[key[1]] for key in goes_on}
    return Token(
        begins, goes_on, harmless, frozenset(word.keys), digits, letter,
        _bits(pattern for (pattern, _), gap in openings if not gap), _bits(pattern for (pattern, _), gap in openings if gap),
        _bits(pattern for (pattern, _), gap in gaps.items() if not gap), _bits(pattern for (pattern, _), gap in gaps.items() if gap),
        openings, max((gap for _, gap in openings), default=0), matches=len(openings) < len(begins),
    )


def _bits(numbers: Iterable[int]) -> int:
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def parted(hits: Iterable[tuple[int, int]]) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """First groups of patterns, and later ones, the latest of each pattern first: a word must not be two groups at once."""
    ordered = sorted(set(hits), key=lambda hit: (hit[0], -hit[1]))
    return tuple(hit for hit in ordered if hit[1] == 0), tuple(hit for hit in ordered if hit[1])


def machine_of(patterns: Sequence[Pattern], *, cards: bool) -> Machine:
    every = [*patterns, *(joined for pattern in patterns if (joined := _joined(pattern)) is not None)]
    words: dict[str, list[tuple[int, int]]] = {}
    numbers: list[tuple[int, int, int, int]] = []
    for number, pattern in enumerate(every):
        for group in reversed(range(len(pattern.groups))):
            for word in pattern.groups[group]:
                words.setdefault(word, []).append((number, group))
            if (digits := pattern.digits[group]) is not None:
                numbers.append((*digits, number, group))
    gap_after = {(number, group): gap for number, pattern in enumerate(every) for group, gap in enumerate((*pattern.gaps[1:], 0))}
    harmless, following = (frozenset[str]().union(*(getattr(pattern, name) for pattern in every)) for name in ("harmless", "not_before"))
    return Machine(tuple(every), {word: tuple(hits) for word, hits in words.items()}, tuple(numbers), harmless, following, cards,
                    gap_after)


def _joined(pattern: Pattern) -> Pattern | None:
    """The pattern written as one word (`killmyself`), where its words are neighbours and there are few ways to."""
    ways = 1
    for group in pattern.groups:
        ways *= len(group)
    if len(pattern.groups) < 2 or any(pattern.gaps) or any(pattern.digits) or ways > MOST_JOINED:
        return None
    written = frozenset(word for choice in product(*pattern.groups) if len(word := "".join(choice)) >= 6)
    return Pattern(pattern.category, (written,), (None,), (0,), pattern.harmless, pattern.not_before) if written else None
