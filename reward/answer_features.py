"""An answer as numbers: how it stands to its question and its passages, what it covers, what it makes up, how it is written.

Every figure is of one answer by itself, so a reward made of them gives an answer the same number whatever it is compared with. They
rest on the packaged encoder's vectors of sentences and on words. Leaves out weights (`model.py`), and what a judge must know of a
claim that was changed (`support.py`): averaged over an answer's sentences, those figures added nothing to these on preferences.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from chat.llm.wording import sentences
from kb.embedder import Embedder, Progress, Vectors
from reward.preferences import Answer

Floats = NDArray[np.float64]
MOST_SENTENCES = 60
"""Of an answer, and of all its passages together four times as many; the rest is cut, so that a huge text costs no more."""
LONGEST = 40_000
"""Characters read of each text."""
SHARPNESS = 6.0
"""By which a passage's sentence counts for more, the nearer it is to the question: e^(6 cosine)."""
WORD = re.compile(r"[a-z0-9]+(?:[.,]\d+)*")
SMALL = frozenset(
    "a an the of in on at to for and or is was were are be been being by with from as that this it its his her their he she they "
    "which who whom what when where why how do does did has have had not but also into than then there these those such".split())
MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
WANTED = (  # a question's opening words, and what an answer to it holds
    (re.compile(r"\bhow (?:many|much|long|old|far)\b", re.I),
     re.compile(r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten)\b", re.I)),
    (re.compile(r"\bwhen\b|\bwhat (?:year|date|day)\b", re.I), re.compile(rf"\b(?:1\d{{3}}|20\d\d|{MONTH})\b")),
    (re.compile(r"\bwho(?:se|m)?\b", re.I), re.compile(r"[a-z,] [A-Z][a-z]+ [A-Z][a-z]+")),
    (re.compile(r"\bwhere\b", re.I), re.compile(r"\b(?:in|at|near|on) (?:the )?[A-Z]")),
)
HEDGE = re.compile(r"\b(?:unclear|unknown|not (?:known|clear|sure|specified|mentioned)|no information|don't know|does not say)\b", re.I)
LENGTH = ("log_words", "sentences", "words_a_sentence", "first_words")
SIMILARITY = ("prompt", "context", "context_mean")
"""Cosines of the whole answer: what an embedding-similarity baseline has."""
NEARNESS = ("question_nearest", "question_mean", "question_first", "question_last")
SUPPORT = ("support_mean", "support_least", "support_most")
COVERAGE = ("covers_best", "covers_three", "covers_weighted", "words_weighted", "words_typical", "words_best", "words_all")
WORDS = ("known_1", "known_2", "known_3", "known_4", "new_1", "new_2", "new_4", "new_rare")
FUSION = ("one_sentence", "one_least", "one_first", "one_last", "one_asked", "two_sentences", "fused_mean", "fused_most")
FACTS = ("numbers_known", "numbers_new", "anchored_mean", "anchored_least", "names", "names_new")
FORM = ("repeats_3", "repeats_5", "unlike_words", "alike_sentences", "echo", "echo_first", "type_first", "type_share", "hedges", "unended",
        "brackets")
KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "length": LENGTH, "similarity": SIMILARITY, "nearness": NEARNESS, "support": SUPPORT, "coverage": COVERAGE, "words": WORDS,
    "fusion": FUSION, "facts": FACTS, "form": FORM})
FEATURES = tuple(name for kind in KINDS.values() for name in kind)
"""Names of the figures, in the order of every array here."""


