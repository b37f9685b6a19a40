"""Every golden turn through the whole pipeline: its prompt to the letter, its tokens to the last one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
import tiktoken

from chat.ports import TokenCounter
from chat.prompt import INSTRUCTIONS, POST_PROMPT
from chat.tokens import TiktokenCounter
from chat.types import ALWAYS_FETCH, Action, Counterfactual, Message, Turn, Usage
from tests.conversation import Conversation
from tests.fakes import ScriptedLLM, ScriptedPolicy, WordCounter
from tests.golden.turns import POST, SYSTEM, GoldenConversation, GoldenTurn, conversations

ALL = pytest.mark.parametrize("golden", conversations(), ids=lambda golden: golden.name)


async def play(golden: GoldenConversation, counter: TokenCounter, *, server_counts: bool) -> tuple[list[Turn], list[str]]:
    """The turns as they were logged, and the prompts as they were sent."""
    asked = [turn for turn in golden.turns if turn.action is not Action.STATIC]
    llm = ScriptedLLM([turn.answer for turn in asked], usage=server_counts)
    chat = Conversation(llm=llm, counter=counter, config=golden.config, messages=list(golden.brought),
                        policy=ScriptedPolicy([turn.action for turn in asked]))
    turns = []
    for turn in golden.turns:
        if turn.settings is not None:
            chat.config = replace(chat.config, prompt=turn.settings)
        turns.append(await chat.ask(turn.query))
    return turns, [written(prompt) for prompt in llm.prompts]


def written(messages: Sequence[Message]) -> str:
    return "\n".join(f"[{message.role}]\n{message.content}" for message in messages)


def expected_counterfactuals(golden: GoldenTurn) -> tuple[Counterfactual, ...]:
    output = golden.output if golden.always_output is None else golden.always_output
    method: Literal["same_answer", "static_answer"] = "static_answer" if golden.action is Action.STATIC else "same_answer"
    inputs = {ALWAYS_FETCH: golden.always_input, **golden.baselines}
    return tuple(Counterfactual(name, tokens, output, method) for name, tokens in inputs.items())


@ALL
@pytest.mark.asyncio
async def test_the_prompt_is_the_one_written_out(golden: GoldenConversation) -> None:
    _, prompts = await play(golden, WordCounter(), server_counts=True)
    assert prompts == [turn.prompt for turn in golden.turns if turn.prompt]


@ALL
@pytest.mark.asyncio
async def test_the_tokens_are_those_counted_by_hand(golden: GoldenConversation) -> None:
    turns, _ = await play(golden, WordCounter(), server_counts=True)
    for turn, expected in zip(turns, golden.turns, strict=True):
        assert turn.answer == expected.answer
        assert turn.decision.action is expected.action
        assert (turn.usage.input_tokens, turn.usage.output_tokens) == (expected.input, expected.output)
        assert turn.counterfactuals == expected_counterfactuals(expected)
        assert turn.saved_tokens == expected.saved


@ALL
@pytest.mark.asyncio
async def test_without_a_server_that_counts_both_arms_are_counted_here(golden: GoldenConversation) -> None:
    turns, _ = await play(golden, WordCounter(), server_counts=False)
    for turn, expected in zip(turns, golden.turns, strict=True):
        if expected.action is Action.STATIC:
            assert turn.usage == Usage(0, 0, source="none")
        else:
            messages = sum(expected.prompt.count(f"[{role}]\n") for role in ("system", "user", "assistant"))
            assert turn.usage == Usage(expected.input + messages, expected.output, source="local")
        assert turn.saved_tokens == expected.saved, "what is saved doesn't depend on who counts"


@ALL
@pytest.mark.asyncio
async def test_with_tiktoken_a_prompt_costs_its_messages_and_the_documented_framing(golden: GoldenConversation) -> None:
    turns, _ = await play(golden, TiktokenCounter(), server_counts=False)
    for turn, expected in zip(turns, golden.turns, strict=True):
        assert turn.usage.input_tokens == (tokens(expected.prompt) if expected.prompt else 0)
        assert turn.counterfactuals[0].baseline == ALWAYS_FETCH
        assert turn.counterfactuals[0].input_tokens == tokens(expected.always)


@ALL
@pytest.mark.asyncio
async def test_a_server_of_another_ruler_pays_its_own_count_plus_what_differs_by_ours(golden: GoldenConversation) -> None:
    turns, _ = await play(golden, TiktokenCounter(), server_counts=True)
    for turn, expected in zip(turns, golden.turns, strict=True):
        if expected.action is not Action.STATIC:
            difference = tokens(expected.always) - tokens(expected.prompt)
            assert turn.counterfactuals[0].input_tokens == expected.input + difference


def tokens(prompt: str) -> int:
    """Tokens of a prompt as written, by tiktoken itself: 3 a message besides role and content, and 3 for the answer."""
    encoding = tiktoken.get_encoding("o200k_base")  # loaded by TiktokenCounter before
    total, role, content = 3, "", list[str]()
    for line in [*prompt.split("\n"), "[end]"]:
        if line in ("[system]", "[user]", "[assistant]", "[end]"):
            if role:
                total += 3 + len(encoding.encode(role)) + len(encoding.encode("\n".join(content)))
            role, content = line.strip("[]"), []
        else:
            content.append(line)
    return total


def test_the_words_that_these_turns_count_with_are_those_of_the_prompt() -> None:
    assert (SYSTEM, POST) == (INSTRUCTIONS, POST_PROMPT)
    assert (len(SYSTEM.split()), len(POST.split())) == (30, 41)


def test_the_golden_turns_save_lose_and_break_even() -> None:
    saved = [turn.saved for golden in conversations() for turn in golden.turns]
    assert min(saved) < 0 < max(saved)
    assert 0 in saved
