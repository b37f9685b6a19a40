"""One turn: plan it, generate the answer, account for it, log it.

An LLM that fails means the static FAQ, where one is certain enough, else an error that says when to try again. A query that a filter
refuses is not planned, and an answer that it refuses is not sent: something else is said in its place, and logged (`guard.py`,
`refused.py`). Leaves out HTTP (`service/`), how each part works (behind its port) and who is talking (`service/identity.py`).
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter

from chat.accounting import counterfactuals, usage_of, with_overhead, without_rewrite
from chat.citations import cited_ids
from chat.dialogue import read_dialogue
from chat.errors import LLMError, LogError
from chat.guard import UNAVAILABLE, Check, Guard
from chat.plan import KB_FAULTS, WITHOUT_KB, PipelineConfig, Plan, RemoteRetriever, TurnPlanner, certain_faq, faqs_there
from chat.ports import Chunk, ConversationLog, LLMClient, Policy, Retriever, TokenCounter
from chat.prompt import PROMPT_VERSION
from chat.refused import refused_turn
from chat.rewrite import AS_IT_IS, Rewriter, Rewritten
from chat.types import ALWAYS_FETCH, Decision, FinishReason, Message, Price, Refusal, Sampling, Turn, Usage
from kb.types import Faq

logger = logging.getLogger(__name__)

STATIC_MODEL = "fetchgate-static"
"""`model` of a turn that an FAQ answered."""
KB_UNAVAILABLE = "(The FAQ search isn't available right now, so this answer is given without it.)\n\n"
REPLANS = 10
"""Times that a turn is planned anew because its FAQs were changed meanwhile; a plan takes milliseconds."""
LLM_UNAVAILABLE = "(The assistant can't be reached right now; this FAQ may answer your question.)\n\n"


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What came in, after the edge has parsed it."""

    messages: tuple[Message, ...]
    owner: str
    conversation_id: str
    sampling: Sampling = field(default_factory=Sampling)
    background: bool = False
    sign_transcript: Callable[[str], str] | None = None
    """Gives the keyed hash of the transcript that ends in this answer; None: the next request brings its identity."""
    whole: bool = False
    """The reader gets the answer at once: nothing of it is given before all of it was checked."""


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The decision is taken and the answer begins."""

    turn_id: str
    created_at: datetime
    decision: Decision
    model: str
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """The answer is whole; `turn.degraded` holds `not_logged` when the log could not store it."""

    turn: Turn
    cited: tuple[Faq, ...]
    faqs: tuple[Faq, ...] = ()
    """Those that the answer was made from, as they were."""
    refused: str = ""
    """What was said in the place of a refused query or answer; "" where nothing was refused."""


TurnEvent = TurnStarted | TextDelta | TurnFinished


@dataclass(slots=True)
class _Running:
    """A turn on its way: what is known of it so far."""

    request: TurnRequest
    rewritten: Rewritten
    plan: Plan
    began: float
    created_at: datetime
    turn_id: str
    model: str
    degraded: tuple[str, ...]
    answer: str = ""
    usage: Usage | None = None
    finish: FinishReason = "cancelled"
    first_token: float | None = None
    checks: tuple[Check, ...] = ()
    """Of the query, then of the answer; () where there is no filter."""

    @property
    def refusal(self) -> Refusal | None:
        """Why the answer isn't given as it came."""
        return next((check.refusal for check in self.checks if check.refusal is not None), None)


