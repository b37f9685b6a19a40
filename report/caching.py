"""How the money saved changes with how a provider caches prompts: the same turns, priced in three ways.

Tokens don't change, only what they cost: cached input is cheaper, and a longer prompt may be cached in more of its length, so caching
makes what is saved cheaper. Leaves out a prompt that was written to be cached (`alternatives.py`).
"""

from typing import Literal

from report.figures import CacheScenario
from report.ground import Ground
from report.intervals import Asked, Draws, Floats, estimates, linear, saved_share
from report.sums import CACHED, Cells, Rows, Scoped, cells

Scenario = Literal["none", "as_logged", "extra_cached"]
SCENARIOS: tuple[Scenario, ...] = ("none", "as_logged", "extra_cached")


def caching(rows: Rows, base: Ground) -> tuple[CacheScenario, ...]:
    """The money saved against the headline baseline in each scenario; () where no turn has a price.

    none: nothing is cached. as_logged: as many tokens as were, also of the baseline's prompt. extra_cached: so are all input tokens that
    the baseline adds to the prompt; it is the worst case for the saving.
    """
    found = cells(rows, logged(base, base.headline), _columns(base.headline))
    if not found.units or not found["turns"][base.pricing.priced(found)].sum():
        return ()
    asked = []
    for scenario in SCENARIOS:
        values = found.by_unit(*_money(found, base, scenario))
        asked += [Asked(values, linear((-1, 1))), Asked(values, saved_share(0, 1), highest=1.0)]
    figures = estimates(asked, Draws(found.units, base.options.resamples, base.options.seed))
    return tuple(CacheScenario(name, *figures[2 * n : 2 * n + 2]) for n, name in enumerate(SCENARIOS))


def logged(base: Ground, *names: str) -> Scoped:
    """The turns that count and whose cost under all of these baselines is logged."""
    scoped = base.scoped
    for name in names:
        scoped = scoped.and_(f"cf_{name}_in IS NOT NULL AND cf_{name}_out IS NOT NULL")
    return scoped


def _columns(head: str) -> dict[str, str]:
    return {"turns": "1", "input": "input_tokens", "cached": CACHED, "output": "output_tokens", "cf_input": f"cf_{head}_in",
            "cf_cached": f"least({CACHED}, cf_{head}_in)", "cf_output": f"cf_{head}_out",
            "added": f"greatest(cf_{head}_in - input_tokens, 0)"}


def _money(found: Cells, base: Ground, scenario: Scenario) -> tuple[Floats, Floats]:
    """What was paid, and what the baseline would have cost, of each cell."""
    nothing = 0.0 * found["turns"]
    cached, cf_cached = (nothing, nothing) if scenario == "none" else (found["cached"], found["cf_cached"])
    if scenario == "extra_cached":
        cf_cached = cf_cached + found["added"]
    price = base.pricing.money
    return (price(found, found["input"] - cached, cached, found["output"]),
            price(found, found["cf_input"] - cf_cached, cf_cached, found["cf_output"]))
