"""A golden log: eight turns that count and three that don't, whose every token was added up by hand.

Prices are per million tokens, so that a dollar is a million of the units below ("u"). `dollars`: input 10, cached input 5, output 20.
`euros`: input 5, output 10, cached input as other input; a euro is two dollars, where a rate is given. The model of the sixth turn has no
price. Totals are input + output; H is under frugal, S under always_fetch, R with repeats, P under paper, W without rewriting, A as it was.

    turn      A          H          S          R          P         saved  settings    repeats     static  policy  overhead
                                                                     H - A   rest of  R - S as far  S - W   S - W   W - A
                                                                             H - S    as H > S
    1 FETCH   100+10=110  90+10=100 100+10=110 100+10=110 150+10=160   -10      -10        0               0       0
    2 skip     60+10= 70 110+10=120 120+10=130 140+10=150 180+10=190    50      -10        0              60       0
    3 STATIC    0+ 0=  0  80+ 8= 88  95+ 8=103  95+ 8=103 130+ 8=138    88      -15        0     103               0
    4 FETCH   130+25=155  90+10=100 100+10=110 100+10=110 150+10=160   -55      -10        0               0     -45   W 100+10
    5 skip     70+14= 84 100+10=110 120+10=130 120+10=130 160+10=170    26      -20        0              50      -4   W 70+10, not logged
    6 skip     50+ 5= 55  80+ 5= 85  90+ 5= 95  90+ 5= 95     -         30      -10        0              40       0
    7 FETCH   200+20=220 150+20=170 140+20=160 165+20=185 260+20=280   -50        0       10             -60       0
    sum       610+84=694 700+73=773                                     79      -75       10     103      90     -49
    8 FETCH   100+10=110      -     100+10=110      -     150+10=160      nothing of frugal, nor of repeats, was logged then

S comes to 948 in all. The seventh turn was served just after a restart with cheaper settings: the prompt of its history was still dear.
Cached input: 20 in turn 2, 30 in turn 4, 50 in turn 7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from chat.log.store import SqlConversationLog
from chat.log.verdicts import LoggedVerdict, record_verdicts
from chat.types import Action, Counterfactual, Decision, Price, Refusal, State, Turn, Usage

DAY_ONE = datetime(2026, 10, 1, 23, 0, tzinfo=UTC)
DOLLARS = Price(10.0, 5.0, 20.0, "USD", "2026-09-01")
EUROS = Price(5.0, None, 10.0, "EUR", "2026-09-02")
U = 1e-6
Tokens = tuple[int, int]


@dataclass(frozen=True)
class GoldenTurn:
    """A turn as it is logged, and what it must add to a report."""

    number: int
    """Minutes after the first turn; from the fourth on a day later."""
    conversation: str
    owner: str
    action: Action
    policy: str
    paid: Tokens
    costs: Mapping[str, Tokens]
    saved: Mapping[str, int]
    """By baseline: what its own report says."""
    cached: int | None = None
    price: Price | None = DOLLARS
    model: str = "dollars"
    faq: str | None = None
    background: bool = False
    refused: bool = False

    @property
    def created_at(self) -> datetime:
        return DAY_ONE + timedelta(minutes=self.number, days=int(self.number >= 4))

    def logged(self) -> Turn:
        method: Literal["same_answer", "static_answer"] = "static_answer" if self.action is Action.STATIC else "same_answer"
        return Turn(
            id=f"t{self.number}", conversation_id=self.conversation, owner=self.owner, created_at=self.created_at, query="?", answer="!",
            state=State((), (), "?", None), decision=Decision(self.action, 0.5, 0.1, 1.0, self.policy, "golden"),
            hits=() if self.faq is None else ((self.faq, 0.9),), fetched=(), shown=(), cited=(),
            usage=Usage(*self.paid, self.cached, "none" if self.action is Action.STATIC else "server"),
            counterfactuals=tuple(Counterfactual(name, *tokens, method) for name, tokens in self.costs.items()),
            model=self.model, prompt_version="1", kb_version="1", price=self.price,
            latency_ms={"retrieve": 8.5, "decide": 0.5, "total": 700}, finish_reason="stop", background=self.background,
            refusal=Refusal("input", "harm", "f1") if self.refused else None,
        )


COUNTED = (
    GoldenTurn(1, "c1", "a", Action.FETCH, "p1", (100, 10), faq="hours", saved={"frugal": -10, "paper": 50, "always_fetch": 0}, costs={
        "always_fetch": (100, 10), "paper": (150, 10), "frugal": (90, 10), "repeats": (100, 10)}),
    GoldenTurn(2, "c1", "a", Action.NO_FETCH, "p1", (60, 10), cached=20, faq="hours", saved={
        "frugal": 50, "paper": 120, "always_fetch": 60}, costs={
        "always_fetch": (120, 10), "paper": (180, 10), "frugal": (110, 10), "repeats": (140, 10)}),
    GoldenTurn(3, "c1", "a", Action.STATIC, "static", (0, 0), model="fetchgate-static", faq="hours", saved={
        "frugal": 88, "paper": 138, "always_fetch": 103}, costs={
        "always_fetch": (95, 8), "paper": (130, 8), "frugal": (80, 8), "repeats": (95, 8)}),
    GoldenTurn(4, "c2", "a", Action.FETCH, "p2", (130, 25), cached=30, faq="returns", saved={
        "frugal": -55, "paper": 5, "always_fetch": -45}, costs={
        "always_fetch": (100, 10), "paper": (150, 10), "frugal": (90, 10), "repeats": (100, 10), "without_rewrite": (100, 10)}),
    GoldenTurn(5, "c2", "a", Action.NO_FETCH, "p2", (70, 14), faq="returns", saved={"frugal": 26, "paper": 86, "always_fetch": 46}, costs={
        "always_fetch": (120, 10), "paper": (160, 10), "frugal": (100, 10), "repeats": (120, 10)}),
    GoldenTurn(6, "c3", "b", Action.NO_FETCH, "p1", (50, 5), price=None, model="nobody-knows", saved={
        "frugal": 30, "always_fetch": 40}, costs={
        "always_fetch": (90, 5), "frugal": (80, 5), "repeats": (90, 5)}),
    GoldenTurn(7, "c3", "b", Action.FETCH, "p1", (200, 20), cached=50, price=EUROS, model="euros", saved={
        "frugal": -50, "paper": 60, "always_fetch": -60}, costs={
        "always_fetch": (140, 20), "paper": (260, 20), "frugal": (150, 20), "repeats": (165, 20)}),
    GoldenTurn(8, "c3", "b", Action.FETCH, "p1", (100, 10), saved={"always_fetch": 0, "paper": 50}, costs={
        "always_fetch": (100, 10), "paper": (150, 10)}),
)
LEFT_OUT = (
    GoldenTurn(9, "c4", "a", Action.FETCH, "holdback", (100, 10), costs={"always_fetch": (100, 10)}, saved={}),
    GoldenTurn(10, "c1", "a", Action.FETCH, "filter", (0, 0), costs={}, saved={}, refused=True),
    GoldenTurn(11, "c2", "a", Action.FETCH, "p1", (90, 9), costs={"always_fetch": (90, 9)}, saved={}, background=True),
)
CATEGORIES = {"hours": "opening", "returns": "orders"}

def verdict(turn_id: str, arm: Action, other: Tokens | None = None) -> LoggedVerdict:
    """One that cost 100 u, on an answer that was made for it from `other` tokens; None: on the turn's own."""
    answer, (inputs, outputs) = (None, (None, None)) if other is None else ("!", other)
    return LoggedVerdict(turn_id, DAY_ONE, arm, "j:1", True, "", answer=answer, input_tokens=inputs, output_tokens=outputs,
                         judge_input_tokens=900, judge_output_tokens=9, cost=100 * U, currency="USD")


VERDICTS = (verdict("t2", Action.NO_FETCH), verdict("t2", Action.FETCH, (120, 10)), verdict("t9", Action.FETCH))
"""Those on turn 9, in the holdback, cost nothing of what is reported."""


def fill(log: SqlConversationLog) -> None:
    """The log, with its verdicts."""
    for turn in (*COUNTED, *LEFT_OUT):
        log.append(turn.logged())
    record_verdicts(log, VERDICTS)