class TurnPipeline:
    """Runs turns; safe for many at once."""

    def __init__(
        self,
        *,
        retriever: Retriever,
        policy: Policy,
        llm: LLMClient,
        log: ConversationLog,
        counter: TokenCounter,
        prices: Mapping[str, Price],
        config: PipelineConfig,
        rewriter: Rewriter | None = None,
        guard: Guard | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`guard`: refuses queries and answers; None: nothing is refused."""
        self._planner = TurnPlanner(retriever, policy, log, config)
        self._retriever = retriever
        self._llm = llm
        self._log = log
        self._counter = counter
        self._prices = prices
        self._config = config
        self._rewriter = rewriter
        self._guard = guard
        self._clock = clock

    async def run(self, request: TurnRequest) -> AsyncGenerator[TurnEvent]:
        """The turn's events: one TurnStarted, text deltas, one TurnFinished.

        A turn that breaks off, or whose reader goes away, is logged with what was said by then.
        Raises: InvalidRequestError before any event; LLMError before any event, or between deltas.
        """
        began, created_at, turn_id = perf_counter(), self._clock(), f"chatcmpl-{uuid.uuid4().hex}"
        checks: tuple[Check, ...] = ()
        if self._guard is not None:
            checks = (await self._guard.query(read_dialogue(request.messages).query),)
            if checks[0].refusal is not None:
                finished = await self._refuse(request, checks[0], self._guard, turn_id, created_at, began)
                yield TurnStarted(turn_id, created_at, finished.turn.decision, finished.turn.model, finished.turn.degraded)
                yield TextDelta(finished.turn.answer)
                yield finished
                return
            request = replace(request, messages=self._guard.unrefused(request.messages))
        rewritten = await self._rewritten(request)
        plan = await self._plan(request, rewritten)
        turn = _Running(request, rewritten, plan, began, created_at, turn_id, self._model(plan), plan.degraded, checks=checks)
        try:
            async with aclosing(self._checked(turn)) as chunks:
                async for chunk in chunks:
                    if turn.first_token is None:
                        turn.first_token = perf_counter()
                        yield TurnStarted(turn.turn_id, created_at, turn.plan.decision, turn.model, turn.degraded)
                    turn.answer += chunk.text
                    if chunk.finish_reason is not None:
                        turn.finish, turn.usage = chunk.finish_reason, chunk.usage
                    if chunk.text:
                        yield TextDelta(chunk.text)
        except BaseException as error:  # with GeneratorExit and CancelledError: the reader went away
            if isinstance(error, Exception):
                turn.finish = "error"
            if turn.first_token is not None:
                self._store(turn)  # not awaited: the task may be on its way out
            raise
        # shielded: a reader who goes away now must not take the turn, still waiting for its thread, along
        logged = await asyncio.shield(asyncio.to_thread(self._store, turn))
        known = _faqs(turn.plan)
        used = tuple(known[faq_id] for faq_id in dict.fromkeys((*logged.shown, *logged.cited)) if faq_id in known)
        yield TurnFinished(logged, await self._cited(logged, known), used,
                           "" if turn.refusal is None or self._guard is None else self._guard.reply(turn.refusal))

    def stands(self, faq: Faq) -> bool:
        """Whether the knowledge base still says this; False where that can't be known."""
        try:
            return self._retriever.get(faq.id) == faq
        except KB_FAULTS:
            logger.warning("whether FAQ %s still stands can't be known", faq.id, exc_info=True)
            return False

    async def _refuse(
        self, request: TurnRequest, asked: Check, guard: Guard, turn_id: str, created_at: datetime, began: float
    ) -> TurnFinished:
        """The turn of a query that isn't answered, logged before anything of it is said: it has no costs to wait for."""
        assert asked.refusal is not None, "only a query that was refused"
        said, total = guard.reply(asked.refusal), 1e3 * (perf_counter() - began)
        turn = refused_turn(
            asked.refusal, turn_id=turn_id, conversation_id=request.conversation_id, owner=request.owner, created_at=created_at,
            query=read_dialogue(request.messages).query, answer=said, settings=(ALWAYS_FETCH, *self._config.baselines),
            price=self._prices.get(self._llm.model),
            latency_ms={"filter": 1e3 * asked.seconds, "first_token": total, "generate": 0.0, "total": total},
            degraded=(UNAVAILABLE,) if asked.unavailable else (), background=request.background,
            transcript_mac=request.sign_transcript(said) if request.sign_transcript else None,
        )
        return TurnFinished(await asyncio.shield(asyncio.to_thread(self._append, turn)), (), (), said)

    async def _rewritten(self, request: TurnRequest) -> Rewritten:
        """What to search for, where a query may only be understood from what was said before it."""
        if self._rewriter is None or request.background:
            return AS_IT_IS
        return await self._rewriter.standalone(read_dialogue(request.messages))

    async def _plan(self, request: TurnRequest, rewritten: Rewritten, *, with_kb: bool = True) -> Plan:
        return await asyncio.to_thread(self._planner.plan, request.messages, request.owner, request.conversation_id,
                                       standalone=rewritten.query, with_kb=with_kb)

    async def _there(self, faq_ids: Sequence[str]) -> Mapping[str, Faq]:
        """Those of the FAQs that are there now. Raises: KB_FAULTS."""
        if faq_ids and isinstance(self._retriever, RemoteRetriever):  # a round trip, for which other turns must not wait
            return await asyncio.to_thread(faqs_there, self._retriever, faq_ids)
        return faqs_there(self._retriever, faq_ids)

    async def _all_stand(self, faqs: Iterable[Faq]) -> bool:
        """Whether the knowledge base still says all of this. Raises: KB_FAULTS."""
        said = {faq.id: faq for faq in faqs}
        return await self._there(tuple(said)) == said

    async def _cited(self, turn: Turn, known: Mapping[str, Faq]) -> tuple[Faq, ...]:
        """The FAQs that an answer cites and that are still there; as they were for it, where that can't be known."""
        try:
            there = await self._there(turn.cited)
        except KB_FAULTS:
            logger.warning("whether the FAQs that turn %s cites are still there can't be known", turn.id, exc_info=True)
            there = known
        return tuple(there[faq_id] for faq_id in turn.cited if faq_id in there)

    async def _renew(self, turn: _Running) -> None:
        """Plan the turn anew as long as an FAQ that it would answer with was changed or deleted since, or that can't be known.

        Raises: LLMError when that doesn't end.
        """
        for _ in range(REPLANS):
            known = _faqs(turn.plan)
            answering = True
            try:
                if await self._all_stand(known[faq_id] for faq_id in turn.plan.prompt.shown):
                    return
            except KB_FAULTS:
                logger.warning("whether FAQs still stand can't be known; answering without them", exc_info=True)
                answering = False
            turn.plan = await self._plan(turn.request, turn.rewritten, with_kb=answering)
            turn.model, turn.degraded = self._model(turn.plan), turn.plan.degraded
        raise LLMError("the FAQs change faster than an answer can be made of them; try again", retryable=True)

    def _model(self, plan: Plan) -> str:
        return STATIC_MODEL if plan.static is not None else self._llm.model

    async def _checked(self, turn: _Running) -> AsyncGenerator[Chunk]:
        """The answer's chunks as far as the filter lets them pass, then what is said in its place; the first as soon as one is there."""
        check = None if self._guard is None else self._guard.answer(whole=turn.request.whole)
        turn.checks += () if check is None else (check,)
        received = ""
        async with aclosing(self._answer(turn)) as chunks:
            async for chunk in chunks:
                received += chunk.text
                if check is not None:
                    passed = await check.feed(chunk.text, last=chunk.finish_reason is not None)
                    if check.refusal is not None:
                        break
                    chunk = replace(chunk, text=passed)
                if chunk.text or chunk.finish_reason is not None or turn.first_token is None:
                    yield chunk
            else:
                return
        assert self._guard is not None, "nothing else refuses"
        assert check.refusal is not None, "the loop was left for it"
        logger.info("the answer of turn %s was refused: %s", turn.turn_id, check.refusal.category)
        usage = usage_of(turn.plan, received, chunk.usage, self._counter)
        yield Chunk(("\n\n" if turn.answer else "") + self._guard.reply(check.refusal), "content_filter", usage)

    async def _answer(self, turn: _Running) -> AsyncGenerator[Chunk]:
        """The answer's chunks, at least one: the FAQ's if it is static, else the LLM's with a note on what is missing."""
        await self._renew(turn)
        if turn.plan.static is not None:
            yield _faq_answer(turn.plan.static)
            return
        note = KB_UNAVAILABLE if WITHOUT_KB in turn.plan.degraded else ""
        try:
            async with aclosing(self._llm.stream(turn.plan.prompt.messages, turn.request.sampling)) as chunks:
                async for chunk in chunks:
                    if chunk.text or chunk.finish_reason is not None:  # else it says nothing yet: only that a server began
                        yield replace(chunk, text=note + chunk.text)
                        note = ""
        except LLMError:
            faq = certain_faq(turn.plan.hits, self._config.fallback_threshold)
            if turn.first_token is not None or faq is None or not await asyncio.to_thread(self.stands, faq):
                raise
            logger.warning("the LLM failed; answering with FAQ %s", faq.id, exc_info=True)
            turn.degraded = (*turn.degraded, "llm_unavailable")
            turn.model = STATIC_MODEL
            yield _faq_answer(faq, LLM_UNAVAILABLE)

    def _store(self, running: _Running) -> Turn:
        """Account for a turn and log it; a log that fails makes the turn `not_logged`, which the client is told."""
        return self._append(self._record(running))

    def _append(self, turn: Turn) -> Turn:
        try:
            self._log.append(turn)
        except LogError:
            logger.exception("turn %s is not in the log", turn.id)
            turn = replace(turn, degraded=(*turn.degraded, "not_logged"))
        logger.info(
            "turn",
            extra={
                "turn_id": turn.id, "action": turn.decision.action.value, "behavior_prob": turn.decision.behavior_prob,
                "similarity": turn.hits[0][1] if turn.hits else None, "input_tokens": turn.usage.input_tokens,
                "output_tokens": turn.usage.output_tokens, "policy_version": turn.decision.policy_version,
            },
        )
        return turn

    def _record(self, running: _Running) -> Turn:
        plan, request = running.plan, running.request
        usage = usage_of(plan, running.answer, running.usage, self._counter)
        settings = {ALWAYS_FETCH: self._config.prompt, **self._config.baselines}
        # a static answer that stands in for the LLM cites the top-1, which may not be in the prompt
        citable = [hit.faq.id for hit in plan.hits[:1]] if running.model == STATIC_MODEL else plan.prompt.shown
        return Turn(
            id=running.turn_id,
            conversation_id=request.conversation_id,
            owner=request.owner,
            created_at=running.created_at,
            query=plan.dialogue.query,
            answer=running.answer,
            state=plan.state,
            decision=plan.decision,
            hits=tuple((hit.faq.id, hit.similarity) for hit in plan.hits),
            fetched=plan.prompt.fetched,
            shown=plan.prompt.shown,
            cited=cited_ids(running.answer, citable),
            usage=with_overhead(usage, running.rewritten.usage),
            counterfactuals=(*counterfactuals(plan, running.answer, usage, self._counter, settings),
                             *without_rewrite(usage, running.rewritten.usage)),
            model=running.model,
            prompt_version=PROMPT_VERSION,
            kb_version=plan.kb_version,
            price=self._prices.get(self._llm.model),
            latency_ms=self._latency(running),
            finish_reason=running.finish,
            degraded=(*running.degraded, *((UNAVAILABLE,) if any(check.unavailable for check in running.checks) else ())),
            background=request.background,
            transcript_mac=request.sign_transcript(running.answer) if request.sign_transcript else None,
            refusal=running.refusal,
        )

    def _latency(self, running: _Running) -> dict[str, float]:
        now, first, began = perf_counter(), running.first_token, running.began
        assert first is not None, "an LLMClient gives at least the chunk that says why it ended"
        later = {"generate": now - first, "first_token": first - began, "total": now - began}
        if running.rewritten.seconds:
            later["rewrite"] = running.rewritten.seconds
        if running.checks:
            later["filter"] = sum(check.seconds for check in running.checks)
        return {**running.plan.latency_ms, **{stage: seconds * 1e3 for stage, seconds in later.items()}}


def _faqs(plan: Plan) -> dict[str, Faq]:
    """The FAQs that a plan may show, by id, as it knows them."""
    return {faq.id: faq for turn in plan.history for faq in turn.fetched} | {hit.faq.id: hit.faq for hit in plan.hits}


def _faq_answer(faq: Faq, note: str = "") -> Chunk:
    """An FAQ's own answer, cited, as the whole answer."""
    return Chunk(f"{note}{faq.answer} [{faq.id}]", "stop", Usage(0, 0, source="none"))
