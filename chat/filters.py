"""Is it harmful? The port that every filter fills, and the one by words and patterns that needs no model.

`PatternFilter` walks over a text once, word by word, and keeps for each pattern how far it has come: the time is linear in the text
whatever the rules are, and the same walk, fed piece by piece, says of a stream which of its characters can be sent (`Watch`). It knows
words, not meaning: what it lets through isn't shown to be harmless. Leaves out what it looks for (`filter_machine.py`,
`filter_rules.py`, `data/filters.json`), filters by a model (`filter_models.py`) and what is done with a refusal (`guard.py`).
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from chat.card_numbers import CardNumbers
from chat.filter_machine import PLAIN, Machine, Token, machine_of, parted
from chat.filter_rules import MAX_GAP, Rules, echo_patterns, read_rules
from chat.filter_words import LONGEST_CHUNK
from chat.types import Refusal, Where

CHUNK = re.compile(rf"\S{{1,{LONGEST_CHUNK}}}")
SENTENCE = 2
"""Words that the end of a sentence counts for: a pattern of neighbouring words doesn't go past it."""
SPELLED = range(4, 17)
"""How many letters in a row, each a word of its own, are read as one word."""
REACH = MAX_GAP + 1
"""Words within which a pattern goes on, or doesn't."""
SECRETS, PROMPT = "secrets", "prompt_leak"
"""Categories of card numbers, and of answers that repeat our instructions."""


class Filter(Protocol):
    """Refuses what does harm. Raises: FilterError when it can't tell."""

    @property
    def version(self) -> str:
        """Changes with anything that can change what is refused."""

    def check(self, text: str, *, where: Where) -> Refusal | None:
        """Why the text is refused, as a query or as an answer; None: it isn't."""


class PatternFilter:
    """Refuses by rules of words; safe for many at once."""

    def __init__(self, rules: Rules | None = None, *, kept_secret: Sequence[str] = ()) -> None:
        """`kept_secret`: texts that no answer may repeat. Raises: FilterError when the bundled rules can't be read."""
        self.rules = read_rules() if rules is None else rules
        output = (*self.rules.patterns["output"], *echo_patterns(kept_secret, PROMPT))
        self._machines: dict[Where, Machine] = {"input": machine_of(self.rules.patterns["input"], cards=False),
                                                 "output": machine_of(output, cards=True)}

    @property
    def version(self) -> str:
        return f"patterns-{self.rules.version}"

    def check(self, text: str, *, where: Where) -> Refusal | None:
        """Why the text is refused; None: no rule matches."""
        watch = self.watch(where)
        watch.whole(text)
        return watch.refusal

    def watch(self, where: Where) -> "Watch":
        """Reads one text piece by piece."""
        return Watch(self._machines[where], where, self.version)


