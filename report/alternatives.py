"""Would something simpler have saved more? Other ways to serve the same turns, priced by the same log.

Each is what a turn would have cost without a gate and without static answers, on the answers that were given. So it says what is paid,
never how good the answers would have been: that an alternative wins is a reason to try it, and its caveat says what it gives up. Leaves
out replays, which know both (`evaluation/`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.stats import holm, sign_p
from report.caching import logged
from report.figures import Alternative, Figure
from report.ground import Ground
from report.intervals import Asked, Draws, Floats, estimates, saved_share
from report.prices import STATIC_MODEL
from report.sums import CACHED, Cells, Rows, Scoped, cells

Name = Literal["one_faq", "no_history_faqs", "no_faqs", "repeats", "cached_prefix", "paper", "frugal", "always_fetch"]
WARM_MINUTES = 5
"""A cached prefix is taken to be gone when no call was made in the minute of a call and so many before it: after 5 to 6 minutes."""
LEAST_CACHED = 1024
"""Tokens from which on providers cache a prefix; a shorter one is paid in full."""

WORDS: dict[Name, tuple[str, str]] = {
    "one_faq": ("always fetch, but one FAQ only", "An answer that needs the second or third FAQ would lack it."),
    "no_history_faqs": ("always fetch, and keep no FAQs of earlier turns",
                        "A follow-up is fetched for anew; what it refers to may not be found again."),
    "no_faqs": ("no FAQs at all", "Answers would be the model's own: this is a floor of cost, not a way to serve."),
    "cached_prefix": ("every FAQ in a prefix that the provider caches", ""),
    "frugal": ("always fetch, in the cheapest setting that is as good as any", "As good on the split that it was chosen on."),
    "always_fetch": ("always fetch, in the settings that serve", "What serving costs without the gate and without static answers."),
    "repeats": ("always fetch, and show again what is in the prompt already", "Answers aren't known to be any better for it."),
    "paper": ("always fetch as in the paper: three FAQs, two past turns with theirs",
              "A weak baseline: other settings cost less and are as good."),
}
"""Label and caveat, in the order in which they are shown."""
ALWAYS_SHOWN = ("one_faq", "no_history_faqs", "no_faqs", "cached_prefix")
"""Also where their cost isn't known."""
NOT_LOGGED = "Its cost isn't logged for these turns; newer turns have it."


@dataclass(frozen=True, slots=True, eq=False)
class _Costs:
    """What the same turns cost in three ways, by block. Shapes (units,)."""

    turns: int
    priced_turns: int
    paid: Floats
    would_pay: Floats
    baseline: Floats
    """Tokens, of what was served, of the alternative and of the headline baseline; then money."""
    money_paid: Floats
    money_would_pay: Floats
    money_baseline: Floats

    @property
    def in_money(self) -> bool:
        """Whether money tells them apart; where every model is free, tokens have to."""
        return self.priced_turns > 0 and float(self.money_baseline.sum()) > 0


def alternatives(rows: Rows, base: Ground) -> tuple[Alternative, ...]:
    """The ways to save, each against the headline baseline and what was served. () without turns.

    `wins` is claimed with at most a chance of 5 % of any false claim among them (Holm 1979).
    """
    if not base.turns(base.headline):
        return ()
    names: list[Name] = [name for name in WORDS if name not in ("cached_prefix", base.headline)]
    found = cells(rows, logged(base, base.headline), _columns(base.headline, names), group=_which(names),
                  blocks=np.unique(base.cells.block))
    costs = {name: (_costs(found, base, names, name), WORDS[name][1]) for name in names}
    costs["cached_prefix"] = _cached_prefix(rows, found, base, names)
    shown = {name: costs[name] for name in WORDS if name in costs and (costs[name][0] is not None or name in ALWAYS_SHOWN)}
    known = {name: found for name, (found, _) in shown.items() if found is not None}
    ahead, figures = _surely_ahead(known, base), _figures(known, base)
    return tuple(
        _unknown(name, caveat) if found is None else _alternative(name, found, figures[name], surely=name in ahead, caveat=caveat)
        for name, (found, caveat) in shown.items()
    )


