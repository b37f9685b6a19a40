"""A savings report made up by hand: full, plausible, with numbers that can be told apart and text that tries to be HTML."""

from datetime import UTC, datetime, timedelta

from report.figures import (
    VERSION,
    Against,
    Alternative,
    CacheScenario,
    Compared,
    Comparison,
    Curve,
    CurvePoint,
    Cut,
    Figure,
    Forecast,
    GoodRate,
    Guardrail,
    Method,
    Money,
    Part,
    SavingsReport,
    Scope,
    Tokens,
    Verdict,
    WrongAnswer,
)

BEGAN = datetime(2026, 10, 1, 6, 30, tzinfo=UTC)
MADE_AT = datetime(2026, 11, 1, 8, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> \"quoted\" & 'so'"
"""Text of a user that would run, were it not escaped."""

UNKNOWN = Figure(None)


def figure(value: float, spread: float = 0.0, verdict: Verdict | None = None) -> Figure:
    """A value with an interval of this half-width."""
    low, high = value - spread, value + spread
    found: Verdict = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return Figure(value, low, high, verdict or found)


def made_report() -> SavingsReport:
    """All parts filled in."""
    method = Method("frugal", 10_000, 0, 1240, False)
    return SavingsReport(VERSION, MADE_AT, made_scope(), method, _against(), _parts(), _money(), _quality(), _wrong_answers(),
                         _alternatives(), _curve(), _days(), _categories(), _policies(), (_cut("fg-a1b2c3", 1240, 6412),), _forecast(),
                         ("42 turns were answered by a stand-in after an error; they count, as they cost.",))


def empty_report() -> SavingsReport:
    """Of a log without a turn."""
    scope = Scope(None, None, None, None, left_out={})
    money = Money("USD", 0, None, (), (), (), None, None, UNKNOWN, None, 0.0, None, UNKNOWN, ())
    quality = Guardrail(None, 0.01, 0, 0, UNKNOWN, "unknown", 0, 0, 0, None, None, None, None, (), UNKNOWN)
    method = Method("frugal", 10_000, 0, 0, False)
    return SavingsReport(VERSION, MADE_AT, scope, method, (), (), money, quality, (), (), None, (), (), (), (), None,
                         ("There is no turn to report on.",))


def made_comparison() -> Comparison:
    """Two policies."""
    figures = (Compared("saving", figure(0.31, 0.02), figure(0.355, 0.02), figure(0.045, 0.028)),
               Compared("good rate", figure(0.93, 0.02), UNKNOWN, UNKNOWN))
    return Comparison(VERSION, made_scope(), made_scope(), figures, ("Conversations differ, so what changed may be the traffic.",))


def made_scope() -> Scope:
    """October."""
    left_out = {"background": 118, "refused": 37, "holdback": 331, "no_usage": 4, "imported": 0, "degraded": 0}
    return Scope(None, None, BEGAN, BEGAN + timedelta(days=30), conversations=1240, turns=6412, left_out=left_out)


def _against() -> tuple[Against, ...]:
    actual = Tokens(3_102_000, 412_000, 208_000)
    frugal = Against("frugal", 6412, actual, Tokens(4_890_000, 412_000, 240_000), 1_820_000, 1_788_000, 32_000, figure(0.3548, 0.0183),
                     figure(283.8, 15.2), figure(0.2874, 0.0161), figure(0.3391, 0.0177))
    paper = Against("paper", 6412, actual, Tokens(7_020_500, 412_000, 240_000), 3_950_500, 3_918_500, 32_000, figure(0.5441, 0.0151),
                    figure(616.1, 21.9), figure(0.6071, 0.0202), figure(0.5127, 0.0163))
    return frugal, paper


def _parts() -> tuple[Part, ...]:
    total = 5_130_000
    return (Part("settings", 0, figure(0.0, 0.0)), Part("repeats", 402_000, figure(402_000 / total, 0.006)),
            Part("static", 610_000, figure(610_000 / total, 0.011)), Part("policy", 839_000, figure(839_000 / total, 0.012)),
            Part("overhead", -31_000, figure(-31_000 / total, 0.001)))


def _money() -> Money:
    caching = (CacheScenario("none", figure(0.3005, 0.016), figure(0.3488, 0.018)),
               CacheScenario("as_logged", figure(0.2874, 0.0161), figure(0.3391, 0.0177)),
               CacheScenario("extra_cached", figure(0.0801, 0.0093), figure(0.1204, 0.0141)))
    return Money("USD", 6380, 0.9931, ("2026-11-1",), ("local/llama",), ("EUR",), 0.5601, 0.8475, figure(0.2874, 0.0161), 0.0912, 512.4,
                 0.0142, figure(0.1820, 0.0163), caching)


def _quality() -> Guardrail:
    rates = (GoodRate("FETCH", "judge", 610, 560, figure(0.918, 0.021)), GoodRate("NO_FETCH", "judge", 402, 385, figure(0.9577, 0.019)),
             GoodRate("STATIC", "judge", 88, 87, figure(0.9886, 0.0113)), GoodRate("policy", "judge", 1100, 1032, figure(0.9382, 0.014)),
             GoodRate("holdback", "judge", 331, 309, figure(0.9335, 0.026)), GoodRate("policy", "people", 25, 21, figure(0.84, 0.14)))
    return Guardrail("llm:gpt-4o-2024-08-06", 0.01, 62, 331, Figure(0.0047, -0.0091, 0.0185, "unclear"), "kept", 2104, 402, 11, 11 / 402,
                     0.0451, 0.0449, 0.05, rates, figure(0.3312, 0.0411))


def _wrong_answers() -> tuple[WrongAnswer, ...]:
    return (WrongAnswer("chatcmpl-01", BEGAN + timedelta(days=28), f"and what of it? {HOSTILE}", "The late fee is [number].",
                        "The late fee is ₹450 [fee-late].", "The FAQ says ₹450, the answer another sum."),
            WrongAnswer("chatcmpl-02", BEGAN + timedelta(days=29), "can [name] waive it?", "It can't be waived.", None, "No FAQ says so."))


def _alternatives() -> tuple[Alternative, ...]:
    def one(name: str, label: str, saving: float, ahead: float, wins: bool, caveat: str) -> Alternative:
        return Alternative(name, label, 6412, round(5_130_000 * (1 - saving)), figure(saving, 0.012), figure(ahead, 0.013),  # type: ignore[arg-type]
                           0.8475 * (1 - saving), figure(ahead * 0.9, 0.013), wins, caveat)

    return (one("one_faq", "one FAQ in place of three", 0.4012, 0.0464, True,
                "No answer was made with it: what it does to quality isn't known."),
            one("no_history_faqs", "no FAQs in the history", 0.2210, -0.1338, False, "Follow-ups lose what was shown before."),
            one("no_faqs", "no FAQ at all", 0.7120, 0.3572, True, "A floor: it can't answer what only an FAQ says."),
            one("repeats", "an FAQ is shown again", -0.0784, -0.4332, False, "As the baseline, but repeating."),
            one("cached_prefix", "every FAQ in a cached prefix", 0.1190, -0.2358, False, "Assumes a cache that lives for 5 minutes."))


def _curve() -> Curve:
    points = tuple(CurvePoint(round(0.05 * n, 2), 0.9 - 0.04 * n, figure(0.62 - 0.029 * n, 0.02), figure(0.11 * (1 - n / 20) ** 2, 0.004),
                              0.83 + 0.006 * n) for n in range(20))
    return Curve(402, points, CurvePoint(0.62, 0.41, figure(0.2604, 0.02), figure(0.0161, 0.004), 0.9071))


def _cut(group: str, conversations: int, turns: int, saving: Figure | None = None, good: Figure = UNKNOWN) -> Cut:
    return Cut(group, conversations, turns, 0.328, 0.071, turns * 516, turns * 800, turns * 284, saving or figure(0.355, 0.02),
               turns * 4.5e-5, good)


def _days() -> tuple[Cut, ...]:
    savings = [0.33 + 0.002 * n + 0.02 * (n % 3) for n in range(30)]
    return tuple(_cut((BEGAN + timedelta(days=n)).date().isoformat(), 41, 214, figure(saving, 0.04)) for n, saving in enumerate(savings))


def _categories() -> tuple[Cut, ...]:
    return (_cut("cards", 480, 2810, good=figure(0.94, 0.02)), _cut("fees & <b>fines</b>", 390, 1900),
            _cut("lounge", 21, 64, Figure(0.29, 0.1, 0.44, "too_small")))


def _policies() -> tuple[Cut, ...]:
    return (_cut("demo:8f31c2", 1190, 5958, good=figure(0.938, 0.014)), _cut("static", 310, 454, figure(0.9, 0.02)))


def _forecast() -> Forecast:
    return Forecast(1_000_000, figure(283_800_000, 15_200_000), figure(44.82, 2.51), figure(28.38, 2.54),
                    ("Traffic, FAQs and prices stay as they were in this period.",
                     "The interval is of the saving a turn; it doesn't hold growth."))
