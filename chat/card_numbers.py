"""Full card numbers in a row of words: of an issuer's range and length, and with the check digit that belongs to them.

One number in ten of that form passes by chance. Leaves out what is done about it (`filters.py`).
Source: ISO/IEC 7812-1 (Luhn's check digit), the networks' published ranges.
"""

import re

DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
"""Digit sums of twice each digit."""
SHORTEST, LONGEST = 13, 19
"""Digits of a card number."""
CARD = re.compile(r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
                  r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|64[4-9]\d|65\d\d|60\d\d|81\d\d|82\d\d|508\d|35[2-8]\d)\d{12}")
SHAPES = re.compile(r"\d+|(?:\d{4} ){3}\d{1,4}(?: \d{3})?|\d{4} \d{6} \d{4,5}|(?:\d ){12,18}\d")
"""How people write one: in one piece, in fours, as American Express and Diners print it, or digit by digit."""


class CardNumbers:
    """Looks for card numbers among numbers that stand side by side."""

    def __init__(self) -> None:
        self._run: list[tuple[str, int]] = []

    @property
    def begins(self) -> tuple[int, ...]:
        """Where the numbers begin that may still become a card's; () when there are none."""
        return (self._run[0][1],) if self._run else ()

    def next(self, digits: str, begin: int) -> bool:
        """Whether a card number ends here; `digits` is "" for a word that isn't a number."""
        if not digits or len(digits) > LONGEST:
            self._run.clear()
            return False
        self._run.append((digits, begin))
        total = sum(len(piece) for piece, _ in self._run)
        while total > LONGEST:
            total -= len(self._run.pop(0)[0])
        if total < SHORTEST:
            return False
        pieces = [piece for piece, _ in self._run]
        joined, start = "".join(pieces), 0
        for first, piece in enumerate(pieces):
            if CARD.fullmatch(joined, start) and SHAPES.fullmatch(" ".join(pieces[first:])) and luhn(joined[start:]):
                return True
            start += len(piece)
        return False

    def clear(self) -> None:
        """A word that isn't a number came."""
        self._run.clear()


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it."""
    plain, doubled = digits[::-2], digits[-2::-2]
    return (sum(map(int, plain)) + sum(DOUBLED[int(digit)] for digit in doubled)) % 10 == 0
