"""A turn up to its first token: what was shown before, what retrieval finds, what is decided, what the prompt is.

What fails here degrades the turn instead of ending it: no log means unknown previous actions, no knowledge base means an
answer without context, a failing policy means FETCH. Leaves out generating and logging (`pipeline.py`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from chat.dialogue import Dialogue, past_turns, read_dialogue
from chat.errors import LogError
from chat.ports import ConversationLog, Policy, Retriever
from chat.prompt import PAPER, PromptSettings, faqs_in_history, render
from chat.types import Action, Decision, Evidence, Message, PastTurn, Prompt, State
from kb.errors import KbError
from kb.types import Faq, Hit

logger = logging.getLogger(__name__)

STATIC_POLICY = "static"
"""`policy_version` of a turn that was answered without asking the policy."""


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How turns are served."""

    prompt: PromptSettings = PAPER
    baselines: Mapping[str, PromptSettings] = field(default_factory=lambda: {"paper": PAPER})
    """Always-fetch settings, besides the serving one, whose cost is logged with every turn."""
    min_similarity: float = 0.0
    """Cosine that an FAQ must reach to be fetched at all."""
    static_threshold: float | None = None
    """Cosine from which the top-1 FAQ is the answer, without an LLM. None: never, as long as nothing has calibrated it."""
    fallback_threshold: float | None = None
    """Cosine from which the top-1 FAQ is shown, with a note, when the LLM fails. None: the turn fails then."""
    state_queries: int = 2
    """Previous queries that the policy reads."""

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

    def plan(self, messages: tuple[Message, ...], owner: str, conversation_id: str) -> Plan:
        """Read the messages, recall, retrieve, decide and render. Raises: InvalidRequestError."""
        clock, degraded = _Stages(), list[str]()
        dialogue = read_dialogue(messages)
        history = self._recall(dialogue, owner, conversation_id, degraded)
        clock.end("recall")
        hits = self._search(dialogue.query, degraded)
        clock.end("retrieve")
        state = self._state(dialogue.query, history, hits, degraded)
        static = certain_faq(hits, self._config.static_threshold)
        decision = self._decide(state, static, degraded)
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
        return past_turns(recent, logged, self._retriever.get)

    def _search(self, query: str, degraded: list[str]) -> tuple[Hit, ...]:
        try:
            return self._retriever.search(query, k=self._config.hits, min_similarity=self._config.min_similarity)
        except (KbError, OSError, RuntimeError):  # RuntimeError is what FAISS and torch raise
            logger.exception("the knowledge base can't be searched; answering without it")
            degraded.append("kb_unavailable")
            return ()

    def _state(self, query: str, history: tuple[PastTurn, ...], hits: tuple[Hit, ...], degraded: list[str]) -> State:
        try:
            return read_state(query, history, hits, self._retriever, self._config, known="kb_unavailable" not in degraded)
        except (KbError, OSError, RuntimeError):
            logger.exception("the knowledge base can't be compared with; deciding without evidence")
            degraded.append("kb_unavailable")
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


def _nearest(cosines: Sequence[float | None]) -> float | None:
    return max((one for one in cosines if one is not None), default=None)


def certain_faq(hits: Sequence[Hit], threshold: float | None) -> Faq | None:
    """The top-1 FAQ, if it has an answer and its similarity reaches the threshold; None without a threshold."""
    if threshold is None or not hits or hits[0].similarity < threshold or not hits[0].faq.answer:
        return None
    return hits[0].faq


class _Stages:
    """Milliseconds from one stage's end to the next's."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = perf_counter()

    def end(self, stage: str) -> None:
        now = perf_counter()
        self.milliseconds[stage] = (now - self._last) * 1e3
        self._last = now
