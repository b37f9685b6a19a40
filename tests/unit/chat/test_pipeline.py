"""One turn from request to log: its events in order, what is remembered for the next one, and answers that are an FAQ's own."""

import asyncio
import logging
from dataclasses import replace
from typing import cast

import pytest

from chat.pipeline import STATIC_MODEL, TextDelta, TurnFinished, TurnStarted
from chat.prompt import PROMPT_VERSION, PromptSettings
from chat.types import ALWAYS_FETCH, Action, Counterfactual, Message, Price, Sampling, Turn, Usage
from kb.types import Faq
from tests.conversation import FAQS, HOURS, NOON, RETURNS, Conversation, config, texts
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedLLM, ScriptedPolicy

OPEN = "When are you open?"
SUNDAYS = "Are you open on Sundays?"
HOURS_BLOCK = '<faqs>\n<faq id="hours">'


def turns(chat: Conversation) -> list[Turn]:
    return cast(InMemoryLog, chat.log).turns


def prompts(chat: Conversation) -> list[tuple[Message, ...]]:
    return cast(ScriptedLLM, chat.llm).prompts


# A turn that goes well


@pytest.mark.asyncio
async def test_a_turn_is_one_start_then_text_then_one_finish() -> None:
    chat = Conversation(llm=ScriptedLLM(["Nine to five [hours]."]))
    events = await chat.events(OPEN)
    started, *deltas, finished = events
    assert isinstance(started, TurnStarted)
    assert isinstance(finished, TurnFinished)
    assert deltas == [TextDelta("Nine"), TextDelta(" to"), TextDelta(" five"), TextDelta(" [hours].")]
    assert (started.turn_id, started.created_at, started.decision) == (finished.turn.id, NOON, finished.turn.decision)
    assert (started.model, started.degraded) == ("scripted", ())
    assert finished.cited == (HOURS,)


@pytest.mark.asyncio
async def test_the_log_holds_the_turn_that_the_reader_got_and_every_field_of_it() -> None:
    bare = PromptSettings(history_turns=0)
    chat = Conversation(llm=ScriptedLLM(["Nine to five [hours]."]), config=config(baselines={"bare": bare}))
    turn = await chat.ask(OPEN)
    assert turns(chat) == [turn]
    assert turn.id.startswith("chatcmpl-")
    assert (turn.conversation_id, turn.owner, turn.created_at) == ("c1", "local", NOON)
    assert (turn.query, turn.answer, turn.state.query) == (OPEN, "Nine to five [hours].", OPEN)
    assert (turn.hits, turn.fetched, turn.shown, turn.cited) == ((("hours", 1.0),), ("hours",), ("hours",), ("hours",))
    assert turn.usage == Usage(91, 4, cached_input_tokens=0, source="server")
    assert turn.counterfactuals == tuple(Counterfactual(name, 91, 4, "same_answer") for name in (ALWAYS_FETCH, "bare"))
    assert (turn.model, turn.prompt_version, turn.kb_version) == ("scripted", PROMPT_VERSION, "fake-kb")
    assert (turn.finish_reason, turn.degraded, turn.background) == ("stop", (), False)
    assert (turn.transcript_mac, turn.price) == (None, None)


@pytest.mark.asyncio
async def test_every_stage_has_a_latency_and_they_fit_together() -> None:
    latency = (await Conversation().ask(OPEN)).latency_ms
    assert set(latency) == {"recall", "retrieve", "decide", "prompt", "first_token", "generate", "total"}
    assert all(milliseconds >= 0.0 for milliseconds in latency.values())
    planning = sum(latency[stage] for stage in ("recall", "retrieve", "decide", "prompt"))
    assert planning <= latency["first_token"] <= latency["total"]
    assert latency["first_token"] + latency["generate"] == pytest.approx(latency["total"])


@pytest.mark.asyncio
async def test_two_turns_have_two_ids() -> None:
    chat = Conversation()
    assert (await chat.ask(OPEN)).id != (await chat.ask(OPEN)).id


@pytest.mark.asyncio
async def test_many_turns_at_once_do_not_meet() -> None:
    log = InMemoryLog()
    chats = [Conversation(llm=ScriptedLLM([f"answer {n}"]), log=log) for n in range(20)]
    answered = await asyncio.gather(*(chat.ask(OPEN) for chat in chats))
    assert [turn.answer for turn in answered] == [f"answer {n}" for n in range(20)]
    assert len(log.turns) == len({turn.id for turn in log.turns}) == 20


