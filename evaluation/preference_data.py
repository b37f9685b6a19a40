"""Preferences to learn from without asking anybody: made of the help desk that ships, and those that a log's ratings hold.

The help desk's are made: to a train query the gold FAQ's answer is preferred to another FAQ's that search finds, and to a corrupted one.
They say which answer is right, not what people like. Needs no key and no network. Leaves out files (`reward/preferences.py`), and which
ratings count (`reward/sift.py`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from chat.log.store import SqlConversationLog
from evaluation.datasets import HELPDESK_ENCODER, HELPDESK_FAQS, Session, conversation_queries
from evaluation.world import load_knowledge
from kb.embedder import Embedder, EmbedderConfig, load_embedder
from kb.queries import LabelledQuery
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from kb.types import Faq
from reward.corruptions import CORRUPTIONS, RIGHT, Source
from reward.preferences import Judged, Preference
from reward.review import ShownFaq, review, training_pairs

SHOWN = 3
"""FAQs that a made pair's context shows, the gold one among them."""
SEARCHED = 8
CORRUPTED = 2
"""Corrupted answers to a query, at most."""


def helpdesk_knowledge(sessions: Sequence[Session] | None) -> tuple[Embedder, FaqRetriever]:
    """The help desk that ships with its encoder; given sessions, only the FAQs that these need, which are read in no time."""
    if sessions is None:
        return load_knowledge(None)
    needed = {faq_id for session in sessions for turn in session.turns for faq_id in turn.gold or ()}
    embedder = load_embedder(EmbedderConfig(str(HELPDESK_ENCODER)))
    return embedder, FaqRetriever.build(embedder, [faq for faq in read_faqs(HELPDESK_FAQS) if faq.id in needed])


def helpdesk_preferences(sessions: Sequence[Session], retriever: FaqRetriever, *, seed: int = 0) -> tuple[Preference, ...]:
    """Pairs for each query that an FAQ settles, each query once; a group is a query, so other queries about the same FAQ may stand on
    the other side of a split. Half of the chosen answers are in other words than the FAQ's, so that copying isn't what is learned.

    Raises: DatasetError for a gold id that the knowledge base doesn't hold.
    """
    rng = np.random.default_rng(seed)
    asked: dict[str, LabelledQuery] = {}
    for query in conversation_queries(sessions, (faq.id for faq in retriever.faqs)):
        if query.gold:
            asked.setdefault(_group(query.query), query)
    return tuple(pair for group, query in asked.items() for pair in _made(group, query, retriever, rng))


def log_preferences(log: SqlConversationLog, text_of: ShownFaq) -> tuple[Preference, ...]:
    """The pairs of the rankings that count, of turns that may be trained on. Raises: LogError."""
    pairs = (pair.record for pair in training_pairs(review(log), text_of))
    return tuple(Preference(str(one["group"]), str(one["prompt"]), _texts(one["context"]), str(one["chosen"]), str(one["rejected"]),
                            None if (margin := one.get("margin")) is None else float(str(margin))) for one in pairs)


def log_judged(log: SqlConversationLog, text_of: ShownFaq) -> tuple[Judged, ...]:
    """The answers that raters called Good or Bad, by consensus of the ratings that count. Raises: LogError, ShapingInputError."""
    found = review(log)
    judged = []
    for voted in found.consensus.turns:
        turn = found.turns[voted.turn_id]
        if voted.good is not None and turn.trains and turn.answer and turn.query.strip() and turn.answer.strip():
            context = tuple(text for faq_id in turn.shown if (text := text_of(faq_id)) is not None)
            judged.append(Judged(_group(turn.query), turn.query, context, turn.answer, voted.good))
    return tuple(judged)


def _group(query: str) -> str:
    """Of a question, whoever asked; as `reward/feedback.py` names it."""
    return hashlib.sha256(" ".join(query.casefold().split()).encode()).hexdigest()[:16]


def _texts(found: object) -> tuple[str, ...]:
    assert isinstance(found, list)
    return tuple(str(text) for text in found)


def _made(group: str, query: LabelledQuery, retriever: FaqRetriever, rng: np.random.Generator) -> Iterator[Preference]:
    right = query.gold or ()
    gold = retriever.get(right[0])
    assert gold is not None, "conversation_queries checks gold ids"
    hits = retriever.search(query.query, k=SEARCHED, previous=query.previous)
    wrong = [hit.faq for hit in hits if hit.faq.id not in right]
    shown = [gold, *wrong[: SHOWN - 1]]
    context = tuple(shown[n].text for n in rng.permutation(len(shown)))
    others = [faq for faq in retriever.faqs if faq.id not in right]
    source = Source(gold.answer, query.query, gold, others)
    chosen = _right(source, rng)
    for rejected in (*_others_answer(wrong), *_corrupted(replace(source, answer=chosen), rng)):
        if rejected.strip() and rejected != chosen:
            yield Preference(group, query.query, context, chosen, rejected)


def _right(source: Source, rng: np.random.Generator) -> str:
    """The FAQ's answer, or the same in other words."""
    if rng.random() < 0.5:
        return source.answer
    kinds = [kind for kind in RIGHT if kind != "verbatim"]
    return RIGHT[kinds[rng.integers(len(kinds))]](source, rng) or source.answer


def _others_answer(wrong: Sequence[Faq]) -> tuple[str, ...]:
    return tuple(faq.answer for faq in wrong[:1])


def _corrupted(source: Source, rng: np.random.Generator) -> Iterator[str]:
    """Of kinds drawn at random; those that find nothing to change are passed over."""
    made = 0
    for kind in rng.permutation(list(CORRUPTIONS)):
        answer = CORRUPTIONS[str(kind)](source, rng)
        if answer is not None:
            yield answer
            made += 1
        if made == CORRUPTED:
            return
