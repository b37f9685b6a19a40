"""What an answer claims: its sentences without citations, courtesies, lead-ins, questions and refusals. Pure functions.

Leaves out comparing claims with FAQs (`support.py`).
"""

import re
from dataclasses import dataclass

from chat.llm.wording import sentences

CITATION = re.compile(r"\s*\[[^\[\]\n]{1,400}\]")
COURTESY = re.compile(
    r"^(?:sure|certainly|of course|absolutely|great question|happy to help|hello|hi|hey|thanks?(?: you)?(?: for \w+)*|good question|"
    r"(?:i )?hope (?:this|that|it) helps|(?:please )?(?:let me know|feel free|ask)\b[^.!?]{0,80}|you(?:'re| are) welcome|goodbye|alright|"
    r"is there anything else[^.!?]{0,60}|what would you like to know|(?:and )?take care|yes,? certainly|no problem|anything else)"
    r"[\s,.!?]*$", re.IGNORECASE)
"""A sentence that claims nothing."""
LEAD_IN = re.compile(r"^(?:sure|certainly|of course|absolutely|hello|hi|well|ok(?:ay)?|yes, certainly|in short|basically|"
                     r"(?:as per|according to|from|based on) (?:the|our) (?:faqs?|information|documents?)[^,:]{0,40})\s*[,:!–-]\s*",
                     re.IGNORECASE)
REFUSAL = re.compile(
    r"\b(?:i|we) (?:don'?t|do not|didn'?t|did not) (?:know|have (?:that|this|the|any|enough|specific|such)?\s*(?:\w+ )?"
    r"(?:information|answer|details))|"
    r"\b(?:can(?:'|no)t|unable to|could(?:n't| not)) (?:answer|help|find)\b|\bno information\b|"
    r"\b(?:faqs?|documents?|context|passages?|information|text|article)\b[^.]{0,40} (?:do(?:es)?n'?t|do(?:es)? not) "
    r"(?:say|mention|include|contain|provide|specify|state|answer|cover)|\bnot (?:mentioned|provided|specified|stated) in\b|"
    r"jaank?ari nahi|\bnahi pata\b|pata nahi|không (?:tìm thấy|biết)", re.IGNORECASE)
HEDGE = re.compile(r"\b(?:i think|i believe|i guess|probably|perhaps|maybe|might be|not (?:entirely |quite )?sure|as far as i know|"
                   r"possibly|shayad)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, taken apart."""

    claims: tuple[str, ...]
    """Sentences that claim something: without citations, courtesies, lead-ins, questions and refusals."""
    refuses: bool
    """It says that it doesn't know."""
    hedged: bool


def taken_apart(answer: str) -> Said:
    """What an answer claims, and whether it says that it doesn't know or isn't sure."""
    found, refuses = [], False
    for sentence in sentences(CITATION.sub("", answer)):
        for part in re.split(r"(?<=[!])\s+", sentence):
            bare = LEAD_IN.sub("", part.strip()).strip(" -*•\t")
            if REFUSAL.search(bare):
                refuses = True
            elif bare and not bare.endswith("?") and not COURTESY.match(bare) and any(c.isalnum() for c in bare):
                found.append(bare)
    return Said(tuple(found), refuses, HEDGE.search(answer) is not None)
