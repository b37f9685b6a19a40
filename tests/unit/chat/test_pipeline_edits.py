"""FAQs that are edited while a turn is on its way: what was deleted or changed meanwhile is not what the turn answers with."""

from collections.abc import Callable

import pytest

from chat.errors import LLMError
from chat.pipeline import TurnFinished
from chat.prompt import PAPER
from chat.types import Action
from kb.types import Faq, Hit
from tests.conversation import FAQS, HOURS, Conversation, config
from tests.fakes import FakeRetriever, ScriptedLLM, ScriptedPolicy

OPEN = "When are you open?"
LATER = Faq("hours", "When are you open?", "Ten to six.")


class Edited(FakeRetriever):
    """Is edited once something was found in it: after the turn's plan, before its answer."""

    def __init__(self, edit: Callable[[dict[str, Faq]], object], times: int = 1) -> None:
        super().__init__(FAQS)
        self._edit, self._times = edit, times

    def search(self, query: str, *, k: int = 3, min_similarity: float = -1.0, previous: str | None = None) -> tuple[Hit, ...]:
        hits = super().search(query, k=k, min_similarity=min_similarity, previous=previous)
        if self._times and hits:
            self._times -= 1
            self._edit(self._faqs)
        return hits


@pytest.mark.asyncio
async def test_a_static_answer_whose_faq_was_deleted_after_the_plan_is_not_given() -> None:
    chat = Conversation(Edited(lambda faqs: faqs.pop("hours")), llm=ScriptedLLM(["I don't know."]), config=config(static_threshold=0.9))
    turn = await chat.ask(OPEN)
    assert (turn.answer, turn.model, turn.decision.action) == ("I don't know.", "scripted", Action.FETCH)
    assert "hours" not in (*turn.shown, *turn.cited, *(faq_id for faq_id, _ in turn.hits))


@pytest.mark.asyncio
async def test_a_static_answer_whose_faq_was_changed_after_the_plan_is_the_new_one() -> None:
    chat = Conversation(Edited(lambda faqs: faqs.update(hours=LATER)), config=config(static_threshold=0.5))
    assert (await chat.ask(OPEN)).answer == "Ten to six. [hours]"


@pytest.mark.asyncio
async def test_an_llm_is_not_shown_an_faq_that_was_deleted_after_the_plan() -> None:
    llm = ScriptedLLM()
    chat = Conversation(Edited(lambda faqs: faqs.pop("hours")), llm=llm)
    await chat.ask(OPEN)
    assert HOURS.answer not in "".join(message.content for message in llm.prompts[0])


@pytest.mark.asyncio
async def test_an_edit_of_another_faq_plans_nothing_anew() -> None:
    policy = ScriptedPolicy()
    await Conversation(Edited(lambda faqs: faqs.pop("parking")), policy=policy).ask(OPEN)
    assert len(policy.states) == 1


@pytest.mark.asyncio
async def test_an_faq_deleted_while_the_llm_was_asked_does_not_stand_in_for_it() -> None:
    llm = ScriptedLLM(fail_after=0)

    class Deleting(FakeRetriever):
        def get(self, faq_id: str) -> Faq | None:
            return None if llm.prompts else super().get(faq_id)

    chat = Conversation(Deleting(FAQS), llm=llm, config=config(fallback_threshold=0.5))
    with pytest.raises(LLMError):
        await chat.ask(OPEN)
    assert chat.log.recent("local", "c1", limit=1) == ()


@pytest.mark.asyncio
async def test_faqs_that_change_without_end_make_the_turn_fail_as_one_to_try_again() -> None:
    texts = iter(range(1000))
    chat = Conversation(Edited(lambda faqs: faqs.update(hours=Faq("hours", OPEN, f"From {next(texts)}.")), times=1000))
    with pytest.raises(LLMError, match="the FAQs change faster") as caught:
        await chat.ask(OPEN)
    assert caught.value.retryable


@pytest.mark.asyncio
@pytest.mark.parametrize("action", [Action.FETCH, Action.NO_FETCH])
async def test_an_faq_deleted_between_two_turns_leaves_the_history_in_the_prompt(action: Action) -> None:
    retriever, llm = FakeRetriever(FAQS), ScriptedLLM(["Then."])
    chat = Conversation(retriever, ScriptedPolicy([Action.FETCH, action]), llm, config=config(PAPER))
    assert "hours" in (await chat.ask(OPEN)).shown
    retriever._faqs.pop("hours")
    assert "hours" not in (await chat.ask("And when on Sundays?")).shown
    assert HOURS.answer not in "".join(message.content for message in llm.prompts[1])


@pytest.mark.asyncio
async def test_an_id_that_was_added_again_stands_in_the_history_with_its_new_text_alone() -> None:
    retriever, llm = FakeRetriever(FAQS), ScriptedLLM(["Then."])
    chat = Conversation(retriever, ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm, config=config(PAPER))
    await chat.ask(OPEN)
    retriever._faqs["hours"] = LATER
    await chat.ask("And when on Sundays?")
    said = "".join(message.content for message in llm.prompts[1])
    assert LATER.answer in said
    assert HOURS.answer not in said


@pytest.mark.asyncio
async def test_a_turn_ends_with_the_faqs_that_it_was_made_from() -> None:
    last = (await Conversation(llm=ScriptedLLM(["Nine [hours]."])).events(OPEN))[-1]
    assert isinstance(last, TurnFinished)
    assert HOURS in last.faqs
    assert {faq.id for faq in last.faqs} == set(last.turn.shown)