@pytest.mark.asyncio
async def test_sampling_goes_to_the_llm_and_its_limit_shows_in_the_finish_reason() -> None:
    chat = Conversation(llm=ScriptedLLM(["one two three"]))
    request = replace(chat.request(OPEN), sampling=Sampling(max_tokens=2, seed=7))
    events = [event async for event in chat.pipeline().run(request)]
    assert cast(ScriptedLLM, chat.llm).samplings == [Sampling(max_tokens=2, seed=7)]
    assert isinstance(events[-1], TurnFinished)
    assert (events[-1].turn.answer, events[-1].turn.finish_reason) == ("one two", "length")


@pytest.mark.asyncio
async def test_a_background_prompt_and_the_transcripts_hash_are_kept_with_the_turn() -> None:
    chat = Conversation(llm=ScriptedLLM(["A title"]))
    request = replace(chat.request("Name this chat"), background=True, sign_transcript=lambda answer: f"signed: {answer}")
    async for _ in chat.pipeline().run(request):
        pass
    assert [(turn.background, turn.transcript_mac) for turn in turns(chat)] == [(True, "signed: A title")]


@pytest.mark.asyncio
async def test_the_price_is_the_llms_at_the_time_of_the_turn() -> None:
    dear, cheap = Price(2.0, None, 8.0, "USD", "2026-01-01"), Price(1.0, None, 4.0, "USD", "2026-11-01")
    chat = Conversation(prices={"scripted": dear, "another": cheap})
    assert (await chat.ask(OPEN)).price == dear
    chat.prices = {"scripted": cheap}
    assert (await chat.ask(OPEN)).price == cheap
    assert [turn.price for turn in turns(chat)] == [dear, cheap]


@pytest.mark.asyncio
async def test_one_info_record_a_turn_tells_figures_and_no_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    turn = await Conversation(llm=ScriptedLLM(["Nine to five [hours]."])).ask(OPEN)
    (record,) = [record for record in caplog.records if record.name == "chat.pipeline"]
    figures = {
        "turn_id": turn.id, "action": "FETCH", "behavior_prob": 1.0, "similarity": 1.0, "input_tokens": 91, "output_tokens": 4,
        "policy_version": "scripted:1",
    }
    assert figures.items() <= vars(record).items()
    assert "open" not in str(vars(record))
    assert "Nine" not in str(vars(record))


# What the next turn remembers


@pytest.mark.asyncio
async def test_a_skip_after_a_fetch_finds_the_faq_in_its_history_from_the_log() -> None:
    chat = Conversation(policy=ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm=ScriptedLLM(["Nine to five [hours].", "No."]))
    await chat.ask(OPEN)
    turn = await chat.ask(SUNDAYS)
    assert (turn.fetched, turn.shown) == ((), ("hours",))
    history, now = prompts(chat)[1][1].content, prompts(chat)[1][-1].content
    assert history.startswith(HOURS_BLOCK)
    assert "<faqs>" not in now
    assert turn.state.previous_actions == (Action.FETCH,)


@pytest.mark.asyncio
async def test_a_citation_of_an_earlier_turns_faq_counts_for_this_one() -> None:
    llm = ScriptedLLM(["Nine.", "Closed [hours] [returns]."])
    chat = Conversation(policy=ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm=llm)
    await chat.ask(OPEN)
    assert (await chat.ask(SUNDAYS)).cited == ("hours",)


@pytest.mark.parametrize("edited", ["Nine to six [hours].", ""])
@pytest.mark.asyncio
async def test_an_edited_answer_is_shown_as_the_client_has_it_and_its_turn_is_unknown(edited: str) -> None:
    chat = Conversation(policy=ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm=ScriptedLLM(["Nine to five [hours].", "No."]))
    await chat.ask(OPEN)
    chat.messages[-1] = Message("assistant", edited)
    turn = await chat.ask(SUNDAYS)
    assert turn.state.previous_actions == (None,)
    assert (turn.shown, turn.counterfactuals[0].input_tokens - turn.usage.input_tokens) == ((), 14)
    assert texts(prompts(chat)[1])[1:3] == [f"<question>\n{OPEN}\n</question>", edited]


@pytest.mark.asyncio
async def test_a_regenerated_answer_leaves_the_dropped_one_out_of_the_history() -> None:
    policy = ScriptedPolicy([Action.FETCH, Action.NO_FETCH, Action.NO_FETCH])
    chat = Conversation(policy=policy, llm=ScriptedLLM(["first", "second", "third"]))
    await chat.ask(OPEN)
    del chat.messages[:]
    await chat.ask(OPEN)  # the client asked for another answer, and keeps that one
    turn = await chat.ask(SUNDAYS)
    assert turn.state.previous_actions == (Action.NO_FETCH,)
    assert turn.shown == ()
    assert "first" not in "".join(texts(prompts(chat)[2]))


