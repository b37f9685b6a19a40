"""Greetings, thanks and nods, recognised by words alone, and what to say to them.

Only a message that consists of such words counts, so that "ok and the late fee?" is a question. Leaves out everything else
that asks nothing; a language model reads that better than a list.
"""

import re
import unicodedata

GREETING = set("hi hello hey hii hiii hiya yo morning afternoon evening good namaste namaskar salaam howdy greetings there "
               "team sir madam ji bot bhai chào xin bạn em anh chị".split())
THANKS = set("thanks thank you thx ty tysm thanku thankyou cheers appreciate appreciated dhanyavaad dhanyavad shukriya much so very lot "
             "a lots ton tons million cảm ơn cám nhiều for the your help info quick reply".split())
BYE = set("bye goodbye cya see ya later tata alvida night good take care tạm biệt have day nice great one a".split())
NOD = set("ok okay okk k kk cool nice great good fine alright right sure yes yeah yep yup no nope nah hmm hmmm hm oh ah aha wow "
          "lol haha hahaha lmao got it i see understood perfect awesome super noted makes sense accha acha achha theek thik hai "
          "haan ha nahi arre yaar bas sahi well then that thats all fair enough wait sec one moment ek minute ruko done so "
          "vâng dạ được rồi ừ à hay tuyệt".split())

REPLIES = {
    "greeting": ("Hello! What would you like to know?", "Xin chào! Bạn muốn hỏi gì ạ?"),
    "thanks": ("You're welcome! Is there anything else?", "Không có gì ạ! Bạn cần hỏi thêm gì không?"),
    "bye": ("Goodbye, and take care!", "Tạm biệt bạn nhé!"),
    "nod": ("Good. Ask me whenever you need more.", "Vâng. Bạn cứ hỏi khi cần nhé."),
}
MARKERS = {  # a kind needs one of these words; the rest of its words only go along
    "thanks": {"thanks", "thank", "thx", "ty", "tysm", "thanku", "thankyou", "cheers", "appreciate", "appreciated", "dhanyavaad",
               "dhanyavad", "shukriya", "cảm", "cám"},
    "bye": {"bye", "goodbye", "cya", "tata", "alvida", "later", "night", "biệt", "care", "day"},
    "greeting": {"hi", "hello", "hey", "hii", "hiii", "hiya", "yo", "morning", "afternoon", "evening", "namaste", "namaskar", "salaam",
                 "howdy", "greetings", "chào"},
}
MAX_WORDS = 9
VIETNAMESE = re.compile(r"[ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽềếểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]", re.IGNORECASE)


def smalltalk_reply(text: str) -> str | None:
    """A fitting reply to a message of nothing but small talk; None when there is more to it."""
    said = words(text)
    if not said:
        return None if any(c.isalnum() for c in text) or "?" in text else reply("nod", text)
    if len(said) > MAX_WORDS or not set(said) <= GREETING | THANKS | BYE | NOD:
        return None
    return reply(next((kind for kind, markers in MARKERS.items() if markers & set(said)), "nod"), text)


def reply(kind: str, text: str) -> str:
    """The fixed reply of a kind, in the language of the text."""
    return REPLIES[kind][is_vietnamese(text)]


def is_vietnamese(text: str) -> bool:
    """Whether it has letters that only Vietnamese has, or its greeting, which has none."""
    return VIETNAMESE.search(unicodedata.normalize("NFC", text)) is not None or "chào" in words(text)


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation and emoji."""
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower().replace("'", "").replace("’", ""))
