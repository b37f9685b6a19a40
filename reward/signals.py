"""What people say of an answer without rating it: asking again, "that's wrong", leaving, thanks.

Weak labels, kept apart from ratings: a signal is a guess about the turn before it, and nothing here makes a verdict of one. Who wants to
merge them with ratings does it by name and with a weight of their own. A question is asked again when it is close to the one before, by
an embedder where there is one, by shared words where not. Phrases are English, Hinglish and Vietnamese. How often each signal
fires, and by mistake, is in docs/results.md. Leaves out the log (`chat/log/`).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

Kind = Literal["asked_again", "said_wrong", "left", "thanked"]
KINDS: tuple[Kind, ...] = ("asked_again", "said_wrong", "left", "thanked")
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to unit vectors, shape (texts, width)."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A turn as a signal is read from it."""

    turn_id: str
    query: str
    at: datetime | None = None
    """UTC, when it was asked; None: not known."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A guess about an answer, from what was done after it."""

    kind: Kind
    turn_id: str
    """Of the answer that it is about."""
    weight: float
    """In (0, 1]: how much it says, beside a rating's 1. Set by judgement, not learned."""
    polarity: Literal[-1, 1]
    """1 speaks for the answer, -1 against it."""


@dataclass(frozen=True, slots=True)
class SignalConfig:
    """When a signal fires, and what it weighs."""

    same_question: float = 0.7
    """Cosine of two queries from which the second asks the first again."""
    same_words: float = 0.5
    """Share of words in common from which it does where nothing is embedded."""
    again_within_s: float = 600.0
    """Seconds after which the same question is a new one."""
    left_after_s: float = 1800.0
    """Seconds without a further turn after which somebody has left."""
    asked_again_weight: float = 0.4
    said_wrong_weight: float = 0.6
    left_weight: float = 0.05
    """Those who got what they came for leave as well."""
    thanked_weight: float = 0.2


def signals(
    conversation: Sequence[Exchange], *, embed: Embed | None = None, now: datetime | None = None, config: SignalConfig | None = None
) -> tuple[Signal, ...]:
    """The signals of one conversation, in the order of the turns that they are about.

    `now` tells whether the last turn's user has left; None: the conversation is over.
    """
    config = config or SignalConfig()
    vectors = embed([turn.query for turn in conversation]) if embed is not None and len(conversation) > 1 else None
    found: list[Signal] = []
    for n in range(1, len(conversation)):
        before, turn = conversation[n - 1], conversation[n]
        if says_wrong(turn.query):
            found.append(Signal("said_wrong", before.turn_id, config.said_wrong_weight, -1))
        elif says_thanks(turn.query):
            found.append(Signal("thanked", before.turn_id, config.thanked_weight, 1))
        if _soon(before, turn, config) and _again(before.query, turn.query, None if vectors is None else vectors[n - 1 : n + 1], config):
            found.append(Signal("asked_again", before.turn_id, config.asked_again_weight, -1))
    if conversation and _is_over(conversation[-1], now, config) and not says_thanks(conversation[-1].query):
        found.append(Signal("left", conversation[-1].turn_id, config.left_weight, -1))
    return tuple(found)


def says_wrong(text: str) -> bool:
    """Whether somebody says that the answer before is wrong or beside the question; "a wrong charge on my bill" isn't about an answer."""
    said = _plain(text)
    return any(pattern.search(said) for pattern in _WRONG)


def says_thanks(text: str) -> bool:
    """Whether somebody thanks; "no thanks" and thanks before a further question count too."""
    return _THANKS.search(_plain(text)) is not None


def is_chat(text: str) -> bool:
    """Whether a text asks nothing: a word by itself, or thanks."""
    return len(_WORD.findall(text)) < 2 or (says_thanks(text) and "?" not in text)


def _soon(before: Exchange, turn: Exchange, config: SignalConfig) -> bool:
    return before.at is None or turn.at is None or (turn.at - before.at).total_seconds() <= config.again_within_s


def _is_over(last: Exchange, now: datetime | None, config: SignalConfig) -> bool:
    return now is None or last.at is None or (now - last.at).total_seconds() >= config.left_after_s


def _again(before: str, query: str, vectors: NDArray[np.float32] | None, config: SignalConfig) -> bool:
    """Thanks said twice, and a sigh, ask nothing."""
    if is_chat(before) or is_chat(query):
        return False
    if vectors is not None:
        return float(vectors[0] @ vectors[1]) >= config.same_question
    one, other = set(_WORD.findall(_plain(before))), set(_WORD.findall(_plain(query)))
    return len(one & other) >= config.same_words * max(1, len(one | other))


def _plain(text: str) -> str:
    return " ".join(normalize("NFC", text).casefold().replace("\u2019", "'").split())


_WORD = re.compile(r"\w+")
_WRONG = tuple(re.compile(pattern) for pattern in (
    # at the beginning of what is said, or of a sentence in it
    r"(?:^|[.!,;] ?|\bno,? |\bnope,? |\bbut |\bsorry,? )(?:that|this|it)(?:'s| is|s| was) (?:\w+ )?"
    r"(?:wrong|incorrect|not (?:right|correct|true|what i (?:asked|meant)|it))\b(?! (?:card|account|bill|amount|number|charge|one)\b)",
    r"\b(?:you(?:'re| are)|ur) (?:wrong|mistaken|not (?:getting|understanding))\b",
    r"\b(?:your|ur|the|that) (?:answer|reply|info|information)(?:'s| is| was|) (?:wrong|incorrect|not (?:right|correct|true))\b",
    r"^wrong(?: answer)?[.!]*$|\bwrong (?:answer|reply|info)\b",
    r"\b(?:that's not|that is not|thats not|this is not|this isn't|that isn't|wasn't) what i (?:asked|meant|wanted to know)\b",
    r"\b(?:didn't|did not|doesn't|does not|don't|not) (?:really )?answer(?:ed|ing|s)? my question\b",
    r"\bi (?:didn't|did not) ask (?:that|about that|for that)\b",
    r"\byou(?:'ve| have|) misunderst(?:oo|an)d\b|\bthat (?:didn't|doesn't|did not|does not) help\b",
    # Hinglish
    r"\b(?:yeh|ye|wo|woh|vo|aap|jawab|answer) (?:\w+ )?(?:galat|sahi nah?i)\b(?! (?:card|amount|charge|transaction|bill|number)\b)",
    r"^(?:nahi,? )?(?:galat|sahi nahi)(?: hai)?(?: yeh| ye)?[.!]*$|\bgalat (?:jawab|bata|bol|answer)",
    r"\b(?:maine|mainne|mene) (?:yeh?|ye|woh?|vo) nah?i (?:pucha|poocha|puchha)\b|\bye(?:h)? nah?i (?:pucha|poocha|puchha)\b",
    # Vietnamese
    r"^(?:không,? )?(?:sai|nhầm)(?: rồi| mà)[.!]*|\b(?:trả lời|câu trả lời|thông tin)(?: \w+)? (?:sai|không đúng|nhầm)\b",
    r"^(?:vậy là |như vậy là |thế là )?không (?:đúng|phải vậy|phải thế)\b(?!.*\?)",
    r"\btôi (?:không|đâu) (?:có )?hỏi (?:cái đó|vậy|thế|điều đó)\b",
))
_THANKS = re.compile(
    r"\b(?:thanks?|thank you|thank u|thankyou|thanku|thx|tysm|ty|cheers|shukriya|shukria|dhanyavaad|dhanyawad|dhanyavad|cảm ơn|cám ơn)\b")
