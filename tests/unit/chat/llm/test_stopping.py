"""Stop strings in a text that comes in pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.llm.stopping import StopStrings

texts = st.text(alphabet="abc", max_size=20)
stops = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3)


@given(text=texts, stops=stops, cuts=st.lists(st.integers(0, 20), max_size=6))
def test_pieces_are_cut_where_the_whole_text_would_be(text: str, stops: list[str], cuts: list[int]) -> None:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    filtered = StopStrings(stops)
    shown = "".join(filtered.feed(text[start:end]) for start, end in pairwise(places)) + filtered.flush()
    # the stop that is whole first ends the text, so of two that overlap it need not be the one that begins first
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if not ends:
        assert (shown, filtered.stopped) == (text, False)
        return
    assert filtered.stopped
    assert text.startswith(shown)
    assert text[len(shown) :].startswith(tuple(stops))


@given(text=texts, stops=stops)
def test_a_whole_text_is_cut_at_its_first_stop_string(text: str, stops: list[str]) -> None:
    first = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    filtered = StopStrings(stops)
    assert filtered.feed(text) + filtered.flush() == text[:first]


@pytest.mark.parametrize(("pieces", "shown", "rest"), [
    (["wait", "ing"], ["", "waiting"], ""),
    (["say it", " E", "ND, more"], ["say ", "it ", ""], ""),
    (["wai", "t"], ["", ""], "wait"),
    (["a", "wait!b", "c"], ["a", "", ""], ""),
])
def test_an_end_that_may_become_a_stop_string_is_held_back(pieces: list[str], shown: list[str], rest: str) -> None:
    filtered = StopStrings(["END", "wait!", "it!"])
    assert [filtered.feed(piece) for piece in pieces] == shown
    assert filtered.flush() == rest


def test_without_stop_strings_every_piece_passes() -> None:
    filtered = StopStrings(["", *()])
    assert [filtered.feed("a"), filtered.feed(""), filtered.feed("b"), filtered.flush()] == ["a", "", "b", ""]
