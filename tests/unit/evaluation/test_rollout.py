"""Replays: arms counted by hand, states as serving would have them, and sharing that changes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from chat.plan import TurnPlanner
from chat.ports import LoggedExchange
from chat.prompt import PAPER, PromptSettings
from chat.types import Action, Message
from evaluation.datasets import Session
from evaluation.errors import DatasetError
from evaluation.graph import state_graph
from evaluation.rollout import CHOICES, Arm, Replay, World, always, oracle_needed, oracle_useful, play, play_by, replays, with_setting
from evaluation.turns import turns_of
from policy.graph import END, FETCH, NO_FETCH
from policy.rules import AlwaysFetch, NeverFetch
from reward.judge import ReferenceJudge
from reward.readers import DistractedReader, IdealReader, Question, session_answer
from tests.conversation import FAQS
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedPolicy, WordCounter
from tests.unit.evaluation.played import CAR, HOURS_WORDS, MIXED, PARKING_WORDS, SHOP, bare_tokens, turn, world

SETTINGS = {
    "paper": PAPER,
    "one": PromptSettings(k=1),
    "cited": PromptSettings(k=2, history_faqs="cited"),
    "cited once": PromptSettings(k=2, history_faqs="cited", faq_turns=1),
    "no repeats": PromptSettings(k=2, repeats=False),
    "bare history": PromptSettings(k=2, history_faqs="none"),
    "no history": PromptSettings(k=2, history_turns=0),
    "long history": PromptSettings(k=1, history_turns=4, repeats=False),
}
EVERY = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)


def sequences(length: int) -> list[tuple[Action, ...]]:
    """Every sequence of actions of up to so many turns."""
    return [taken for n in range(length) for taken in product(CHOICES, repeat=n)]


class Told(InMemoryLog):
    """A log that holds what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[LoggedExchange] = []

    def recent(self, owner: str, conversation_id: str, *, limit: int) -> tuple[LoggedExchange, ...]:
        return tuple(self.exchanges[-limit:])


# arms


def test_both_arms_of_a_turn_counted_by_hand() -> None:
    replay = Replay(SHOP, world())
    fetch, skip = replay.arm((), Action.FETCH), replay.arm((), Action.NO_FETCH)
    assert (fetch.good, skip.good) == (True, False)
    assert (fetch.output_tokens, skip.output_tokens) == (3, 3), "So it is."
    assert skip.tokens == skip.input_tokens + 3 == bare_tokens(SHOP, 0)
    assert fetch.tokens == skip.tokens + HOURS_WORDS


def test_an_earlier_fetch_costs_and_helps_as_long_as_the_window_holds_it() -> None:
    short, long = (Replay(SHOP, world(PromptSettings(k=1, history_turns=turns))) for turns in (2, 3))
    after = (Action.FETCH, Action.NO_FETCH, Action.NO_FETCH)
    assert short.arm(after[:1], Action.NO_FETCH) == Arm(bare_tokens(SHOP, 1) - 3 + HOURS_WORDS, 3, True)
    assert short.arm(after, Action.NO_FETCH) == Arm(bare_tokens(SHOP, 3) - 3, 3, False)
    assert long.arm(after, Action.NO_FETCH) == Arm(bare_tokens(SHOP, 3, 3) - 3 + HOURS_WORDS, 3, True)
    assert long.arm((Action.NO_FETCH,) * 3, Action.NO_FETCH) == Arm(bare_tokens(SHOP, 3, 3) - 3, 3, False)


def test_small_talk_is_good_either_way_and_what_retrieval_misses_is_bad_either_way() -> None:
    shop, car = Replay(SHOP, world()), Replay(CAR, world())
    assert [shop.arm((Action.NO_FETCH,), action).good for action in CHOICES] == [True, True]
    assert [car.arm((Action.NO_FETCH,), action).good for action in CHOICES] == [False, False]
    assert car.arm((Action.NO_FETCH,), Action.FETCH) == car.arm((Action.NO_FETCH,), Action.NO_FETCH), "nothing was found to show"
    assert car.arm((Action.FETCH,), Action.NO_FETCH).tokens == bare_tokens(CAR, 1) + PARKING_WORDS


