"""The savings report as values: what its JSON holds and its page shows. docs/report.schema.json is generated from these classes.

Shares are of 1, tokens are counts, money is in the report's currency, times are UTC. None is unknown, never zero. Field names are part of
a published format: adding one is fine, renaming or removing one is a new `VERSION`. Leaves out computing (`savings.py` and its
neighbours) and showing (`render.py`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

VERSION = "fetchgate.savings/1"

Verdict = Literal["better", "worse", "unclear", "too_small", "unknown"]
"""Of a figure against nothing gained: its interval lies above zero, below, holds zero; too few conversations; not known."""
QualityVerdict = Literal["kept", "worse", "unclear", "too_small", "unknown"]
"""Of quality: not lower by more than the margin, surely lower, can't be told, too few conversations, nothing was judged."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its 95 % interval."""

    value: float | None
    low: float | None = None
    """None: no interval can be given."""
    high: float | None = None
    verdict: Verdict = "unknown"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which turns the report is about."""

    since: datetime | None
    """As asked for; None: from the first turn on."""
    until: datetime | None
    """Exclusive; None: to the last turn."""
    first: datetime | None
    """Of the turns that are counted."""
    last: datetime | None
    policy: str | None = None
    owner: str | None = None
    category: str | None = None
    conversations: int = 0
    turns: int = 0
    """Those that the saving is computed from: served, with usage, not in the holdback."""
    left_out: dict[str, int] | None = None
    """Reason to number of turns: background, refused, holdback, no_usage, imported, degraded."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens by kind, summed over turns."""

    input: int
    """Cached input included."""
    cached_input: int
    """What servers said they had cached."""
    output: int


@dataclass(frozen=True, slots=True)
class Against:
    """What was saved against one always-fetch setting."""

    baseline: str
    """frugal, paper or always_fetch."""
    turns: int
    """Of those counted, the ones whose cost under it is logged."""
    actual: Tokens
    counterfactual: Tokens
    """`cached_input` taken as in the actual prompt."""
    saved_tokens: int
    """Input and output."""
    saved_input_tokens: int
    saved_output_tokens: int
    """An estimate: see `output_method` of the log."""
    saving: Figure
    """Share of the baseline's tokens."""
    saved_per_turn: Figure
    """Tokens."""
    saved_money: Figure
    """None where no turn has a price."""
    money_saving: Figure
    """Share of the baseline's money, over turns with a price."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the saving against the headline baseline; the parts add up to it."""

    part: Literal["settings", "repeats", "static", "policy", "overhead"]
    """settings: fewer FAQs or less history than the baseline; repeats: an FAQ isn't shown twice; static: answers that an FAQ gave by
    itself; policy: the gate's own; overhead: what rewriting cost (below zero)."""
    tokens: int
    share: Figure
    """Of the headline baseline's tokens."""


@dataclass(frozen=True, slots=True)
class CacheScenario:
    """The money saving if the provider caches prompts in one way."""

    scenario: Literal["none", "as_logged", "extra_cached"]
    """No caching; cached tokens as logged and as many in the counterfactual; all tokens that always-fetch adds are cached besides."""
    saved_money: Figure
    money_saving: Figure


@dataclass(frozen=True, slots=True)
class Money:
    """What it cost, what it would have cost, and what is left of the difference."""

    currency: str
    priced_turns: int
    coverage: float | None
    """Share of the counted turns' tokens that have a price in this currency."""
    price_versions: tuple[str, ...]
    """Of the tables that prices are from; `own` for prices that were given for the report."""
    unknown_models: tuple[str, ...]
    other_currencies: tuple[str, ...]
    """In which turns were priced that are left out here."""
    actual: float | None
    counterfactual: float | None
    saved: Figure
    judge_cost: float | None
    """Of the verdicts on these turns."""
    compute_seconds: float
    """Time that searching, deciding and filtering took."""
    compute_cost: float | None
    """At the price of an hour that was given; None: none was given."""
    net: Figure
    """Saved, less judge and compute."""
    caching: tuple[CacheScenario, ...]


