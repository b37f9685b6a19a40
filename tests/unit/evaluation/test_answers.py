"""What counts as a right answer, and that sessions are played as they would be served."""

from chat.types import Action
from evaluation.answers import Outcome, play, right_share
from evaluation.datasets import LabelledTurn, Session
from kb.retriever import FaqRetriever
from kb.types import Faq
from tests.fakes import HashEmbedder, ScriptedPolicy

FAQS = (Faq("late", "How much is the late fee?", "The late fee is ₹450."), Faq("lost", "What if I lose my card?", "Block it."))


def session(*turns: LabelledTurn) -> Session:
    return Session("s", turns)


def test_citing_gold_is_right_citing_where_nothing_is_needed_is_wrong_and_the_unlabelled_is_not_scored() -> None:
    embedder = HashEmbedder()
    played = session(
        LabelledTurn("How much is the late fee?", None, ("late",), "faq", None),
        LabelledTurn("thanks", None, (), "smalltalk", None),
        LabelledTurn("How much is the late fee then?", None, ("lost",), "faq", None),
        LabelledTurn("whatever", None, None, "unlabelled", None),
    )
    outcomes = play(embedder, FaqRetriever.build(embedder, FAQS), ScriptedPolicy((Action.FETCH,)), [played])
    assert [(outcome.kind, outcome.right) for outcome in outcomes] == [("faq", True), ("smalltalk", True), ("faq", False)]
    assert [outcome.saved for outcome in outcomes] == [0, 0, 0], "always fetching saves nothing against always fetching"


def test_a_skip_saves_nothing_where_a_fetch_would_have_added_nothing() -> None:
    embedder = HashEmbedder()
    turns = [LabelledTurn("How much is the late fee?", None, ("late",), "faq", None), LabelledTurn("thanks", None, (), "smalltalk", None)]
    policy = ScriptedPolicy((Action.FETCH, Action.NO_FETCH))
    first, second = play(embedder, FaqRetriever.build(embedder, FAQS), policy, [session(*turns)])
    assert first.saved == 0
    # both FAQs are in the prompt from the first turn, and repeats aren't shown: a fetch would have added nothing either
    assert second.saved == 0


def test_a_share_is_of_turns_and_its_interval_of_conversations() -> None:
    alike = [Outcome(str(n), "faq", right=n % 2 == 0, tokens=1, saved=0) for n in range(100)]
    found = right_share(alike)
    assert found.value == 0.5
    assert 0.35 < found.low < 0.5 < found.high < 0.65
    one = right_share([Outcome("s", "faq", right=True, tokens=1, saved=0)])
    assert (one.value, one.low, one.high) == (1, 1, 1)
