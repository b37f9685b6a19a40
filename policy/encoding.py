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

from chat.types import Action, State

ACTION_TOKENS = {Action.FETCH: "[FETCH]", Action.NO_FETCH: "[NO_FETCH]", Action.STATIC: "[STATIC]", None: "[UNKNOWN]"}
DEFAULT_MAX_TOKENS = 96

EVIDENCE = (
    "has_evidence", "top1_similarity", "margin", "top1_in_prompt", "fetched_before", "turns_since_fetch", "has_prompt_faqs",
    "prompt_similarity", "prompt_over_top1", "has_previous", "previous_similarity", "fetch_kilocharacters", "query_words",
)
"""Names of the evidence features, in their order."""


@dataclass(frozen=True, slots=True)
class Batch:
    """States as tensors, padded on the right to the longest; axis L is tokens, E evidence features."""

    input_ids: torch.Tensor
    """Shape (B, L)."""
    attention_mask: torch.Tensor
    """Shape (B, L); 1 where there is a token."""
    evidence: torch.Tensor
    """Shape (B, E), not standardised."""


class StateEncoder:
    """Turns states into token ids with the tokenizer of one encoder, which must hold the action tokens."""

    def __init__(self, tokenizer: Any, max_tokens: int = DEFAULT_MAX_TOKENS) -> None:
        if max_tokens < 16:
            raise ValueError(f"max_tokens: expected at least 16, so that a query stands in it, got {max_tokens}")
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._cls, self._sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._pad = tokenizer.pad_token_id
        self._actions = {action: tokenizer.convert_tokens_to_ids(token) for action, token in ACTION_TOKENS.items()}

    def ids(self, state: State) -> list[int]:
        """Token ids of a state, at most `max_tokens`."""
        queries = self._queries([*state.previous_queries, state.query])
        segments = [[*tokens, self._sep, self._actions[action]]
                    for tokens, action in zip(queries[:-1], state.previous_actions, strict=True)]
        current = queries[-1]
        while segments and 2 + sum(map(len, segments)) + len(current) > self._max_tokens:
            segments = segments[1:]
        current = _cut_middle(current, self._max_tokens - 2 - sum(map(len, segments)))
        return [self._cls, *(token for segment in segments for token in segment), *current, self._sep]

    def batch(self, states: Sequence[State]) -> Batch:
        """States as one batch."""
        rows = [self.ids(state) for state in states]
        width = max(map(len, rows), default=1)
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows], dtype=torch.long).reshape(len(rows), width)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=torch.long).reshape(len(rows), width)
        return Batch(ids, mask, torch.from_numpy(evidence_features(states)))

    def _queries(self, texts: list[str]) -> list[list[int]]:
        readable = [text.encode("utf-8", errors="replace").decode() for text in texts]  # half a surrogate pair is no text
        found: list[list[int]] = self._tokenizer(readable, add_special_tokens=False, split_special_tokens=True,
                                                 return_attention_mask=False, return_token_type_ids=False)["input_ids"]
        return found


def evidence_features(states: Sequence[State]) -> NDArray[np.float32]:
    """What retrieval says of each state, as numbers of about one in size; shape (B, E), columns as in `EVIDENCE`.

    What is unknown is 0, with a column of its own that says so.
    """
    return np.array([_evidence_row(state) for state in states], dtype=np.float32).reshape(len(states), len(EVIDENCE))


def _evidence_row(state: State) -> tuple[float, ...]:
    words = min(len(state.query.split()), 40) / 10
    found = state.evidence
    if found is None:
        return (0.0,) * (len(EVIDENCE) - 1) + (words,)
    top1 = found.top1_similarity or 0.0
    prompt = found.prompt_similarity
    return (
        1.0, top1, found.margin or 0.0, float(found.top1_in_prompt), float(found.turns_since_fetch is not None),
        min(found.turns_since_fetch or 0, 4) / 2, float(prompt is not None), prompt or 0.0, 0.0 if prompt is None else prompt - top1,
        float(found.previous_similarity is not None), found.previous_similarity or 0.0, min(found.fetch_characters, 20_000) / 2000, words,
    )


def _cut_middle(tokens: list[int], room: int) -> list[int]:
    """At most `room` tokens: the first and the last ones."""
    if len(tokens) <= room:
        return tokens
    head = (room + 1) // 2
    return tokens[:head] + tokens[len(tokens) - (room - head) :]
