"""Texts of users without what tells who they are: marks like [e-mail] stand in its place.

By patterns: e-mail addresses, links that carry a token, phone, card and account numbers and other long numbers, secrets and names that
somebody gives as theirs. A name that is given in one of several texts is taken out of all of them. It knows forms, not meaning: a name
in mid-sentence stays, so a redacted text may be shown to those who may read the log, and isn't anonymous. What looks like a number of a
person but is none (an amount of six digits) goes too. Time is linear in the text. Leaves out who may see it (`service/`).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from chat.card_numbers import CARD, luhn

E_MAIL, LINK, PHONE, CARD_NUMBER, ACCOUNT, NUMBER, SECRET, NAME = (
    "[e-mail]", "[link]", "[phone]", "[card number]", "[account number]", "[number]", "[secret]", "[name]")

LONG_NUMBER = 6
"""Digits from which on a number in one piece is taken out."""
LONG_GROUPS = 9
"""Digits from which on a number in groups is taken out; a date and times of opening have eight."""
SHORT_PHONE = 7
"""Digits from which on one that begins like a phone number is."""
MOST_NAMES = 3
"""Words of a name."""

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))
_LINK = re.compile(r"(?i)\b(?:https?|ftp|wss?)://[^\s<>\"'\])}]+|\bwww\.[^\s<>\"'\])}]+")
_E_MAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_SPELLED_E_MAIL = re.compile(r"(?i)(?<![\w.%+-])[\w.%+-]{1,64} ?[(\[ ]at[)\] ] ?[\w-]{1,63}(?: ?[(\[ ]dot[)\] ] ?[\w-]{2,63}){1,3}\b")
_UUID = re.compile(r"(?i)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_TOKEN = re.compile(r"(?<!\w)(?=\w{0,200}\d)(?=\w{0,200}[^\W\d])\w{20,}(?:[-.]\w{6,})*")
_SAID_SECRET = re.compile(r"(?i)\b(?:password|passwort|passcode|passphrase|pin|otp|cvv2?|cvc|one[- ]time code|security code|api[ -]key)\b"
                          r"(\s{0,3}(?:[:=]|\bis\b:?)\s{0,3})[\"'“”]?([^\s\"'“”]{3,})")
_SECRET_DIGITS = re.compile(r"(?i)\b(?:pin|otp|cvv2?|cvc|passcode|security code)\s{1,3}(\d{3,8})\b")
_IBAN = re.compile(r"(?i)\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_MIXED = re.compile(r"(?<![\w\[-])(?=[A-Za-z-]{1,8}\d)[A-Za-z0-9-]*\d[A-Za-z0-9-]*\b(?!\])")
_DIGITS = re.compile(r"(?<![\w.])(?:\+ ?|\(\+?)?\d(?:[\d ().\-/\u2010-\u2015]{0,30}\d)?(?!\w)")
_RUN = re.compile(r"\d{6,}")
_CLOCK = re.compile(r"\d{1,2}[.:]\d\d\s?[-\u2010-\u2015]\s?\d{1,2}[.:]\d\d")
_DATE = re.compile(r"\d{4}([-./])\d{1,2}\1\d{1,2}|\d{1,2}([-./ ])\d{1,2}\2\d{4}")

_WORD = r"[^\W\d_][\w'’.-]*"
_GIVES_NAME = re.compile(r"(?i)\b(?:my (?:full |first |last |sur)?name(?:'s|’s| is)|the name(?:'s|’s| is)|call me|mera naam|mein name ist|"
                         r"ich heiße|je m'appelle|me llamo|tên tôi là|tôi tên là)(?:\s*:)?\s+")
_MAY_GIVE_NAME = re.compile(r"\b(?:[Ii] am|[Ii]'m|[Ii]’m|I AM|I'M|[Tt]his is|[Ii]ch bin|main)\s+")
_ADDRESSED = re.compile(r"\b(?:[Mm]r|[Mm]rs|[Mm]s|[Mm]iss|[Dd]r|[Pp]rof|MR|MRS|MS|DR|Herr|Frau|Shri|Smt)\.?\s+"
                        r"|\b(?:[Dd]ear|[Rr]egards,|[Ss]incerely,|[Hh]i|[Hh]ello|[Nn]amaste)\s+(?=[A-Z])")
_NAME_WORD = re.compile(_WORD)

_NO_NAME = frozenset(
    "a able about afraid after again all already also always am an and any are as asap asking at aur back be because been blocked "
    "both but by calling can can't cannot card changed correct currently customer dear different do does doesn't don't eligible es "
    "est et everyone expired facing for forgotten from getting going good hai happy have having hello help here hoping how i if in "
    "incorrect interested invalid is isn't ist it it's its just kindly kya later like locked looking lost madam me missing "
    "misspelled misspelt my nahi needed new nicht no not now of ok okay old on one only or our out please printed ready really "
    "regarding required right same saved seeing set shown sir so soon sorry spelled spelt still stolen support sure team thanks "
    "that the their there this to today tomorrow tonight too trying unable und under urgent using very want was what what's when "
    "where which who why will with without working would writing written wrong y yes yet you your".split())
_NO_SURNAME = frozenset("need would should could has had want but".split())


def redact(text: str) -> str:
    """The text with marks in place of what tells who somebody is."""
    return redact_together([text])[0]


def redact_together(texts: Sequence[str]) -> tuple[str, ...]:
    """Several texts of one conversation, each as `redact`; names that one of them gives are taken out of all."""
    plain = [_plain(text) for text in texts]
    hidden = [_without_numbers(text) for text in plain]
    names = {word for text in hidden for name in _names(text) for word in name.split() if len(word.rstrip(".")) > 1}
    return tuple(_without_names(text, names) for text in hidden)


def _plain(text: str) -> str:
    """Without characters that nobody sees and without look-alikes that a pattern misses, such as digits of full width."""
    return unicodedata.normalize("NFKC", text).translate(_INVISIBLE)


def _without_numbers(text: str) -> str:
    """Without all but names; each pattern sees what the ones before have left."""
    steps: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
        (_LINK, _link), (_E_MAIL, lambda _: E_MAIL), (_SPELLED_E_MAIL, lambda _: E_MAIL), (_SAID_SECRET, _secret),
        (_SECRET_DIGITS, lambda found: found[0][: found.start(1) - found.start()] + SECRET),
        (_UUID, lambda _: NUMBER), (_IBAN, _iban), (_DIGITS, _number), (_TOKEN, lambda _: SECRET), (_MIXED, _mixed),
        (_RUN, lambda _: NUMBER))
    for pattern, mark in steps:
        text = pattern.sub(mark, text)
    return text


def _link(found: re.Match[str]) -> str:
    """As it is where it is no more than a host and a short path; else what follows the host is gone, as it may let somebody in."""
    said = found[0].rstrip(".,;:!?")
    after = found[0][len(said):]
    scheme, mark, rest = said.partition("://") if "://" in said else ("", "", said)
    host, _, path = rest.partition("/")
    if not re.search(r"[@?#;=%]", rest) and not any(len(part) >= 16 and re.search(r"\d", part) for part in path.split("/")):
        return found[0]
    host = re.split(r"[?#;]", host.rpartition("@")[2])[0]
    return f"{scheme}{mark}{host}/{LINK}{after}"


def _secret(found: re.Match[str]) -> str:
    said = found[2].rstrip(".,;:!?").casefold()
    if "is" in found[1].casefold() and (said in _NO_NAME or said.endswith(("ing", "ed"))):
        return found[0]
    return found[0][: found.start(2) - found.start()] + SECRET


def _iban(found: re.Match[str]) -> str:
    said = found[0]
    return ACCOUNT if sum(map(str.isdigit, said)) >= LONG_GROUPS and (said.isupper() or " " not in said) else said


def _mixed(found: re.Match[str]) -> str:
    """A customer or account number with letters in it."""
    return ACCOUNT if sum(map(str.isdigit, found[0])) >= LONG_NUMBER else found[0]


def _number(found: re.Match[str]) -> str:
    said = found[0]
    digits = "".join(filter(str.isdigit, said))
    if _CLOCK.fullmatch(said) or _DATE.fullmatch(said):
        return said
    if len(digits) >= 13 and _has_card(digits):
        return CARD_NUMBER
    if said[0] in "+(" or (digits[0] == "0" and len(digits) > len(said) - 6):
        return PHONE if len(digits) >= SHORT_PHONE else said
    if re.fullmatch(r"\d{3}[-. ]\d{4}", said) or re.fullmatch(r"\d{3}[-. ]\d{3}[-. ]\d{4}", said):
        return PHONE
    if any(len(run) >= LONG_NUMBER for run in re.findall(r"\d+", said)) or len(digits) >= LONG_GROUPS:
        return NUMBER
    return said


def _has_card(digits: str) -> bool:
    return any(luhn(digits[begin:end]) for begin in range(len(digits) - 12) for end in range(begin + 13, min(begin + 19, len(digits)) + 1)
               if CARD.fullmatch(digits[begin:end]))


def _names(text: str) -> Iterable[str]:
    """What is given as a name in a text, as it stands there."""
    shouting = text.isupper()
    for pattern, lower in ((_GIVES_NAME, True), (_MAY_GIVE_NAME, False), (_ADDRESSED, False)):
        for found in pattern.finditer(text):
            if name := _name_at(text, found.end(), lower=lower, shouting=shouting):
                yield name


def _name_at(text: str, start: int, *, lower: bool, shouting: bool) -> str:
    """The words from `start` on that can be a name; "" where none is. `lower`: also in small letters."""
    words: list[str] = []
    at = start
    while len(words) < MOST_NAMES and (found := _NAME_WORD.match(text, at)) is not None:
        word = found[0].rstrip("'’.-") if len(found[0]) > 2 else found[0]
        said = word.casefold()
        given = word[0].isupper() and len(word) > 1 and not shouting
        plain = said in _NO_NAME or (words and said in _NO_SURNAME) or (shouting and said.endswith(("ing", "ed")))
        if (plain and not (words and given)) or not (lower or word[0].isupper()):
            break
        words.append(word)
        at = found.start() + len(word)
        gap = "".join(takewhile(str.isspace, text[at : at + 3]))
        if not gap or "\n" in gap:
            break
        at += len(gap)
    return " ".join(words)


def _without_names(text: str, names: set[str]) -> str:
    """Without these words, in whatever letters; a full name is one mark."""
    if not names:
        return text
    one = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?i)(?<![\w\[])(?:{one})(?!\w)(?:[ .]{{1,2}}(?:{one})(?!\w))*", NAME, text)
