"""`LLMJudge`: a GPT-4 class judge behind any OpenAI-compatible server, as the Judge port.

Each case is asked at temperature 0, several at once, within a budget of money, and what was answered is kept by content. With several
votes a case is asked one after the other until more than half of all votes agree; each vote sees the FAQs in another order, since their
order sways judges and at temperature 0 nothing else would differ. A word that can't be read is missing. Leaves out the prompt and its
reading (`rubric.py`), the client (`asking.py`) and storing verdicts (`chat/log/verdicts.py`).
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from chat.accounting import with_overhead
from chat.errors import LLMError
from chat.ports import TokenCounter
from chat.prices import cost
from chat.types import Price, Usage
from reward.asking import Asker, Dialect, ServerConfig
from reward.errors import JudgeError
from reward.judge import Case, Verdict
from reward.judgements import Judgement, JudgementCache, Kind, case_key
from reward.rubric import RUBRIC_VERSION, SCHEMA, is_cut, read_verdict, render_case
from reward.spending import Purse

logger = logging.getLogger(__name__)

BUDGET_USED_UP = "the budget is used up"
NO_MAJORITY = "no verdict has more than half of the votes"
ROOM_POLL = 0.02
"""Seconds between two looks for room in the budget."""
CUT_NOTE = " (The judge saw the beginning and the end of a long answer.)"


@dataclass(frozen=True, slots=True)
class LLMJudgeConfig:
    """How cases are asked."""

    server: ServerConfig
    votes: int = 1
    """Most replies a case; a verdict needs more than half of them, so an even number can tie, which is missing."""
    concurrency: int = 8
    """Cases that are asked at once."""
    budget: float | None = None
    """Money for all that this judge is asked, in the price table's currency; None: no limit."""

    def __post_init__(self) -> None:
        for name in ("votes", "concurrency"):
            if getattr(self, name) < 1:
                raise JudgeError(f"{name}: expected at least 1, got {getattr(self, name)}")


class LLMJudge:
    """Judges by an LLM; safe for many threads. What a budget has no room for is missing, and `judge` says so in the log."""

    def __init__(
        self, config: LLMJudgeConfig, *, prices: Mapping[str, Price], counter: TokenCounter, cache: JudgementCache | None = None
    ) -> None:
        """`counter` stands in where a server doesn't count. Raises: JudgeError for a budget on a model without a price."""
        self._config = config
        self._counter = counter
        self._cache = cache
        self._purse = Purse(config.budget, prices.get(config.server.model), config.server.model)
        self._dialect = Dialect()
        self._asked = {"model": config.server.model, "server": config.server.base_url, "rubric": RUBRIC_VERSION, "votes": config.votes,
                       "max_tokens": config.server.max_tokens}

    @property
    def version(self) -> str:
        return f"llm:{self._config.server.model}:rubric-{RUBRIC_VERSION}:votes-{self._config.votes}"

    @property
    def spent(self) -> float | None:
        """Money so far; None: the model's price is unknown."""
        return self._purse.spent

    @property
    def currency(self) -> str | None:
        """Of the model's price; None: it is unknown."""
        return None if self._purse.price is None else self._purse.price.currency

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        """A verdict a case; None where there is none, also where no money was left. Raises: JudgeError, e.g. for a key that is refused."""
        words = _run(self.asked(cases))
        for kind, what in (("unasked", "not asked, since the budget is used up"), ("failed", "not answered by the server"),
                           ("missing", "answered with no verdict")):
            if count := sum(word.kind == kind for word in words):
                logger.warning("%d of %d cases were %s", count, len(words), what)
        return tuple(word.verdict for word in words)

    async def asked(self, cases: Iterable[Case]) -> tuple[Judgement, ...]:
        """What came of asking, one a case, in order; a case that comes twice is asked once. Raises: JudgeError."""
        asked = tuple(cases)
        keys = [case_key(case, self._asked) for case in asked]
        words = {key: word for key in dict.fromkeys(keys) if self._cache is not None and (word := self._cache.get(key)) is not None}
        new = {key: case for key, case in zip(keys, asked, strict=True) if key not in words}
        words |= await self._all(new) if new else {}
        paid: set[str] = set()
        return tuple(_once(words[key], key, paid) for key in keys)

    async def _all(self, cases: Mapping[str, Case]) -> dict[str, Judgement]:
        gate = asyncio.Semaphore(self._config.concurrency)

        async def one(asker: Asker, key: str, case: Case) -> Judgement:
            async with gate:
                word = await self._word(asker, case)
            if word.settled and self._cache is not None:
                self._cache.put(key, word, case.query)
            return word

        async with Asker(self._config.server, self._counter, self._dialect) as asker:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = {key: group.create_task(one(asker, key, case)) for key, case in cases.items()}
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            self._dialect = asker.dialect
        return {key: task.result() for key, task in tasks.items()}

    async def _word(self, asker: Asker, case: Case) -> Judgement:
        """All votes on a case, as far as they are needed."""
        votes: list[Verdict | None] = []
        total, trouble = _Spending(self.currency), ""
        while is_open(votes, self._config.votes):
            messages = render_case(case, turn_faqs=len(votes))
            aside = await self._set_aside(Usage(self._counter.count(messages), self._config.server.max_tokens))
            if aside is None:
                return total.judgement("unasked", None, BUDGET_USED_UP)
            paid: float | None = None
            try:
                reply = await asker.ask(messages, SCHEMA, seed=len(votes))
                paid = cost(reply.usage, self._purse.price)
                total.add(reply.usage, paid)
            except LLMError as error:
                logger.warning("a case wasn't judged: %s", error)
                return total.judgement("failed", None, str(error))
            finally:
                self._purse.settle(aside, paid)
            read = read_verdict(reply.text, case) if reply.trouble is None else None
            trouble = reply.trouble or str(read.trouble if read else "")
            votes.append(read.verdict if read else None)
            if votes[-1] is None:
                logger.info("a judge's reply of %d characters is no verdict: %s", len(reply.text), trouble)
                logger.debug("the reply: %s", reply.text[:2000])
        verdict = majority(votes, self._config.votes)
        if verdict is None:
            return total.judgement("missing", None, trouble if self._config.votes == 1 else NO_MAJORITY)
        if is_cut(case):
            verdict = replace(verdict, reason=verdict.reason + CUT_NOTE)
        return total.judgement("verdict", verdict, verdict.reason)


    async def _set_aside(self, most: Usage) -> float | None:
        """Money for a call; None where the budget has no room for it, also once the calls on their way are over."""
        while (aside := self._purse.set_aside(most)) is None and self._purse.may_find_room:
            await asyncio.sleep(ROOM_POLL)  # those calls may be another event loop's
        return aside


