"""The record of a turn whose query a filter refused: nothing was searched for, decided or generated, in no arm of a comparison.

So it costs nothing and saves nothing, it has no FAQs to show to later turns, and its action is none of the policy's. What is said is whole:
it ends with `stop`, as a model's own refusal does at OpenAI, and not with `content_filter`, over which SDKs raise. Leaves out answers
that were refused, whose turns are like all others until then (`pipeline.py`).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from chat.prompt import PROMPT_VERSION
from chat.types import Action, Counterfactual, Decision, Price, Refusal, State, Turn, Usage

FILTER_MODEL = "fetchgate-filter"
"""`model` of a turn whose query was refused."""
FILTER_POLICY = "filter"
"""`policy_version` of such a turn: the policy wasn't asked."""
NO_KB = "none"
"""`kb_version` of such a turn: the knowledge base wasn't asked either."""


def refused_decision(refusal: Refusal) -> Decision:
    """STATIC, as for every answer that is given without asking the policy."""
    return Decision(Action.STATIC, 0.0, 0.0, 1.0, FILTER_POLICY, f"the {refusal.where} was refused: {refusal.category}")


def refused_turn(
    refusal: Refusal, *, turn_id: str, conversation_id: str, owner: str, created_at: datetime, query: str, answer: str,
    settings: Iterable[str], price: Price | None, latency_ms: Mapping[str, float], degraded: tuple[str, ...], background: bool,
    transcript_mac: str | None,
) -> Turn:
    """The turn as it is logged; `answer` is what was said in the answer's place, `settings` are the names of the baselines."""
    return Turn(
        id=turn_id, conversation_id=conversation_id, owner=owner, created_at=created_at, query=query, answer=answer,
        state=State((), (), query, None), decision=refused_decision(refusal), hits=(), fetched=(), shown=(), cited=(),
        usage=Usage(0, 0, source="none"),
        counterfactuals=tuple(Counterfactual(name, 0, 0, "same_answer") for name in settings),
        model=FILTER_MODEL, prompt_version=PROMPT_VERSION, kb_version=NO_KB, price=price, latency_ms=latency_ms,
        finish_reason="stop", degraded=degraded, background=background, transcript_mac=transcript_mac, refusal=refusal,
    )
