"""Wrong answers made from right ones, each by one named change, and right answers made by changes that keep what is said.

Both train and measure the local judge. All are seeded and pure: the same answer, FAQs and generator give the same words. A change that
finds nothing to change gives None. English; a few Hinglish ones. Leaves out which FAQs and queries they are made for
(`evaluation/local_judge.py`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from chat.llm.wording import named, sentences
from kb.types import Faq


@dataclass(frozen=True, slots=True)
class Source:
    """What an answer is corrupted with."""

    answer: str
    query: str
    faq: Faq
    """That the answer is from."""
    others: Sequence[Faq]
    """Further FAQs of the knowledge base."""


Change = Callable[[Source, np.random.Generator], str | None]
"""The changed answer; None where there is nothing to change."""

NUMBER = re.compile(r"(?<![\w.,-])\d+(?:,\d+)*(?:\.\d+)?(?![\w-])")
UNIT_SWAPS: Sequence[tuple[str, Sequence[str]]] = (
    (r"\bworking days?\b", ("weeks", "hours")), (r"(?<!working )\bdays?\b", ("hours", "weeks", "months")),
    (r"\bmonths?\b", ("days", "years", "weeks")), (r"\bhours?\b", ("days", "minutes")), (r"\bminutes?\b", ("hours", "days")),
    (r"\byears?\b", ("months",)), (r"US\$", ("₹", "€")), (r"₹", ("US$", "€")), (r"(?<=\d)%", (" rupees", " points")),
    (r"\bam\b", ("pm",)), (r"\bpm\b", ("am",)), (r"\blakh\b", ("crore", "thousand")), (r"\bpoints\b", ("rupees",)),
)
NEGATIONS: Sequence[tuple[str, str]] = (
    (r"\b(is|are|was|were|can|will|must|may|should|does|do|has|have) not\b", r"\1"), (r"\bcannot\b", "can"), (r"\bnever\b", "always"),
    (r"\bno (?=[a-z])", "a "), (r"\bwithout\b", "with"), (r"\bnot (?=[a-z])", ""), (r"\bnothing\b", "something"), (r"\bnone\b", "all"),
    (r"\bNo\b", "Yes,"), (r"\bYes\b", "No"), (r"n't\b", ""),
)
AFFIRMATIONS: Sequence[tuple[str, str]] = (
    (r"\b(is|are|can|will|must|may|should|does|do|has) (?!not\b)(?=[a-z])", r"\1 not "), (r"\bcan\b", "cannot"),
    (r"\b(we|you|they|customers) (?=(?:charge|get|pay|need|accept|send|allow|add|look|ask|apply|earn|close|reverse|stop)\b)",
    r"\1 do not "),
    (r"\b(it|fee|card|limit|period|charge|refund) (applies|takes|comes|costs|covers|works|shows|arrives|needs|appears)\b", r"\1 never \2"),
)
OPPOSITE_WORDS: Sequence[tuple[str, str]] = (
    (r"\bif\b", "unless"), (r"\bunless\b", "if"), (r"\bbefore\b", "after"), (r"\bafter\b", "before"), (r"\bat least\b", "at most"),
    (r"\bat most\b", "at least"), (r"\bwithin\b", "after"), (r"\babove\b", "below"), (r"\bbelow\b", "above"), (r"\bmore than\b",
    "less than"),
    (r"\bless than\b", "more than"), (r"\bup to\b", "from"), (r"\bonly\b", "not only"), (r"\bonce\b", "twice"), (r"\buntil\b", "after"),
    (r"\bor more\b", "or less"), (r"\bor over\b", "or under"), (r"\bexcept\b", "including"), (r"\bwhichever is higher\b",
    "whichever is lower"),
    (r"\bminimum\b", "maximum"), (r"\bmaximum\b", "minimum"), (r"\bunder (?=\d)", "over "), (r"\bfree\b", "charged"), (r"\boff\b", "on"),
)
NAMES: Sequence[Sequence[str]] = (
    ("Classic", "Gold", "Voyager", "Pearl", "Campus"), ("PAN", "Aadhaar", "passport", "GSTIN"), ("UPI", "NEFT", "NetNimbari", "cheque"),
    ("SMS", "e-mail", "post", "courier"), ("Indian", "foreign"), ("January", "March", "June", "December"), ("Monday", "Sunday", "Saturday"),
    ("app", "branch", "website"), ("Limits", "Controls", "Fees", "Add-on", "Services"), ("principal", "interest"),
    ("domestic", "international"), ("Salaried", "Self-employed"), ("IGST", "CGST", "SGST"), ("debit", "credit"),
)
ADDED: Sequence[str] = (
    "You also get a free movie ticket every month.", "A welcome gift is posted to your home.",
    "The branch manager has to approve it first.",
    "You must bring two witnesses with you.", "It is insured against theft of any kind.", "Your credit score goes up when you do this.",
    "Senior citizens get double the benefit.", "The same rule holds for home loans and car loans.", "You can also do this on WhatsApp.",
    "It needs the consent of your employer.", "We also inform the income-tax department.", "A partner airline matches it with miles.",
    "It is not offered in southern states.", "Customers who complain get it faster.", "Iske saath ek free gift bhi milta hai.",
)
DEADLINES: Sequence[str] = (
    "You must do this within {n} days.", "This offer ends on the {n}th of next month.", "The request expires after {n} hours.",
    "After {n} weeks it can no longer be changed.", "Please finish it before {n} pm today.", "Yeh {n} din ke andar karna zaroori hai.",
)
PROMISES: Sequence[str] = (
    "We guarantee approval in every case.", "There are no exceptions to this, ever.", "All customers are refunded in full, always.",
    "It is completely free for everyone.", "This applies to all cards without any conditions.",
)
REFUSALS: Sequence[str] = (
    "I don't know.", "I'm sorry, I don't have that information.", "I'm afraid the FAQs don't say anything about this.",
    "Sorry, I can't answer that from what I have here.", "I do not know the answer to this question.",
    "Mujhe iski jaankari nahi hai, sorry.",
)
BARE: Sequence[str] = ("Please contact customer care for this.", "Sure, happy to help!", "You're welcome! Anything else?",
                       "Thanks for asking, hope this helps.")


def _pick(rng: np.random.Generator, count: int) -> int:
    """A position among so many."""
    return int(rng.integers(count))


def changed_number(source: Source, rng: np.random.Generator) -> str | None:
    """One number is another, of the same size or one that stands elsewhere in the FAQ."""
    found = list(NUMBER.finditer(source.answer))
    if not found:
        return None
    match = found[_pick(rng, len(found))]
    value = float(match[0].replace(",", ""))
    near = [value * factor for factor in (2, 3, 0.5, 10)] + [value + step for step in (1, 2, 5, 10)]
    other = near[_pick(rng, len(near))]
    elsewhere = [m[0] for m in NUMBER.finditer(source.faq.answer) if m[0] != match[0]]
    word = elsewhere[_pick(rng, len(elsewhere))] if elsewhere and rng.random() < 0.25 else _number(other, like=match[0])
    return None if word == match[0] else source.answer[: match.start()] + word + source.answer[match.end():]


def changed_unit(source: Source, rng: np.random.Generator) -> str | None:
    """Days become weeks, rupees dollars, am pm."""
    return _swapped(source.answer, [(pattern, choice[_pick(rng, len(choice))]) for pattern, choice in UNIT_SWAPS], rng)


def negated(source: Source, rng: np.random.Generator) -> str | None:
    """A "not" more, or one less."""
    kinds = (NEGATIONS, AFFIRMATIONS) if rng.random() < 0.5 else (AFFIRMATIONS, NEGATIONS)
    return _swapped(source.answer, kinds[0], rng) or _swapped(source.answer, kinds[1], rng)


def swapped_name(source: Source, rng: np.random.Generator) -> str | None:
    """A product, document, place or channel becomes another of its kind."""
    pairs = [(rf"\b{re.escape(name)}\b", group[(n + 1 + _pick(rng, len(group) - 1)) % len(group)])
             for group in NAMES for n, name in enumerate(group)]
    return _swapped(source.answer, pairs, rng)


def reversed_condition(source: Source, rng: np.random.Generator) -> str | None:
    """If becomes unless, before after, at least at most."""
    return _swapped(source.answer, OPPOSITE_WORDS, rng)


def half_answer(source: Source, rng: np.random.Generator) -> str | None:
    """A sentence loses its condition, exception or second half, and the answer is that sentence."""
    halves = []
    for sentence in sentences(source.answer):
        cut = re.search(r"[,;:]?\s(?:if|unless|except|but|only|provided|until|otherwise|or|and|though|when|plus)\s", sentence)
        if cut is not None and 20 < cut.start() < len(sentence) - 15:
            halves.append(sentence[: cut.start()].rstrip(",;: ") + ".")
    return halves[_pick(rng, len(halves))] if halves else None


def other_faq(source: Source, rng: np.random.Generator) -> str | None:
    """The answer of another FAQ, which the case doesn't show."""
    return source.others[_pick(rng, len(source.others))].answer if source.others else None