class Watch:
    """A text on its way: what was refused in it, and how much of it is settled."""

    def __init__(self, machine: Machine, where: Where, version: str) -> None:
        self.refusal: Refusal | None = None
        self._machine, self._where, self._version = machine, where, version
        self._rest, self._rest_at = "", 0
        self._at = 0
        """Number of the current word; ends of sentences count too."""
        self._open_until = 0
        """Number of the last word by which something that is open may go on."""
        self._open: dict[tuple[int, int], tuple[int, int]] = {}
        """(pattern, group) to (number of the word that matched it last, where the match begins)."""
        self._is_whole = False
        """Nobody asks what can be sent, so what words begin may be noted first, and written down only where it matters."""
        self._begun: deque[tuple[int, int, Token]] = deque(maxlen=REACH + 1)
        """Words that begin patterns and aren't in `_open` yet: (number, where it begins, word). Few words go on with what others begin."""
        self._next, self._next_of = 0, 0
        """Patterns that go on with the very next word or not at all, a bit each; and the number of the word before it."""
        self._later, self._before, self._later_until = 0, 0, 0
        """Patterns that may go on within `REACH` words of now, in two parts: the second part is older. And when it becomes the first."""
        self._harmless: set[str] = set()
        self._waiting: list[int] = []
        """Patterns that match unless the next word says otherwise."""
        self._spelled: list[tuple[str, int]] = []
        self._cards = CardNumbers()
        self._in_number = False
        """Whether the word before is a number."""

    def whole(self, text: str) -> None:
        """All of the text at once, as `feed` and `end` read it; where refused words stand isn't told."""
        self._is_whole = True
        simple, calm = self._machine.simple, True
        for said in _chunks(text):
            word = simple.get(said) if calm else None
            if word is PLAIN:
                self._at += 1
                continue
            if word is None:
                self._step(said, 0)
                calm = self._is_calm
            else:
                self._at += 1
                if word.harmless:
                    self._harmless |= word.harmless
                self._advance(word, 0)
                calm = not self._waiting
            if self.refusal is not None:
                return
        self.end()

    def feed(self, text: str) -> int:
        """Characters from the beginning that can be sent: nothing refused begins in them, whatever follows."""
        self._rest += text
        read = 0
        simple = self._machine.simple
        for chunk in CHUNK.finditer(self._rest):
            said, stop = chunk[0], chunk.end()
            if stop == len(self._rest) and len(said) < LONGEST_CHUNK:
                break  # the word may go on
            read = stop
            if simple.get(said) is PLAIN and self._is_calm:
                self._at += 1
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
        now = self._at - bool(self._spelled)  # a letter after a letter has no number of its own
        self._open = {key: (at, begin) for key, (at, begin) in self._open.items() if now <= at + self._machine.gap_after[key]}
        begins += [begin for _, begin in self._open.values()]
        begins += [begin for _, begin in self._spelled[:1]]
        begins += self._cards.begins
        return min(begins)

    def _step(self, chunk: str, begin: int) -> None:
        tokens, ends = self._machine.chunk(chunk)
        for token in tokens:
            self._word(token, begin)
            if self.refusal is not None:
                return
        if ends:
            if self._waiting:  # what must not follow would have to be in the same sentence
                self._refuse(self._waiting[0])
            self._at += SENTENCE
            self._harmless.clear()

    def _word(self, token: Token, begin: int) -> None:
        if self._machine.cards:
            self._number(token.digits, begin)
        if token.matches or self._waiting or (token.letter and self._spelled):
            self._odd_word(token, begin)
            return
        self._at += 1
        if token.harmless:
            self._harmless |= token.harmless
        self._advance(token, begin)
        if self._spelled:
            self._spelled.clear()
        if token.letter:
            self._spelled.append((token.letter, begin))

    @property
    def _is_calm(self) -> bool:
        """Nothing hangs on what kind of word comes next."""
        return not (self._waiting or self._spelled or self._in_number)

    def _number(self, digits: str, begin: int) -> None:
        """Card numbers, which may be several words."""
        if digits and self._cards.next(digits, begin):
            self.refusal = Refusal(self._where, SECRETS, self._version)
        elif self._in_number and not digits:
            self._cards.clear()
        self._in_number = digits != ""

    def _odd_word(self, token: Token, begin: int) -> None:
        """One that is a match by itself, or comes after what may be one, or spells a word with the letters before it."""
        for pattern in self._waiting:
            if self.refusal is None and not token.keys & self._machine.patterns[pattern].not_before:
                self._refuse(pattern)
        self._waiting.clear()
        if not (token.letter and self._spelled):  # letters of a word that is spelled out aren't words between two others
            self._at += 1
        self._harmless |= token.harmless
        self._write_down()  # several letters may have one number
        self._go_on(token.goes_on)
        self._begin(token.begins, begin)
        if token.letter:
            self._spell(token.letter, begin)
        else:
            self._spelled.clear()

    def _advance(self, token: Token, begin: int) -> None:
        """In a whole text, what a word begins is only noted, and what others began is looked at where it may go on with that."""
        if not self._is_whole:
            self._go_on(token.goes_on)
            self._begin(token.begins, begin)
            return
        at = self._at
        if (self._later | self._before) & token.needs_later or (self._next_of == at - 1 and self._next & token.needs_next):
            self._write_down()
            self._go_on(token.goes_on)
        if token.openings:
            self._begun.append((at, begin, token))
            self._opened(token.opens_next, token.opens_later)

    def _go_on(self, goes_on: Iterable[tuple[int, int]]) -> None:
        if self._at <= self._open_until:
            for key in goes_on:
                before = self._open.get((key[0], key[1] - 1))
                if before is not None and before[0] < self._at <= before[0] + self._machine.patterns[key[0]].gaps[key[1]] + 1:
                    self._reach(key, before[1])

    def _begin(self, begins: Iterable[tuple[int, int]], begin: int) -> None:
        for key in begins:
            self._reach(key, begin)

    def _write_down(self) -> None:
        """What words began and may still go on is open."""
        now, opened = self._at, self._open
        for at, begin, token in self._begun:
            if now <= at + token.reach + 1:
                place = at, begin
                for key, gap in token.openings:
                    if now <= at + gap + 1:
                        opened[key] = place
                self._open_until = max(self._open_until, at + token.reach + 1)
        self._begun.clear()

    def _opened(self, next_: int, later: int) -> None:
        """Patterns that the current word leaves open, a bit each."""
        if self._next_of != self._at:
            self._next, self._next_of = 0, self._at
        self._next |= next_
        if later:
            if self._at > self._later_until:
                self._before, self._later, self._later_until = self._later, 0, self._at + REACH
            self._later |= later

    def _reach(self, key: tuple[int, int], begin: int) -> None:
        """A group of a pattern is there; its last one means that the pattern matches."""
        pattern = self._machine.patterns[key[0]]
        gap = self._machine.gap_after[key]
        self._open[key] = (self._at, begin)
        self._open_until = max(self._open_until, self._at + gap + 1)
        if key[1] + 1 < len(pattern.groups):
            if self._is_whole:
                self._opened(*(0, 1 << key[0]) if gap else (1 << key[0], 0))
            return
        if pattern.harmless & self._harmless or self.refusal is not None:
            return
        if pattern.not_before:
            self._waiting.append(key[0])
        else:
            self._refuse(key[0])

    def _spell(self, letter: str, begin: int) -> None:
        """One more letter that stands alone; those before it and this one are read as words, too: `k i l l` is kill."""
        self._spelled.append((letter, begin))
        del self._spelled[: -SPELLED[-1]]
        letters = "".join(one for one, _ in self._spelled)
        for length in range(SPELLED[0], len(letters) + 1):
            if self.refusal is None and (found := self._machine.words.get(letters[-length:])):
                self._at += 1
                begins, goes_on = parted(found)
                self._go_on(goes_on)
                self._begin(begins, self._spelled[-length][1])

    def _refuse(self, pattern: int) -> None:
        self.refusal = Refusal(self._where, self._machine.patterns[pattern].category, self._version)


def _chunks(text: str) -> list[str]:
    """As CHUNK finds them: what stands between white space, too long ones in pieces."""
    chunks = text.split()
    if max(map(len, chunks), default=0) <= LONGEST_CHUNK:
        return chunks
    return [said[start : start + LONGEST_CHUNK] for said in chunks for start in range(0, len(said), LONGEST_CHUNK)]
