"""A knowledge base that goes away at any moment of a turn: the answer is given without it, the turn says so, and none fails."""

import threading
from collections.abc import Iterable, Sequence

import pytest

from chat.errors import LLMError
from chat.pipeline import KB_UNAVAILABLE, TurnFinished
from chat.types import Action
from kb.errors import IndexFolderError
from kb.types import Comparison, Faq, Hit
from tests.conversation import FAQS, HOURS, Conversation, config
from tests.fakes import FakeRetriever, ScriptedLLM, ScriptedPolicy

OPEN, SUNDAYS = "When are you open?", "And when are you open on Sundays?"


class Leaving(FakeRetriever):
    """Answers so many calls, then none."""

    def __init__(self) -> None:
        super().__init__(FAQS)
        self.left: float = float("inf")
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.left -= 1
        if self.left < 0:
            raise IndexFolderError("expected Milvus to answer, and it failed")

    def get(self, faq_id: str) -> Faq | None:
        self._call("get")
        return super().get(faq_id)

    def search(self, query: str, *, k: int = 3, min_similarity: float = -1.0, previous: str | None = None) -> tuple[Hit, ...]:
        self._call("search")
        return super().search(query, k=k, min_similarity=min_similarity, previous=previous)

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison:
        self._call("compare")
        return super().compare(query, previous, faq_ids)


class Remote(Leaving):
    """Gives several FAQs in one request."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []

    def get(self, faq_id: str) -> Faq | None:
        raise AssertionError("several are had in one request")

    def get_many(self, faq_ids: Iterable[str]) -> dict[str, Faq]:
        self._call("get")
        self.threads.append(threading.current_thread())
        return {faq_id: self._faqs[faq_id] for faq_id in faq_ids if faq_id in self._faqs}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [Leaving, Remote])
async def test_whenever_it_leaves_in_a_conversation_the_turn_is_answered_and_shows_no_faq_it_could_not_check(kind: type[Leaving]) -> None:
    """It leaves after each number of calls that a turn with history makes, from none to all."""
    complete = False
    for left in range(100):
        retriever, llm = kind(), ScriptedLLM(["Nine to five [hours]."])
        chat = Conversation(retriever, llm=llm)
        assert (await chat.ask(OPEN)).degraded == ()
        retriever.left, retriever.calls = left, []
        last = (await chat.events(SUNDAYS))[-1]
        assert isinstance(last, TurnFinished)
        if len(retriever.calls) <= left:
            complete = True
            break
        if last.turn.degraded:
            assert last.turn.degraded == ("kb_unavailable",)
            assert (last.turn.shown, last.turn.hits, last.cited) == ((), (), ())
            assert last.turn.answer.startswith(KB_UNAVAILABLE)
            assert HOURS.answer not in "".join(message.content for message in llm.prompts[1] if "<faq" in message.content)
        else:  # it left once the answer was begun
            assert (last.turn.cited, last.cited) == (("hours",), (HOURS,))
    assert complete


@pytest.mark.asyncio
async def test_a_static_answer_that_cannot_be_checked_is_not_given() -> None:
    retriever = Leaving()
    retriever.left = 2  # the search and the comparison
    turn = await Conversation(retriever, llm=ScriptedLLM(["I don't know."]), config=config(static_threshold=0.9)).ask(OPEN)
    assert (turn.answer, turn.decision.action, turn.degraded) == (f"{KB_UNAVAILABLE}I don't know.", Action.FETCH, ("kb_unavailable",))


@pytest.mark.asyncio
async def test_an_faq_that_cannot_be_checked_does_not_stand_in_for_the_llm() -> None:
    retriever = Leaving()
    chat = Conversation(retriever, llm=ScriptedLLM(fail_after=0), config=config(fallback_threshold=0.5))
    retriever.left = 3  # the search, the comparison, the check before the LLM is asked
    with pytest.raises(LLMError):
        await chat.ask(OPEN)
    assert not chat.pipeline().stands(HOURS)


@pytest.mark.asyncio
async def test_a_remote_one_is_asked_once_for_what_was_shown_once_before_the_answer_and_once_for_what_is_cited() -> None:
    retriever = Remote()
    chat = Conversation(retriever, ScriptedPolicy(), ScriptedLLM(["Nine to five [hours]."]))
    await chat.ask(OPEN)
    retriever.calls, retriever.threads = [], []
    await chat.ask(SUNDAYS)
    assert retriever.calls == ["get", "search", "compare", "search", "get", "get"], "a comparison searches too"
    assert threading.main_thread() not in retriever.threads, "the event loop must not wait for it"
