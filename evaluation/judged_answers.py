"""Answers to learn judging from and to measure a judge on, made of the help desk's FAQs and conversations.

Four kinds: answers that a reader gave in a replay, labelled by the reference judge; right answers in other words; wrong answers made of
right ones (`reward/corruptions.py`); answers written by hand (`reward/rewordings.py`). Seeded. Leaves out people's ratings
(`local_judge_ratings.py`) and fitting.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from chat.types import Action
from evaluation.datasets import Session
from evaluation.graph import state_graph
from evaluation.rollout import CHOICES, World, replays
from evaluation.world import make_world
from kb.embedder import Embedder
from kb.retriever import FaqRetriever
from reward.corruptions import CORRUPTIONS, RIGHT, Source
from reward.examining import HITS
from reward.judge import Case, ReferenceJudge, Verdict
from reward.local_training import Example
from reward.readers import ReaderName
from reward.rewordings import read_rewordings

MADE_WEIGHT = 0.3
"""Of an answer that no reader chose: in those every FAQ that is used settles the query, which real answers' don't."""
PLAYED_SUPPORT = 0.2
"""Of a reader's answer in what the FAQs hold: most are an FAQ's own words, which teach little."""
HAND_SUPPORT = 2.0
"""Of one written by hand."""
CLAIM_NOTHING = ("wrong refusal", "empty words")
"""Corruptions that leave no claim."""
OTHER_FAQS = 3
"""FAQs shown beside the right one in a made case, at most."""


@dataclass(slots=True)
class Recorder:
    """The reference judge, which keeps each case that it judged with its word on it."""

    seen: list[tuple[str, str, Case, bool]] = field(default_factory=list)
    """Conversation, kind of turn, case, Good."""
    conversation: str = ""
    kind: str = ""
    version: str = "recorder"

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        verdicts = ReferenceJudge().judge(cases)
        self.seen += [(self.conversation, self.kind, case, verdict.good) for case, verdict in zip(cases, verdicts, strict=True)
                      if verdict is not None]
        return verdicts


def played(sessions: Sequence[Session], embedder: Embedder, retriever: FaqRetriever, reader: ReaderName) -> tuple[Example, ...]:
    """Both arms of every turn of the conversations under always fetching, each an example of kind `reader: kind of turn: action`."""
    recorder = Recorder()
    world = replace(make_world(embedder, retriever, reader=reader), judge=recorder)
    for replay in replays(sessions, world):
        recorder.conversation = replay.session.id
        for turn, labelled in enumerate(replay.session.turns):
            for action in CHOICES:
                recorder.kind = f"{reader}: {labelled.kind}: {action}"
                replay.arm((Action.FETCH,) * turn, action)
    return tuple(_example(*one) for one in recorder.seen)


def all_states(sessions: Sequence[Session], world: World, retriever: FaqRetriever) -> tuple[Example, ...]:
    """Both arms of every state that some sequence of actions leads to, in a world whose reader has fixed answers."""
    recorder = Recorder()
    for replay in replays(sessions, replace(world, judge=recorder)):
        recorder.conversation, recorder.kind = replay.session.id, "state"
        state_graph([replay])
    return tuple(_example(*one) for one in recorder.seen)


def _example(conversation: str, kind: str, case: Case, good: bool) -> Example:
    """An answer that a reader gave. One that rests on FAQs which aren't shown is unsupported; whether they would settle the query isn't
    its fault."""
    ids = {faq.id for faq in case.faqs}
    unfounded = kind != "" and bool(case.gold) and not (set(case.gold or ()) & ids) and not case.used and not kind.startswith("extractive")
    return Example(case, conversation, kind, supported=not unfounded, settled=None if unfounded else good,
                   weight=1.0 if kind.startswith("extractive") else MADE_WEIGHT, support_weight=PLAYED_SUPPORT,
                   played=kind.startswith("extractive"))


def right_answers(examples: Sequence[Example], retriever: FaqRetriever, *, each: int, seed: int) -> tuple[Example, ...]:
    """Of the turns that an FAQ settles, right answers in other words; kinds of `RIGHT`, drawn at random."""
    rng = np.random.default_rng(seed)
    found = []
    for example in _fetched_with_gold(examples):
        source, case = _source(example.case, retriever, rng)
        for kind in _drawn(list(RIGHT), each, rng):
            answer = RIGHT[kind](source, rng)
            if answer is not None:
                found.append(Example(replace(case, answer=answer, used=(source.faq.id,)), example.group, kind, True, True, MADE_WEIGHT))
    return tuple(found)


def wrong_answers(examples: Sequence[Example], retriever: FaqRetriever, *, each: int, seed: int) -> tuple[Example, ...]:
    """Of the same turns, wrong answers; half of them made of a right one in other words."""
    rng = np.random.default_rng(seed)
    found = []
    for example in _fetched_with_gold(examples):
        source, case = _source(example.case, retriever, rng)
        for kind in _drawn(list(CORRUPTIONS), each, rng):
            first = RIGHT[list(RIGHT)[rng.integers(len(RIGHT))]](source, rng) if rng.random() < 0.5 else None
            answer = CORRUPTIONS[kind](replace(source, answer=first or source.answer), rng)
            if answer is not None:
                silent = kind in CLAIM_NOTHING
                found.append(Example(replace(case, answer=answer, used=()), example.group, kind, None if silent else False,
                                     False if silent else None, MADE_WEIGHT))
    return tuple(found)


def hand_written(retriever: FaqRetriever, *, seed: int = 0) -> tuple[Example, ...]:
    """The answers written by hand, of kind `hand: right`, `hand: changed` or `hand: beside`; each with its FAQ and two that are near it."""
    rng = np.random.default_rng(seed)
    found = []
    for one in read_rewordings():
        faq = retriever.get(one.faq)
        if faq is None:
            continue  # another knowledge base
        near = [hit.faq for hit in retriever.search(one.query, k=HITS) if hit.faq.id != faq.id][: HITS - 1]
        shown = [faq, *near]
        case = Case(one.query, (), tuple(shown[n] for n in rng.permutation(len(shown))), one.answer, (faq.id,), gold=(faq.id,))
        settled = {"right": True, "changed": None, "beside": False}[one.kind]
        found.append(Example(case, f"hand:{faq.id}", f"hand: {one.kind}", one.kind == "right", settled, 1.0, HAND_SUPPORT))
    return tuple(found)


def _fetched_with_gold(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples
            if example.kind.startswith("ideal") and not example.kind.endswith(Action.NO_FETCH) and example.case.gold]


def _source(case: Case, retriever: FaqRetriever, rng: np.random.Generator) -> tuple[Source, Case]:
    """The right answer to corrupt, and a case that shows its FAQ among some of those that the turn had."""
    assert case.gold, "only turns that an FAQ settles"
    faq = retriever.get(case.gold[0])
    assert faq is not None, "replays check gold ids"
    beside = [other for other in case.faqs if other.id not in case.gold]
    shown = [faq, *(beside[n] for n in rng.permutation(len(beside))[:OTHER_FAQS])]
    ids = {one.id for one in shown}
    others = [other for other in retriever.faqs if other.id not in ids and other.id not in case.gold]
    return Source(faq.answer, case.query, faq, others), replace(case, faqs=tuple(shown[n] for n in rng.permutation(len(shown))))


def _drawn(kinds: list[str], count: int, rng: np.random.Generator) -> list[str]:
    return [kinds[n] for n in rng.permutation(len(kinds))[:count]]
