"""From a figure down to the turns that it is made of: pages of turns, the latest first, and all that is known of one.

Texts are redacted. What helps to invert embeddings, similarities and probabilities, is apart and may be left out. Leaves out who may
look (`service/routes/report.py`).
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from chat.log.store import SqlConversationLog
from chat.prices import cost
from chat.types import Turn
from report.columns import HOLDBACK
from report.redact import redact_together
from report.source import Snapshot, TurnTable
from report.sums import COUNTED, ReportOptions, scope

Show = Literal["all", "FETCH", "NO_FETCH", "STATIC", "harmful", "not_counted"]
"""Which turns a page holds: of one action, skips that did harm, or those that aren't counted in the saving."""
MAX_PAGE = 200

_VERDICT = "(SELECT arg_max(v.good, v.created_at) FROM verdicts v WHERE v.turn_id = turns.id AND v.arm = {arm})"
_OWN, _FETCH = _VERDICT.format(arm="turns.action"), _VERDICT.format(arm="'FETCH'")
_SHOWN = {"all": "true", "FETCH": "action = 'FETCH'", "NO_FETCH": "action = 'NO_FETCH'", "STATIC": "action = 'STATIC'",
          "harmful": f"action = 'NO_FETCH' AND NOT {_OWN} AND {_FETCH}", "not_counted": f"NOT coalesce({COUNTED}, false)"}


@dataclass(frozen=True, slots=True)
class TurnLine:
    """A turn as a list shows it."""

    id: str
    sequence: int
    created_at: datetime
    owner: str
    conversation_id: str
    position: int
    action: str
    policy_version: str
    query: str
    """Redacted; empty where the text is gone."""
    tokens: int | None
    baseline: str | None
    """What the saving is against; None: no such cost is logged."""
    baseline_tokens: int | None
    saved_tokens: int | None
    good: bool | None
    """The latest verdict on its answer; None: there is none."""
    counted: bool
    """Whether it is in the report's saving."""


@dataclass(frozen=True, slots=True)
class TurnPage:
    """Some turns, the latest first."""

    turns: tuple[TurnLine, ...]
    next: int | None
    """`before` of the page after this one; None: it is the last."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of a turn under a prompt setting."""

    baseline: str
    input_tokens: int
    output_tokens: int
    saved_tokens: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's word on one answer."""

    arm: str
    judge: str
    good: bool | None
    reason: str
    answer: str | None
    """None: the turn's own."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A person's word on the answer."""

    role: str
    good: bool | None
    stars: int | None


@dataclass(frozen=True, slots=True)
class Inside:
    """What the policy and the retriever saw."""

    similarities: tuple[tuple[str, float], ...]
    fetch_probability: float
    uncertainty: float
    behavior_prob: float


@dataclass(frozen=True, slots=True)
class TurnDetail:
    """All that is known of one turn; texts are redacted."""

    line: TurnLine
    previous_queries: tuple[str, ...]
    answer: str
    reason: str
    model: str
    prompt_version: str
    kb_version: str
    shown: tuple[str, ...]
    cited: tuple[str, ...]
    input_tokens: int
    cached_input_tokens: int | None
    output_tokens: int
    usage_source: str
    cost: float | None
    currency: str | None
    counterfactuals: tuple[Counted, ...]
    verdicts: tuple[Judged, ...]
    ratings: tuple[Rated, ...]
    latency_ms: dict[str, float]
    notes: tuple[str, ...]
    """holdback, background, refused, and what was degraded."""
    inside: Inside | None


def turn_page(table: TurnTable, options: ReportOptions, *, show: Show = "all", before: int | None = None, limit: int = 50) -> TurnPage:
    """The latest turns of those that are asked for, before a sequence number if one is given."""
    wanted = scope(options)
    where, params = f"{wanted.where} AND ({_SHOWN[show]})", wanted.params
    if before is not None:
        where, params = f"{where} AND sequence < ?", (*params, before)
    size = max(1, min(limit, MAX_PAGE))
    with table.snapshot() as rows:
        lines = _lines(rows, f"{where} ORDER BY sequence DESC LIMIT {size + 1}", params)
    return TurnPage(lines[:size], lines[size - 1].sequence if len(lines) > size else None)


