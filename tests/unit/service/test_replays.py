"""Answers given again: to retries, to nobody else, and never a failure."""

import asyncio
from typing import Any

import pytest

from service.errors import ApiError
from service.replays import KEY_WINDOW, MAX_KEPT, RETRY_WINDOW, WINDOW, Answer, Replays, Slot

ANSWER = Answer(200, {"x": "1"}, b"body")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def claim(replays: Replays, body: bytes = b"b", owner: str = "o", scope: str = "", **headers: str) -> Slot | Answer:
    return asyncio.run(replays.claim(owner, body, {k.replace("_", "-"): v for k, v in headers.items()}, scope))


def given(replays: Replays, **how: Any) -> Slot:
    slot = claim(replays, **how)
    assert isinstance(slot, Slot)
    replays.give(slot, ANSWER)
    return slot


@pytest.mark.parametrize(("headers", "window"), [
    ({}, WINDOW), ({"x_stainless_retry_count": "2"}, RETRY_WINDOW), ({"idempotency_key": "k"}, KEY_WINDOW),
])
def test_an_answer_is_given_again_until_its_window_closes(headers: dict[str, Any], window: float) -> None:
    clock = Clock()
    replays = Replays(clock)
    given(replays, **headers)
    clock.now = window
    assert claim(replays, **headers) is ANSWER
    clock.now = window + 0.1
    assert isinstance(claim(replays, **headers), Slot)


def test_a_first_try_is_never_taken_for_a_repeat() -> None:
    replays = Replays()
    given(replays)
    assert isinstance(claim(replays, x_stainless_retry_count="0"), Slot)


@pytest.mark.parametrize("other", [{"body": b"c"}, {"owner": "p"}, {"scope": "conversation"}])
def test_another_body_owner_or_conversation_is_another_turn(other: dict[str, Any]) -> None:
    replays = Replays()
    given(replays)
    assert isinstance(claim(replays, **other), Slot)


def test_a_key_with_another_body_is_refused_and_another_owners_key_is_not() -> None:
    replays = Replays()
    given(replays, idempotency_key="k")
    with pytest.raises(ApiError) as refusal:
        claim(replays, body=b"other", idempotency_key="k")
    assert refusal.value.status == 422
    assert isinstance(claim(replays, body=b"other", owner="p", idempotency_key="k"), Slot)


def test_a_turn_that_was_given_up_is_free_for_one_of_those_that_wait() -> None:
    async def race() -> list[Slot | Answer]:
        replays = Replays()
        first = await replays.claim("o", b"b", {}, "")
        assert isinstance(first, Slot)
        waiting = [asyncio.create_task(replays.claim("o", b"b", {}, "")) for _ in range(3)]
        await asyncio.sleep(0)
        replays.leave(first)
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (taken,) = [task.result() for task in done]
        assert isinstance(taken, Slot)
        replays.give(taken, ANSWER)
        return [await task for task in waiting]

    found = asyncio.run(race())
    assert sum(isinstance(one, Slot) for one in found) == 1
    assert sum(one is ANSWER for one in found) == 2


def test_leaving_after_giving_keeps_the_answer() -> None:
    replays = Replays()
    slot = given(replays)
    replays.leave(slot)
    assert claim(replays) is ANSWER


def test_only_so_many_answers_are_kept() -> None:
    replays = Replays()
    for n in range(MAX_KEPT + 1):
        given(replays, body=str(n).encode())
    assert isinstance(claim(replays, body=b"0"), Slot)
    assert claim(replays, body=str(MAX_KEPT).encode()) is ANSWER
