"""Whether answers got worse: the policy beside the conversations that always fetch, and how harmful its skips may be.

The claim is the difference between the policy's Good-rate and the holdback's, as both are drawn from the same traffic. Good-rates by
action are a description: skipped turns are easier. Harm is known only of skips of which both arms were judged, and is bounded as by
`evaluation/certify.py`. Leaves out who judges (`reward/`), and money and tokens but for the saving against the holdback.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.certify import HarmBound, Skips, harm_bound
from evaluation.stats import resampled
from report.columns import MAX_BLOCKS
from report.figures import Figure, GoodRate, Guardrail, QualityVerdict
from report.intervals import Draws, estimate, ratio
from report.judged import BOTH_ARMS, BY_JUDGE, BY_PEOPLE, by, judge_of
from report.rates import rate, rate_difference
from report.sums import COUNTED, SERVED, ReportOptions, Rows, Scoped, cells, scope

GROUPS = {
    "FETCH": "NOT holdback AND action = 'FETCH'", "NO_FETCH": "NOT holdback AND action = 'NO_FETCH'",
    "STATIC": "NOT holdback AND action = 'STATIC'", "policy": "NOT holdback", "holdback": "holdback",
}
"""Whose Good-rate is shown, as a condition."""


def guardrail(rows: Rows, options: ReportOptions) -> Guardrail:
    """The quality part of a report. Raises: ReportOptionError for a judge that never gave a verdict."""
    both, judge = both_groups(options), judge_of(rows, options)
    holdback, conversations = _holdback(rows, options)
    rates: tuple[GoodRate, ...] = ()
    lead = Figure(None)
    if judge is not None:
        rates, lead = _rates(rows, by(both, judge), BY_JUDGE, "judge")
    rates += _rates(rows, both, BY_PEOPLE, "people")[0]
    skips = scope(options).and_(f"{COUNTED} AND action = 'NO_FETCH'")
    harms, bound = (np.zeros(0), None) if judge is None else _harm(rows, by(skips, judge), options)
    return Guardrail(
        judge=judge, margin=options.margin, holdback_conversations=conversations, holdback_turns=holdback, difference=lead,
        verdict=quality_verdict(lead, options.margin), skips=_count(rows, skips), skips_judged=len(harms),
        harmful_skips=int(np.nansum(harms)),
        harmful_share=None if bound is None or math.isnan(bound.value) else bound.value,
        harmful_upper=None if bound is None else bound.upper_conversation,
        harmful_upper_turns=None if bound is None else bound.upper_turn,
        budget=options.budget, rates=rates, saving_against_holdback=_saving(rows, both, options),
    )


def quality_verdict(lead: Figure, margin: float) -> QualityVerdict:
    """What the difference from the holdback says: a loss within the margin is `kept`, even where it is surely one."""
    if lead.value is None:
        return "unknown"
    if lead.verdict == "too_small":
        return "too_small"
    if lead.low is None or lead.high is None:
        return "unknown"
    return "kept" if lead.low >= -margin else "worse" if lead.high < 0 else "unclear"


def both_groups(options: ReportOptions) -> Scoped:
    """The policy's turns and the holdback's, as far as they are asked for. A filter of the policy leaves the holdback whole."""
    scoped = scope(options, any_policy=True).and_(SERVED)
    if options.policy is None:
        return scoped
    return Scoped(f"{scoped.where} AND (holdback OR policy_version = ?)", (*scoped.params, options.policy))


def _rates(rows: Rows, scoped: Scoped, source: str, who: Literal["judge", "people"]) -> tuple[tuple[GoodRate, ...], Figure]:
    """The Good-rate of each group that was judged, and the policy's less the holdback's."""
    columns = {f"{name}_{group}": f"CASE WHEN {condition} THEN {sql} END" for group, condition in GROUPS.items()
               for name, sql in (("good", "CAST(good AS INTEGER)"), ("judged", "1"))}
    found = cells(rows, scoped.and_("good IS NOT NULL"), columns, source=source)
    of = {name: found.by_unit(found[name])[:, 0] for name in columns}
    rates = tuple(
        GoodRate(group, who, int(judged.sum()), int(good.sum()), rate(good, judged))
        for group in GROUPS for good, judged in ((of[f"good_{group}"], of[f"judged_{group}"]),) if judged.sum()
    )
    return rates, rate_difference(of["good_policy"], of["judged_policy"], of["good_holdback"], of["judged_holdback"])


def _harm(rows: Rows, skips: Scoped, options: ReportOptions) -> tuple[NDArray[np.float64], HarmBound | None]:
    """Harm of each skip of which both arms were looked at, nan where a verdict is missing; and how large it may be.

    With more conversations than blocks, one random skip of a block is a trial in the place of one of a conversation: fewer trials, so
    the bound is larger, and holds.
    """
    found = rows.arrays(f"SELECT conversation, block, fetch_good, skip_good FROM {BOTH_ARMS} WHERE {skips.where} ORDER BY block, sequence",
                        skips.params)
    fetch, skip = found["fetch_good"].astype(np.float64), found["skip_good"].astype(np.float64)
    harms = np.where(np.isnan(fetch) | np.isnan(skip), np.nan, fetch * (1 - skip))
    if not len(harms):
        return harms, None
    many = len(np.unique(found["conversation"])) > MAX_BLOCKS
    units, unit = np.unique(found["block" if many else "conversation"], return_inverse=True)
    weights = resampled(len(units), resamples=options.resamples, seed=options.seed)
    return harms, harm_bound(Skips(unit.astype(np.int64), _places(unit), harms), weights, seed=options.seed)


def _places(unit: NDArray[np.intp]) -> NDArray[np.int64]:
    """The place of each skip among those of its unit, from 0, in their order."""
    order = np.argsort(unit, kind="stable")
    ordered = unit[order]
    first = np.searchsorted(ordered, ordered)
    places = np.empty(len(unit), dtype=np.int64)
    places[order] = np.arange(len(unit)) - first
    return places


def _count(rows: Rows, scoped: Scoped) -> int:
    return int(rows.rows(f"SELECT count(*) FROM turns WHERE {scoped.where}", scoped.params)[0][0])


def _holdback(rows: Rows, options: ReportOptions) -> tuple[int, int]:
    """Turns and conversations that always fetched."""
    scoped = both_groups(options).and_("holdback")
    turns, conversations = rows.rows(f"SELECT count(*), count(DISTINCT conversation) FROM turns WHERE {scoped.where}", scoped.params)[0]
    return int(turns), int(conversations)


def _saving(rows: Rows, both: Scoped, options: ReportOptions) -> Figure:
    """One less the policy's tokens a turn over the holdback's."""
    columns = {f"{name}_{side}": f"CASE WHEN {'NOT ' if side == 'policy' else ''}holdback THEN {sql} END"
               for side in ("policy", "holdback") for name, sql in (("tokens", "input_tokens + output_tokens"), ("turns", "1"))}
    found = cells(rows, both, columns)
    values = found.by_unit(*(found[name] for name in columns))
    fewest = min(int(np.count_nonzero(values[:, 1])), int(np.count_nonzero(values[:, 3])))
    policy, holdback = ratio(0, 1), ratio(2, 3)
    return estimate(values, lambda sums: 1 - policy(sums) / np.where(holdback(sums) > 0, holdback(sums), np.nan),
                    Draws(found.units, options.resamples, options.seed), conversations=fewest, highest=1.0)