def test_whether_one_gold_faq_is_enough_is_the_judges_to_say() -> None:
    one, all_of_them = ReferenceJudge(), ReferenceJudge("all")
    for k, judge, good in ((1, one, True), (1, all_of_them, False), (2, all_of_them, True)):
        replay = Replay(MIXED, replace(world(PromptSettings(k=k), min_similarity=0.4), judge=judge))
        assert replay.arm((Action.NO_FETCH,), Action.FETCH).good is good


def test_an_unlabelled_turn_is_played_and_counted_and_not_scored() -> None:
    replay = Replay(SHOP, world())
    arms = [replay.arm((Action.FETCH, Action.NO_FETCH), action) for action in CHOICES]
    assert [arm.good for arm in arms] == [None, None]
    assert [arm.tokens for arm in arms] == [bare_tokens(SHOP, 2) + HOURS_WORDS] * 2
    turns = turns_of([play(replay, NeverFetch())])
    assert turns.scored.tolist() == [True, True, False, True]
    assert turns.tokens.tolist() == [bare_tokens(SHOP, n) for n in range(4)]
    assert len(turns.skips().harms) == 3


def test_a_gold_id_that_the_knowledge_base_lacks_is_named_with_session_and_turn() -> None:
    broken = Session("s7", (turn("one", ("hours",)), turn("two", ("hours", "gone"))))
    with pytest.raises(DatasetError, match=r"session s7: turns\[1\].gold: expected ids of the knowledge base, got 'gone', which it doesn't "
                                           r"hold; give the knowledge base that the labels are about with --kb, or mend the label"):
        replays([SHOP, broken], world())


# static answers


def test_where_an_faq_answers_by_itself_nothing_is_asked_and_nothing_spent() -> None:
    replay = Replay(SHOP, world(static_threshold=1.0))
    policy = ScriptedPolicy((Action.NO_FETCH,))
    steps = play(replay, policy)
    assert [step.action for step in steps] == [Action.STATIC, Action.NO_FETCH, Action.NO_FETCH, Action.STATIC]
    assert steps[0].taken == steps[0].fetch == steps[0].skip == Arm(0, 0, True)
    assert [state.query for state in policy.states] == ["well thanks", "and the owner"]
    assert policy.states[0].previous_actions == (Action.STATIC,)
    assert replay.choices(0) == (Action.STATIC,)
    assert turns_of([steps]).static.tolist() == [True, False, False, True]
    assert turns_of([steps]).skipped.tolist() == [False, True, True, False]
    # "Nine to five. [hours]" was said, in the place of the session's "So it is."
    assert steps[1].taken.tokens == bare_tokens(SHOP, 1) + HOURS_WORDS + 1, "what it answered with stays in the prompt"


def test_a_static_answer_that_is_not_gold_is_bad() -> None:
    wrong = Session("wrong", (turn("When are you open?", ("returns",)), turn("When are you open?", ()), turn("When are you open?", None)))
    assert [step.taken for step in play(Replay(wrong, world(static_threshold=1.0)), AlwaysFetch())] == [
        Arm(0, 0, False), Arm(0, 0, False), Arm(0, 0, None)]


def test_a_baseline_has_no_static_answers() -> None:
    served = world(static_threshold=1.0)
    assert always(Replay(SHOP, with_setting(served, PAPER)))[0].tokens == bare_tokens(SHOP, 0) + HOURS_WORDS


# as serving would have it