def is_open(votes: Sequence[Verdict | None], most: int) -> bool:
    """Whether further votes can still bring or change a majority of all `most`."""
    left = most - len(votes)
    sides = [sum(vote is not None and vote.good is good for vote in votes) for good in (True, False)]
    return left > 0 and max(sides) * 2 <= most < (max(sides) + left) * 2


def majority(votes: Sequence[Verdict | None], most: int) -> Verdict | None:
    """The verdict that more than half of `most` votes share; None without one: a tie is missing.

    Reason and quotes are its first voter's; hedged and safe are what more of the readable votes say, None where as many say the contrary.
    """
    readable = [vote for vote in votes if vote is not None]
    for good in (True, False):
        side = [vote for vote in readable if vote.good is good]
        if len(side) * 2 > most:
            return replace(side[0], hedged=_leading([vote.hedged for vote in readable]), safe=_leading([vote.safe for vote in readable]))
    return None


def _leading(said: Sequence[bool | None]) -> bool | None:
    lead = said.count(True) - said.count(False)
    return None if lead == 0 else lead > 0


class _Spending:
    """What the votes on one case cost together."""

    def __init__(self, currency: str | None) -> None:
        self._currency = currency
        self._usage: Usage | None = None
        self._cost: float | None = None if currency is None else 0.0

    def add(self, usage: Usage, paid: float | None) -> None:
        self._usage = with_overhead(usage, self._usage)
        self._cost = None if self._cost is None or paid is None else self._cost + paid

    def judgement(self, kind: Kind, verdict: Verdict | None, reason: str) -> Judgement:
        return Judgement(kind, verdict, reason, self._usage, self._cost, self._currency)


def _once(word: Judgement, key: str, paid: set[str]) -> Judgement:
    """The word of a case that comes again costs nothing more."""
    if key in paid:
        return replace(word, usage=None, cost=0.0)
    paid.add(key)
    return word


def _run(work: Coroutine[None, None, tuple[Judgement, ...]]) -> tuple[Judgement, ...]:
    """Run it, in a thread of its own where this one's event loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