def added_fact(source: Source, rng: np.random.Generator) -> str | None:
    """One sentence more, which no FAQ says."""
    return _inserted(source.answer, ADDED[_pick(rng, len(ADDED))], rng)


def invented_deadline(source: Source, rng: np.random.Generator) -> str | None:
    """A term that no FAQ sets."""
    return _inserted(source.answer, DEADLINES[_pick(rng, len(DEADLINES))].format(n=rng.integers(2, 12)), rng)


def overpromised(source: Source, rng: np.random.Generator) -> str | None:
    """Always, everybody, guaranteed."""
    return _inserted(source.answer, PROMISES[_pick(rng, len(PROMISES))], rng)


def foreign_fact(source: Source, rng: np.random.Generator) -> str | None:
    """A sentence of another FAQ is mixed in, which the case doesn't show."""
    if not source.others:
        return None
    said = sentences(source.others[_pick(rng, len(source.others))].answer)
    return _inserted(source.answer, said[_pick(rng, len(said))], rng) if said else None


def swapped_facts(source: Source, rng: np.random.Generator) -> str | None:
    """Two numbers of one sentence change places."""
    for sentence in sentences(source.answer):
        found = list(NUMBER.finditer(sentence))
        pairs = [(a, b) for a, b in pairwise(found) if a[0] != b[0]]
        if pairs:
            a, b = pairs[_pick(rng, len(pairs))]
            return source.answer.replace(
                sentence, sentence[: a.start()] + b[0] + sentence[a.end(): b.start()] + a[0] + sentence[b.end():])
    return None


