"""Turns of the log as cases for a judge: the arm that was taken as it was served, the other one as it would have been.

What was served is judged as it is: its answer, beside the FAQs that it was shown and those that a search finds. The other arm's prompt
is rendered by the service's own renderer from the history that the log knows, and answered by the LLM that is configured; only where
all of it can be had again (the same LLM, FAQs and earlier turns), else it is left, with a reason. A client's own system text isn't in the
log and stands in no such prompt.

An imported turn took no action. It is played as if it had fetched, each turn on the transcript of the turns before: the answers that its
file holds, and written ones where it holds none. An answer of the file is judged as FETCH's, and has no other arm: who wrote it can't be
asked again. No FAQ answers by itself in such a play.

A judge gets the FAQs that stood in the prompt and, apart, those that a fetch shows, whatever the action: else nobody could say whether
"I don't know" was right. Leaves out judging and storing (`labelling.py`).
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from chat.citations import cited_ids
from chat.dialogue import past_turns
from chat.log.records import ImportedTurn, LoggedTurn
from chat.plan import PipelineConfig, faqs_there
from chat.ports import LLMClient, LoggedExchange, Retriever, TokenCounter
from chat.prompt import render
from chat.types import Action, PastTurn, Prompt, Sampling, Turn, Usage
from evaluation.errors import EvaluationError
from kb.types import Faq
from reward.judge import Case

BROKEN_OFF = ("cancelled", "error")
Arms = Mapping[tuple[str, Action], str | None]
"""What a judge has said something about: (turn id, arm) to the answer that was written for it; None: the turn's own."""


@dataclass(frozen=True, slots=True)
class Written:
    """An answer that was written for a case."""

    answer: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class ArmCase:
    """One answer to be judged."""

    turn_id: str
    arm: Action
    case: Case
    written: Written | None
    """None: the turn's own answer."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What answers are written with: the knowledge base, LLM and settings of the service."""

    retriever: Retriever
    llm: LLMClient
    counter: TokenCounter
    config: PipelineConfig

    async def write(self, prompt: Prompt) -> Written:
        """The LLM's answer with its own options. Raises: LLMError."""
        answer, usage = "", None
        async with aclosing(self.llm.stream(prompt.messages, Sampling())) as chunks:
            async for chunk in chunks:
                answer, usage = answer + chunk.text, chunk.usage or usage
        counted = Usage(self.counter.count(prompt.messages), self.counter.count_text(answer), source="local")
        return Written(answer, usage or counted)


@dataclass(slots=True)
class Room:
    """How many turns may still be judged."""

    left: int | None
    """None: all."""

    def take(self) -> bool:
        """Whether there is room for one more, which is then taken."""
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0

    @property
    def is_full(self) -> bool:
        return self.left is not None and self.left <= 0


