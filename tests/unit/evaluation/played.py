"""Sessions that are small enough to count, and the world that they are played in."""

from chat.plan import PipelineConfig
from chat.prompt import INSTRUCTIONS, POST_PROMPT, PromptSettings
from evaluation.datasets import LabelledTurn, Session
from evaluation.rollout import World
from reward.judge import ReferenceJudge
from reward.readers import IdealReader, Reader
from tests.conversation import FAQS
from tests.fakes import FakeRetriever, WordCounter


def turn(query: str, gold: tuple[str, ...] | None, kind: str = "faq", answer: str | None = "So it is.") -> LabelledTurn:
    return LabelledTurn(query, answer, gold, kind, None)


SHOP = Session("shop", (
    turn("When are you open?", ("hours",)),
    turn("well thanks", (), "smalltalk"),
    turn("and the owner", None, "chat"),
    turn("When are you open?", ("hours",), "return"),
))
CAR = Session("car", (turn("Where can I park?", ("parking",)), turn("xyzzy", ("returns",), "unanswerable")))
MIXED = Session("mixed", (
    turn("Can I return things?", ("returns",)),
    turn("Can I park and return things?", ("returns", "parking"), "followup"),
    turn("Where can I park things?", ("parking",), "same_faq", None),
    turn("Can I return things?", ("hours",), "return"),
    turn("When are you open?", None),
))

HOURS_WORDS, PARKING_WORDS = 14, 17
"""Of the FAQ as it stands in a prompt: <faqs> <faq id="hours"> Q: When are you open? A: Nine to five. </faq> </faqs>."""


def world(prompt: PromptSettings | None = None, *, reader: Reader | None = None, static_threshold: float | None = None,
          state_queries: int = 2, min_similarity: float = 0.5) -> World:
    """One FAQ a fetch, unless told otherwise; none that has less than half of its words in common with the query, searched alone."""
    config = PipelineConfig(prompt or PromptSettings(k=1), {}, min_similarity, static_threshold, None, state_queries, search_previous=False)
    return World(FakeRetriever(FAQS), WordCounter(), reader or IdealReader(), ReferenceJudge(), config)


def bare_tokens(session: Session, position: int, history_turns: int = 2) -> int:
    """Input and output tokens of a turn in whose prompt no FAQ stands: words, one a message, and two marks around each query."""
    turns = session.turns[max(0, position - history_turns) : position]
    past = sum(1 + 2 + len(one.query.split()) + 1 + len((one.answer or "").split()) for one in turns)
    now = 1 + 2 + len(session.turns[position].query.split()) + len(POST_PROMPT.split())
    return 1 + len(INSTRUCTIONS.split()) + past + now + len((session.turns[position].answer or "").split())
