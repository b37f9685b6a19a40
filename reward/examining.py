"""Reads a case into figures: which FAQs there are, what the answer claims, how far each claim is from them, what the query asks for.

The texts of a batch are embedded by one call; the FAQs' vectors are remembered by content, customers' words are not. Leaves out weights
(`local_model.py`) and the figures themselves (`support.py`, `settling.py`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chat.llm import smalltalk, wording
from chat.llm.vectors import VectorMemory
from chat.ports import Retriever
from kb.embedder import Embedder, Vectors
from kb.tuned import untuned
from kb.types import Faq
from reward import settling, support
from reward.claims import Said, taken_apart
from reward.facts import facts
from reward.judge import Case

Floats = NDArray[np.float64]
MOST_LETTERS = 20_000
"""Of an answer; a longer one isn't judged."""
MOST_FAQS_READ = 50_000
HITS = 3
"""FAQs that were found for the query and are looked at beside those shown."""
TALK = frozenset(reply for kind in smalltalk.KINDS for reply in (kind.reply, kind.vietnamese_reply))
ENGLISH = frozenset("the a an of to in on at by for from with and or if is are was be it this that you your we our not no can will may "
                    "must as but when there have has do does i they their its more than only up after before any all each".split())
FEWEST_ENGLISH = 0.12
"""Share of its words below which an answer of more than a few is in another language."""
STRETCH = 3.0
"""By which a gap of cosines is stretched to [0, 1]."""
SHORT = 6
"""Words of a claim that is read together with the query too: "₹450." says nothing by itself."""
YES, NO = re.compile(r"(?:yes|haan|of course)\b", re.IGNORECASE), re.compile(r"(?:sorry, |i'm afraid )?(?:no|nahin?)\b", re.IGNORECASE)
DISTANCE = support.OF_CLAIM.index("distance")
OFF_THE_POINT, YES_NO = support.FEATURES.index("off_the_point"), support.FEATURES.index("yes_no")


@dataclass(frozen=True, slots=True)
class Examined:
    """A case with all that the model reads of it."""

    ids: tuple[str, ...]
    """FAQs that were looked at: those shown, then those that the knowledge base finds."""
    settling: Floats
    """Of each of them, shape (FAQs, settling features)."""
    said: Said
    claims: tuple[support.Claim, ...]
    resting: tuple[int, ...]
    """Positions of the FAQs that the claims were laid beside."""
    support: Floats
    """Of `support.FEATURES`, shape (41,)."""
    english: bool
    unread: str = ""
    """Why it can't be judged; empty where it can."""
    bare: bool = False
    """No FAQ that was looked at has a question: they are passages, of which can't be told whether they settle a query."""

    @property
    def asserts(self) -> bool:
        return bool(self.claims)


