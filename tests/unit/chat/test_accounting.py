"""Usage and counterfactuals of one plan, by arithmetic that can be done in the head."""

from collections.abc import Sequence

import pytest

from chat.accounting import alternatives, counterfactuals, usage_of
from chat.dialogue import Dialogue
from chat.plan import Plan
from chat.prompt import PromptSettings, render, render_always_fetch
from chat.types import Action, Counterfactual, Decision, Message, PastTurn, Prompt, State, Usage
from kb.types import Faq, Hit
from tests.conversation import HOURS, RETURNS
from tests.fakes import WordCounter

COUNTER = WordCounter()
SERVING = PromptSettings(k=1)
BEFORE = PastTurn("q1", "a1", Action.NO_FETCH, (HOURS,), ())


def plan(action: Action, *, history: Sequence[PastTurn] = (), hits: Sequence[Faq] = (HOURS,), operator: str = "") -> Plan:
    """A turn that asks "q" and took this action, under SERVING."""
    static = hits[0] if action is Action.STATIC else None
    fetched = hits[:1] if action is Action.FETCH else ()
    prompt = Prompt((), (hits[0].id,), (hits[0].id,)) if static else render(SERVING, history, fetched, "q", operator=operator)
    return Plan(
        Dialogue(operator, (), "q"), tuple(history), tuple(Hit(faq, 0.9) for faq in hits), State((), (), "q", None),
        Decision(action, 0.5, 0.0, 1.0, "p", "r"), prompt, static, (), {}, "kb",
    )


def test_what_the_server_counted_is_the_usage_as_it_came() -> None:
    counted = Usage(7, 3, cached_input_tokens=2, source="model")
    assert usage_of(plan(Action.FETCH), "an answer", counted, COUNTER) is counted


def test_without_a_count_ours_stands_in_and_says_so() -> None:
    # instructions 30 + 1; <question>, q, </question>, post-prompt 41, and 1
    assert usage_of(plan(Action.NO_FETCH), "three words here", None, COUNTER) == Usage(31 + 45, 3, None, "local")


def test_a_fetched_turn_would_have_cost_the_same() -> None:
    (other,) = counterfactuals(plan(Action.FETCH), "a", Usage(500, 9), COUNTER, {"x": SERVING})
    assert other == Counterfactual("x", 500, 9, "same_answer")


def test_a_skip_would_have_cost_its_faqs_more_whatever_the_servers_ruler() -> None:
    # <faqs>, the FAQ's 12, </faqs>
    for paid in (0, 76, 10_000):
        (other,) = counterfactuals(plan(Action.NO_FETCH), "a", Usage(paid, 9), COUNTER, {"x": SERVING})
        assert other == Counterfactual("x", paid + 14, 9, "same_answer")


def test_faqs_that_an_earlier_turn_skipped_count_too() -> None:
    (other,) = counterfactuals(plan(Action.NO_FETCH, history=[BEFORE]), "a", Usage(100, 9), COUNTER, {"x": SERVING})
    assert other.input_tokens == 100 + 14 + 14


def test_the_operators_text_is_in_both_arms() -> None:
    (other,) = counterfactuals(plan(Action.FETCH, operator="be brief"), "a", Usage(100, 9), COUNTER, {"x": SERVING})
    assert other.input_tokens == 100


def test_a_static_answer_saves_the_whole_prompt_and_as_long_an_answer() -> None:
    answered = plan(Action.STATIC, history=[BEFORE])
    (other,) = counterfactuals(answered, "Nine to five. [hours]", Usage(0, 0, source="none"), COUNTER, {"x": SERVING})
    whole = render_always_fetch(SERVING, [BEFORE], [HOURS], "q").messages
    assert other == Counterfactual("x", COUNTER.count(whole), 4, "static_answer")


@pytest.mark.parametrize("action", [Action.FETCH, Action.NO_FETCH])
def test_an_llm_that_was_down_saves_nothing_whatever_the_action(action: Action) -> None:
    (other,) = counterfactuals(plan(action), "an FAQ instead", Usage(0, 0, source="none"), COUNTER, {"x": SERVING})
    assert other == Counterfactual("x", 0, 0, "same_answer")


def test_every_setting_has_its_counterfactual_under_its_own_name_and_a_cheaper_one_may_cost_less() -> None:
    settings = {"serving": SERVING, "wide": PromptSettings(k=2), "bare": PromptSettings(k=1, history_turns=0)}
    turn = plan(Action.FETCH, history=[PastTurn("q1", "a1", Action.FETCH, (HOURS,), (HOURS,))], hits=(HOURS, RETURNS))
    found = {other.baseline: other.input_tokens for other in counterfactuals(turn, "a", Usage(100, 9), COUNTER, settings)}
    # wide: RETURNS' 13 more; bare: without the exchange of <faqs> 12 </faqs> <question> q1 </question> + 1, and a1 + 1
    assert found == {"serving": 100, "wide": 113, "bare": 100 - 18 - 2}


def test_without_settings_there_is_nothing_to_compare_with() -> None:
    assert counterfactuals(plan(Action.FETCH), "a", Usage(1, 1), COUNTER, {}) == ()


def test_both_local_counts_are_of_whole_prompts_by_one_counter() -> None:
    counted: list[tuple[Message, ...]] = []

    class Recording(WordCounter):
        def count(self, messages: Sequence[Message]) -> int:
            counted.append(tuple(messages))
            return super().count(messages)

    turn = plan(Action.NO_FETCH)
    counterfactuals(turn, "a", Usage(1, 1), Recording(), {"x": SERVING})
    assert counted == [turn.prompt.messages, render_always_fetch(SERVING, (), [HOURS], "q").messages]


def test_the_alternatives_differ_from_serving_in_one_thing_each() -> None:
    serving = PromptSettings(k=2, repeats=False)
    history = [PastTurn("q1", "a1", Action.FETCH, (HOURS, RETURNS), (HOURS, RETURNS))]
    made = plan(Action.NO_FETCH, history=history, hits=(HOURS, RETURNS))
    base = COUNTER.count(made.prompt.messages)
    found = {other.baseline: other.input_tokens - base
             for other in counterfactuals(made, "a", Usage(base, 9), COUNTER, {"x": serving, **alternatives(serving)})}
    # the prompt holds both FAQs in its history: 12 + 13 words, and 2 around them; fetched again they aren't shown again
    assert found == {
        "x": 0,
        "repeats": 27,  # shown again
        "one_faq": -13,  # HOURS alone, in the history
        "no_history_faqs": 0,  # they move from the history to the query
        "no_faqs": -27,
    }