def off_the_point(source: Source, rng: np.random.Generator) -> str | None:
    """True sentences of the FAQ, without those that the query asks for."""
    asked = named(source.query)
    said = sentences(source.faq.answer)
    scored = [len(asked & named(sentence)) for sentence in said]
    if not scored or max(scored) < 2 or min(scored) > 0:
        return None
    rest = [sentence for sentence, score in zip(said, scored, strict=True) if score == 0]
    return rest[_pick(rng, len(rest))]


def wrong_refusal(source: Source, rng: np.random.Generator) -> str | None:
    """"I don't know", though the FAQ is shown."""
    return REFUSALS[_pick(rng, len(REFUSALS))]


def empty_words(source: Source, rng: np.random.Generator) -> str | None:
    """A courtesy in place of an answer."""
    return BARE[_pick(rng, len(BARE))]


CORRUPTIONS: Mapping[str, Change] = MappingProxyType({
    "changed number": changed_number, "changed unit": changed_unit, "negation": negated, "swapped name": swapped_name,
    "reversed condition": reversed_condition, "half answer": half_answer, "another FAQ's answer": other_faq, "added fact": added_fact,
    "invented deadline": invented_deadline, "overpromise": overpromised, "another FAQ's sentence": foreign_fact,
    "swapped facts": swapped_facts, "off the point": off_the_point, "wrong refusal": wrong_refusal, "empty words": empty_words,
})
"""By the name of the type, which training can hold out."""


def verbatim(source: Source, rng: np.random.Generator) -> str | None:
    """As the FAQ says it, cited."""
    return f"{source.answer} [{source.faq.id}]"


def reordered(source: Source, rng: np.random.Generator) -> str | None:
    """The same sentences in another order; those that lean on the one before stay."""
    said = list(sentences(source.answer))
    return " ".join(said[n] for n in rng.permutation(len(said))) if len(said) > 1 else None


def shortened(source: Source, rng: np.random.Generator) -> str | None:
    """The sentences that name most of what the query asks for, and one more."""
    said = sentences(source.answer)
    asked = named(source.query)
    if len(said) < 3:
        return None
    ranked = sorted(range(len(said)), key=lambda n: -len(asked & named(said[n])))
    kept = sorted({*ranked[:2], _pick(rng, len(said))})
    return " ".join(said[n] for n in kept) if len(kept) < len(said) else None


