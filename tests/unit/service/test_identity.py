"""Whose conversation it is: named, or recognised by what was said."""

import pytest

from chat.errors import InvalidRequestError
from chat.types import Message
from service.identity import TranscriptSigner, named_conversation

SAID = [Message("system", "Be kind."), Message("user", "late fee?"), Message("assistant", "₹450."), Message("user", "why?")]


def test_a_header_goes_before_the_body_and_metadata_before_a_session_id() -> None:
    assert named_conversation({"x-conversation-id": "a", "x-openwebui-chat-id": "b"}, {"conversation_id": "c"}, "d") == "a"
    assert named_conversation({"x-openwebui-chat-id": "b"}, {"conversation_id": "c"}, "d") == "b"
    assert named_conversation({}, {"conversation_id": "c"}, "d") == "c"
    assert named_conversation({}, {}, "d") == "d"
    assert named_conversation({}, None, None) is None


@pytest.mark.parametrize("bad", ["x" * 201, "line\nbreak", 5, ["a"]])
def test_an_id_that_can_not_be_one_is_refused(bad: object) -> None:
    with pytest.raises(InvalidRequestError, match="session_id"):
        named_conversation({}, None, bad)


def test_the_next_request_repeats_the_transcript_that_was_signed() -> None:
    signer = TranscriptSigner(b"secret")
    signed = signer.signer_for("me", SAID[:2])("₹450.")
    assert signer.sign_past("me", SAID) == signed


def test_system_messages_and_outer_white_space_do_not_matter_but_words_owner_and_secret_do() -> None:
    signer = TranscriptSigner(b"secret")
    signed = signer.sign_past("me", SAID)
    assert signer.sign_past("me", [Message("system", "Other."), Message("user", " late fee? "), *SAID[2:]]) == signed
    assert signer.sign_past("you", SAID) != signed
    assert TranscriptSigner(b"other").sign_past("me", SAID) != signed
    assert signer.sign_past("me", [Message("user", "late fees?"), *SAID[2:]]) != signed


def test_words_can_not_move_between_messages_unnoticed() -> None:
    signer = TranscriptSigner(b"s")
    assert signer.sign("me", [Message("user", "ab")]) != signer.sign("me", [Message("user", "a"), Message("user", "b")])


def test_a_conversation_without_an_answer_has_no_past() -> None:
    assert TranscriptSigner(b"s").sign_past("me", [Message("user", "hi")]) is None
