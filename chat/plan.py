"""A turn up to its first token: what was shown before, what retrieval finds, what is decided, what the prompt is.

What fails here degrades the turn instead of ending it: no log means unknown previous actions, no knowledge base means an
answer without context, a failing policy means FETCH. Leaves out generating and logging (`pipeline.py`).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol, runtime_checkable

from chat.dialogue import Dialogue, past_turns, read_dialogue
from chat.errors import LogError
from chat.holdback import HELD_BACK, is_held_back
from chat.ports import ConversationLog, LoggedExchange, Policy, Retriever
from chat.prompt import PAPER, PromptSettings, faqs_in_history, render
from chat.types import Action, Decision, Evidence, Message, PastTurn, Prompt, State
from kb.errors import KbError
from kb.types import Faq, Hit

logger = logging.getLogger(__name__)

STATIC_POLICY = "static"
"""`policy_version` of a turn that was answered without asking the policy."""
WITHOUT_KB = "kb_unavailable"
"""In `degraded`: the turn goes without the knowledge base from there on."""
KB_FAULTS = (KbError, OSError, RuntimeError)
"""What a knowledge base that can't be used raises; RuntimeError is FAISS's and torch's."""


@runtime_checkable
class RemoteRetriever(Protocol):
    """What a Retriever has besides where an answer of its is a round trip: several FAQs in one."""

    def get_many(self, faq_ids: Iterable[str]) -> Mapping[str, Faq]:
        """Those of the FAQs that are there, by id."""


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How turns are served."""

    prompt: PromptSettings = PAPER
    baselines: Mapping[str, PromptSettings] = field(default_factory=lambda: {"paper": PAPER})
    """Always-fetch settings, besides the serving one, whose cost is logged with every turn."""
    min_similarity: float = 0.0
    """Cosine that an FAQ must reach to be fetched at all."""
    static_threshold: float | None = None
    """Similarity from which the top-1 FAQ is the answer, without an LLM, whatever was calibrated. None: see `calibrated_static`."""
    fallback_threshold: float | None = None
    """Cosine from which the top-1 FAQ is shown, with a note, when the LLM fails. None: the turn fails then."""
    state_queries: int = 2
    """Previous queries that the policy reads."""
    search_previous: bool = True
    """Whether a query in mid-conversation is searched for together with the one before as well as alone."""
    calibrated_static: bool = False
    """Whether an FAQ answers by itself where the knowledge base's calibration lets it."""
    holdback: float = 0.0
    """Share of conversations in which every turn fetches and no FAQ answers by itself, to compare the others with; in [0, 1]."""

    @property
    def hits(self) -> int:
        """FAQs to search for: enough for every setting, and two for the margin."""
        return max(2, self.prompt.k, *(settings.k for settings in self.baselines.values()))

    @property
    def past_turns(self) -> int:
        """Past turns that something reads."""
        return max(self.state_queries, self.prompt.history_turns, *(s.history_turns for s in self.baselines.values()))


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything of a turn that is known before it is answered."""

    dialogue: Dialogue
    history: tuple[PastTurn, ...]
    hits: tuple[Hit, ...]
    state: State
    decision: Decision
    prompt: Prompt
    """No messages when the answer is static."""
    static: Faq | None
    degraded: tuple[str, ...]
    latency_ms: Mapping[str, float]
    kb_version: str


class TurnPlanner:
    """Plans turns with a retriever, a policy and the log."""

    def __init__(self, retriever: Retriever, policy: Policy, log: ConversationLog, config: PipelineConfig) -> None:
        self._retriever = retriever
        self._policy = policy
        self._log = log
        self._config = config

    def plan(
        self, messages: tuple[Message, ...], owner: str, conversation_id: str, *, standalone: str | None = None, with_kb: bool = True
    ) -> Plan:
        """Read the messages, recall, retrieve, decide and render. Raises: InvalidRequestError.

        `standalone` is searched for in the query's place. `with_kb` is False where the knowledge base has just failed.
        """
        clock, degraded = _Stages(), [] if with_kb else [WITHOUT_KB]
        dialogue = read_dialogue(messages)
        history = self._recall(dialogue, owner, conversation_id, degraded)
        clock.end("recall")
        hits = self._search(dialogue, standalone, degraded)
        clock.end("retrieve")
        state = self._state(dialogue.query, history, hits, degraded)
        held_back = is_held_back(conversation_id, self._config.holdback)
        static = None if held_back else static_faq(hits, self._config, began=not dialogue.exchanges)
        decision = HELD_BACK if held_back else self._decide(state, static, degraded)
        clock.end("decide")
        prompt = self._prompt(dialogue, history, hits, decision, static)
        clock.end("prompt")
        return Plan(dialogue, history, hits, state, decision, prompt, static, tuple(degraded), clock.milliseconds,
                    self._retriever.version)

    def _recall(self, dialogue: Dialogue, owner: str, conversation_id: str, degraded: list[str]) -> tuple[PastTurn, ...]:
        """The last exchanges, with what the log knows of them."""
        recent = dialogue.exchanges[-self._config.past_turns :] if self._config.past_turns else ()
        if not recent:
            return ()
        try:
            # more than are read: an edited or regenerated answer leaves turns in the log that the client no longer shows
            logged = self._log.recent(owner, conversation_id, limit=4 * self._config.past_turns)
        except LogError:
            logger.exception("the log can't be read; previous actions are unknown")
            degraded.append("log_unavailable")
            logged = ()
        return past_turns(recent, logged, self._shown(logged, degraded).get)

    def _shown(self, logged: Sequence[LoggedExchange], degraded: list[str]) -> Mapping[str, Faq]:
        """The FAQs of these turns that are still there, by id."""
        if WITHOUT_KB in degraded:
            return {}
        try:
            return faqs_there(self._retriever, [faq_id for turn in logged for faq_id in (*turn.fetched, *turn.hits)])
        except KB_FAULTS:
            logger.exception("the knowledge base can't be read; answering without it")
            degraded.append(WITHOUT_KB)
            return {}

    def _search(self, dialogue: Dialogue, standalone: str | None, degraded: list[str]) -> tuple[Hit, ...]:
        if WITHOUT_KB in degraded:
            return ()
        try:
            before = dialogue.exchanges[-1][0] if self._config.search_previous and dialogue.exchanges and standalone is None else None
            hits = self._retriever.search(standalone or dialogue.query, k=self._config.hits, min_similarity=self._config.min_similarity,
                                          previous=before)
        except KB_FAULTS:
            logger.exception("the knowledge base can't be searched; answering without it")
            degraded.append(WITHOUT_KB)
            return ()
        # a calibration is about customers' own words
        return hits if standalone is None else tuple(replace(hit, confidence=None, alone="never") for hit in hits)

    def _state(self, query: str, history: tuple[PastTurn, ...], hits: tuple[Hit, ...], degraded: list[str]) -> State:
        try:
            return read_state(query, history, hits, self._retriever, self._config, known=WITHOUT_KB not in degraded)
        except KB_FAULTS:
            logger.exception("the knowledge base can't be compared with; deciding without evidence")
            degraded.append(WITHOUT_KB)
            return read_state(query, history, hits, self._retriever, self._config, known=False)

    def _decide(self, state: State, static: Faq | None, degraded: list[str]) -> Decision:
        if static is not None:
            return Decision(Action.STATIC, 0.0, 0.0, 1.0, STATIC_POLICY, "an FAQ answers this by itself")
        try:
            return self._policy.decide(state)
        except Exception:  # whatever a policy does, the turn goes on
            logger.exception("policy %s failed; fetching", self._policy.version)
            degraded.append("policy_failed")
            return Decision(Action.FETCH, 1.0, 0.0, 1.0, self._policy.version, "the policy failed, so it fetches to be safe")

    def _prompt(
        self, dialogue: Dialogue, history: tuple[PastTurn, ...], hits: tuple[Hit, ...], decision: Decision, static: Faq | None
    ) -> Prompt:
        if static is not None:
            return Prompt((), fetched=(static.id,), shown=(static.id,))
        fetched = [hit.faq for hit in hits[: self._config.prompt.k]] if decision.action is Action.FETCH else []
        return render(self._config.prompt, history, fetched, dialogue.query, operator=dialogue.operator)


def read_state(
    query: str, history: Sequence[PastTurn], hits: Sequence[Hit], retriever: Retriever, config: PipelineConfig, *, known: bool = True
) -> State:
    """What the policy reads of a turn; `known` is whether retrieval worked, without which there is no evidence."""
    read = history[-config.state_queries :] if config.state_queries else ()
    evidence = _evidence(query, history, hits, retriever, config.prompt) if known else None
    return State(tuple(turn.query for turn in read), tuple(turn.action for turn in read), query, evidence)


def _evidence(
    query: str, history: Sequence[PastTurn], hits: Sequence[Hit], retriever: Retriever, prompt: PromptSettings
) -> Evidence:
    there = faqs_in_history(prompt, history)
    beside = retriever.compare(query, history[-1].query if history else None, there)
    fetched = [hit.faq for hit in hits[: prompt.k]]
    added = [faq for faq in fetched if prompt.repeats or faq.id not in there]
    top1, joined = hits[0].faq.id if hits else None, beside.joined_top1
    return Evidence(
        top1_similarity=hits[0].similarity if hits else None,
        margin=hits[0].similarity - hits[1].similarity if len(hits) > 1 else None,
        top1_in_prompt=top1 in there,
        turns_since_fetch=next((n for n, turn in enumerate(reversed(history)) if turn.action is Action.FETCH), None),
        last_similarity=hits[len(fetched) - 1].similarity if fetched else None,
        prompt_similarity=_nearest(beside.faqs),
        prompt_faqs=len(there),
        fetched_in_prompt=sum(faq.id in there for faq in fetched),
        fetch_characters=sum(len(faq.question) + len(faq.answer) for faq in added),
        previous_similarity=beside.previous,
        joined_top1_similarity=None if joined is None else joined.similarity,
        joined_top1_in_prompt=joined is not None and joined.faq.id in there,
        joined_prompt_similarity=_nearest(beside.joined_faqs),
        joined_top1_same=joined is not None and joined.faq.id == top1,
    )


def faqs_there(retriever: Retriever, faq_ids: Iterable[str]) -> Mapping[str, Faq]:
    """Those of the FAQs that are there now, by id; in one request where the retriever is remote, in none where none are asked for."""
    ids = tuple(dict.fromkeys(faq_ids))
    if ids and isinstance(retriever, RemoteRetriever):
        return retriever.get_many(ids)
    return {faq_id: faq for faq_id in ids if (faq := retriever.get(faq_id)) is not None}


def _nearest(cosines: Sequence[float | None]) -> float | None:
    return max((one for one in cosines if one is not None), default=None)


def certain_faq(hits: Sequence[Hit], threshold: float | None) -> Faq | None:
    """The top-1 FAQ, if it has an answer and its similarity reaches the threshold; None without a threshold."""
    if threshold is None or not hits or hits[0].similarity < threshold or not hits[0].faq.answer:
        return None
    return hits[0].faq


def static_faq(hits: Sequence[Hit], config: PipelineConfig, *, began: bool) -> Faq | None:
    """The FAQ that is the whole answer, if one is certain enough; `began` is whether nothing was said before."""
    if config.static_threshold is not None or not config.calibrated_static or not hits or not hits[0].faq.answer:
        return certain_faq(hits, config.static_threshold)
    return hits[0].faq if hits[0].alone == "always" or (began and hits[0].alone == "first") else None


class _Stages:
    """Milliseconds from one stage's end to the next's."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = perf_counter()

    def end(self, stage: str) -> None:
        now = perf_counter()
        self.milliseconds[stage] = (now - self._last) * 1e3
        self._last = now