def _figures(known: Mapping[Name, _Costs], base: Ground) -> dict[Name, tuple[Figure, ...]]:
    """The saving, and the lead over what was served in tokens and in money, of each."""
    asked = []
    for costs in known.values():
        tokens = np.stack([costs.paid, costs.would_pay, costs.baseline], axis=1)
        money = np.stack([costs.money_paid, costs.money_would_pay, costs.money_baseline], axis=1)
        asked += [Asked(tokens, saved_share(1, 2), highest=1.0), Asked(tokens, _lead), Asked(money, _lead)]
    figures = estimates(asked, Draws(base.cells.units, base.options.resamples, base.options.seed))
    return {name: figures[3 * n : 3 * n + 3] for n, name in enumerate(known)}


def _alternative(name: Name, costs: _Costs, figures: tuple[Figure, ...], *, surely: bool, caveat: str) -> Alternative:
    saving, lead, money_lead = figures
    priced = costs.priced_turns > 0
    return Alternative(
        name, WORDS[name][0], costs.turns, int(costs.would_pay.sum()), saving, lead,
        money=float(costs.money_would_pay.sum()) if priced else None, money_ahead=money_lead if priced else Figure(None),
        wins=surely and (money_lead if costs.in_money else lead).verdict == "better", caveat=caveat,
    )


def _unknown(name: Name, caveat: str) -> Alternative:
    unknown, why = Figure(None), caveat if name == "cached_prefix" else NOT_LOGGED
    return Alternative(name, WORDS[name][0], 0, None, unknown, unknown, None, unknown, False, why)


def _lead(sums: Floats) -> Floats:
    """What was paid less what would have been, as a share of the baseline's."""
    whole = np.where(sums[..., 2] > 0, sums[..., 2], np.nan)
    share: Floats = (sums[..., 0] - sums[..., 1]) / whole
    return share


def _surely_ahead(costs: Mapping[Name, _Costs], base: Ground) -> frozenset[Name]:
    """Those that are cheaper than what was served, all compared at once."""
    if not costs:
        return frozenset()
    leads = [one.money_paid - one.money_would_pay if one.in_money else one.paid - one.would_pay for one in costs.values()]
    values = np.stack(leads, axis=1)
    drawn = Draws(len(values), base.options.resamples, base.options.seed).sums(values)
    claimed = holm([sign_p(column) for column in drawn.T])
    return frozenset(name for name, sure, column in zip(costs, claimed, values.T, strict=True) if sure and column.sum() > 0)


def _costs(found: Cells, base: Ground, names: Sequence[Name], name: Name) -> _Costs | None:
    """Of an always-fetch setting whose cost is logged; None where it is for no turn."""
    there = _there(found, names, name)
    if not found["turns"][there].sum():
        return None
    alt_input, cached, output = (found[f"{name}_{column}"] for column in ("input", "cached", "output"))
    return _summed(found, there, base, alt_input + output, base.pricing.money(found, alt_input - cached, cached, output))


def _cached_prefix(rows: Rows, found: Cells, base: Ground, names: Sequence[Name]) -> tuple[_Costs | None, str]:
    """Of all FAQs standing first in every prompt, and none elsewhere; and what that takes as given.

    The prefix costs the cached price, but in a call that finds no cache the full one. What the provider cached of the rest of the prompt
    is as logged. Nothing is paid for writing the cache.
    """
    prefix = base.options.prefix_tokens
    if prefix is None:
        return None, "How long all FAQs together are isn't known: give the knowledge base."
    there = _there(found, names, "no_faqs")
    turns = found["turns"] * there
    if not turns.sum():
        return None, NOT_LOGGED
    cold = _cold_calls(rows, base)
    kept = prefix if prefix >= LEAST_CACHED else 0
    alt_input, cached, output = (found[f"no_faqs_{column}"] for column in ("input", "cached", "output"))
    money = base.pricing.money(found, alt_input - cached + (prefix - kept) * turns, cached + kept * turns, output)
    costs = _summed(found, there, base, alt_input + output + prefix * turns, money)
    extra = base.pricing.money(cold, kept * cold["calls"], -kept * cold["calls"], 0 * cold["calls"])
    share = float(cold["calls"].sum() / turns.sum())
    return replace(costs, money_would_pay=costs.money_would_pay + cold.by_unit(extra)[:, 0]), _assumption(prefix, share)


