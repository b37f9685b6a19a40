"""What a written word may stand for: the keys by which a filter looks it up.

A word is read as it stands, without accents and look-alike letters of other alphabets, with digits and signs for letters undone
(`k1ll`), with letters that were drawn out shortened (`kiiill`), and joined where signs cut it (`bo-mb`). Characters that can't be seen
count as nothing. Accents also stay: in Vietnamese they are what tells two words apart. Leaves out letters spelled out one by one, which
take several words to see, and what is looked for (`filters.py`).
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_CHUNK = 200
"""Characters without white space that are read as one; longer ones are read in pieces."""
LONGEST_JOINED = 40
"""Letters that signs may cut and still be read as one word."""
LOOK_ALIKES = str.maketrans("аеорсухікмтвнѕјԁαεοικρτυνβ", "aeopcyxikmtbhsjdaeoikptuvb") | {ord("đ"): "d", ord("ı"): "i"}
SIGNS = str.maketrans("034578@$!", "oeastbasi")
NO_SIGNS = str.maketrans("", "", "@$!")
PART = re.compile(r"[@$]?[a-z0-9](?:[a-z0-9]|[@$!]+(?=[a-z0-9]))*")
DECIMAL = re.compile(r"\W?\d+\.\d+\W{0,2}")
DRAWN_OUT = re.compile(r"(.)\1{2,}")
ENDING = re.compile(r"[.!?।…][\"')\]»”]*$")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a chunk."""

    text: str
    """As it stands, in lower case."""
    keys: tuple[str, ...]
    """All that it may stand for, itself included; each once."""


def words_of(chunk: str) -> tuple[tuple[Word, ...], bool]:
    """The words of characters without white space, and whether a sentence ends with them."""
    if chunk.isascii() and chunk.isalpha():
        word = chunk.lower()
        return (Word(word, tuple(dict.fromkeys((word, *_shortened(word))))),), False
    seen = chunk.lower() if chunk.isascii() else _visible(chunk)
    seen = seen.replace("'", "").replace("\u2019", "")
    ends = ENDING.search(seen) is not None
    if DECIMAL.fullmatch(seen):  # its digits are no card's, nor a code's
        return (Word(seen, (seen,)),), ends
    parts = PART.findall(seen) if seen.isascii() else list(_parts(seen))
    words = [Word(part, tuple(dict.fromkeys(_keys(part)))) for part in parts]
    joined = "".join(parts)
    if len(parts) > 1 and len(joined) <= LONGEST_JOINED and not joined.isdecimal():
        last = words[-1]
        words[-1] = Word(last.text, tuple(dict.fromkeys((*last.keys, *_keys(joined)))))
    return tuple(words), ends


def _visible(chunk: str) -> str:
    """In one form and lower case, without what can't be seen."""
    one_form = unicodedata.normalize("NFKC", chunk).casefold()
    shown = "".join(letter for letter in one_form if unicodedata.category(letter) not in ("Cf", "Cc", "Co", "Cn"))
    return unicodedata.normalize("NFC", shown)


def _parts(seen: str) -> Iterator[str]:
    """Runs of letters, marks and digits; the signs that stand for letters stay inside them."""
    run = ""
    for n, letter in enumerate(seen):
        if unicodedata.category(letter)[0] in "LMN" or (letter in "@$!" and run and seen[n + 1 : n + 2].isalnum()):
            run += letter
        elif run:
            yield run
            run = ""
    if run:
        yield run


def _keys(part: str) -> Iterator[str]:
    bare = part.translate(NO_SIGNS)
    yield bare
    plain = bare
    if not part.isascii():
        plain = _plain(bare)
        yield plain
    if not plain.isalpha() or bare != part:
        signs = _plain(part).translate(SIGNS)
        for undone in (signs.replace("1", "i"), signs.replace("1", "l")):
            yield undone
            yield from _shortened(undone)
    yield from _shortened(plain)


def _shortened(word: str) -> Iterator[str]:
    if DRAWN_OUT.search(word):
        yield DRAWN_OUT.sub(r"\1", word)
        yield DRAWN_OUT.sub(r"\1\1", word)


def _plain(word: str) -> str:
    """Without accents, and with the Latin letters that others look like."""
    bare = "".join(letter for letter in unicodedata.normalize("NFD", word) if unicodedata.category(letter) != "Mn")
    return bare.translate(LOOK_ALIKES)
