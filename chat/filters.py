"""Is it harmful? The port that every filter fills, and the one by words and patterns that needs no model.

`PatternFilter` walks over a text once, word by word, and keeps for each pattern how far it has come: the time is linear in the text
whatever the rules are, and the same walk, fed piece by piece, says of a stream which of its characters can be sent (`Watch`). It knows
words, not meaning: what it lets through isn't shown to be harmless. Leaves out what it looks for (`filter_rules.py`,
`data/filters.json`), filters by a model (`filter_models.py`) and what is done with a refusal (`guard.py`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Protocol

from chat.card_numbers import CardNumbers
from chat.filter_rules import Pattern, Rules, echo_patterns, read_rules
from chat.filter_words import LONGEST_CHUNK, Word, words_of
from chat.types import Refusal, Where

CHUNK = re.compile(rf"\S{{1,{LONGEST_CHUNK}}}")
SENTENCE = 2
"""Words that the end of a sentence counts for: a pattern of neighbouring words doesn't go past it."""
SPELLED = range(4, 17)
"""How many letters in a row, each a word of its own, are read as one word."""
MOST_JOINED = 400
"""Ways of writing a pattern of neighbouring words as one word; patterns with more of them aren't looked for in that form."""
KEPT_CHUNKS = 20_000
SECRETS, PROMPT = "secrets", "prompt_leak"
"""Categories of card numbers, and of answers that repeat our instructions."""


class Filter(Protocol):
    """Refuses what does harm. Raises: FilterError when it can't tell."""

    @property
    def version(self) -> str:
        """Changes with anything that can change what is refused."""

    def check(self, text: str, *, where: Where) -> Refusal | None:
        """Why the text is refused, as a query or as an answer; None: it isn't."""


@dataclass(frozen=True, slots=True)
class _Machine:
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
    read: dict[str, "_Chunk"] = field(default_factory=dict)
    """What was read already, as far as it is kept."""
    plain: set[str] = field(default_factory=set)
    """Of that, the words that no pattern holds."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A word as the machine sees it."""

    begins: tuple[tuple[int, int], ...]
    """(pattern, 0) for each pattern that may begin with it."""
    goes_on: tuple[tuple[int, int], ...]
    """(pattern, group), later groups first."""
    harmless: frozenset[str]
    keys: frozenset[str]
    digits: str
    letter: str


_PLAIN = _Token((), (), frozenset(), frozenset(), "", "")
_Chunk = tuple[tuple[_Token, ...], bool]
_PLAIN_CHUNK: _Chunk = ((_PLAIN,), False)


class PatternFilter:
    """Refuses by rules of words; safe for many at once."""

    def __init__(self, rules: Rules | None = None, *, kept_secret: Sequence[str] = ()) -> None:
        """`kept_secret`: texts that no answer may repeat. Raises: FilterError when the bundled rules can't be read."""
        self.rules = read_rules() if rules is None else rules
        output = (*self.rules.patterns["output"], *echo_patterns(kept_secret, PROMPT))
        self._machines: dict[Where, _Machine] = {"input": _machine(self.rules.patterns["input"], cards=False),
                                                 "output": _machine(output, cards=True)}

    @property
    def version(self) -> str:
        return f"patterns-{self.rules.version}"

    def check(self, text: str, *, where: Where) -> Refusal | None:
        """Why the text is refused; None: no rule matches."""
        watch = self.watch(where)
        watch.feed(text)
        watch.end()
        return watch.refusal

    def watch(self, where: Where) -> "Watch":
        """Reads one text piece by piece."""
        return Watch(self._machines[where], where, self.version)