@dataclass(frozen=True)
class Text:
    """A text, taken apart once."""

    text: str

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        return sentences(self.text)[:MOST_SENTENCES] or (self.text.strip(),)

    @cached_property
    def words(self) -> list[str]:
        return WORD.findall(self.text.lower())

    @cached_property
    def content(self) -> list[str]:
        """Its words but for the small ones."""
        return [word for word in self.words if word not in SMALL]

    @cached_property
    def told(self) -> tuple[frozenset[str], ...]:
        """Content words of each sentence."""
        return tuple(content(sentence) for sentence in self.sentences)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each word stands."""
        found: dict[str, list[int]] = defaultdict(list)
        for place, word in enumerate(self.words):
            found[word].append(place)
        return dict(found)

    def grams(self, size: int) -> list[tuple[str, ...]]:
        return list(zip(*(self.words[start:] for start in range(size)), strict=False))


def content(text: str) -> frozenset[str]:
    return frozenset(word for word in WORD.findall(text.lower()) if word not in SMALL)


def features(answers: Sequence[Answer], embedder: Embedder, *, progress: Progress | None = None) -> Floats:
    """Figures of each answer, shape (len(answers), len(FEATURES)); finite for any text."""
    texts = {text: Text(text[:LONGEST]) for answer in answers for text in (answer.prompt, *answer.context, answer.text)}
    wanted = dict.fromkeys(part for one in texts.values() for part in (one.text, *one.sentences))
    vectors = dict(zip(wanted, embedder.embed(list(wanted), progress=progress), strict=True))
    rows = [_figures(texts[one.prompt], [texts[text] for text in one.context], texts[one.text], vectors) for one in answers]
    return np.nan_to_num(np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES)), posinf=0.0, neginf=0.0)


def _figures(prompt: Text, context: Sequence[Text], answer: Text, vectors: dict[str, Vectors]) -> list[float]:
    theirs = [(sentence, told) for text in context for sentence, told in zip(text.sentences, text.told, strict=True)][:4 * MOST_SENTENCES]
    asked = vectors[prompt.text].astype(np.float64)
    said = np.array([vectors[sentence] for sentence in answer.sentences], dtype=np.float64)
    read = np.array([vectors[sentence] for sentence, _ in theirs], dtype=np.float64).reshape(-1, said.shape[1])
    whole = np.array([vectors[text.text] for text in context], dtype=np.float64).reshape(-1, said.shape[1])
    near = said @ asked
    relevance = read @ asked
    told = [words for _, words in theirs]
    cosines = whole @ vectors[answer.text].astype(np.float64)
    return [
        *_length(answer),
        float(vectors[answer.text] @ vectors[prompt.text]), _most(cosines), _mean(cosines),
        _most(near), _mean(near), near[0], near[-1],
        *_support(said @ read.T),
        *_coverage(said @ read.T, relevance, told, prompt, answer),
        *_known(prompt, context, answer),
        *_fusion(answer, told, frozenset(prompt.content), int(near.argmax())),
        *_facts(prompt, context, answer),
        *_form(prompt, answer),
    ]


def _length(answer: Text) -> list[float]:
    words, first = len(answer.words), len(WORD.findall(answer.sentences[0].lower()))
    return [math.log1p(words), float(len(answer.sentences)), words / len(answer.sentences), float(first)]


def _support(likeness: Floats) -> list[float]:
    """Of each sentence by the passages' sentence that is most like it."""
    if not likeness.shape[1]:
        return [0.0, 0.0, 0.0]
    best = likeness.max(axis=1)
    return [_mean(best), float(best.min()), _most(best)]


def _coverage(likeness: Floats, relevance: Floats, told: Sequence[frozenset[str]], prompt: Text, answer: Text) -> list[float]:
    """How much of what the passages say to the question is in the answer."""
    if not relevance.size:
        return [0.0] * len(COVERAGE)
    covered, weights = likeness.max(axis=0), np.exp(SHARPNESS * relevance)
    first = np.argsort(-relevance, kind="stable")
    asked, said = frozenset(prompt.content), frozenset(answer.content)
    worth: dict[str, float] = defaultdict(float)
    rare = _rarity(told)
    for words, weight in zip(told, weights, strict=True):
        for word in words - asked:
            worth[word] += float(weight) * rare[word]
    total, new = sum(worth.values()), said - asked
    best = told[first[0]] - asked
    everything: frozenset[str] = frozenset().union(*told)
    return [float(covered[first[0]]), _mean(covered[first[:3]]), float(covered @ weights / weights.sum()),
            sum(worth.get(word, 0.0) for word in said) / total if total else 0.0,
            len(worth) * sum(worth.get(word, 0.0) for word in new) / (len(new) * total) if new and total else 0.0,
            _part(said & best, best), _part(said & everything, everything)]


