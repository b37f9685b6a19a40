"""What words tell without a model: small talk, follow-ups, double questions, sentences, language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.llm.smalltalk import BYE, GREETING, NOD, THANKS, Talk, smalltalk_reply
from chat.llm.wording import asks, is_vietnamese, leaning, named, sentences, two_questions, words


@pytest.mark.parametrize(("kind", "messages"), [
    (GREETING, ["hi", "Hello there!", "heyyy is anyone there", "good morning team", "namaste ji", "hello, how are you?"]),
    (THANKS, ["thanks", "Thank you so much!!", "ok thx", "thank you beta, very kind", "shukriya bhai", "hi and thanks"]),
    (BYE, ["bye", "ok thanks bye", "goodbye and take care", "done bye", "byeeee"]),
    (NOD, ["ok", "Cool.", "lol", "hmmm", "got it, makes sense", "k", "phew ok", "accha theek hai", "👍", "...", "oh god okay"]),
])
def test_a_message_of_nothing_but_small_talk_gets_a_fitting_reply(kind: Talk, messages: list[str]) -> None:
    assert {message: smalltalk_reply(message) for message in messages} == dict.fromkeys(messages, kind.reply)


@pytest.mark.parametrize(("kind", "messages"), [
    (GREETING, ["xin chào", "Chào shop ạ"]), (THANKS, ["cảm ơn bạn nhiều"]), (BYE, ["tạm biệt nhé"]),
    (NOD, ["vâng", "dạ được rồi ạ"]),
])
def test_vietnamese_small_talk_is_answered_in_vietnamese(kind: Talk, messages: list[str]) -> None:
    assert {message: smalltalk_reply(message) for message in messages} == dict.fromkeys(messages, kind.vietnamese_reply)


@pytest.mark.parametrize("message", [
    "ok and the late fee?", "hi, how do i block my card", "ok?", "??", "", "  ", "no help", "no reply", "have you got it",
    "the card", "there", "thanks but what about the GST", "cool can you reduce it", "good day limit",
    "cảm ơn, phí trễ hạn là bao nhiêu",
    "is it done", "wait for the card", "hi hi hi hi hi hi hi hi hi hi",
])
def test_a_message_with_more_to_it_is_no_small_talk(message: str) -> None:
    assert smalltalk_reply(message) is None


@pytest.mark.parametrize("follow_up", [
    "can you reduce it?", "and on the Gold?", "how long does that take?", "even for add-on ones?", "why",
    "same on the student one?", "aur kitna time lagega", "uske baad kya", "thế còn cái này?",
])
def test_a_follow_up_that_names_nothing_leans_on_what_was_said(follow_up: str) -> None:
    assert leaning(follow_up) > 0.6


@pytest.mark.parametrize("question", [
    "My wallet was stolen on the train to Pune this morning and the thief has both my Nimbari cards",
    "what will I pay if I miss the due date on a 7k bill with GST",
    "Which documents must a self-employed shop owner upload for a Gold card application",
])
def test_a_question_that_stands_alone_leans_little(question: str) -> None:
    assert leaning(question) < 0.4


@given(st.text(max_size=2000))
def test_any_text_leans_by_a_share(text: str) -> None:
    assert 0 <= leaning(text) <= 1


def test_a_question_mark_or_a_questions_word_asks() -> None:
    assert all(map(asks, ["late fee?", "how much", "kitna lagega", "phí là bao nhiêu"]))
    assert not any(map(asks, ["REMOVE IT.", "this, daylight robbery", ""]))


def test_two_questions_are_told_apart_only_where_both_ask_and_name_something() -> None:
    assert two_questions("How do I block my card and what does a replacement cost?") == \
        ("How do I block my card", "what does a replacement cost?")
    assert two_questions("what is the late fee? can I get cash abroad") == ("what is the late fee", "can I get cash abroad")
    for one in ("can I pay by UPI and NEFT?", "what is it and why?", "terms and conditions of the card", "really? why?"):
        assert two_questions(one) is None


@pytest.mark.parametrize(("text", "expected"), [
    ("One. Two! 3 of them? Yes.", ("One.", "Two!", "3 of them? Yes.")),
    ("It costs Rs. 500, e.g. here. ₹399 on Gold.\nNew line", ("It costs Rs. 500, e.g. here.", "₹399 on Gold.", "New line")),
    ("At 3.4% a month", ("At 3.4% a month",)),
    ("Sure?", ("Sure?",)),
    ("", ()),
    ("\n \n", ()),
])
def test_sentences_end_where_a_reader_would_say_so(text: str, expected: tuple[str, ...]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet="aB1.?! \n", max_size=60))
def test_no_word_is_lost_between_sentences(text: str) -> None:
    assert "".join(" ".join(sentences(text)).split()) == "".join(text.split())


def test_what_is_named_is_compared_by_stems_without_accents() -> None:
    assert named("How are transfers made?") == named("transferred, MAKE") - {"make"} | {"made"}
    assert named("phí trễ hạn") == named("phi tre han")
    assert named("can you do it") == frozenset()


def test_words_have_no_punctuation_and_no_case() -> None:
    assert words("Don’t WAIT — it's 5% off_now!") == ["dont", "wait", "its", "5", "off", "now"]


def test_vietnamese_is_told_by_letters_of_its_own() -> None:
    assert is_vietnamese("phí trễ hạn là bao nhiêu")
    assert is_vietnamese("LÀM THẾ NÀO ĐỂ KHÓA THẺ")
    assert not is_vietnamese("café à la carte, señor, Größe")
