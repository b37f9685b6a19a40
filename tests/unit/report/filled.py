"""A log with conversations that a report can be made of: small round numbers, two owners, a holdback, verdicts, a hostile query."""

from datetime import UTC, datetime, timedelta

from chat.log.store import SqlConversationLog
from chat.log.verdicts import LoggedVerdict, record_verdicts
from chat.types import Action, Counterfactual, Decision, Price, State, Turn, Usage
from report.columns import HOLDBACK
from tests.unit.report.made import HOSTILE

BEGAN = datetime(2026, 10, 1, 9, tzinfo=UTC)
OWNERS = ("fg-alpha", "fg-beta")
TURNS_EACH = 3
PRICE = Price(2.0, 0.5, 8.0, "USD", "test")


def fill(log: SqlConversationLog, conversations: int = 40) -> None:
    """Conversations of three turns over four days, owners in turn; every tenth is held back. The second turn skips where it may."""
    for number in range(conversations):
        for position in range(TURNS_EACH):
            log.append(made_turn(number, position))
    record_verdicts(log, [verdict for number in range(conversations) for verdict in _verdicts(number)])


def made_turn(number: int, position: int) -> Turn:
    """One turn of a conversation: 300 tokens with a fetch, 100 without, of 400 that always fetching would have cost."""
    held_back = number % 10 == 0
    action = Action.NO_FETCH if position == 1 and not held_back else Action.FETCH
    paid = 100 if action is Action.NO_FETCH else 300 + number
    policy = HOLDBACK if held_back else f"gate:{number % 2}"
    usage = Usage(paid, 20, cached_input_tokens=10)
    others = {"frugal": 400, "paper": 600, "always_fetch": 450, "one_faq": 250, "no_history_faqs": 380, "no_faqs": 90, "repeats": 470}
    return Turn(
        id=f"turn-{number}-{position}", conversation_id=f"conversation-{number}", owner=OWNERS[number % 2],
        created_at=BEGAN + timedelta(days=number % 4, minutes=position), query=_query(number, position), answer="It is ₹450 [fee-late].",
        state=State((), (), "late fee?", None),
        decision=Decision(action, 0.9 if action is Action.FETCH else 0.1, 0.05, 1.0, policy, "as made"),
        hits=(("fee-late", 0.8125), ("lounge", 0.25)), fetched=("fee-late",) if action is Action.FETCH else (), shown=("fee-late",),
        cited=("fee-late",), usage=usage,
        counterfactuals=tuple(Counterfactual(name, tokens + number, 20, "same_answer") for name, tokens in others.items()),
        model="scripted", prompt_version="test", kb_version="test", price=PRICE, latency_ms={"retrieve": 2.0, "decide": 3.0, "llm": 400.0},
        finish_reason="stop",
    )


def _query(number: int, position: int) -> str:
    if (number, position) == (1, 1):
        return f"I am Asha Verma, {HOSTILE}, mail me at asha@example.com"
    return f"late fee, please, for the time number {number}.{position}?"


def _verdicts(number: int) -> list[LoggedVerdict]:
    """Of the second turn both arms; the skip of conversation 1 did harm."""
    made = []
    for position in range(TURNS_EACH):
        turn = made_turn(number, position)
        bad = (number, position) == (1, 1)
        made.append(LoggedVerdict(turn.id, BEGAN, turn.decision.action, "llm:test", not bad, "Another sum." if bad else "As the FAQ says.",
                                  cost=0.0001, currency="USD"))
        if turn.decision.action is Action.NO_FETCH:
            made.append(LoggedVerdict(turn.id, BEGAN, Action.FETCH, "llm:test", True, "As the FAQ says.", answer="₹450, by the FAQ.",
                                      input_tokens=380, output_tokens=20, cost=0.0001, currency="USD"))
    return made
