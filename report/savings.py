"""The token-savings report: what was saved, how surely, of what, and what is left of it in money.

    saved = counterfactual - actual, summed over the turns that count and whose counterfactual is logged

It is the saving of each turn given what happened before it (MEASURES.md, "the counterfactual in the log"); only a replay gives the
saving of a policy as a whole, and the holdback an estimate of it (`quality.py`). Leaves out showing it (`render.py`).
"""

from datetime import datetime
from typing import Literal

import numpy as np

from report.alternatives import alternatives
from report.caching import caching
from report.cautions import cautions
from report.curve import curve
from report.cuts import cut
from report.figures import VERSION, Against, Figure, Forecast, Method, Part, SavingsReport, Tokens
from report.ground import SHOWN_BASELINES, Ground, ground, stacked
from report.intervals import Asked, estimate, estimates, linear, ratio, saved_share, scaled
from report.money import Judging, judging_cost, money, net_columns, saved_money
from report.quality import guardrail
from report.source import Snapshot, TurnTable
from report.sums import ReportOptions, Rows, Scoped, cells
from report.wrong import wrong_answers

PartName = Literal["settings", "repeats", "static", "policy", "overhead"]
PARTS: tuple[PartName, ...] = ("settings", "repeats", "static", "policy", "overhead")


def savings_report(table: TurnTable, options: ReportOptions, made_at: datetime) -> SavingsReport:
    """The report on the turns that are asked for, all from one state of the table. Raises: ReportError."""
    with table.snapshot() as rows:
        return _report(rows, options, made_at)


def _report(rows: Snapshot, options: ReportOptions, made_at: datetime) -> SavingsReport:
    base = ground(rows, options)
    judging, quality = judging_cost(rows, base), guardrail(rows, options)
    judge = quality.judge
    return SavingsReport(
        version=VERSION, made_at=made_at, scope=base.scope,
        method=Method(base.headline, options.resamples, options.seed, base.cells.units, base.by_blocks),
        against=all_against(base), parts=parts(rows, base), money=money(base, judging, caching(rows, base)), quality=quality,
        wrong_answers=wrong_answers(rows, options), alternatives=alternatives(rows, base), curve=curve(rows, options),
        by_day=cut(rows, base, "day", judge=judge), by_category=cut(rows, base, "category", judge=judge),
        by_policy=cut(rows, base, "policy", judge=judge), by_owner=cut(rows, base, "owner", judge=judge),
        forecast=forecast(base, judging), warnings=cautions(base, judging, quality),
    )


def all_against(base: Ground) -> tuple[Against, ...]:
    """The headline baseline first, then the others that are logged. () without turns."""
    names = [base.headline, *(name for name in ("paper", *SHOWN_BASELINES) if name != base.headline)]
    return tuple(against(base, name) for name in dict.fromkeys(names) if base.turns(name))


def against(base: Ground, name: str) -> Against:
    """What was saved against one baseline."""
    c, turns = base.cells, base.cells[f"{name}_turns"]
    paid, would_pay = base.tokens(name)
    money_paid, money_would_pay = base.money(name)
    values = stacked(base, paid, would_pay, turns, money_paid, money_would_pay)
    saving, per_turn, money_saving = estimates([
        Asked(values[:, :3], saved_share(0, 1), highest=1.0), Asked(values[:, :3], lambda sums: ratio(1, 2)(sums) - ratio(0, 2)(sums)),
        Asked(values[:, 3:], saved_share(0, 1), highest=1.0)], base.draws)

    def total(column: str) -> int:
        return int(c[f"{name}_{column}"].sum())

    saved_input, saved_output = total("cf_input") - total("input"), total("cf_output") - total("output")
    return Against(
        baseline=name, turns=int(turns.sum()),
        actual=Tokens(total("input"), total("cached"), total("output")),
        counterfactual=Tokens(total("cf_input"), total("cf_cached"), total("cf_output")),
        saved_tokens=saved_input + saved_output, saved_input_tokens=saved_input, saved_output_tokens=saved_output,
        saving=saving, saved_per_turn=per_turn, saved_money=saved_money(base, name), money_saving=money_saving,
    )


