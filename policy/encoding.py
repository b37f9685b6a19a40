"""A state as the network reads it: token ids, and the optional evidence as numbers.

    [CLS] q(t-2) [SEP] [FETCH] q(t-1) [SEP] [NO_FETCH] q(t) [SEP]

An action token follows the query that it was taken for; an action that isn't known has a token of its own. What doesn't fit is
dropped from the oldest query on; then the current query is cut in its middle, since what is asked stands at its ends. A customer who
types "[FETCH]" types text. Leaves out loading tokenizers (`encoder.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chat.llm.smalltalk import smalltalk_reply
from chat.llm.wording import POINTING, words
from chat.types import Action, State

ACTION_TOKENS = {Action.FETCH: "[FETCH]", Action.NO_FETCH: "[NO_FETCH]", Action.STATIC: "[STATIC]", None: "[UNKNOWN]"}
DEFAULT_MAX_TOKENS = 96

EVIDENCE = (
    "has_evidence", "top1_similarity", "margin", "top1_over_last", "top1_in_prompt", "fetched_before", "turns_since_fetch",
    "has_prompt_faqs", "prompt_faqs", "fetched_in_prompt", "prompt_similarity", "prompt_over_top1", "has_previous",
    "previous_similarity", "joined_top1_similarity", "joined_top1_in_prompt", "joined_top1_same", "joined_prompt_similarity",
    "joined_prompt_over_top1", "fetch_kilocharacters", "previous_queries", "query_words", "question_mark", "points_back", "small_talk",
)
"""Names of the evidence features, in their order; the last five need no retrieval."""
OF_WORDS = 5


@dataclass(frozen=True, slots=True)
class Batch:
    """States as tensors, padded on the right to the longest; axis L is tokens, E evidence features."""

    input_ids: torch.Tensor
    """Shape (B, L)."""
    attention_mask: torch.Tensor
    """Shape (B, L); 1 where there is a token."""
    query_mask: torch.Tensor
    """Shape (B, L); 1 at the tokens of the current query."""
    evidence: torch.Tensor
    """Shape (B, E), not standardised."""


class StateEncoder:
    """Turns states into token ids with the tokenizer of one encoder, which must hold the action tokens."""

    def __init__(self, tokenizer: Any, max_tokens: int = DEFAULT_MAX_TOKENS, previous_queries: int | None = None) -> None:
        """`previous_queries` is how many of the state's are read, the last ones; None: all."""
        if max_tokens < 16:
            raise ValueError(f"max_tokens: expected at least 16, so that a query stands in it, got {max_tokens}")
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._previous = previous_queries
        self._cls, self._sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._pad = tokenizer.pad_token_id
        self._actions = {action: tokenizer.convert_tokens_to_ids(token) for action, token in ACTION_TOKENS.items()}

    def ids(self, state: State) -> list[int]:
        """Token ids of a state, at most `max_tokens`."""
        before, current = self._segments(state)
        return [*before, *current, self._sep]

    def batch(self, states: Sequence[State]) -> Batch:
        """States as one batch."""
        segments = [self._segments(state) for state in states]
        width = max((len(before) + len(current) + 1 for before, current in segments), default=1)
        ids, attention, query = (torch.full((len(states), width), fill) for fill in (self._pad, 0, 0))
        for row, (before, current) in enumerate(segments):
            end = len(before) + len(current) + 1
            ids[row, :end] = torch.tensor([*before, *current, self._sep])
            attention[row, :end] = 1
            query[row, len(before) : end - 1 if current else end] = 1  # an empty query is read at its [SEP]
        return Batch(ids, attention, query, torch.from_numpy(evidence_features(states)))

    def _segments(self, state: State) -> tuple[list[int], list[int]]:
        """What stands before the current query, and its tokens."""
        first = 0 if self._previous is None else max(0, len(state.previous_queries) - self._previous)
        queries = self._queries([*state.previous_queries[first:], state.query])
        segments = [[*tokens, self._sep, self._actions[action]]
                    for tokens, action in zip(queries[:-1], state.previous_actions[first:], strict=True)]
        current = queries[-1]
        while segments and 2 + sum(map(len, segments)) + len(current) > self._max_tokens:
            segments = segments[1:]
        before = [self._cls, *(token for segment in segments for token in segment)]
        return before, _cut_middle(current, self._max_tokens - len(before) - 1)

    def _queries(self, texts: list[str]) -> list[list[int]]:
        readable = [text.encode("utf-8", errors="replace").decode() for text in texts]  # half a surrogate pair is no text
        found: list[list[int]] = self._tokenizer(readable, add_special_tokens=False, split_special_tokens=True,
                                                 return_attention_mask=False, return_token_type_ids=False,
                                                 verbose=False)["input_ids"]
        return found


def evidence_features(states: Sequence[State]) -> NDArray[np.float32]:
    """What retrieval says of each state, as numbers of about one in size; shape (B, E), columns as in `EVIDENCE`.

    What is unknown is 0, with a column of its own that says so.
    """
    return np.array([_evidence_row(state) for state in states], dtype=np.float32).reshape(len(states), len(EVIDENCE))


def _evidence_row(state: State) -> tuple[float, ...]:
    of_words = (
        len(state.previous_queries) / 2, min(len(state.query.split()), 40) / 10, float("?" in state.query),
        float(not POINTING.isdisjoint(words(state.query))), float(smalltalk_reply(state.query) is not None),
    )
    found = state.evidence
    if found is None:
        return (0.0,) * (len(EVIDENCE) - OF_WORDS) + of_words
    top1, prompt = found.top1_similarity or 0.0, found.prompt_similarity
    joined, joined_prompt = found.joined_top1_similarity or 0.0, found.joined_prompt_similarity
    return (
        1.0, top1, found.margin or 0.0, top1 - (found.last_similarity or 0.0), float(found.top1_in_prompt),
        float(found.turns_since_fetch is not None), min(found.turns_since_fetch or 0, 4) / 2,
        float(prompt is not None), min(found.prompt_faqs, 8) / 4, min(found.fetched_in_prompt, 8) / 4, prompt or 0.0,
        0.0 if prompt is None else prompt - top1, float(found.previous_similarity is not None), found.previous_similarity or 0.0,
        joined, float(found.joined_top1_in_prompt), float(found.joined_top1_same), joined_prompt or 0.0,
        0.0 if joined_prompt is None else joined_prompt - joined, min(found.fetch_characters, 20_000) / 2000, *of_words,
    )


def _cut_middle(tokens: list[int], room: int) -> list[int]:
    """At most `room` tokens: the first and the last ones."""
    if len(tokens) <= room:
        return tokens
    head = (room + 1) // 2
    return tokens[:head] + tokens[len(tokens) - (room - head) :]
