"""What the words of a message tell without a model: its language, whether it asks, leans on what was said before, or asks twice.

English, romanised Hindi mixed with English, and Vietnamese. Leaves out greetings and thanks (`smalltalk.py`) and meaning
(the encoder's).
"""

import math
import re
import unicodedata


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


POINTING = _word_set(
    "it its thats that this these those them they their he she him his her there then one ones same both either such so "
    "yeh ye yah wo woh vo uska uski uske usko uspe usme iska iski iske isko ispe isme unka inka wahi aisa waisa usse isse tab "
    "nó đó đấy này kia vậy thế"
)
"""Words that stand for something said before."""
ASKING = _word_set(
    "what whats wat which who whom whose when where why y how hw hows can could will would shall should may might is are am was "
    "were do does did has have any kya kab kitna kitni kitne kaise kaun kaunsa kahan kaha kyu kyun kyon konsa kidhar milega "
    "chalega hoga gì nào sao bao đâu ai mấy không"
)
NAMING_NOTHING = POINTING | ASKING | _word_set(
    "a an the i im ive you u ur your my me we us our be been done shall must had having get gets got go goes going to of in "
    "on at by for from with as about into over after before up out off not no nt n dont doesnt cant wont and or but if than "
    "here much many long some all every each other another too also even just only still yet again now please pls plz ok "
    "okay hi hello sir madam yes yeah ya na nahi haan hai h hain ho tha thi the ka ki ke ko se me mein main mera meri mere "
    "mujhe ap aap aapka tum tumhara hum in bhi hi to toh aur par pe kar karu karo karna karke koi kuch ab abhi tak liye "
    "wala wali wale jo agar phir fir bas sab raha rahi rahe gaya gayi gaye diya hua hui hota hoti hote sakta sakti sakte "
    "chahiye ek do "
    "là có được cho của với ở và thì mà tôi mình em anh chị bạn ạ còn hay nếu khi"
)
"""Words that name no thing: what is left of a question tells what it is about."""
LEANS_BELOW = 7.0
"""Words that name something, plus a third of all words, less 2 for a word that points: at this many a message half leans on
what was said before. Chosen with the constants of `relevance.py`."""
LEANS_STEEPNESS = 1.0
STEM_LENGTH = 5
"""Letters by which words are compared: "transferred" and "transfers" are one."""
FEWEST_NAMED = 2
"""Words that name something, which each half of a double question has at least."""
ONLY_VIETNAMESE = re.compile("[ăđơưạảấầẩẫậắằẳẵặẹẻẽềếểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]")
SENTENCE_END = re.compile(r"(?<=[.!?…])(?<!\b[A-Za-z]\.)(?<!\b(?:Rs|No|Mr|Dr|vs)\.)\s+(?=[\"'“(\[₹\w])|\n+")
JOINTS = re.compile(r"[?;]\s+|,?\s+(?:and|also|plus|aur|và)\s+", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; "don't" is `dont`."""
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower().replace("'", "").replace("’", ""))


def named(text: str) -> frozenset[str]:
    """What a text names, as the beginnings of its words, accents apart."""
    return frozenset(_plain(word)[:STEM_LENGTH] for word in words(text) if len(word) > 1 and word not in NAMING_NOTHING)


def leaning(text: str) -> float:
    """How much a message can only be understood from what was said before, in (0, 1): short, naming little, pointing."""
    said = words(text)
    naming = sum(word not in NAMING_NOTHING for word in said)
    points = any(word in POINTING for word in said)
    return 1 / (1 + math.exp(min(50.0, (naming + len(said) / 3 - 2 * points - LEANS_BELOW) / LEANS_STEEPNESS)))


def asks(text: str) -> bool:
    """Whether a message has a question mark or a question's word."""
    return "?" in text or any(word in ASKING for word in words(text))


def two_questions(text: str) -> tuple[str, str] | None:
    """The two halves of a message that clearly asks two things, each of which asks and names something; else None."""
    joints = [match.span() for match in JOINTS.finditer(text.strip())]
    for start, end in joints:
        halves = text.strip()[:start], text.strip()[end:]
        if all(asks(half) and len(named(half)) >= FEWEST_NAMED for half in halves):
            return halves
    return None


def is_vietnamese(text: str) -> bool:
    """Whether it has letters that only Vietnamese has."""
    return ONLY_VIETNAMESE.search(unicodedata.normalize("NFC", text).lower()) is not None


def sentences(text: str) -> tuple[str, ...]:
    """Sentences and lines of a text, in order; a question goes with what follows it, which answers it."""
    found: list[str] = []
    for part in SENTENCE_END.split(text):
        if found and found[-1].endswith("?"):
            found[-1] += f" {part.strip()}"
        elif part.strip():
            found.append(part.strip())
    return tuple(found)


def _plain(word: str) -> str:
    """A word without accents, as hurried people type it."""
    decomposed = unicodedata.normalize("NFD", word.replace("đ", "d"))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))
