"""Prompts under any text, setting and course of a conversation; above all, that the counterfactual is what a twin really pays."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.prompt import POST_PROMPT, PromptSettings, faqs_in_history, render, render_always_fetch
from chat.tokens import TiktokenCounter
from chat.types import ALWAYS_FETCH, Action, Message, PastTurn, Prompt, Turn
from kb.types import Faq
from policy.rules import AlwaysFetch, NeverFetch
from tests.conversation import Conversation, config
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedLLM, ScriptedPolicy, WordCounter

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine makes no example wrong."""

MARKS = ("faq", "faqs", "question")

pieces = st.sampled_from([
    "<", ">", "/", " ", "\t", "\n", "\x00", "\u200b", "\u00a0", "faq", "FAQS", "faqs", "Faq", "question", "QUESTION", 'id="x"',
    "</faqs>", "<faq id=\"x\">", "< / question >", "<question>", "x", "_", "-", "🙂", "مرحبا", "&lt;", "ſ", "<<",
])
hostile = st.one_of(st.lists(pieces, max_size=12).map("".join), st.text(max_size=30))
prompt_settings = st.builds(
    PromptSettings, k=st.integers(1, 4), history_turns=st.integers(0, 3), history_faqs=st.sampled_from(["all", "cited", "none"]),
    repeats=st.booleans(),
)


def marks(text: str) -> int:
    """Opening brackets from which, past anything that is no word and no bracket, one of our names follows."""
    return sum(_word_after(text, n + 1) in MARKS for n, char in enumerate(text) if char == "<")


def _word_after(text: str, start: int) -> str:
    def in_word(char: str) -> bool:
        return char.isalnum() or char == "_"

    while start < len(text) and not in_word(text[start]) and text[start] != "<":
        start += 1
    end = start
    while end < len(text) and in_word(text[end]):
        end += 1
    return text[start:end].casefold()


# Rendering


@st.composite
def faqs_of_any_text(draw: st.DrawFn) -> Faq:
    name = "".join(draw(hostile).split()) or "f"
    return Faq(name, draw(hostile), draw(hostile) + "x")


@st.composite
def past_turns_of_any_text(draw: st.DrawFn) -> PastTurn:
    hits = tuple(draw(st.lists(faqs_of_any_text(), max_size=3, unique_by=lambda faq: faq.id)))
    fetched = hits if draw(st.booleans()) else ()
    cited = tuple(faq.id for faq in hits if draw(st.booleans()))
    return PastTurn(draw(hostile), draw(hostile), draw(st.sampled_from([None, *Action])), hits, fetched, cited)


histories = st.lists(past_turns_of_any_text(), max_size=5)
new_faqs = st.lists(faqs_of_any_text(), max_size=3, unique_by=lambda faq: faq.id)


def printed_by_us(text: str) -> int:
    """Marks that a user message has by its honest layout: FAQ blocks by their lines, and the question's two."""
    opened = sum(line.startswith('<faq id="') for line in text.split("\n"))
    return 2 * opened + (2 if text.startswith("<faqs>\n") else 0) + 2


@unhurried
@given(prompt_settings, histories, new_faqs, hostile, hostile)
def test_no_text_of_faqs_users_operators_or_answers_adds_a_mark(
    settings: PromptSettings, history: list[PastTurn], new: list[Faq], query: str, operator: str
) -> None:
    prompt = render(settings, history, new, query, operator=operator)
    system, *rest = prompt.messages
    assert marks(system.content) == 4, "the four that the instructions speak of"
    for message in rest:
        assert marks(message.content) == (0 if message.role == "assistant" else printed_by_us(message.content))
    count = sum(text.count('\n<faq id="') for text in (message.content for message in rest))
    in_history = [faq for turn in history[max(0, len(history) - settings.history_turns) :] for faq in _kept(settings, turn)]
    if settings.repeats:
        assert count == len(in_history) + len(new)
    else:
        assert count == len(dict.fromkeys(faq.id for faq in [*in_history, *new]))


def _kept(settings: PromptSettings, turn: PastTurn) -> Sequence[Faq]:
    by_name = {"all": turn.fetched, "none": (), "cited": [faq for faq in turn.fetched if faq.id in turn.cited]}
    return by_name[settings.history_faqs]


