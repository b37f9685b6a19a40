"""Figures as a person reads them: numbers with their units, intervals, verdicts in words.

Unknown is a dash, never zero. Leaves out where they stand on the page (`templates/`).
"""

from datetime import datetime

from report.figures import Against, Alternative, Figure, Guardrail

UNKNOWN = "–"
NOTHING = 1e-12
"""What is left of zero by rounding is shown as zero."""
MINUS = "−"
BASELINES = {"frugal": "the cheapest always-fetch setting", "paper": "the paper's always-fetch setting",
             "always_fetch": "always fetching with today's prompt"}
PARTS = {"settings": "The prompt's settings", "repeats": "FAQs that aren't shown twice", "static": "Answers that an FAQ gave by itself",
         "policy": "The gate's own decisions", "overhead": "What rewriting queries cost"}
ALTERNATIVES = {"one_faq": "one FAQ", "no_history_faqs": "no FAQs in history", "no_faqs": "no FAQs at all", "repeats": "FAQs again",
                "cached_prefix": "all FAQs, cached", "paper": "as in the paper", "frugal": "cheapest setting",
                "always_fetch": "always fetch"}
"""Short names, beside the labels that say what each is."""
FLOOR = "no_faqs"
"""The alternative that is no way to serve, but what the least prompt costs."""
CACHING = {"none": "No prompt is cached", "as_logged": "Cached as it was",
           "extra_cached": "All that always fetching would have added is cached, too"}
LEFT_OUT = {"background": "prompts of a chat front end", "refused": "refused by a filter", "holdback": "in the always-fetch holdback",
            "no_usage": "without token counts", "imported": "imported from files", "degraded": "answered by a stand-in"}
RATES = {"FETCH": "Fetched", "NO_FETCH": "Skipped the fetch", "STATIC": "Answered by an FAQ", "policy": "Served by the policy, all",
         "holdback": "Always-fetch holdback"}
SOURCES = {"judge": "a judge", "people": "people"}
TRUST = {"better": "sure", "worse": "sure", "unclear": "not sure", "too_small": "too small to trust", "unknown": "not known"}


def share(value: float | None, digits: int = 1) -> str:
    """A share of 1 in per cent."""
    return UNKNOWN if value is None else f"{_signed(value * 100, digits)} %"


def points(value: float | None, digits: int = 1) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return UNKNOWN if value is None else f"{_plus(value)}{_signed(value * 100, digits)} points"


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return UNKNOWN if value is None else _signed(value, 0)


def money(value: float | None, currency: str, like: float | None = None) -> str:
    """An amount with its currency, in as many digits as a small one needs, or as another amount beside it."""
    if value is None:
        return UNKNOWN
    size = abs(value if like is None else like)
    digits = 0 if size >= 10_000 else 2 if size >= 1 or size == 0 else 4 if size >= 0.01 else 6
    return f"{_signed(value, digits)} {currency}"


def day(value: datetime | None) -> str:
    """A date."""
    return UNKNOWN if value is None else f"{value.day} {value:%B %Y}"


def moment(value: datetime | None) -> str:
    """A date with its time."""
    return UNKNOWN if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def interval(figure: Figure, kind: str = "share", currency: str = "") -> str:
    """The interval in words; a dash where there is none. kind: share, points, count or money."""
    if figure.low is None or figure.high is None:
        return UNKNOWN
    if kind == "money":
        size = max(abs(figure.low), abs(figure.high))
        low, high = money(figure.low, currency, size), money(figure.high, currency, size)
    else:
        low, high = shown(figure.low, kind), shown(figure.high, kind)
    number, _, unit = low.rpartition(" ")
    return f"{number} to {high}" if unit == high.rpartition(" ")[2] and number else f"{low} to {high}"


def shown(value: float | None, kind: str = "share", currency: str = "") -> str:
    """A number of that kind."""
    match kind:
        case "share":
            return share(value)
        case "points":
            return points(value)
        case "count":
            return count(value)
    return money(value, currency)


