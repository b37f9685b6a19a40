"""What was said, out of a message list, and what the log adds to it."""

import pytest

from chat.dialogue import Dialogue, past_turns, read_dialogue
from chat.errors import InvalidRequestError
from chat.ports import LoggedExchange
from chat.types import Action, Message, PastTurn
from kb.types import Faq
from tests.conversation import HOURS, PARKING, RETURNS

KNOWN = {faq.id: faq for faq in (HOURS, RETURNS, PARKING)}


def said(*pairs: tuple[str, str]) -> list[Message]:
    """Messages from (role's first letter, text)."""
    return [Message({"s": "system", "u": "user", "a": "assistant"}[role], text) for role, text in pairs]  # type: ignore[arg-type]


def logged(
    query: str, answer: str, action: Action = Action.FETCH, hits: tuple[str, ...] = ("hours",),
    fetched: tuple[str, ...] = ("hours",), cited: tuple[str, ...] = (),
) -> LoggedExchange:
    return LoggedExchange(query, answer, action, hits, fetched, cited)


def find(faq_id: str) -> Faq | None:
    return KNOWN.get(faq_id)


def test_a_lone_query_has_no_exchange_and_no_operator() -> None:
    assert read_dialogue(said(("u", "hi"))) == Dialogue("", (), "hi")


def test_messages_become_exchanges_oldest_first_and_a_query() -> None:
    read = read_dialogue(said(("u", "q1"), ("a", "a1"), ("u", "q2"), ("a", "a2"), ("u", "q3")))
    assert read == Dialogue("", (("q1", "a1"), ("q2", "a2")), "q3")


def test_system_messages_are_the_operators_wherever_they_stand() -> None:
    read = read_dialogue(said(("s", "be kind"), ("u", "q1"), ("s", "be brief"), ("a", "a1"), ("u", "q2"), ("s", "be exact")))
    assert read == Dialogue("be kind\n\nbe brief\n\nbe exact", (("q1", "a1"),), "q2")


def test_neighbours_of_one_role_are_joined() -> None:
    read = read_dialogue(said(("u", "q1"), ("u", "and"), ("a", "a1"), ("a", "more"), ("u", "q2"), ("u", "and")))
    assert read == Dialogue("", (("q1\nand", "a1\nmore"),), "q2\nand")


def test_an_assistants_opening_words_are_an_exchange_without_a_query() -> None:
    assert read_dialogue(said(("a", "Welcome!"), ("u", "q"))).exchanges == (("", "Welcome!"),)


def test_an_empty_answer_is_still_an_answer() -> None:
    assert read_dialogue(said(("u", "q1"), ("a", ""), ("u", "q2"))).exchanges == (("q1", ""),)


def test_white_space_around_the_query_goes_and_inside_it_stays() -> None:
    assert read_dialogue(said(("u", " \n a  b\n\nc \t"))).query == "a  b\n\nc"


@pytest.mark.parametrize("text", ["🙂👩‍👩‍👧 ok?", "مرحبا \u202eabc\u202c", "a\x00b", "\u0301", "\ud800 lone"])
def test_any_characters_are_a_query(text: str) -> None:
    assert read_dialogue(said(("u", text))).query == text


@pytest.mark.parametrize(("messages", "problem"), [
    (said(), "at least one message of role user"),
    (said(("s", "be kind")), "at least one message of role user"),
    (said(("a", "hello")), "last one from role user, got assistant"),
    (said(("u", "q"), ("a", "a")), "last one from role user, got assistant"),
    (said(("u", "")), "only white space"),
    (said(("u", "q"), ("a", "a"), ("u", " \n\t\u2003")), "only white space"),
])
def test_a_list_without_a_query_is_refused_by_the_name_of_the_parameter(messages: list[Message], problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem) as raised:
        read_dialogue(messages)
    assert raised.value.param == "messages"


def test_a_turn_in_the_log_brings_its_action_and_faqs() -> None:
    record = logged("q", "a [hours]", Action.FETCH, ("hours", "returns"), ("hours",), ("hours",))
    assert past_turns([("q", "a [hours]")], [record], find) == (
        PastTurn("q", "a [hours]", Action.FETCH, (HOURS, RETURNS), (HOURS,), ("hours",)),
    )


@pytest.mark.parametrize("exchange", [("q", "another answer"), ("another query", "a"), ("Q", "a"), ("q", "")])
def test_other_words_than_the_logs_are_an_unknown_turn_and_not_a_skip(exchange: tuple[str, str]) -> None:
    assert past_turns([exchange], [logged("q", "a")], find) == (PastTurn(*exchange, action=None),)


def test_the_clients_words_stay_and_white_space_around_them_does_not_hide_a_turn() -> None:
    (turn,) = past_turns([(" q\n", "a")], [logged("q", " a\n")], find)
    assert (turn.query, turn.answer, turn.action) == (" q\n", "a", Action.FETCH)


def test_a_deleted_faq_is_not_shown_and_keeps_its_rank_for_the_counterfactual() -> None:
    record = logged("q", "a", Action.FETCH, ("hours", "gone", "returns"), ("hours", "gone"), ("gone",))
    (turn,) = past_turns([("q", "a")], [record], find)
    assert turn.hits == (HOURS, None, RETURNS)
    assert turn.fetched == (HOURS,)


def test_words_that_were_said_twice_keep_their_own_actions() -> None:
    records = [logged("thanks", "ok", Action.FETCH), logged("q", "a", Action.STATIC), logged("thanks", "ok", Action.NO_FETCH)]
    turns = past_turns([("thanks", "ok"), ("q", "a"), ("thanks", "ok")], records, find)
    assert [turn.action for turn in turns] == [Action.FETCH, Action.STATIC, Action.NO_FETCH]


def test_of_answers_with_the_same_words_the_latest_counts() -> None:
    records = [logged("q", "a", Action.FETCH), logged("q", "a", Action.NO_FETCH)]
    assert past_turns([("q", "a")], records, find)[0].action is Action.NO_FETCH


def test_an_abandoned_answer_in_the_log_does_not_hide_the_turns_before_it() -> None:
    records = [logged("q1", "a1", Action.FETCH), logged("q2", "dropped", Action.FETCH), logged("q2", "kept", Action.NO_FETCH)]
    turns = past_turns([("q1", "a1"), ("q2", "kept")], records, find)
    assert [turn.action for turn in turns] == [Action.FETCH, Action.NO_FETCH]


def test_an_unknown_turn_between_known_ones_stays_unknown() -> None:
    records = [logged("q1", "a1", Action.STATIC), logged("q3", "a3", Action.NO_FETCH)]
    turns = past_turns([("q1", "a1"), ("q2", "edited"), ("q3", "a3")], records, find)
    assert [turn.action for turn in turns] == [Action.STATIC, None, Action.NO_FETCH]


def test_turns_in_another_order_than_the_logs_are_not_taken_for_each_other() -> None:
    records = [logged("q2", "a2", Action.FETCH), logged("q1", "a1", Action.FETCH)]
    assert [turn.action for turn in past_turns([("q1", "a1"), ("q2", "a2")], records, find)] == [None, Action.FETCH]


def test_without_a_log_every_turn_is_unknown() -> None:
    assert past_turns([("q1", "a1"), ("q2", "a2")], [], find) == (PastTurn("q1", "a1"), PastTurn("q2", "a2"))
