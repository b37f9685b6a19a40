"""Greetings, thanks, nods and goodbyes, recognised by words alone, and what to say to them.

Only a message of nothing else counts, so "ok and the late fee?" is a question. Leaves out everything else that asks nothing;
the answerer's threshold is for that.
"""

import re
from dataclasses import dataclass

from chat.llm.wording import words


@dataclass(frozen=True, slots=True)
class Talk:
    """One kind of small talk: the words that make it, those that only go along, and the reply."""

    makers: frozenset[str]
    along: frozenset[str]
    reply: str
    vietnamese_reply: str


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


BYE = Talk(
    makers=_set("bye byee byebye goodbye cya tata alvida biệt"),
    along=_set("good night see you ya later take care have a nice great day tạm"),
    reply="Goodbye, and take care!",
    vietnamese_reply="Tạm biệt bạn, chúc bạn một ngày tốt lành!",
)
THANKS = Talk(
    makers=_set("thanks thank thx tx ty tysm thanku thankyou thnx tnx cheers appreciated dhanyavaad dhanyavad shukriya ơn"),
    along=_set(
        "you u so very much a lot lots ton tons million again for the your ur that this help helping info kind "
        "clear quick reply answer really bahut cảm cám nhiều rất"
    ),
    reply="You're welcome! Is there anything else I can help with?",
    vietnamese_reply="Không có gì ạ! Bạn cần hỏi thêm gì không?",
)
GREETING = Talk(
    makers=_set(
        "hi hii hello helo hallo hey heya hiya yo namaste namaskar namaskaram salaam howdy greetings morning "
        "afternoon evening chào alo"
    ),
    along=_set("good there is anyone anybody team xin how are you doing today"),
    reply="Hello! What would you like to know?",
    vietnamese_reply="Xin chào! Bạn muốn hỏi điều gì ạ?",
)
NOD = Talk(
    makers=_set(
        "ok okay okk okie k kk cool nice great good fine alright alrite right sure yes yeah yep yup ya yea no "
        "nope nah hm hmm hmph oh ooh ah aha wow whoa phew uff ugh gr grr lol lmao rofl haha hahaha hehe hah noted "
        "understood perfect awesome super superb brilliant excellent lovely accha acha achha theek thik thk haan "
        "han haanji ji nahi arre arey sahi samajh done whatever meh yay yolo welp vâng dạ ừ ờ rồi hay tuyệt oke "
        "okê được got sense sec wait ruko"
    ),
    along=_set(
        "it i see makes all very so well then that thats hai h gaya gayi enough fair one a "
        "moment will do now just ek minute bas phir chalo vời quá à thế hiểu"
    ),
    reply="Alright. Ask me whenever you need more.",
    vietnamese_reply="Vâng. Bạn cứ hỏi khi cần nhé.",
)
KINDS = (BYE, THANKS, GREETING, NOD)
"""In the order in which they are answered: "hi, thanks and bye" is a goodbye."""
ANYWHERE = _set(
    "sir madam maam mam bhai bhaiya yaar yar bro dude man beta dear ji friend guys team bot all right and then oh "
    "well god bạn em anh chị ad shop ạ nhé nha"
)
"""Words that may stand in small talk of any kind, and make none."""
MAX_WORDS = 9


def smalltalk_reply(text: str) -> str | None:
    """A fitting reply to a message of nothing but small talk; None when there is more to it."""
    said = [_squeezed(word) for word in words(text)]
    if "?" in text and not any(word in GREETING.makers for word in said):
        return None
    if not said:
        return None if not text.strip() else _reply(NOD, text)
    present = [kind for kind in KINDS if any(word in kind.makers for word in said)]
    known = ANYWHERE.union(*(kind.makers | kind.along for kind in present))
    if not present or len(said) > MAX_WORDS or not known.issuperset(said):
        return None
    return _reply(present[0], text)


def _reply(kind: Talk, text: str) -> str:
    # of the words above, the Vietnamese ones alone are written with accents
    return kind.reply if all(word.isascii() for word in words(text)) else kind.vietnamese_reply


def _squeezed(word: str) -> str:
    """A word without what enthusiasm added: "heyyy" is "hey"."""
    return re.sub(r"(.)\1{2,}", r"\1", word)
