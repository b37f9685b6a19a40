"""What a reader of the report must know before believing it, in plain sentences.

Leaves out the verdict of each figure, which stands with it.
"""

from evaluation.stats import FEWEST_CONVERSATIONS
from report.figures import Guardrail
from report.ground import Ground
from report.money import Judging

NOTHING = "No turn counts: there is nothing to report. Widen the period, drop a filter, or serve some turns."


def cautions(base: Ground, judging: Judging, quality: Guardrail) -> tuple[str, ...]:
    """The warnings of a report, the gravest first."""
    if not base.scope.turns:
        return (NOTHING,)
    return (*_of_sample(base), *_of_quality(quality), *_of_usage(base), *_of_baselines(base), *_of_money(base, judging))


def _of_sample(base: Ground) -> list[str]:
    said = []
    if base.scope.conversations < FEWEST_CONVERSATIONS:
        said.append(f"Too small to trust: conversations are {base.scope.conversations}, and intervals need {FEWEST_CONVERSATIONS} or more.")
    if base.clock_went_back:
        said.append(f"The clock went back in {_many(base.clock_went_back, 'conversation')}: their turns may be counted on another day.")
    return said


def _of_quality(quality: Guardrail) -> list[str]:
    if quality.judge is None:
        return ["No answer was judged, so nothing here says that quality was kept: judge some, or ask people."]
    if not quality.holdback_turns:
        return ["There is no holdback: what always fetching would have saved or spoilt can't be compared with what was served."]
    return []


def _of_usage(base: Ground) -> list[str]:
    left_out, said = base.scope.left_out or {}, []
    if missing := left_out.get("no_usage"):
        said.append(f"{_many(missing, 'turn')} without known usage {_are(missing)} left out.")
    if base.degraded:
        said.append(f"{_many(base.degraded, 'turn')} {_are(base.degraded)} counted though something failed in {_them(base.degraded)}.")
    if base.counted_here:
        said.append(f"The tokens of {_many(base.counted_here, 'turn')} were counted here, as no server counted them; a bill may differ.")
    return said


def _of_baselines(base: Ground) -> list[str]:
    said, turns, counted = [], base.turns(base.headline), base.scope.turns
    if not turns:
        return ["What always fetching would have cost isn't logged for any of these turns: no saving can be told."]
    if turns < counted:
        said.append(f"The headline is about {turns:,} of the {counted:,} turns: for the others, what `{base.headline}` would have cost "
                    "isn't logged.")
    if base.headline != "frugal":
        said.append("The headline is against the serving settings with a fetch in every turn, as `frugal`, the cheapest setting of equal "
                    "quality, isn't logged for most turns: a policy names it once it was swept.")
    if base.by_blocks:
        said.append(f"Intervals draw {base.cells.units:,} blocks of conversations, not each conversation.")
    return said


def _of_money(base: Ground, judging: Judging) -> list[str]:
    pricing, said = base.pricing, []
    if pricing.unknown_models:
        said.append(f"Prices of {', '.join(pricing.unknown_models)} are unknown: money leaves their turns out. Give a table with --prices.")
    if pricing.other_currencies:
        said.append(f"Turns priced in {', '.join(pricing.other_currencies)} are in no sum of money: give a rate with --rate.")
    if judging.unknown:
        said.append(f"What {_many(judging.unknown, 'verdict')} cost is unknown, and isn't in the net.")
    return said


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"