class Watch:
    """A text on its way: what was refused in it, and how much of it is settled."""

    def __init__(self, machine: _Machine, where: Where, version: str) -> None:
        self.refusal: Refusal | None = None
        self._machine, self._where, self._version = machine, where, version
        self._rest, self._rest_at = "", 0
        self._at = 0
        """Number of the current word; ends of sentences count too."""
        self._open_until = 0
        """Number of the last word by which something that is open may go on."""
        self._open: dict[tuple[int, int], tuple[int, int]] = {}
        """(pattern, group) to (number of the word that matched it last, where the match begins)."""
        self._harmless: set[str] = set()
        self._waiting: list[int] = []
        """Patterns that match unless the next word says otherwise."""
        self._spelled: list[tuple[str, int]] = []
        self._cards = CardNumbers()

    def feed(self, text: str) -> int:
        """Characters from the beginning that can be sent: nothing refused begins in them, whatever follows."""
        self._rest += text
        read = 0
        plain = self._machine.plain
        for chunk in CHUNK.finditer(self._rest):
            said, stop = chunk[0], chunk.end()
            if stop == len(self._rest) and len(said) < LONGEST_CHUNK:
                break  # the word may go on
            read = stop
            if said in plain and not self._waiting and not self._spelled:
                self._at += 1
                self._cards.clear()
                continue
            self._step(said, self._rest_at + chunk.start())
            if self.refusal is not None:
                return 0
        self._rest, self._rest_at = self._rest[read:], self._rest_at + read
        return self._settled()

    def end(self) -> None:
        """Nothing follows."""
        if self.refusal is None and self._rest.strip():
            self._step(self._rest.strip(), self._rest_at)
        if self.refusal is None and self._waiting:
            self._refuse(self._waiting[0])

    def _settled(self) -> int:
        begins = [self._rest_at + len(self._rest) - len(self._rest.lstrip())]
        self._open = {key: (at, begin) for key, (at, begin) in self._open.items() if self._at <= at + self._gap_after(key)}
        begins += [begin for _, begin in self._open.values()]
        begins += [begin for _, begin in self._spelled[:1]]
        begins += self._cards.begins
        return min(begins)

    def _step(self, chunk: str, begin: int) -> None:
        tokens, ends = self._read(chunk)
        for token in tokens:
            self._word(token, begin)
            if self.refusal is not None:
                return
        if ends:
            if self._waiting:  # what must not follow would have to be in the same sentence
                self._refuse(self._waiting[0])
            self._at += SENTENCE
            self._harmless.clear()

    def _word(self, token: _Token, begin: int) -> None:
        if self._machine.cards and self._cards.next(token.digits, begin):
            self.refusal = Refusal(self._where, SECRETS, self._version)
        for pattern in self._waiting:
            if self.refusal is None and not token.keys & self._machine.patterns[pattern].not_before:
                self._refuse(pattern)
        self._waiting.clear()
        if not (token.letter and self._spelled):  # letters of a word that is spelled out aren't words between two others
            self._at += 1
        self._harmless |= token.harmless
        self._advance(token.begins, token.goes_on, begin)
        if token.letter:
            self._spell(token.letter, begin)
        else:
            self._spelled.clear()

    def _advance(self, begins: Iterable[tuple[int, int]], goes_on: Iterable[tuple[int, int]], begin: int) -> None:
        if self._at <= self._open_until:
            for key in goes_on:
                before = self._open.get((key[0], key[1] - 1))
                if before is not None and before[0] < self._at <= before[0] + self._machine.patterns[key[0]].gaps[key[1]] + 1:
                    self._reach(key, before[1])
        for key in begins:
            self._reach(key, begin)

    def _reach(self, key: tuple[int, int], begin: int) -> None:
        """A group of a pattern is there; its last one means that the pattern matches."""
        pattern = self._machine.patterns[key[0]]
        self._open[key] = (self._at, begin)
        self._open_until = max(self._open_until, self._at + self._gap_after(key) + 1)
        if key[1] + 1 < len(pattern.groups) or pattern.harmless & self._harmless or self.refusal is not None:
            return
        if pattern.not_before:
            self._waiting.append(key[0])
        else:
            self._refuse(key[0])

    def _gap_after(self, key: tuple[int, int]) -> int:
        gaps = self._machine.patterns[key[0]].gaps
        return gaps[key[1] + 1] if key[1] + 1 < len(gaps) else 0

    def _spell(self, letter: str, begin: int) -> None:
        """One more letter that stands alone; those before it and this one are read as words, too: `k i l l` is kill."""
        self._spelled.append((letter, begin))
        del self._spelled[: -SPELLED[-1]]
        letters = "".join(one for one, _ in self._spelled)
        for length in range(SPELLED[0], len(letters) + 1):
            if self.refusal is None and (found := self._machine.words.get(letters[-length:])):
                self._at += 1
                begins, goes_on = _parted(found)
                self._advance(begins, goes_on, self._spelled[-length][1])

    def _refuse(self, pattern: int) -> None:
        self.refusal = Refusal(self._where, self._machine.patterns[pattern].category, self._version)

    def _read(self, chunk: str) -> _Chunk:
        machine = self._machine
        known = machine.read.get(chunk)
        if known is None:
            words, ends = words_of(chunk)
            known = tuple(_token(word, machine) for word in words), ends
            if len(machine.read) < KEPT_CHUNKS:
                machine.read[chunk] = known
                if known == _PLAIN_CHUNK:
                    machine.plain.add(chunk)
        return known