AMOUNT = r"₹(\d+(?:,\d+)*(?:\.\d+)?(?: lakh| crore)?)"
REWORDINGS: Sequence[tuple[str, str]] = (
    (r"\bcannot\b", "can't"), (r"\bdo not\b", "don't"), (r"\bis not\b", "isn't"), (r"\bwill not\b", "won't"), (r"\bare not\b", "aren't"),
    (AMOUNT, r"Rs. \1"), (AMOUNT, r"\1 rupees"), (r"(?<=\d)%", " percent"), (r"\bYou can\b", "It is possible to"),
    (r"\bYou may\b", "You can"), (r"\bgo to\b", "open"), (r"\bcosts\b", "is charged at"), (r"\bworking days\b", "business days"),
    (r"\bat once\b", "immediately"), (r"\bat no charge\b", "for free"), (r"\bThere is no fee\b", "It is free"), (r"\bwe send you\b",
    "you receive"),
    (r"\b(two|three|four|five|six)\b", ""), (r"\babout\b", "around"), (r"\bmobile\b", "phone"), (r"\bneed\b", "require"),
    (r"\bpurchases\b", "payments for things"), (r"\bmust be\b", "has to be"), (r"\beach\b", "every single"), (r"\bask for\b", "request"),
    (r"\bgives\b", "offers"), (r"\bfor example\b", "for instance"), (r"\bcharged\b", "billed"), (r"\ba month\b", "per month"),
    (r"\ba year\b", "per year"), (r"\bplus\b", "and also"), (r"\bshows\b", "displays"), (r"\bspouse\b", "husband or wife"),
)
DIGITS: Mapping[str, str] = MappingProxyType({"two": "2", "three": "3", "four": "4", "five": "5", "six": "6"})
LEADS: Sequence[str] = ("Sure! ", "According to our FAQs, ", "Yes, certainly. ", "Of course. ", "Thanks for asking! ", "Hello! ")
CLOSES: Sequence[str] = ("", " Hope this helps!", " Let me know if you need anything else.", " Is there anything else I can help with?")


def reworded(source: Source, rng: np.random.Generator) -> str | None:
    """The same in other words: units spelled out, contractions, plain synonyms."""
    answer, changes = source.answer, 0
    for n in rng.permutation(len(REWORDINGS)):
        pattern, word = REWORDINGS[n]
        new = re.sub(pattern, word, answer) if word else re.sub(pattern, lambda match: DIGITS[match[0]], answer)
        changes += new != answer
        answer = new
        if changes >= 4:
            break
    return answer if changes else None


def polite(source: Source, rng: np.random.Generator) -> str | None:
    """With an opening and a close that say nothing."""
    return LEADS[_pick(rng, len(LEADS))] + source.answer + CLOSES[_pick(rng, len(CLOSES))]


def merged(source: Source, rng: np.random.Generator) -> str | None:
    """Two neighbouring sentences are one, and the pronoun between them goes."""
    said = list(sentences(source.answer))
    if len(said) < 2:
        return None
    n = int(rng.integers(len(said) - 1))
    second = said[n + 1][0].lower() + said[n + 1][1:] if not said[n + 1][:2].isupper() else said[n + 1]
    return " ".join([*said[:n], f"{said[n].rstrip('.')}, and {second}", *said[n + 2:]])


RIGHT: Mapping[str, Change] = MappingProxyType({
    "verbatim": verbatim, "reordered": reordered, "shortened": shortened, "reworded": reworded, "polite": polite, "merged": merged,
})
"""Changes that keep an answer right, by name."""


def _swapped(text: str, pairs: Sequence[tuple[str, str]], rng: np.random.Generator) -> str | None:
    """One of the places that a pattern finds, with its replacement."""
    places = [(match, word) for pattern, word in pairs for match in re.finditer(pattern, text)]
    if not places:
        return None
    match, word = places[_pick(rng, len(places))]
    new = text[: match.start()] + match.expand(word) + text[match.end():]
    return None if new == text else new


def _inserted(text: str, sentence: str, rng: np.random.Generator) -> str:
    said = list(sentences(text))
    said.insert(int(rng.integers(len(said) + 1)), sentence)
    return " ".join(said)


def _number(value: float, *, like: str) -> str:
    if "." in like:
        return f"{value:.{len(like.partition('.')[2])}f}"
    whole = max(1, round(value))
    return f"{whole:,}" if "," in like or whole >= 10_000 else str(whole)