@unhurried
@given(prompt_settings, histories, new_faqs, hostile, hostile)
def test_a_prompt_is_ours_then_the_last_exchanges_then_the_query(
    settings: PromptSettings, history: list[PastTurn], new: list[Faq], query: str, operator: str
) -> None:
    prompt = render(settings, history, new, query, operator=operator)
    exchanges = min(len(history), settings.history_turns)
    assert [message.role for message in prompt.messages] == ["system", *["user", "assistant"] * exchanges, "user"]
    assert prompt.messages[0].content.startswith("You answer customers' questions")
    assert prompt.messages[-1].content.endswith(f"</question>\n{POST_PROMPT}")
    assert render(settings, history[len(history) - exchanges :], new, query, operator=operator) == prompt


@unhurried
@given(prompt_settings, histories, new_faqs, hostile)
def test_what_is_shown_is_what_history_brings_and_what_is_fetched(
    settings: PromptSettings, history: list[PastTurn], new: list[Faq], query: str
) -> None:
    prompt = render(settings, history, new, query)
    assert prompt.fetched == tuple(faq.id for faq in new)
    assert prompt.shown == tuple(dict.fromkeys((*faqs_in_history(settings, history), *prompt.fetched)))


@unhurried
@given(histories, new_faqs, hostile, prompt_settings)
def test_not_repeating_faqs_never_costs_more_and_shows_the_same_ones(
    history: list[PastTurn], new: list[Faq], query: str, settings: PromptSettings
) -> None:
    on, off = (render(replace(settings, repeats=repeats), history, new, query) for repeats in (True, False))
    assert on.shown == off.shown
    assert WordCounter().count(off.messages) <= WordCounter().count(on.messages)


@unhurried
@given(prompt_settings, histories, new_faqs, hostile)
def test_always_fetch_shows_at_least_what_the_turn_showed(
    settings: PromptSettings, history: list[PastTurn], new: list[Faq], query: str
) -> None:
    had = [replace(turn, fetched=turn.fetched[: settings.k]) for turn in history]  # as this setting would have fetched
    actual: Prompt = render(settings, had, (), query)
    assert set(actual.shown) <= set(render_always_fetch(settings, had, new, query).shown)


# Whole conversations

REAL_TOKENS = TiktokenCounter()

words = st.sampled_from(["fee", "card", "loan", "rate", "limit", "lounge", "refund"])
phrases = st.lists(words, min_size=1, max_size=4).map(" ".join)


@dataclass(frozen=True)
class Step:
    """One turn of a course, and what happens before it."""

    query: str
    answer: str
    action: Action
    edited: bool
    """The client changed the last answer."""
    deleted: int | None
    """The FAQ that was deleted."""


@dataclass(frozen=True)
class Course:
    """A conversation as it may go."""

    faqs: tuple[Faq, ...]
    steps: tuple[Step, ...]
    min_similarity: float


@st.composite
def courses(draw: st.DrawFn) -> Course:
    faqs = tuple(Faq(f"f{n}", draw(phrases), draw(phrases)) for n in range(draw(st.integers(1, 5))))
    citations = st.lists(st.sampled_from([faq.id for faq in faqs]), max_size=3).map(lambda ids: "".join(f" [{i}]" for i in ids))
    said = draw(st.lists(st.tuples(phrases, phrases, citations), min_size=1, max_size=4))  # few, so that words are said twice
    step = st.builds(
        lambda words, action, edited, deleted: Step(words[0], words[1] + words[2], action, edited, deleted),
        st.sampled_from(said), st.sampled_from([Action.FETCH, Action.NO_FETCH]), st.sampled_from([False, False, False, True]),
        st.sampled_from([None, None, None, None, 0, 1]),
    )
    return Course(faqs, tuple(draw(st.lists(step, min_size=2, max_size=6))), draw(st.sampled_from([0.01, 0.2, 0.5])))


def play(course: Course, chat: Conversation) -> list[Turn]:
    """The turns of a course under this conversation's policy; our own counts stand for the server's where it doesn't count."""

    async def turns() -> list[Turn]:
        done = []
        for step in course.steps:
            if step.edited and chat.messages:
                chat.messages[-1] = Message("assistant", "something else")
            if step.deleted is not None:
                chat.retriever = FakeRetriever([faq for n, faq in enumerate(course.faqs) if n != step.deleted])
            done.append(await chat.ask(step.query))
        return done

    return asyncio.run(turns())


