"""A turn's events as OpenAI's objects: a whole completion, or the chunks of a stream.

What we add goes by a top-level `fetchgate` object, `annotations` for FAQs with a source, and headers, since each client
drops some of these.
"""

import re
from collections.abc import Sequence
from typing import Any

from chat.pipeline import TurnFinished, TurnStarted
from chat.types import Turn
from kb.types import Faq
from service.schemas import MODEL_ID

JSON = dict[str, Any]
FINISH_REASONS = {"stop": "stop", "length": "length", "content_filter": "content_filter"}


def headers(started: TurnStarted, conversation_id: str) -> dict[str, str]:
    """What a client that reads no extra fields can still see."""
    return {
        "x-fetchgate-action": started.decision.action.value,
        "x-fetchgate-policy-version": started.decision.policy_version,
        "x-fetchgate-conversation-id": conversation_id.encode("ascii", "backslashreplace").decode(),
    }


def completion(started: TurnStarted, finished: TurnFinished) -> JSON:
    """The whole answer."""
    turn = finished.turn
    message: JSON = {"role": "assistant", "content": turn.answer, "refusal": finished.refused or None,
                     "annotations": annotations(turn.answer, finished.cited)}
    choice = {"index": 0, "message": message, "finish_reason": FINISH_REASONS[turn.finish_reason], "logprobs": None}
    return {**_head(started, "chat.completion"), "choices": [choice], "usage": usage(turn), "fetchgate": summary(started, finished)}


def first_chunk(started: TurnStarted, conversation_id: str, *, with_usage: bool) -> JSON:
    """The chunk that opens a stream."""
    decided = _decided(started, conversation_id, started.degraded)
    return _chunk(started, {"role": "assistant", "content": ""}, None, with_usage) | {"fetchgate": decided}


def text_chunk(started: TurnStarted, text: str, *, with_usage: bool) -> JSON:
    return _chunk(started, {"content": text}, None, with_usage)


def last_chunk(started: TurnStarted, finished: TurnFinished, *, with_usage: bool) -> JSON:
    """The chunk that says why the answer ended, with the summary of the turn."""
    cited = annotations(finished.turn.answer, finished.cited)
    delta: JSON = {"annotations": cited} if cited else {}
    if finished.refused:
        delta["refusal"] = finished.refused
    chunk = _chunk(started, delta, FINISH_REASONS[finished.turn.finish_reason], with_usage)
    return chunk | {"fetchgate": summary(started, finished)}


def usage_chunk(started: TurnStarted, turn: Turn) -> JSON:
    """The chunk after the last one, for clients that asked for usage."""
    return {**_head(started, "chat.completion.chunk"), "choices": [], "usage": usage(turn)}


def usage(turn: Turn) -> JSON:
    """Tokens as the upstream counted them."""
    counted = turn.usage
    figures: JSON = {
        "prompt_tokens": counted.input_tokens,
        "completion_tokens": counted.output_tokens,
        "total_tokens": counted.input_tokens + counted.output_tokens,
    }
    if counted.cached_input_tokens is not None:
        figures["prompt_tokens_details"] = {"cached_tokens": counted.cached_input_tokens}
    return figures


def summary(started: TurnStarted, finished: TurnFinished) -> JSON:
    """The `fetchgate` object of a finished turn."""
    turn = finished.turn
    always = next((other.input_tokens for other in turn.counterfactuals if other.baseline == "always_fetch"), None)
    return {
        **_decided(started, turn.conversation_id, turn.degraded),
        "citations": [{"id": faq.id, "question": faq.question or faq.answer[:80], "source_url": faq.source_url} for faq in finished.cited],
        "shown": list(turn.shown),
        "refusal": None if turn.refusal is None else {"where": turn.refusal.where, "category": turn.refusal.category},
        "usage": {
            "input_tokens": turn.usage.input_tokens,
            "output_tokens": turn.usage.output_tokens,
            "always_fetch_input_tokens": always,
            "saved_tokens": turn.saved_tokens,
            "counted_by": turn.usage.source,
        },
    }


def annotations(answer: str, cited: Sequence[Faq]) -> list[JSON]:
    """A `url_citation` for each place where an FAQ with a source is cited."""
    return [
        {"type": "url_citation", "url_citation": {"url": faq.source_url, "title": faq.question or faq.id,
                                                  "start_index": match.start(), "end_index": match.end()}}
        for faq in cited if faq.source_url
        for match in re.finditer(rf"\[[^\[\]]*{re.escape(faq.id)}[^\[\]]*\]", answer)
    ]


def _decided(started: TurnStarted, conversation_id: str, degraded: Sequence[str]) -> JSON:
    return {
        "conversation_id": conversation_id,
        "turn_id": started.turn_id,
        "action": started.decision.action.value,
        "reason": started.decision.reason,
        "policy_version": started.decision.policy_version,
        "degraded": list(degraded),
    }


def _head(started: TurnStarted, kind: str) -> JSON:
    return {"id": started.turn_id, "object": kind, "created": int(started.created_at.timestamp()), "model": MODEL_ID}


def _chunk(started: TurnStarted, delta: JSON, finish_reason: str | None, with_usage: bool) -> JSON:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    chunk = {**_head(started, "chat.completion.chunk"), "choices": [choice]}
    return chunk | {"usage": None} if with_usage else chunk
