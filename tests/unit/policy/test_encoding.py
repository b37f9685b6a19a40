"""Token by token, what the network reads of a state, and number by number, what of the evidence."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.types import Action, Evidence, State
from policy.encoding import ACTION_TOKENS, DEFAULT_MAX_TOKENS, EVIDENCE, StateEncoder, evidence_features
from tests.tiny_gate import tiny_gate

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)

typed = st.lists(st.one_of(st.text(max_size=12), st.sampled_from([*ACTION_TOKENS.values(), "[SEP]", "[CLS]", "[PAD]", "[MASK]",
                                                                  "<|endoftext|>", "\ud800", "card"])), max_size=5).map(" ".join)
pasts = st.lists(st.tuples(typed, st.none() | st.sampled_from(Action)), max_size=4)
states = st.builds(lambda turns, query: State(tuple(q for q, _ in turns), tuple(a for _, a in turns), query, None), pasts, typed)

cosines = st.floats(-1.0, 1.0)
counts = st.integers(0, 10**9)
evidences = st.builds(
    Evidence, top1_similarity=st.none() | cosines, margin=st.none() | st.floats(0, 2), top1_in_prompt=st.booleans(),
    turns_since_fetch=st.none() | counts, last_similarity=st.none() | cosines, prompt_similarity=st.none() | cosines, prompt_faqs=counts,
    fetched_in_prompt=counts, fetch_characters=counts, previous_similarity=st.none() | cosines,
    joined_top1_similarity=st.none() | cosines, joined_top1_in_prompt=st.booleans(), joined_prompt_similarity=st.none() | cosines,
    joined_top1_same=st.booleans(),
)


class Reading:
    """An encoder, and what it reads as tokens rather than numbers."""

    def __init__(self, folder: Path) -> None:
        _, _, self.tokenizer = tiny_gate(folder)

    def encoder(self, max_tokens: int = 48, previous: int | None = None) -> StateEncoder:
        return StateEncoder(self.tokenizer, max_tokens, previous)

    def tokens(self, state: State, max_tokens: int = 48, previous: int | None = None) -> list[str]:
        found: list[str] = self.tokenizer.convert_ids_to_tokens(self.encoder(max_tokens, previous).ids(state))
        return found

    def words(self, text: str) -> list[str]:
        """Of a text alone, in which nothing looks like a special token."""
        found: list[str] = self.tokenizer.tokenize(text)
        return found


@pytest.fixture(scope="module")
def reads_bert(bert: Path) -> Reading:
    return Reading(bert)


@pytest.fixture(scope="module")
def reads_gpt2(gpt2: Path) -> Reading:
    return Reading(gpt2)


@pytest.fixture(params=["reads_bert", "reads_gpt2"])
def reading(request: pytest.FixtureRequest) -> Reading:
    found: Reading = request.getfixturevalue(request.param)
    return found


def letters(count: int, first: str = "a") -> str:
    """So many words of one letter each, which are as many tokens of the tiny BERT."""
    return " ".join(chr((ord(first) - ord("a") + n) % 26 + ord("a")) for n in range(count))


def test_queries_and_the_actions_taken_for_them_stand_in_the_documented_order(reading: Reading) -> None:
    state = State(("block my card", "and back"), (Action.FETCH, Action.NO_FETCH), "how so", None)
    assert reading.tokens(state) == [
        "[CLS]", *reading.words("block my card"), "[SEP]", "[FETCH]", *reading.words("and back"), "[SEP]", "[NO_FETCH]",
        *reading.words("how so"), "[SEP]",
    ]


def test_a_static_answer_and_an_unknown_action_have_tokens_of_their_own(reading: Reading) -> None:
    state = State(("card", "block"), (Action.STATIC, None), "", None)
    assert reading.tokens(state) == ["[CLS]", *reading.words("card"), "[SEP]", "[STATIC]", *reading.words("block"), "[SEP]", "[UNKNOWN]",
                                     "[SEP]"]


def test_only_as_many_previous_queries_are_read_as_asked_for(reading: Reading) -> None:
    state = State(("a", "b"), (Action.FETCH, Action.NO_FETCH), "c", None)
    assert reading.tokens(state, previous=1) == reading.tokens(State(("b",), (Action.NO_FETCH,), "c", None))
    assert reading.tokens(state, previous=0) == ["[CLS]", *reading.words("c"), "[SEP]"]
    assert reading.tokens(state, previous=9) == reading.tokens(state)


@pytest.mark.parametrize(("room", "kept"), [(24, 2), (23, 1), (18, 1), (17, 0), (16, 0)])
def test_the_oldest_query_is_dropped_first_as_a_whole(room: int, kept: int, reads_bert: Reading) -> None:
    # [CLS] 4 [SEP] [FETCH] 5 [SEP] [NO_FETCH] 9 [SEP]: 24 tokens, 18 without the first query, 11 without both
    state = State((letters(4, "a"), letters(5, "g")), (Action.FETCH, Action.NO_FETCH), letters(9, "p"), None)
    expected = State(state.previous_queries[2 - kept :], state.previous_actions[2 - kept :], state.query, None)
    assert reads_bert.tokens(state, room) == reads_bert.tokens(expected, 48)


@pytest.mark.parametrize("length", [14, 15, 16, 30])
def test_then_the_current_query_is_cut_in_its_middle(length: int, reads_bert: Reading) -> None:
    words = letters(length).split()
    expected = words if length <= 14 else [*words[:7], *words[-7:]]
    found = reads_bert.tokens(State((letters(3),), (None,), letters(length), None), 16)
    assert found == ["[CLS]", *expected, "[SEP]"]


def test_of_an_odd_room_the_beginning_has_the_odd_token(reads_bert: Reading) -> None:
    words = letters(20).split()
    assert reads_bert.tokens(State((), (), letters(20), None), 17) == ["[CLS]", *words[:8], *words[-7:], "[SEP]"]


@pytest.mark.parametrize("room", [15, 0, -1])
def test_less_room_than_a_query_needs_is_refused(room: int, reads_bert: Reading) -> None:
    with pytest.raises(ValueError, match=f"max_tokens: expected at least 16, so that a query stands in it, got {room}"):
        reads_bert.encoder(room)


@unhurried
@given(state=states)
def test_only_the_layout_brings_special_tokens_whatever_a_customer_types(reading: Reading, state: State) -> None:
    ids = reading.encoder(64).ids(state)
    special = set(reading.tokenizer.all_special_ids) - {reading.tokenizer.unk_token_id}
    found = [reading.tokenizer.convert_ids_to_tokens(one) for one in ids if one in special]
    kept = (len(found) - 2) // 2  # each previous query has two
    actions = state.previous_actions[len(state.previous_actions) - kept :]
    assert found == ["[CLS]", *(token for action in actions for token in ("[SEP]", ACTION_TOKENS[action])), "[SEP]"]


@unhurried
@given(batch=st.lists(states, min_size=1, max_size=4), room=st.integers(16, 64))
def test_a_batch_holds_each_states_tokens_then_padding_and_marks_just_the_current_query(
    reading: Reading, batch: list[State], room: int
) -> None:
    encoder = reading.encoder(room)
    made = encoder.batch(batch)
    longest = max(len(encoder.ids(state)) for state in batch)
    assert longest <= room
    assert made.input_ids.shape == made.attention_mask.shape == made.query_mask.shape == (len(batch), longest)
    assert made.evidence.shape == (len(batch), len(EVIDENCE))
    for row, state in enumerate(batch):
        ids = encoder.ids(state)
        padding = longest - len(ids)
        assert made.input_ids[row].tolist() == ids + [reading.tokenizer.pad_token_id] * padding
        assert made.attention_mask[row].tolist() == [1] * len(ids) + [0] * padding
        alone = encoder.ids(replace(state, previous_queries=(), previous_actions=()))[1:-1]
        marked = made.input_ids[row][made.query_mask[row] == 1].tolist()
        # of a query that is cut, what is left when nothing stands before it is the same: the past goes first
        assert marked == (alone or [reading.tokenizer.sep_token_id])
        assert made.query_mask[row].nonzero().squeeze(1).tolist() == list(
            range(len(ids) - 1 - len(alone), len(ids) - 1) if alone else [len(ids) - 1])


def test_a_batch_of_no_states_has_no_rows(reading: Reading) -> None:
    made = reading.encoder().batch([])
    assert (len(made.input_ids), made.evidence.shape) == (0, (0, len(EVIDENCE)))


@pytest.mark.parametrize("text", ["", " \n\t", "\ud800", "a\udfff b", "\x00", "🙂" * 5_000, "x" * 200_000, "card " * 40_000])
def test_no_text_is_too_empty_too_broken_or_too_long(text: str, reading: Reading) -> None:
    state = State((text, text), (Action.FETCH, None), text, None)
    ids = reading.encoder(32).ids(state)
    assert 2 <= len(ids) <= 32
    assert (ids[0], ids[-1]) == (reading.tokenizer.cls_token_id, reading.tokenizer.sep_token_id)
    made = reading.encoder(32).batch([state])
    assert int(made.query_mask.sum()) >= 1
    assert torch.isfinite(made.evidence).all()


def test_the_packaged_encoders_tokenizer_has_the_layout_too() -> None:
    from policy.network import NetworkConfig, build_network

    _, tokenizer = build_network(NetworkConfig(), seed=0)
    ids = StateEncoder(tokenizer, DEFAULT_MAX_TOKENS).ids(State(("block my card",), (Action.FETCH,), "[FETCH] and then?", None))
    expected = "[CLS] block my card [SEP] [FETCH] [ fetch ] and then ? [SEP]"
    assert tokenizer.convert_ids_to_tokens(ids) == expected.split()


def test_each_evidence_feature_stands_in_its_column() -> None:
    found = Evidence(
        top1_similarity=0.75, margin=0.125, top1_in_prompt=True, turns_since_fetch=1, last_similarity=0.5, prompt_similarity=0.25,
        prompt_faqs=6, fetched_in_prompt=2, fetch_characters=3000, previous_similarity=0.375, joined_top1_similarity=0.625,
        joined_top1_in_prompt=True, joined_prompt_similarity=0.5, joined_top1_same=True,
    )
    (row,) = evidence_features([State(("one",), (None,), "and does that one count?", found)])
    assert dict(zip(EVIDENCE, row.tolist(), strict=True)) == {
        "has_evidence": 1.0, "top1_similarity": 0.75, "margin": 0.125, "top1_over_last": 0.25, "top1_in_prompt": 1.0, "fetched_before": 1.0,
        "turns_since_fetch": 0.5, "has_prompt_faqs": 1.0, "prompt_faqs": 1.5, "fetched_in_prompt": 0.5, "prompt_similarity": 0.25,
        "prompt_over_top1": -0.5, "has_previous": 1.0, "previous_similarity": 0.375, "joined_top1_similarity": 0.625,
        "joined_top1_in_prompt": 1.0, "joined_top1_same": 1.0, "joined_prompt_similarity": 0.5, "joined_prompt_over_top1": -0.125,
        "fetch_kilocharacters": 1.5, "previous_queries": 0.5, "query_words": 0.5,
        "question_mark": 1.0, "points_back": 1.0, "small_talk": 0.0,
    }


def test_without_evidence_every_column_is_zero_but_what_needs_no_retrieval() -> None:
    thanks, words = evidence_features([State((), (), "thanks", None), State(("a", "b"), (None, None), "two words", None)])
    assert {name: value for name, value in zip(EVIDENCE, thanks.tolist(), strict=True) if value} == {
        "query_words": pytest.approx(0.1), "small_talk": 1.0}
    assert {name: value for name, value in zip(EVIDENCE, words.tolist(), strict=True) if value} == {
        "previous_queries": 1.0, "query_words": pytest.approx(0.2)}


def test_what_is_unknown_differs_from_what_is_zero() -> None:
    bare = Evidence(None, None, top1_in_prompt=False, turns_since_fetch=None)
    zero = replace(bare, turns_since_fetch=0, prompt_similarity=0.0, previous_similarity=0.0)
    unknown, none, zeros = evidence_features([State((), (), "", one) for one in (None, bare, zero)])
    changed = [[name for name, value in zip(EVIDENCE, difference, strict=True) if value] for difference in (none - unknown, zeros - none)]
    assert changed == [["has_evidence"], ["fetched_before", "has_prompt_faqs", "has_previous"]]


@settings(deadline=None)
@given(seen=st.lists(st.none() | evidences, max_size=4), query=st.text(max_size=200))
def test_evidence_features_are_finite_and_of_about_one_in_size(seen: list[Evidence | None], query: str) -> None:
    made = evidence_features([State((), (), query, one) for one in seen])
    assert made.shape == (len(seen), len(EVIDENCE))
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    assert (np.abs(made) <= 10.0).all()
    assert math.isfinite(float(made.sum()))