def by_planner(session: Session, played: World, taken: tuple[Action, ...]) -> None:
    """Play a session through the planner that serves, and hold every turn against the replay's."""
    replay, log, policy = Replay(session, played), Told(), ScriptedPolicy(taken)
    planner = TurnPlanner(played.retriever, policy, log, played.config)
    said: list[Message] = []
    done: tuple[Action, ...] = ()
    for labelled in session.turns:
        plan = planner.plan((*said, Message("user", labelled.query)), "local", "c1")
        gold = None if labelled.gold is None else tuple(faq for faq in FAQS if faq.id in labelled.gold)
        question = Question(labelled.query, labelled.answer, gold)
        assert replay.state(done) == plan.state
        assert (plan.static is not None) is (replay.choices(len(done)) == (Action.STATIC,))
        read = played.reader.read(question, plan.prompt)
        if plan.static is None:
            arm = replay.arm(done, plan.decision.action)
            assert arm.input_tokens == played.counter.count(plan.prompt.messages)
            assert arm.output_tokens == played.counter.count_text(read.answer)
        answer, used = session_answer(question), read.used
        if plan.static is not None:
            answer, used = f"{plan.static.answer} [{plan.static.id}]", (plan.static.id,)
        log.exchanges.append(LoggedExchange(labelled.query, answer, plan.decision.action, tuple(hit.faq.id for hit in plan.hits),
                                            plan.prompt.fetched, used))
        said += [Message("user", labelled.query), Message("assistant", answer)]
        done = (*done, plan.decision.action)


@EVERY
@pytest.mark.parametrize("session", [SHOP, CAR, MIXED], ids=lambda session: session.id)
def test_states_and_prompts_are_those_that_serving_would_have_after_every_sequence_of_actions(
    session: Session, setting: PromptSettings
) -> None:
    for taken in product(CHOICES, repeat=len(session.turns)):
        by_planner(session, world(setting, min_similarity=0.3), taken)


@pytest.mark.parametrize("state_queries", [0, 1, 4])
def test_also_with_another_length_of_state_and_with_static_answers(state_queries: int) -> None:
    for taken in product(CHOICES, repeat=3):
        by_planner(SHOP, world(static_threshold=1.0, state_queries=state_queries), taken)
        short = world(PromptSettings(k=2, history_turns=1), state_queries=state_queries, min_similarity=0.3)
        by_planner(MIXED, short, (*taken, Action.FETCH))


# sharing


@EVERY
def test_sequences_that_end_alike_share_a_state_and_the_exhaustive_replay_gives_the_same(setting: PromptSettings) -> None:
    for session in (SHOP, MIXED):
        shared = Replay(session, world(setting, min_similarity=0.3))
        exhaustive = Replay(session, world(setting, reader=IdealReader(fixed_answers=False), min_similarity=0.3))
        keys = set()
        for taken in sequences(len(session.turns)):
            assert exhaustive.key(taken) == (len(taken), taken)
            keys.add(shared.key(taken))
            assert shared.state(taken) == exhaustive.state(taken)
            assert [shared.arm(taken, action) for action in CHOICES] == [exhaustive.arm(taken, action) for action in CHOICES]
        memory = max(2, setting.history_turns)
        assert len(keys) == sum(2 ** min(n, memory) for n in range(len(session.turns)))


def test_a_distracted_reader_shares_alike_where_what_was_cited_does_not_decide_what_stays() -> None:
    for setting in (PAPER, PromptSettings(k=2, repeats=False), PromptSettings(k=2, history_faqs="none")):
        readers = (DistractedReader(0.4, 0, fixed) for fixed in (True, False))
        shared, exhaustive = (Replay(MIXED, world(setting, reader=reader, min_similarity=0.0)) for reader in readers)
        for taken in sequences(len(MIXED.turns)):
            assert shared.state(taken) == exhaustive.state(taken)
            assert [shared.arm(taken, action) for action in CHOICES] == [exhaustive.arm(taken, action) for action in CHOICES]


def test_each_state_and_arm_is_made_once() -> None:
    class Counting(IdealReader):
        __slots__ = ()
        read_prompts: list[int] = []  # noqa: RUF012

        def read(self, question: Question, prompt):  # type: ignore[no-untyped-def]
            if prompt.messages:
                self.read_prompts.append(len(prompt.messages))
            return IdealReader.read(self, question, prompt)

    replay = Replay(SHOP, world(reader=Counting()))
    for taken in sequences(4) * 2:
        for action in CHOICES:
            replay.arm(taken, action)
    assert len(Counting.read_prompts) == 2 * (1 + 2 + 4 + 4)


# plays and graphs