@dataclass(frozen=True, slots=True)
class GoodRate:
    """How often answers were Good; a description, as skipped turns are easier."""

    group: str
    """FETCH, NO_FETCH, STATIC, policy or holdback."""
    source: Literal["judge", "people"]
    judged: int
    good: int
    rate: Figure


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Whether answers got worse."""

    judge: str | None
    """Version; None: nothing was judged."""
    margin: float
    """Loss of the Good-rate that counts as kept."""
    holdback_conversations: int
    holdback_turns: int
    difference: Figure
    """Good-rate with the policy less that of the always-fetch holdback."""
    verdict: QualityVerdict
    skips: int
    """NO_FETCH turns among those counted."""
    skips_judged: int
    """Of them, those of which both arms were looked at."""
    harmful_skips: int
    harmful_share: float | None
    """Of the skips that were judged."""
    harmful_upper: float | None
    """One-sided 95 % bound, by conversation; a missing verdict counts as harm."""
    harmful_upper_turns: float | None
    """The optimistic one, turns taken as independent."""
    budget: float | None
    """What was to be kept, where it is known."""
    rates: tuple[GoodRate, ...]
    saving_against_holdback: Figure
    """Share by which a turn costs less than one of the holdback: the saving of the policy as a whole, on other conversations."""


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """A skip whose answer is Bad and whose fetch would have been Good; texts are redacted."""

    turn_id: str
    created_at: datetime
    query: str
    answer: str
    fetched_answer: str | None
    reason: str
    """The judge's."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A simpler way to save, on the same turns."""

    name: Literal["one_faq", "no_history_faqs", "no_faqs", "repeats", "cached_prefix", "paper", "frugal", "always_fetch"]
    label: str
    """In words."""
    turns: int
    tokens: int | None
    saving: Figure
    """Of tokens against the headline baseline."""
    ahead_of_policy: Figure
    """Tokens by which it is cheaper than what was served, as a share of the baseline's; above zero: it would have saved more."""
    money: float | None
    money_ahead: Figure
    """Share of the baseline's money by which it is cheaper than what was served."""
    wins: bool
    """It costs surely less, in money where that is known, else in tokens."""
    caveat: str
    """What it gives up, or what isn't known."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What skipping from one threshold on would do to the turns of which both arms are judged."""

    threshold: float
    skip_rate: float
    saving: Figure
    """Of the tokens of always fetching, on these turns."""
    harmful: Figure
    """Harmful skips as a share of the turns."""
    accuracy: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Saving and harm over the skip threshold."""

    turns: int
    points: tuple[CurvePoint, ...]
    operating: CurvePoint | None
    """Today's actions on the same turns; `threshold` is nan-free: the lowest score at which it skipped."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One row of a cut."""

    group: str
    conversations: int
    turns: int
    skip_rate: float | None
    static_rate: float | None
    actual_tokens: int
    baseline_tokens: int
    saved_tokens: int
    saving: Figure
    saved_money: float | None
    good: Figure


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a month would save, if it is like these turns."""

    turns_a_month: int
    saved_tokens: Figure
    saved_money: Figure
    net_money: Figure
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """How the figures came about."""

    headline: str
    """The baseline of the headline: frugal, or always_fetch where frugal isn't logged."""
    resamples: int
    seed: int
    units: int
    """Conversations, or blocks of them, that are drawn again."""
    by_blocks: bool
    kind: Literal["per_turn"] = "per_turn"
    """What the log can tell: the saving of each turn given what happened before it."""


@dataclass(frozen=True, slots=True)
class SavingsReport:
    """The token-savings report."""

    version: str
    made_at: datetime
    scope: Scope
    method: Method
    against: tuple[Against, ...]
    """The headline baseline first, then `paper`."""
    parts: tuple[Part, ...]
    money: Money
    quality: Guardrail
    wrong_answers: tuple[WrongAnswer, ...]
    alternatives: tuple[Alternative, ...]
    curve: Curve | None
    """None: no turn has both arms judged."""
    by_day: tuple[Cut, ...]
    by_category: tuple[Cut, ...]
    by_policy: tuple[Cut, ...]
    by_owner: tuple[Cut, ...]
    forecast: Forecast | None
    warnings: tuple[str, ...]

    @property
    def headline(self) -> Against | None:
        """Against the headline baseline; None without any turn."""
        return self.against[0] if self.against else None


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of two reports, and their difference."""

    figure: str
    a: Figure
    b: Figure
    difference: Figure
    """b less a."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two policies, or two periods, side by side. Conversations differ, so what changed may be the traffic."""

    version: str
    a: Scope
    b: Scope
    figures: tuple[Compared, ...]
    warnings: tuple[str, ...]
    made_at: datetime | None = None