def _rarity(told: Sequence[frozenset[str]]) -> dict[str, float]:
    """A word weighs more, the fewer sentences have it."""
    seen = Counter(word for words in told for word in words)
    return {word: math.log((len(told) + 1) / (count + 0.5)) for word, count in seen.items()}


def _known(prompt: Text, context: Sequence[Text], answer: Text) -> list[float]:
    """Words and runs of words that stand in the passages or the question, and how many don't."""
    there = frozenset(word for text in (prompt, *context) for word in text.words)
    shares, news = [_mean(np.array([word in there for word in answer.content]))], [sum(word not in there for word in answer.content)]
    for size in (2, 3, 4):
        runs = frozenset(run for text in context for run in text.grams(size))
        own = answer.grams(size)
        shares.append(_mean(np.array([run in runs for run in own])))
        news.append(sum(run not in runs for run in own))
    rare = sum(len(word) > 6 and word not in there for word in answer.content)
    return [*shares, math.log1p(news[0]), math.log1p(news[1]), math.log1p(news[3]), math.log1p(rare)]


def _fusion(answer: Text, told: Sequence[frozenset[str]], asked: frozenset[str], nearest: int) -> list[float]:
    """Whether a sentence's words come from one sentence of the passages, or are put together from several."""
    one, two, fused = [], [], []
    everything: frozenset[str] = frozenset().union(*told)
    for words in answer.told:
        new = words - asked
        best = max(told, key=lambda other: len(new & other), default=frozenset())
        rest = new - best
        one.append(_part(new & best, new, 1.0))
        two.append(one[-1] + max((len(rest & other) for other in told), default=0) / max(1, len(new)))
        fused.append(_part(new & everything, new, 1.0) - one[-1])
    return [_mean(np.array(one)), min(one), one[0], one[-1], one[nearest], _mean(np.array(two)), _mean(np.array(fused)), max(fused)]


def _facts(prompt: Text, context: Sequence[Text], answer: Text) -> list[float]:
    """Numbers and names: known, new, and whether a number stands beside the same words as in the passages."""
    numbers = {word for word in answer.words if word[0].isdigit()}
    there = frozenset(word for text in (prompt, *context) for word in text.words)
    anchored = [max((_part(near & other, near) for text in context for other in _beside(text, word, 8)), default=0.0)
                for word in sorted(numbers) for near in _beside(answer, word, 6)[:1]]
    names = {word.lower() for sentence in answer.sentences for word in re.findall(r"(?<=[a-z,;] )[A-Z][\w'’-]+", sentence)}
    return [float(len(numbers & there)), float(len(numbers - there)), _mean(np.array(anchored)) if anchored else 0.6,
            min(anchored, default=0.6), math.log1p(len(names - set(prompt.words))), math.log1p(len(names - there))]


def _beside(text: Text, word: str, reach: int) -> list[frozenset[str]]:
    """Content words around each place of a word."""
    return [frozenset(text.words[max(0, n - reach):n + reach + 1]) - SMALL - {word} for n in text.places.get(word, [])[:20]]


def _form(prompt: Text, answer: Text) -> list[float]:
    three, five = answer.grams(3), answer.grams(5)
    alike = [max((len(a & b) / max(1, len(a | b)) for b in answer.told[:n]), default=0.0) for n, a in enumerate(answer.told)]
    asked, first = frozenset(prompt.content), answer.told[0]
    wanted = next((there for question, there in WANTED if question.search(prompt.text)), None)
    holds = [bool(wanted.search(sentence)) for sentence in answer.sentences] if wanted else [False]
    ended = answer.text.rstrip().endswith((".", "!", "?", '"', ")"))
    return [1 - len(set(three)) / max(1, len(three)), math.log1p(len(five) - len(set(five))),
            len(set(answer.words)) / max(1, len(answer.words)), _mean(np.array(alike)),
            _part(asked & frozenset(answer.content), asked), _part(asked & first, asked), float(holds[0]), _mean(np.array(holds)),
            float(bool(HEDGE.search(answer.text))), float(not ended), math.log1p(answer.text.count("("))]


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else 0.0


def _most(values: Floats) -> float:
    return float(values.max()) if values.size else 0.0


def _part(some: frozenset[str], of: frozenset[str], empty: float = 0.0) -> float:
    return len(some) / len(of) if of else empty