def parts(rows: Rows, base: Ground) -> tuple[Part, ...]:
    """What the saving against the headline baseline is made of; the parts add up to it. () without turns.

    With H the cost of a turn under the headline, S under the serving settings, R under those with repeats shown, W the turn's own without
    the call that rewrote its query, and A its own: repeats = R - S as far as H is above S, settings = the rest of H - S, static = S - W of
    static answers, policy = S - W of the others, overhead = W - A. Where S isn't logged H stands for it, and where R isn't S does. Where
    W isn't, a static answer's is A; another's output is that of S, which has the answer alone, and its input that of A: what rewriting
    read is then within `policy`.
    """
    if not base.turns(base.headline):
        return ()
    head = base.headline
    found = cells(rows, _logged(base), _part_columns(head), blocks=np.unique(base.cells.block))
    shares = estimates([Asked(found.by_unit(found[name], found["baseline"]), ratio(0, 1)) for name in PARTS], base.draws)
    return tuple(Part(name, int(found[name].sum()), share) for name, share in zip(PARTS, shares, strict=True))


def _logged(base: Ground) -> Scoped:
    return base.scoped.and_(f"cf_{base.headline}_in IS NOT NULL AND cf_{base.headline}_out IS NOT NULL")


def _part_columns(head: str) -> dict[str, str]:
    baseline, actual = f"(cf_{head}_in + cf_{head}_out)", "(input_tokens + output_tokens)"
    serving = f"coalesce(cf_always_fetch_in + cf_always_fetch_out, {baseline})"
    repeats = f"greatest(0, least(coalesce(cf_repeats_in + cf_repeats_out, {serving}) - {serving}, {baseline} - {serving}))"
    static = "action = 'STATIC'"
    unlogged = f"input_tokens + least(output_tokens, coalesce(cf_always_fetch_out, cf_{head}_out))"
    without = (f"coalesce(cf_without_rewrite_in + cf_without_rewrite_out, CASE WHEN {static} THEN {actual} ELSE {unlogged} END)")
    return {
        "baseline": baseline, "settings": f"{baseline} - {serving} - {repeats}", "repeats": repeats,
        "static": f"CASE WHEN {static} THEN {serving} - {without} END",
        "policy": f"CASE WHEN NOT {static} THEN {serving} - {without} END",
        "overhead": f"{without} - {actual}",
    }


def forecast(base: Ground, judging: Judging) -> Forecast | None:
    """What a month of so many turns saves if it is like these; None where no number was given or nothing counts."""
    month, head = base.options.turns_a_month, base.headline
    if month is None or not base.turns(head):
        return None
    paid, would_pay = base.tokens(head)
    tokens = estimate(stacked(base, would_pay - paid, base.cells[f"{head}_turns"]), ratio(0, 1), base.draws)
    return Forecast(month, scaled(tokens, month), _monthly(base, judging, month, net=False), _monthly(base, judging, month, net=True),
                    _assumptions(base, judging, month))


def _monthly(base: Ground, judging: Judging, month: int, *, net: bool) -> Figure:
    """Money saved a priced turn, times the turns of a month."""
    columns = net_columns(base, judging)
    if columns is None:
        return Figure(None)
    weights = linear((1, -1, -1, -1, 0) if net else (1, -1, 0, 0, 0))
    return scaled(estimate(columns, lambda sums: weights(sums) / np.where(sums[..., 4] > 0, sums[..., 4], np.nan), base.draws), month)


def _assumptions(base: Ground, judging: Judging, month: int) -> tuple[str, ...]:
    options, scope = base.options, base.scope
    hour = "computing isn't in the net" if options.hour_price is None else f"an hour of computing costs {options.hour_price:g}"
    return (
        f"{month:,} turns a month, of the kind that this report counts: no background prompts, no refusals, no holdback.",
        f"Conversations, FAQs, policy and settings stay as in the {scope.turns:,} turns from {scope.first:%Y-%m-%d} to "
        f"{scope.last:%Y-%m-%d}.",
        f"Prices stay as they were ({', '.join(base.pricing.versions) or 'none known'}, {base.pricing.currency}); turns without a price "
        "are taken to be like those with one.",
        f"As large a share of the turns is judged as in these, and {hour}.",
        "The interval says how much the draw of conversations matters; it knows of no trend and no season.",
    )