def conversation(course: Course, serving: PromptSettings, *, counts: bool = False, **baselines: PromptSettings) -> Conversation:
    llm = ScriptedLLM([step.answer for step in course.steps], usage=counts)
    return Conversation(FakeRetriever(course.faqs), llm=llm, log=InMemoryLog(),
                        config=config(serving, baselines=baselines, min_similarity=course.min_similarity))


def input_under(turn: Turn, baseline: str) -> int:
    (tokens,) = [other.input_tokens for other in turn.counterfactuals if other.baseline == baseline]
    return tokens


@unhurried
@given(courses(), prompt_settings, st.booleans())
def test_under_always_fetch_the_counterfactual_is_the_actual_on_every_turn(
    course: Course, serving: PromptSettings, counts: bool
) -> None:
    chat = conversation(course, serving, counts=counts)
    chat.policy = AlwaysFetch()
    for turn in play(course, chat):
        assert input_under(turn, ALWAYS_FETCH) == turn.usage.input_tokens
        assert turn.saved_tokens == 0


@unhurried
@given(courses(), prompt_settings, prompt_settings)
def test_under_any_policy_the_counterfactual_is_what_a_twin_that_always_fetches_pays(
    course: Course, serving: PromptSettings, other: PromptSettings
) -> None:
    chat = conversation(course, serving, other=other)
    chat.policy = ScriptedPolicy([step.action for step in course.steps])
    served, twins = play(course, chat), {}
    for name, setting in ((ALWAYS_FETCH, serving), ("other", other)):
        twin = conversation(course, setting)
        twin.policy = AlwaysFetch()
        twins[name] = play(course, twin)
    for name, twin_turns in twins.items():
        assert [input_under(turn, name) for turn in served] == [turn.usage.input_tokens for turn in twin_turns]


@unhurried
@given(courses(), prompt_settings)
def test_every_state_holds_the_actions_that_were_taken_even_where_words_were_said_twice(
    course: Course, serving: PromptSettings
) -> None:
    steps = tuple(replace(step, edited=False) for step in course.steps)
    chat = conversation(course, serving)
    chat.policy = ScriptedPolicy([step.action for step in steps])
    for n, turn in enumerate(play(replace(course, steps=steps), chat)):
        before = steps[max(0, n - 2) : n]
        assert turn.state.previous_actions == tuple(step.action for step in before)
        assert turn.state.previous_queries == tuple(step.query for step in before)


@unhurried
@given(courses(), prompt_settings)
def test_the_difference_of_the_arms_does_not_depend_on_the_servers_ruler(course: Course, serving: PromptSettings) -> None:
    arms = []
    for counts in (True, False):
        chat = conversation(course, serving, counts=counts)
        chat.policy = ScriptedPolicy([step.action for step in course.steps])
        arms.append([input_under(turn, ALWAYS_FETCH) - turn.usage.input_tokens for turn in play(course, chat)])
    assert arms[0] == arms[1]


@unhurried
@given(courses(), prompt_settings)
def test_never_fetching_never_costs_more_input_than_always(course: Course, serving: PromptSettings) -> None:
    chat = conversation(course, serving)
    chat.policy = NeverFetch()
    for turn in play(course, chat):
        assert turn.usage.input_tokens <= input_under(turn, ALWAYS_FETCH)
        assert turn.shown == ()


@settings(unhurried, max_examples=25)
@given(courses(), prompt_settings)
def test_never_fetching_never_costs_more_by_real_tokens_either(course: Course, serving: PromptSettings) -> None:
    chat = conversation(course, serving)
    chat.policy, chat.counter = NeverFetch(), REAL_TOKENS
    for turn in play(course, chat):
        assert turn.usage.input_tokens <= input_under(turn, ALWAYS_FETCH)


@unhurried
@given(courses(), prompt_settings)
def test_with_repeats_shown_no_policy_costs_more_input_than_always(course: Course, serving: PromptSettings) -> None:
    chat = conversation(course, replace(serving, repeats=True))
    chat.policy = ScriptedPolicy([step.action for step in course.steps])
    for turn in play(course, chat):
        assert turn.usage.input_tokens <= input_under(turn, ALWAYS_FETCH)
