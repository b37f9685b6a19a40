"""A client that talks to a pipeline and, like every OpenAI client, sends the whole conversation with each query."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from chat.pipeline import TurnEvent, TurnFinished, TurnPipeline, TurnRequest
from chat.plan import PipelineConfig
from chat.ports import ConversationLog, LLMClient, Policy, Retriever, TokenCounter
from chat.prompt import PAPER, PromptSettings
from chat.rewrite import Rewriter
from chat.types import Message, Price, Turn
from kb.types import Faq
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedLLM, ScriptedPolicy, WordCounter

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)

HOURS = Faq("hours", "When are you open?", "Nine to five.")
RETURNS = Faq("returns", "Can I return things?", "Yes, within thirty days.")
PARKING = Faq("parking", "Where can I park?", "Behind the house, free of charge.")
FAQS = (HOURS, RETURNS, PARKING)


def config(
    prompt: PromptSettings = PAPER, *, baselines: Mapping[str, PromptSettings] | None = None,
    min_similarity: float = 0.5, static_threshold: float | None = None, fallback_threshold: float | None = None,
    state_queries: int = 2, search_previous: bool = False,
) -> PipelineConfig:
    """A pipeline's options; unless asked for, no baseline besides the serving one, and each query is searched for alone."""
    return PipelineConfig(prompt, baselines or {}, min_similarity, static_threshold, fallback_threshold, state_queries, search_previous)


@dataclass
class Conversation:
    """What was said so far, and the parts that answer; parts may be changed between two queries."""

    retriever: Retriever = field(default_factory=lambda: FakeRetriever(FAQS))
    policy: Policy = field(default_factory=ScriptedPolicy)
    llm: LLMClient = field(default_factory=ScriptedLLM)
    log: ConversationLog = field(default_factory=InMemoryLog)
    counter: TokenCounter = field(default_factory=WordCounter)
    prices: Mapping[str, Price] = field(default_factory=dict)
    config: PipelineConfig = field(default_factory=config)
    rewriter: Rewriter | None = None
    messages: list[Message] = field(default_factory=list)

    def pipeline(self) -> TurnPipeline:
        return TurnPipeline(
            retriever=self.retriever, policy=self.policy, llm=self.llm, log=self.log, counter=self.counter,
            prices=self.prices, config=self.config, rewriter=self.rewriter, clock=lambda: NOON,
        )

    def request(self, query: str) -> TurnRequest:
        return TurnRequest((*self.messages, Message("user", query)), "local", "c1")

    async def events(self, query: str) -> list[TurnEvent]:
        """All events of one turn; the query and its answer are part of the conversation then."""
        async with aclosing(self.pipeline().run(self.request(query))) as events:
            seen = [event async for event in events]
        assert isinstance(seen[-1], TurnFinished)
        self.messages += [Message("user", query), Message("assistant", seen[-1].turn.answer)]
        return seen

    async def ask(self, query: str) -> Turn:
        """One turn, as it was logged."""
        last = (await self.events(query))[-1]
        assert isinstance(last, TurnFinished)
        return last.turn


def texts(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages]