def _token(word: Word, machine: _Machine) -> _Token:
    digits = word.text if word.text.isascii() and word.text.isdecimal() else ""
    hits = [hit for key in word.keys for hit in machine.words.get(key, ())]
    hits += [(pattern, group) for least, most, pattern, group in machine.numbers if digits and least <= len(digits) <= most]
    letter = next((key for key in reversed(word.keys) if len(key) == 1), "") if len(word.text) == 1 else ""
    harmless = machine.harmless.intersection(word.keys)
    if not (hits or digits or letter or harmless or machine.following.intersection(word.keys)):
        return _PLAIN
    return _Token(*_parted(hits), harmless, frozenset(word.keys), digits, letter)


def _parted(hits: Iterable[tuple[int, int]]) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """First groups of patterns, and later ones, the latest of each pattern first: a word must not be two groups at once."""
    ordered = sorted(set(hits), key=lambda hit: (hit[0], -hit[1]))
    return tuple(hit for hit in ordered if hit[1] == 0), tuple(hit for hit in ordered if hit[1])


def _machine(patterns: Sequence[Pattern], *, cards: bool) -> _Machine:
    every = [*patterns, *(joined for pattern in patterns if (joined := _joined(pattern)) is not None)]
    words: dict[str, list[tuple[int, int]]] = {}
    numbers: list[tuple[int, int, int, int]] = []
    for number, pattern in enumerate(every):
        for group in reversed(range(len(pattern.groups))):
            for word in pattern.groups[group]:
                words.setdefault(word, []).append((number, group))
            if (digits := pattern.digits[group]) is not None:
                numbers.append((*digits, number, group))
    harmless, following = (frozenset[str]().union(*(getattr(pattern, name) for pattern in every)) for name in ("harmless", "not_before"))
    return _Machine(tuple(every), {word: tuple(hits) for word, hits in words.items()}, tuple(numbers), harmless, following, cards)


def _joined(pattern: Pattern) -> Pattern | None:
    """The pattern written as one word (`killmyself`), where its words are neighbours and there are few ways to."""
    ways = 1
    for group in pattern.groups:
        ways *= len(group)
    if len(pattern.groups) < 2 or any(pattern.gaps) or any(pattern.digits) or ways > MOST_JOINED:
        return None
    written = frozenset(word for choice in product(*pattern.groups) if len(word := "".join(choice)) >= 6)
    return Pattern(pattern.category, (written,), (None,), (0,), pattern.harmless, pattern.not_before) if written else None