@pytest.mark.asyncio
async def test_an_exchange_from_elsewhere_is_unknown_and_rendered_as_it_was_said() -> None:
    chat = Conversation(messages=[Message("user", "Hello!"), Message("assistant", "Hi.")])
    turn = await chat.ask(OPEN)
    assert turn.state.previous_actions == (None,)
    assert texts(prompts(chat)[0])[1:3] == ["<question>\nHello!\n</question>", "Hi."]


@pytest.mark.asyncio
async def test_an_faq_that_was_deleted_vanishes_from_the_history_in_both_arms() -> None:
    chat = Conversation(policy=ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm=ScriptedLLM(["Nine to five [hours].", "No."]))
    await chat.ask(OPEN)
    chat.retriever = FakeRetriever([RETURNS])
    turn = await chat.ask(SUNDAYS)
    assert (turn.shown, turn.hits, turn.saved_tokens) == ((), (), 0)
    assert "Nine to five.\n</faq>" not in "".join(texts(prompts(chat)[1]))


@pytest.mark.asyncio
async def test_an_faq_that_was_deleted_before_the_answer_ended_is_not_given_as_cited() -> None:
    llm = ScriptedLLM(["Nine to five [hours]."])
    chat = Conversation(llm=llm)

    class Emptied(FakeRetriever):
        def get(self, faq_id: str) -> Faq | None:
            return None if llm.prompts else super().get(faq_id)

    chat.retriever = Emptied(FAQS)
    last = (await chat.events(OPEN))[-1]
    assert isinstance(last, TurnFinished)
    assert (last.cited, last.turn.cited) == ((), ("hours",))


@pytest.mark.asyncio
async def test_conversations_and_owners_do_not_see_each_others_turns() -> None:
    chat = Conversation(llm=ScriptedLLM(["Nine."]))
    await chat.ask(OPEN)
    for request in (replace(chat.request(SUNDAYS), owner="another"), replace(chat.request(SUNDAYS), conversation_id="c2")):
        async for event in chat.pipeline().run(request):
            if isinstance(event, TurnFinished):
                assert event.turn.state.previous_actions == (None,)
                assert HOURS_BLOCK not in prompts(chat)[-1][1].content


@pytest.mark.asyncio
async def test_words_in_any_script_reach_prompt_answer_and_log_unchanged() -> None:
    query, answer = "🙂👩‍👩‍👧 مرحبا \u202eabc\u202c a\x00b ₹", "مرحبا\x00 🙂 [hours]"
    chat = Conversation(llm=ScriptedLLM([answer]))
    first = await chat.ask(query)
    second = await chat.ask(query)
    assert (first.query, first.answer) == (query, answer)
    assert query in prompts(chat)[0][-1].content
    assert second.state.previous_actions == (Action.FETCH,)
    assert texts(prompts(chat)[1])[2] == answer


# Static answers


@pytest.mark.asyncio
async def test_a_static_answer_skips_policy_and_llm_and_enters_the_history() -> None:
    policy = ScriptedPolicy([Action.NO_FETCH])
    price = Price(1.0, None, 4.0, "USD", "v")
    chat = Conversation(policy=policy, llm=ScriptedLLM(["No."]), config=config(static_threshold=0.9), prices={"scripted": price})
    started, delta, finished = await chat.events(OPEN)
    assert (policy.states, prompts(chat)) == ([], [])
    assert isinstance(started, TurnStarted)
    assert (started.model, started.decision.action) == (STATIC_MODEL, Action.STATIC)
    assert delta == TextDelta("Nine to five. [hours]")
    assert isinstance(finished, TurnFinished)
    turn = finished.turn
    assert (turn.usage, turn.model, turn.finish_reason) == (Usage(0, 0, source="none"), STATIC_MODEL, "stop")
    assert (turn.fetched, turn.shown, turn.cited, finished.cited) == (("hours",), ("hours",), ("hours",), (HOURS,))
    assert turn.price == price, "what it saved is priced by the LLM that it spared"
    follow_up = await chat.ask(SUNDAYS)
    assert follow_up.state.previous_actions == (Action.STATIC,)
    assert prompts(chat)[0][1].content.startswith(HOURS_BLOCK)


@pytest.mark.asyncio
async def test_a_static_answer_cites_an_faq_whose_id_holds_a_comma() -> None:
    faq = Faq("shipping,eu", "How long is shipping?", "Two days.")
    chat = Conversation(retriever=FakeRetriever([faq]), config=config(static_threshold=0.9))
    assert (await chat.ask("How long is shipping?")).cited == ("shipping,eu",)