def test_a_play_is_on_its_own_transcript() -> None:
    policy = ScriptedPolicy((Action.FETCH, Action.NO_FETCH, Action.NO_FETCH, Action.FETCH))
    replay = Replay(SHOP, world())
    steps = play(replay, policy)
    assert [step.action for step in steps] == list(policy.actions)
    assert [step.taken for step in steps] == [replay.arm(tuple(policy.actions[:n]), policy.actions[n]) for n in range(4)]
    assert [step.skipped for step in steps] == [False, True, True, False]
    assert policy.states[2].previous_actions == (Action.FETCH, Action.NO_FETCH)


def test_always_fetching_is_the_play_of_the_policy_that_always_fetches() -> None:
    for session in (SHOP, CAR, MIXED):
        replay = Replay(session, world())
        assert always(replay) == tuple(step.taken for step in play(replay, AlwaysFetch()))


@pytest.mark.parametrize(("fetch", "skip", "needed", "useful"), [
    (True, True, Action.NO_FETCH, Action.NO_FETCH),
    (True, False, Action.FETCH, Action.FETCH),
    (False, False, Action.FETCH, Action.NO_FETCH),
    (False, True, Action.NO_FETCH, Action.NO_FETCH),
    (None, None, Action.FETCH, Action.FETCH),
    (True, None, Action.FETCH, Action.FETCH),
])
def test_oracles_look_at_both_arms(fetch: bool | None, skip: bool | None, needed: Action, useful: Action) -> None:
    state = Replay(SHOP, world()).state(())
    arms = Arm(9, 1, fetch), Arm(4, 1, skip)
    assert (oracle_needed(state, *arms), oracle_useful(state, *arms)) == (needed, useful)


def test_the_oracles_plays_by_hand() -> None:
    played = [play_by(replay, choose) for choose in (oracle_needed, oracle_useful) for replay in replays([SHOP, CAR], world())]
    f, n = Action.FETCH, Action.NO_FETCH
    assert [[step.action for step in steps] for steps in played] == [[f, n, f, f], [f, f], [f, n, f, f], [f, n]]


def walks(played: Sequence[Replay], graph_of: Sequence[Replay]) -> None:
    """Every sequence of actions through the graph, beside the replay's own words."""
    graph = state_graph(graph_of)
    for number, (replay, start) in enumerate(zip(played, graph.starts, strict=True)):
        for taken in product((FETCH, NO_FETCH), repeat=len(replay)):
            node, done = int(start), tuple[Action, ...]()
            for position, action in enumerate(taken):
                choices = replay.choices(position)
                assert (graph.conversations[node], graph.turns[node]) == (number, position)
                assert graph.states[node] == replay.state(done)
                assert bool(graph.decided[node]) is (len(choices) == 2)
                for column, choice in ((FETCH, choices[0]), (NO_FETCH, choices[-1])):
                    arm = replay.arm(done, choice)
                    assert graph.tokens[node, column] == arm.tokens
                    assert np.array_equal(graph.good[node, column], np.nan if arm.good is None else float(arm.good), equal_nan=True)
                assert (graph.successors[node] > node).all() or (graph.successors[node] == END).all()
                done = (*done, choices[min(action, len(choices) - 1)])
                node = int(graph.successors[node, action])
            assert node == END


@EVERY
def test_the_graph_holds_what_the_replays_say_on_every_path(setting: PromptSettings) -> None:
    for played in (world(setting, min_similarity=0.3), world(setting, static_threshold=1.0)):
        made = replays([SHOP, CAR, MIXED], played)
        walks(made, replays([SHOP, CAR, MIXED], played))


def test_progress_is_told_of_each_conversation() -> None:
    told: list[int] = []
    state_graph(replays([SHOP, CAR], world()), told.append)
    assert told == [1, 1]


def test_no_conversations_make_an_empty_graph() -> None:
    graph = state_graph(())
    assert (graph.states, graph.successors.shape, graph.starts.shape) == ((), (0, 2), (0,))


def test_the_world_is_the_fakes_own() -> None:
    """What the counts above rest on."""
    assert WordCounter().count_text("So it is.") == 3
    assert [hit.similarity for hit in FakeRetriever(FAQS).search("When are you open?", k=1)] == [1.0]
