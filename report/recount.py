"""A recount: every prompt of the log is rendered and counted again from what was said and shown, and compared with what was logged.

What is compared is the difference of each counterfactual to what was paid, `local(counterfactual prompt) - local(actual prompt)`
(docs/metrics.md): the LLM server's own ruler and an operator's text, which the log doesn't keep, stand on both sides and cancel out. Where
we counted ourselves, what was paid is compared too, less what the operator's text takes: as much in every turn of a conversation. It takes
the FAQs and the prompt settings of the time: turns of another version of the knowledge base aren't recounted, and say so. Leaves out what
figures are made of the log (`savings.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from chat.dialogue import past_turns
from chat.log.records import LoggedTurn
from chat.ports import LoggedExchange, TokenCounter
from chat.prompt import PROMPT_VERSION, PromptSettings, render, render_always_fetch
from chat.types import ALWAYS_FETCH, Action, Counterfactual, PastTurn, Turn
from kb.types import Faq

FindFaq = Callable[[str], Faq | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """A count that came out otherwise than it was logged."""

    turn_id: str
    what: str
    """input, output, or the name of a counterfactual."""
    logged: int
    recounted: int


@dataclass(slots=True)
class Recount:
    """What a recount of some turns found."""

    agreed: int = 0
    """Turns of which every count came out as logged."""
    differing: list[Difference] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    """Reason to number of turns."""

    @property
    def turns_differing(self) -> int:
        """Turns with any count that came out otherwise."""
        return len({one.turn_id for one in self.differing})


@dataclass(frozen=True, slots=True)
class Recounter:
    """Renders and counts again with the settings that the turns were served with."""

    counter: TokenCounter
    find: FindFaq
    kb_version: str
    serving: PromptSettings
    baselines: Mapping[str, PromptSettings]

    def recount(self, turns: Iterable[LoggedTurn]) -> Recount:
        """Recount turns, which come conversation by conversation, each in the order in which it went."""
        done = Recount()
        for _, conversation in groupby(turns, key=lambda turn: (turn.owner, turn.conversation_id)):
            to_count = []
            for turn, history in _with_history([turn for turn in conversation if isinstance(turn, Turn)], self.find):
                reason = self._why_not(turn)
                if reason is None:
                    to_count.append((turn, history, self._actual(turn, history)))
                else:
                    done.passed_over[reason] = done.passed_over.get(reason, 0) + 1
            operator = max(0, next((turn.usage.input_tokens - actual for turn, _, actual in to_count if turn.usage.source == "local"), 0))
            for turn, history, actual in to_count:
                self._one(turn, history, actual, operator, done)
        return done

    def _one(self, turn: Turn, history: Sequence[PastTurn], actual: int, operator: int, done: Recount) -> None:
        counts = self._counts(turn, history, actual, operator)
        differing = [Difference(turn.id, what, logged, again) for what, logged, again in counts if logged != again]
        done.differing += differing
        done.agreed += not differing

    def _why_not(self, turn: Turn) -> str | None:
        """Why a turn can't be recounted; None where it can."""
        if turn.refusal is not None and turn.refusal.where == "input":
            return "refused, so nothing was sent"
        if turn.prompt_version != PROMPT_VERSION:
            return f"of prompt version {turn.prompt_version}"
        if turn.kb_version != self.kb_version:
            return "of another version of the knowledge base"
        if "rewrite" in turn.latency_ms:
            return "rewritten, which is part of what was paid"
        if turn.usage.source == "none" and turn.decision.action is not Action.STATIC:
            return "without an LLM, so nothing was paid"
        return None

    def _counts(self, turn: Turn, history: Sequence[PastTurn], actual: int, operator: int) -> Iterator[tuple[str, int, int]]:
        """What was counted, as logged and as counted again; `operator` is what an operator's text takes."""
        if turn.usage.source == "local":
            yield "input", turn.usage.input_tokens, actual + operator
            yield "output", turn.usage.output_tokens, self.counter.count_text(turn.answer)
        hits = [faq for faq_id, _ in turn.hits if (faq := self.find(faq_id)) is not None]
        for other in turn.counterfactuals:
            setting = self.serving if other.baseline == ALWAYS_FETCH else self.baselines.get(other.baseline)
            if setting is not None:
                prompt = render_always_fetch(setting, history, hits, turn.query)
                alone = operator if turn.decision.action is Action.STATIC else 0
                yield other.baseline, _added(turn, other), self.counter.count(prompt.messages) - actual + alone

    def _actual(self, turn: Turn, history: Sequence[PastTurn]) -> int:
        """Local count of what was sent; nothing is sent where an FAQ answers by itself."""
        if turn.decision.action is Action.STATIC:
            return 0
        fetched = [faq for faq_id in turn.fetched if (faq := self.find(faq_id)) is not None]
        return self.counter.count(render(self.serving, history, fetched, turn.query).messages)


def _added(turn: Turn, other: Counterfactual) -> int:
    """Input tokens that a counterfactual has more than what was paid."""
    return other.input_tokens - turn.usage.input_tokens


def _with_history(turns: Sequence[Turn], find: FindFaq) -> Iterator[tuple[Turn, tuple[PastTurn, ...]]]:
    """Each turn of a conversation with the exchanges before it, as a client that shows the whole of it sends them."""
    said: list[tuple[str, str]] = []
    logged: list[LoggedExchange] = []
    for turn in turns:
        if turn.background:
            continue
        yield turn, past_turns(said, logged, find)
        said.append((turn.query, turn.answer))
        if turn.refusal is None:
            logged.append(LoggedExchange(turn.query, turn.answer, turn.decision.action, tuple(faq_id for faq_id, _ in turn.hits),
                                         turn.fetched, turn.cited))