def saving_verdict(against: Against | None) -> str:
    """Whether tokens were saved, in a sentence."""
    if against is None:
        return "There is nothing to report on yet."
    match against.saving.verdict:
        case "better":
            return "A real saving: the whole interval lies above zero."
        case "worse":
            return "It cost more than always fetching: the whole interval lies below zero."
        case "unclear":
            return "It can't be told yet whether anything was saved: the interval holds zero."
        case "too_small":
            return "Too few conversations to trust this figure."
    return "Not known."


def certainty(against: Against | None) -> tuple[str, str]:
    """How sure the saving is: a word, and its class."""
    verdict = "unknown" if against is None else against.saving.verdict
    words = {"better": "Sure", "worse": "Sure", "unclear": "Not sure yet", "too_small": "Too small to trust", "unknown": "Not known"}
    return words[verdict], "good" if verdict == "better" else "bad" if verdict == "worse" else "open"


def quality_verdict(quality: Guardrail) -> tuple[str, str, str]:
    """Whether answers got worse: a word, its class, and a sentence."""
    margin = share(quality.margin)
    match quality.verdict:
        case "kept":
            return "Quality kept", "good", f"Answers are not worse than with always fetching, within a margin of {margin}."
        case "worse":
            return "Quality fell", "bad", "Answers are surely worse than with always fetching."
        case "unclear":
            return "Not clear yet", "open", f"A loss of more than {margin} can't be ruled out, nor shown."
        case "too_small":
            return "Too small to trust", "open", "Too few judged conversations on one side to compare answers."
    return "Not known", "open", "No answers were judged on both sides, so whether they got worse isn't known."


def harm(quality: Guardrail) -> str:
    """What is known of harmful skips, in a sentence."""
    if not quality.skips:
        return "No fetch was skipped."
    if not quality.skips_judged:
        skipped = "The one skipped fetch wasn't" if quality.skips == 1 else f"None of the {count(quality.skips)} skipped fetches was"
        return f"{skipped} judged with both answers, so harmful ones aren't known."
    known = (f"Harmful skips: {count(quality.harmful_skips)} of {count(quality.skips_judged)} judged "
             f"({share(quality.harmful_share)}); at most {share(quality.harmful_upper)} with 95 % certainty")
    if quality.budget is None or quality.harmful_upper is None:
        return f"{known}."
    return f"{known}, {'within' if quality.harmful_upper <= quality.budget else 'which is above'} the budget of {share(quality.budget)}."


def winners(alternatives: tuple[Alternative, ...], currency: str) -> tuple[str, ...]:
    """A sentence for every simpler way that could have served and would have cost surely less."""
    return tuple(_winner(one, currency) for one in alternatives if one.wins and one.name != FLOOR)


def _winner(one: Alternative, currency: str) -> str:
    ahead = (one.money_ahead, "of the money") if one.money_ahead.value is not None else (one.ahead_of_policy, "of the tokens")
    return f"{one.label[:1].upper()}{one.label[1:]}: that would have saved another {share(ahead[0].value)} {ahead[1]}. {one.caveat}"


def trust(figure: Figure) -> str:
    """A verdict in one or two words."""
    return TRUST[figure.verdict]


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):,.{digits}f}"
    return f"{MINUS}{text}" if value < 0 and float(text.replace(",", "")) else text


def _plus(value: float) -> str:
    return "+" if value > 0 else ""


def compared(name: str, figure: Figure, *, difference: bool = False) -> tuple[str, str]:
    """A figure of a comparison and its interval, by what its name says it is: a share, tokens, or a plain number."""
    if name.startswith("saving") or name.endswith("share"):
        kind = "points" if difference else "share"
        return shown(figure.value, kind), interval(figure, kind)
    if figure.low is None or figure.high is None:
        return UNKNOWN if figure.value is None else plain(figure.value), UNKNOWN
    return UNKNOWN if figure.value is None else plain(figure.value), f"{plain(figure.low)} to {plain(figure.high)}"


def plain(value: float) -> str:
    """A number of any kind in three digits."""
    if abs(value) < NOTHING:
        return "0"
    return f"{value:,.3g}".replace("-", MINUS) if abs(value) < 1000 else count(value)