def _assumption(prefix: int, cold: float) -> str:
    if prefix < LEAST_CACHED:
        return (f"All FAQs are {prefix:,} tokens. Providers cache from about {LEAST_CACHED:,} on, so all of it is taken to cost the full "
                "price.")
    return (f"Taken as given: the {prefix:,} tokens of all FAQs fit the model, stand first in every prompt, cost the cached price while "
            f"any conversation called within {WARM_MINUTES} to {WARM_MINUTES + 1} minutes, and the full price otherwise ({cold:.1%} of "
            "these calls); writing a cache costs nothing; nobody is distracted by FAQs that don't matter.")


def _cold_calls(rows: Rows, base: Ground) -> Cells:
    """The calls that find no cache, as `calls`: the first of a model in a minute without any in the minutes before."""
    scoped = logged(base, base.headline, "no_faqs")
    answering = next((model.model for model in base.pricing.models if model.model != STATIC_MODEL), STATIC_MODEL)
    source = f"""(SELECT block, price_key FROM (
      SELECT arg_min(block, sequence) AS block, arg_min(price_key, sequence) AS price_key, minute,
        lag(minute) OVER (PARTITION BY asked ORDER BY minute) AS before
      FROM (SELECT *, epoch_ms(created_at) // 60000 AS minute, coalesce(nullif(model, '{STATIC_MODEL}'), ?) AS asked FROM turns
            WHERE {scoped.where})
      GROUP BY asked, minute) WHERE before IS NULL OR minute - before > {WARM_MINUTES})"""
    return cells(rows, Scoped("true", (answering, *scoped.params)), {"calls": "1"}, blocks=np.unique(base.cells.block), source=source)


def _columns(head: str, names: Sequence[Name]) -> dict[str, str]:
    columns = {"turns": "1", "input": "input_tokens", "cached": CACHED, "output": "output_tokens"}
    for name, prefix in ((head, "head"), *((name, name) for name in names)):
        columns |= {f"{prefix}_input": f"cf_{name}_in", f"{prefix}_cached": f"least({CACHED}, cf_{name}_in)",
                    f"{prefix}_output": f"cf_{name}_out"}
    return columns


def _which(names: Sequence[Name]) -> str:
    """The SQL of a number whose bits say which of these a turn's cost is logged for."""
    return " + ".join(f"CASE WHEN cf_{name}_in IS NULL OR cf_{name}_out IS NULL THEN 0 ELSE {1 << bit} END"
                      for bit, name in enumerate(names))


def _there(found: Cells, names: Sequence[Name], name: Name) -> NDArray[np.bool_]:
    """The cells whose turns have that cost."""
    return np.array([bool(int(bits) >> names.index(name) & 1) for bits in found.group], dtype=bool)


def _summed(found: Cells, there: NDArray[np.bool_], base: Ground, tokens: Floats, money: Floats) -> _Costs:
    """Of those cells, with the tokens and the money of the alternative by cell."""
    price = base.pricing.money
    columns = found.by_unit(
        found["input"] + found["output"], tokens, found["head_input"] + found["head_output"],
        price(found, found["input"] - found["cached"], found["cached"], found["output"]), money,
        price(found, found["head_input"] - found["head_cached"], found["head_cached"], found["head_output"]), only=there)
    turns = found["turns"] * there
    return _Costs(int(turns.sum()), int(turns[base.pricing.priced(found)].sum()), *columns.T)