def turn_detail(table: TurnTable, log: SqlConversationLog, turn_id: str, *, owner: str | None, inside: bool) -> TurnDetail | None:
    """The turn of that id; None when there is none, or none of that owner (None: of anyone)."""
    with table.snapshot() as rows:
        lines = _lines(rows, "id = ? AND (? IS NULL OR owner = ?)", (turn_id, owner, owner))
        turn = log.turn(lines[0].owner, turn_id) if lines else None
        if turn is None:
            return None
        verdicts = rows.rows("SELECT arm, judge, good, reason, answer FROM verdicts WHERE turn_id = ? ORDER BY judge, arm", (turn_id,))
        ratings = rows.rows("SELECT role, good, stars FROM ratings WHERE turn_id = ? ORDER BY created_at", (turn_id,))
    return _detail(lines[0], turn, [Judged(*row) for row in verdicts], tuple(Rated(*row) for row in ratings), inside=inside)


def _detail(line: TurnLine, turn: Turn, verdicts: list[Judged], ratings: tuple[Rated, ...], *, inside: bool) -> TurnDetail:
    said = [turn.query, turn.answer, *turn.state.previous_queries]
    said += [text for one in verdicts for text in (one.reason or "", one.answer or "")]
    query, answer, *rest = redact_together(said)
    previous, judged = rest[: len(turn.state.previous_queries)], rest[len(turn.state.previous_queries) :]
    paid = turn.usage.input_tokens + turn.usage.output_tokens
    counterfactuals = tuple(Counted(one.baseline, one.input_tokens, one.output_tokens, one.input_tokens + one.output_tokens - paid)
                            for one in turn.counterfactuals)
    decision = turn.decision
    notes = [name for name, holds in (("holdback", decision.policy_version == HOLDBACK), ("background", turn.background),
                                      ("refused", turn.refusal is not None)) if holds]
    return TurnDetail(
        replace(line, query=query), tuple(previous), answer, decision.reason, turn.model, turn.prompt_version, turn.kb_version, turn.shown,
        turn.cited, turn.usage.input_tokens, turn.usage.cached_input_tokens, turn.usage.output_tokens, turn.usage.source,
        cost(turn.usage, turn.price), turn.price.currency if turn.price else None, counterfactuals,
        tuple(replace(one, reason=judged[2 * n], answer=None if one.answer is None else judged[2 * n + 1])
              for n, one in enumerate(verdicts)),
        ratings, dict(turn.latency_ms), (*notes, *turn.degraded),
        Inside(turn.hits, decision.fetch_probability, decision.uncertainty, decision.behavior_prob) if inside else None,
    )


def _lines(rows: Snapshot, condition: str, params: tuple[object, ...]) -> tuple[TurnLine, ...]:
    found = rows.rows(
        "SELECT id, sequence, created_at, owner, conversation_id, position, action, policy_version, input_tokens + output_tokens, "
        "cf_frugal_in + cf_frugal_out, cf_always_fetch_in + cf_always_fetch_out, "
        f"{_OWN}, coalesce({COUNTED}, false) FROM turns WHERE {condition}", params)
    texts = rows.texts([str(row[0]) for row in found])
    return tuple(_line(row, texts.get(row[0], ("", None))) for row in found)


def _line(row: tuple[object, ...], said: tuple[str, str | None]) -> TurnLine:
    turn_id, sequence, created_at, owner, conversation, position, action, policy, tokens, frugal, always, good, counted = row
    baseline = "frugal" if frugal is not None else "always_fetch" if always is not None else None
    against = frugal if frugal is not None else always
    assert isinstance(created_at, datetime), "a turn has its time"
    assert isinstance(sequence, int), "and its number"
    assert isinstance(position, int), "and its place"
    return TurnLine(
        str(turn_id), sequence, created_at.replace(tzinfo=UTC), str(owner), str(conversation), position, str(action), str(policy),
        redact_together((said[0], said[1] or ""))[0], tokens if isinstance(tokens, int) else None, baseline,
        against if isinstance(against, int) else None,
        against - tokens if isinstance(against, int) and isinstance(tokens, int) else None,
        good if isinstance(good, bool) else None, bool(counted),
    )