class Examiner:
    """Reads cases into figures. Holds the encoder and what was read of FAQs."""

    def __init__(self, embedder: Embedder, retriever: Retriever | None = None) -> None:
        self._vectors = VectorMemory(untuned(embedder))
        self._retriever = retriever
        self._read: dict[Faq, tuple[settling.Known, support.Evidence]] = {}

    @property
    def searches(self) -> bool:
        return self._retriever is not None

    def examine(self, cases: Sequence[Case]) -> tuple[Examined, ...]:
        """Each case's figures; the texts of all are embedded by one call."""
        if len(self._read) > MOST_FAQS_READ:
            self._read.clear()
        looked = [self._looked_at(case) for case in cases]
        asked = [settling.asking(case.query, case.history) for case in cases]
        found = [self._taken_apart(case, faqs) for case, (faqs, _) in zip(cases, looked, strict=True)]
        passing = [*(text for one in asked for text in one.texts),
                   *(text for case, one in zip(cases, found, strict=True) for claim in one.claims if claim.figures[DISTANCE]
                     for text in _readings(claim, case.query))]
        keep = [text for text in dict.fromkeys(text for faqs, _ in looked for known, _ in map(self._reading,
            faqs) for text in known.passages)]
        passing = list(dict.fromkeys(passing))
        passed, kept = self._vectors.embed(passing, keep)
        vectors = _Vectors(dict(zip(passing, passed, strict=True)) | dict(zip(keep, kept, strict=True)))
        return tuple(self._examined(case, faqs, search, ask, one, vectors)
                     for case, (faqs, search), ask, one in zip(cases, looked, asked, found, strict=True))

    def _reading(self, faq: Faq) -> tuple[settling.Known, support.Evidence]:
        if faq not in self._read:
            self._read[faq] = settling.known(faq), support.evidence(faq)
        return self._read[faq]

    def _looked_at(self, case: Case) -> tuple[tuple[Faq, ...], settling.Found | None]:
        if self._retriever is None:
            shown = tuple(dict.fromkeys(case.faqs))
            return shown + tuple(faq for faq in dict.fromkeys(case.found[:HITS]) if faq not in shown), None
        before = case.history[-1].query if case.history else None
        hits = self._retriever.search(case.query, k=HITS, min_similarity=-1.0, previous=before)
        shown = tuple(dict.fromkeys(case.faqs))
        faqs = shown + tuple(hit.faq for hit in hits if hit.faq not in shown)
        compared = self._retriever.compare(case.query, before, [faq.id for faq in faqs])
        return faqs, settling.Found(compared.faqs, compared.joined_faqs, hits)

    def _taken_apart(self, case: Case, faqs: Sequence[Faq]) -> Examined:
        """All but what takes vectors."""
        nothing = np.zeros((0, len(settling.FEATURES)))
        if len(case.answer) > MOST_LETTERS:
            return Examined((), nothing, Said((), False, False), (), (), np.zeros(len(support.FEATURES)), True,
                            f"the answer is longer than {MOST_LETTERS} letters")
        said = Said((), False, False) if case.answer.strip() in TALK else taken_apart(case.answer)
        unread = "" if len(said.claims) <= support.MOST_CLAIMS else f"the answer has more than {support.MOST_CLAIMS} sentences"
        shown = [self._reading(faq)[1] for faq in faqs[: len(dict.fromkeys(case.faqs))]]
        before = case.history[-1].query[: settling.MOST_LETTERS] if case.history else ""
        on = support.ground(shown, facts(f"{before}\n{case.query[: settling.MOST_LETTERS]}"))
        stems = facts(case.answer).stems
        claims = () if unread else tuple(support.lay_beside(claim[: settling.MOST_LETTERS], on, stems) for claim in said.claims)
        return Examined(tuple(faq.id for faq in faqs), nothing, said, claims,
                        tuple(dict.fromkeys(claim.faq for claim in claims if claim.faq is not None)), support.together(claims),
                        _english(case.answer), unread)

    def _examined(self, case: Case, faqs: Sequence[Faq], search: settling.Found | None, asked: settling.Asking, one: Examined,
                  vectors: "_Vectors") -> Examined:
        """The same with the figures that take vectors."""
        knowns = [self._reading(faq)[0] for faq in faqs]
        passages = [vectors.of(known.passages) for known in knowns]
        texts = vectors.of(asked.texts).T
        cosines = [matrix @ texts for matrix in passages]
        shown = len(dict.fromkeys(case.faqs))
        claims = _with_distances(one.claims, case.query, passages[:shown], vectors)
        figures = support.together(claims)
        if claims:
            figures[OFF_THE_POINT] = _off_the_point(claims, knowns, cosines) if support.related(claims).sum() == 1 else 0.0
            figures[YES_NO] = self._against_yes_or_no(claims, faqs[:shown], knowns, cosines)
        bare = bool(faqs) and not any(faq.question.strip() for faq in faqs)
        return replace(one, settling=settling.figures(asked, case.history, knowns, cosines, search), claims=claims, support=figures,
                       bare=bare)

    def _against_yes_or_no(self, claims: Sequence[support.Claim], faqs: Sequence[Faq], knowns: Sequence[settling.Known],
                           cosines: Sequence[Vectors]) -> float:
        """1 for a "yes" where the sentence nearest to the query has a "not", and for a "no" where it hasn't; else 0."""
        yes, no = YES.match(claims[0].text) is not None, NO.match(claims[0].text) is not None
        near = [(float(cosines[n][start:, 0].max()), n, int(cosines[n][start:, 0].argmax())) for n in range(len(faqs))
                for start in [len(knowns[n].askings) + 1] if len(cosines[n]) > start]
        if not near or not (yes or no):
            return 0.0
        _, position, sentence = max(near)
        denied = self._reading(faqs[position])[1].windows[sentence + 1].facts.negators > 0
        return float(denied if yes else not denied)


class _Vectors:
    """The vectors of a batch's texts."""

    def __init__(self, known: Mapping[str, Vectors]) -> None:
        self._known = known

    def of(self, texts: Sequence[str]) -> Vectors:
        return np.array([self._known[text] for text in texts])


def _readings(claim: support.Claim, query: str) -> tuple[str, ...]:
    """The texts by which a claim's distance is told."""
    return (claim.text,) if len(claim.text.split()) > SHORT else (claim.text, f"{query[: settling.MOST_LETTERS]} {claim.text}")


def _with_distances(claims: Sequence[support.Claim], query: str, passages: Sequence[Vectors], vectors: _Vectors) -> tuple[support.Claim,
                                                                                                                       ...]:
    """The claims with their distance, 1 - cosine, to the nearest passage that was shown, where they aren't an FAQ's own words."""
    if not passages:
        return tuple(claims)
    whole = np.concatenate(passages)
    found = []
    for claim in claims:
        if claim.figures[DISTANCE]:
            figures = claim.figures.copy()
            figures[DISTANCE] = float(np.clip(1.0 - (whole @ vectors.of(_readings(claim, query)).T).max(), 0.0, 1.0))
            found.append(replace(claim, figures=figures))
        else:
            found.append(claim)
    return tuple(found)


def _off_the_point(claims: Sequence[support.Claim], knowns: Sequence[settling.Known], cosines: Sequence[Vectors]) -> float:
    """How much nearer the query is to a sentence of the answer's FAQs that the answer leaves out than to any that it has."""
    gaps = []
    for faq in {claim.faq for claim in claims if claim.faq is not None}:
        ways = len(knowns[faq].askings)
        near = cosines[faq][ways + 1 :, :2].max(axis=1)
        has = {n - 1 for claim in claims if claim.faq == faq for n in claim.sentences if 0 < n <= len(near)}
        if len(near) and has:
            gaps.append(float(near.max() - max(near[n] for n in has)))
    return min(1.0, STRETCH * min(gaps, default=0.0))


def _english(answer: str) -> bool:
    words = wording.words(answer)
    return len(words) < 5 or sum(word in ENGLISH for word in words) >= FEWEST_ENGLISH * len(words)