class LoggedArms:
    """Cases of conversations, and counts of what was passed over."""

    def __init__(self, answering: Answering, both_arms: float, room: Room, *, by_labels: bool = False) -> None:
        """`both_arms` is the share of turns whose other arm is judged too; `by_labels` is for a judge that reads gold labels."""
        self._answering = answering
        self._share = both_arms
        self._room = room
        self._by_labels = by_labels
        self.passed_over: Counter[str] = Counter()
        """Turns that aren't judged at all, by reason."""
        self.one_arm: Counter[str] = Counter()
        """Turns whose other arm was due and can't be had, by reason."""

    async def of(self, turns: Sequence[LoggedTurn], said: Arms) -> list[ArmCase]:
        """The cases of one conversation on which nothing was said yet, turn by turn, the taken arm first. Raises: LLMError."""
        served = [turn for turn in turns if isinstance(turn, Turn)]
        imported = [turn for turn in turns if isinstance(turn, ImportedTurn)]
        found = [case for n in range(len(served)) for case in await self._served(served[: n + 1], said)]
        return found + await self._imported(imported, said)

    async def _served(self, turns: Sequence[Turn], said: Arms) -> list[ArmCase]:
        """Of the last of these turns."""
        turn = turns[-1]
        due = self._due(turn.id, turn.decision.action, said)
        if turn.background or not due:
            return []
        shown = faqs_there(self._answering.retriever, (*turn.shown, *turn.fetched, *(faq_id for faq_id, _ in turn.hits)))
        if (trouble := self._trouble(turn, shown)) is not None:
            self.passed_over[trouble] += 1
            return []
        if not self._room.take():
            return []
        history, whole = self._history(turns, shown)
        found = tuple(shown[faq_id] for faq_id, _ in turn.hits[: self._answering.config.prompt.k] if faq_id in shown)
        stood = tuple(shown[faq_id] for faq_id in turn.shown)
        seen = history[len(history) - min(self._answering.config.prompt.history_turns, len(history)) :]
        taken = ArmCase(turn.id, turn.decision.action, Case(turn.query, seen, stood, turn.answer, turn.cited, found=found), None)
        cases = [taken] if taken.arm in due else []
        other = [arm for arm in due if arm is not taken.arm]
        if other and (reason := self._lost(turn, history, shown, whole=whole)) is not None:
            self.one_arm[reason] += 1
        elif other:
            prompt = render(self._answering.config.prompt, history, found if other[0] is Action.FETCH else (), turn.query)
            cases.append(await self._written(turn.id, other[0], prompt, turn.query, history, found, None))
        return cases

    async def _imported(self, turns: Sequence[ImportedTurn], said: Arms) -> list[ArmCase]:
        """Of a conversation from a file, played up to the last turn that is due."""
        cases: list[ArmCase] = []
        due = [self._due_imported(turn, said) for turn in turns]
        last = max((n for n, arms in enumerate(due) if arms), default=-1)
        history: tuple[PastTurn, ...] = ()
        for n, turn in enumerate(turns[: last + 1]):
            hits, fetch = await self._found(turn.query, history)
            taken = await self._fetched(turn, history, hits, fetch, said)
            if due[n] and (trouble := self._unlabelled(turn, taken.case)) is not None:
                self.passed_over[trouble] += 1
            elif due[n]:
                if not self._room.take():
                    break
                cases += [taken] if Action.FETCH in due[n] else []
                if Action.NO_FETCH in due[n]:
                    prompt = render(self._answering.config.prompt, history, (), turn.query)
                    cases.append(await self._written(turn.id, Action.NO_FETCH, prompt, turn.query, history, hits, turn.gold))
            past = PastTurn(turn.query, taken.case.answer, Action.FETCH, hits, hits, taken.case.used)
            history = (*history, past)[-max(1, self._answering.config.past_turns) :]
        return cases

    def _due(self, turn_id: str, taken: Action, said: Arms) -> tuple[Action, ...]:
        """The arms to be judged on which nothing was said, the taken one first."""
        both = taken is not Action.STATIC and chosen(turn_id, self._share)
        other = Action.NO_FETCH if taken is Action.FETCH else Action.FETCH
        return tuple(arm for arm in ((taken, other) if both else (taken,)) if (turn_id, arm) not in said)

    def _due_imported(self, turn: ImportedTurn, said: Arms) -> tuple[Action, ...]:
        arms = self._due(turn.id, Action.FETCH, said)
        return arms if turn.answer is None else tuple(arm for arm in arms if arm is Action.FETCH)

    def _trouble(self, turn: Turn, there: Mapping[str, Faq]) -> str | None:
        """Why a served turn isn't judged; None: it is."""
        if turn.refusal is not None:
            return "refused by a filter"
        if turn.degraded:
            return "degraded"
        if turn.finish_reason in BROKEN_OFF:
            return "broken off"
        if not all(faq_id in there for faq_id in turn.shown):
            return "an FAQ that it was shown is gone"
        return "no gold label" if self._by_labels else None

    def _unlabelled(self, turn: ImportedTurn, taken: Case) -> str | None:
        """Why a judge that reads labels can't judge an imported turn; None: it can, or the judge is another."""
        if not self._by_labels:
            return None
        if turn.gold is None:
            return "no gold label"
        if missing := set(turn.gold) - set(faqs_there(self._answering.retriever, turn.gold)):
            raise EvaluationError(f"turn {turn.id}: gold: expected ids of the knowledge base, got {sorted(missing)[0]!r}, which it doesn't "
                                  "hold; give the FAQs that the labels are about with --faqs or --kb")
        return "its own answer cites no FAQ" if turn.answer is not None and not taken.used else None

    def _history(self, turns: Sequence[Turn], there: Mapping[str, Faq]) -> tuple[tuple[PastTurn, ...], bool]:
        """The earlier turns that stood in the last one's prompt, as it read them; and whether they are all in the log.

        The state names the queries before; the latest logged turns of those words are meant, as when the turn was served.
        """
        turn, config = turns[-1], self._answering.config
        before = [one for one in turns[:-1] if not one.background and one.refusal is None]
        matched: list[Turn] = []
        queries = list(turn.state.previous_queries)
        while queries and before:
            one = before.pop()
            if one.query.strip() == queries[-1].strip():
                matched.insert(0, one)
                queries.pop()
        whole = not queries
        if whole and len(matched) >= config.state_queries:  # the state reads fewer turns than the prompt
            more = config.prompt.history_turns - len(matched)
            matched = before[len(before) - min(max(0, more), len(before)) :] + matched
        logged = [_exchange(one) for one in matched]
        faqs = dict(there) | dict(faqs_there(self._answering.retriever, [faq_id for one in logged for faq_id in (*one.fetched, *one.hits)]))
        return past_turns([(one.query, one.answer) for one in logged], logged, faqs.get), whole

    def _lost(self, turn: Turn, history: tuple[PastTurn, ...], there: Mapping[str, Faq], *, whole: bool) -> str | None:
        """Why the other arm of a served turn can't be had; None: it can."""
        if turn.model != self._answering.llm.model:
            return "another LLM answered it"
        if not whole:
            return "what was said before isn't in the log"
        if not all(faq_id in there for faq_id, _ in turn.hits[: self._answering.config.prompt.k]):
            return "an FAQ that a fetch would show is gone"
        fetched = [there[faq_id] for faq_id in turn.fetched]
        if render(self._answering.config.prompt, history, fetched, turn.query).shown != turn.shown:
            return "its prompt can't be rendered again"
        return None

    async def _found(self, query: str, history: tuple[PastTurn, ...]) -> tuple[tuple[Faq, ...], Prompt]:
        """The FAQs that a fetch shows, and its prompt."""
        config = self._answering.config
        previous = history[-1].query if history and config.search_previous else None
        hits = await asyncio.to_thread(self._answering.retriever.search, query, k=config.hits, min_similarity=config.min_similarity,
                                       previous=previous)
        found = tuple(hit.faq for hit in hits[: config.prompt.k])
        return found, render(config.prompt, history, found, query)

    async def _fetched(
        self, turn: ImportedTurn, history: tuple[PastTurn, ...], hits: tuple[Faq, ...], prompt: Prompt, said: Arms
    ) -> ArmCase:
        """The FETCH arm of an imported turn: its file's answer, one that was written before, or one that is written now."""
        before = turn.answer if turn.answer is not None else said.get((turn.id, Action.FETCH))
        if before is None:
            return await self._written(turn.id, Action.FETCH, prompt, turn.query, history, hits, turn.gold)
        return ArmCase(turn.id, Action.FETCH, self._case(prompt, turn.query, history, hits, before, turn.gold), None)

    async def _written(
        self, turn_id: str, arm: Action, prompt: Prompt, query: str, history: tuple[PastTurn, ...], found: tuple[Faq, ...],
        gold: tuple[str, ...] | None,
    ) -> ArmCase:
        written = await self._answering.write(prompt)
        return ArmCase(turn_id, arm, self._case(prompt, query, history, found, written.answer, gold), written)

    def _case(
        self, prompt: Prompt, query: str, history: tuple[PastTurn, ...], found: tuple[Faq, ...], answer: str, gold: tuple[str, ...] | None
    ) -> Case:
        there = {faq.id: faq for past in history for faq in past.fetched} | {faq.id: faq for faq in found}
        window = history[len(history) - min(self._answering.config.prompt.history_turns, len(history)) :]
        stood = tuple(there[faq_id] for faq_id in prompt.shown)
        return Case(query, window, stood, answer, cited_ids(answer, prompt.shown), gold, found)


def chosen(turn_id: str, share: float) -> bool:
    """Whether both arms of a turn are judged: by a hash of its id, so it is the same every time, and a larger share holds a smaller."""
    digest = hashlib.sha256(f"both arms\0{turn_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < share


def _exchange(turn: Turn) -> LoggedExchange:
    return LoggedExchange(turn.query, turn.answer, turn.decision.action, tuple(faq_id for faq_id, _ in turn.hits), turn.fetched, turn.cited)
