"""A turn up to its first token: recall, retrieval, state, decision and prompt, and what each does when it fails."""

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter

import pytest

from chat.errors import InvalidRequestError, LogError
from chat.plan import STATIC_POLICY, PipelineConfig, Plan, TurnPlanner, certain_faq
from chat.ports import LoggedExchange, Policy
from chat.prompt import PromptSettings
from chat.types import Action, Evidence, Message, PastTurn, State
from kb.errors import IndexFolderError
from kb.types import Faq, Hit
from policy.rules import EvidenceRule
from tests.conversation import FAQS, HOURS, PARKING, RETURNS, config, texts
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedPolicy


class Remembering(InMemoryLog):
    """A log that knows these exchanges, and how many it was asked for."""

    def __init__(self, *exchanges: LoggedExchange) -> None:
        super().__init__()
        self.exchanges = exchanges
        self.limits: list[int] = []

    def recent(self, owner: str, conversation_id: str, *, limit: int) -> tuple[LoggedExchange, ...]:
        self.limits.append(limit)
        return self.exchanges[-limit:] if (owner, conversation_id) == ("local", "c1") else ()


FETCHED = LoggedExchange("q1", "a1", Action.FETCH, ("hours",), ("hours",), ())
SKIPPED = LoggedExchange("q2", "a2", Action.NO_FETCH, ("hours",), (), ())


def messages(*said: str) -> tuple[Message, ...]:
    """What user and assistant said in turn, the user first."""
    return tuple(Message("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(said))


def plan(
    *said: str, log: InMemoryLog | None = None, retriever: FakeRetriever | None = None, policy: Policy | None = None,
    options: PipelineConfig | None = None, owner: str = "local",
) -> Plan:
    planner = TurnPlanner(retriever or FakeRetriever(FAQS), policy or ScriptedPolicy(), log or InMemoryLog(), options or config())
    return planner.plan(messages(*said), owner, "c1")


def first_figures(state: State) -> tuple[float | None, float | None, bool, int | None]:
    """Top-1 similarity, margin, whether the top-1 stands in the prompt, turns since a fetch."""
    found = state.evidence
    assert found is not None
    return found.top1_similarity, found.margin, found.top1_in_prompt, found.turns_since_fetch


def test_a_fetch_puts_the_hits_into_the_prompt_best_first() -> None:
    made = plan("Can I park and return things?", options=config(PromptSettings(k=2), min_similarity=0.4))
    assert [hit.faq.id for hit in made.hits] == ["returns", "parking"]
    assert made.prompt.fetched == ("returns", "parking")
    assert (made.static, made.degraded, made.kb_version) == (None, (), "fake-kb")


def test_k_limits_what_is_fetched_and_not_what_is_found() -> None:
    options = config(PromptSettings(k=1), baselines={"wide": PromptSettings(k=3)}, min_similarity=0.0)
    made = plan("Can I park and return things?", options=options)
    assert len(made.hits) == 3
    assert made.prompt.fetched == ("returns",)


def test_a_skip_searches_too_and_puts_nothing_new_into_the_prompt() -> None:
    made = plan("When are you open?", policy=ScriptedPolicy([Action.NO_FETCH]))
    assert [hit.faq.id for hit in made.hits] == ["hours"]
    assert (made.prompt.fetched, made.prompt.shown) == ((), ())


@pytest.mark.parametrize(("prompt", "baselines", "hits"), [
    (PromptSettings(k=1), {}, 2),
    (PromptSettings(k=5), {}, 5),
    (PromptSettings(k=1), {"wide": PromptSettings(k=4)}, 4),
])
def test_enough_is_searched_for_every_setting_and_for_the_margin(
    prompt: PromptSettings, baselines: Mapping[str, PromptSettings], hits: int
) -> None:
    assert config(prompt, baselines=baselines).hits == hits


@pytest.mark.parametrize(("state_queries", "prompt", "baselines", "turns"), [
    (0, PromptSettings(history_turns=0), {}, 0),
    (3, PromptSettings(history_turns=1), {}, 3),
    (1, PromptSettings(history_turns=4), {}, 4),
    (1, PromptSettings(history_turns=1), {"long": PromptSettings(history_turns=5)}, 5),
])
def test_as_many_past_turns_are_recalled_as_something_reads(
    state_queries: int, prompt: PromptSettings, baselines: Mapping[str, PromptSettings], turns: int
) -> None:
    assert config(prompt, baselines=baselines, state_queries=state_queries).past_turns == turns


def test_the_log_is_always_compared_with_the_papers_setting_unless_told_otherwise() -> None:
    assert PipelineConfig().baselines == {"paper": PromptSettings()}


def test_the_state_holds_the_last_queries_with_their_actions_and_unknown_ones_as_unknown() -> None:
    policy = ScriptedPolicy()
    plan("q0", "a0", "q1", "a1", "q2", "edited", "now", log=Remembering(FETCHED, SKIPPED), policy=policy)
    (state,) = policy.states
    assert (state.previous_queries, state.previous_actions, state.query) == (("q1", "q2"), (Action.FETCH, None), "now")


def test_a_policy_that_reads_no_previous_query_sees_none() -> None:
    policy = ScriptedPolicy()
    plan("q1", "a1", "now", log=Remembering(FETCHED), policy=policy, options=config(state_queries=0))
    (state,) = policy.states
    assert (state.previous_queries, state.previous_actions, state.query) == ((), (), "now")
    assert first_figures(state) == (None, None, False, 0)


def test_a_turn_without_past_does_not_read_the_log() -> None:
    log = Remembering(FETCHED)
    plan("q1", log=log)
    plan("q1", "a1", "now", log=log, options=config(PromptSettings(history_turns=0), state_queries=0))
    assert log.limits == []


def test_another_owners_turns_of_the_same_id_stay_unknown() -> None:
    made = plan("q1", "a1", "now", log=Remembering(FETCHED), owner="another")
    assert made.history == (PastTurn("q1", "a1"),)


def test_evidence_is_similarity_margin_what_the_prompt_holds_and_the_last_fetch() -> None:
    policy = ScriptedPolicy()
    log = Remembering(FETCHED, SKIPPED)
    plan("q1", "a1", "q2", "a2", "Can I park and return things?", log=log, policy=policy, options=config(min_similarity=0.4))
    # {can, i, park, and, return, things}: 4 of 6 words with RETURNS, 3 of 7 with PARKING
    assert first_figures(policy.states[0]) == (4 / 6, 4 / 6 - 3 / 7, False, 1)


def test_evidence_sees_the_best_faq_in_the_prompt_as_long_as_the_window_holds_it() -> None:
    for window, held in ((2, True), (1, False)):
        policy = ScriptedPolicy()
        options = config(PromptSettings(history_turns=window))
        plan("q1", "a1", "q2", "a2", "When are you open?", log=Remembering(FETCHED, SKIPPED), policy=policy, options=options)
        assert first_figures(policy.states[0]) == (1.0, None, held, 1)


def test_nothing_found_is_evidence_too() -> None:
    policy = ScriptedPolicy()
    plan("xyzzy", policy=policy)
    assert policy.states[0].evidence == Evidence(None, None, False, None)


def test_the_evidence_rule_skips_in_a_conversation_what_an_earlier_turn_fetched() -> None:
    rule = EvidenceRule(0.25)
    assert plan("When are you open?", policy=rule).decision.action is Action.FETCH
    made = plan("q1", "a1", "When are you open?", log=Remembering(FETCHED), policy=rule)
    assert made.decision.action is Action.NO_FETCH
    assert made.prompt.shown == ("hours",)


def test_a_static_answer_asks_no_policy_and_has_no_prompt() -> None:
    policy = ScriptedPolicy()
    made = plan("When are you open?", policy=policy, options=config(static_threshold=1.0))
    assert made.static == HOURS
    assert (made.prompt.messages, made.prompt.fetched, made.prompt.shown) == ((), ("hours",), ("hours",))
    assert (made.decision.action, made.decision.behavior_prob) == (Action.STATIC, 1.0)
    assert made.decision.policy_version == STATIC_POLICY
    assert policy.states == []


@pytest.mark.parametrize(("similarity", "threshold", "certain"), [
    (0.9, None, False), (0.9, 0.9, True), (0.9, 0.91, False), (0.0, 0.0, True), (-0.1, 0.0, False), (0.1, -0.5, True),
])
def test_a_threshold_is_reached_at_its_value_and_zero_counts_as_set(
    similarity: float, threshold: float | None, certain: bool
) -> None:
    assert certain_faq((Hit(HOURS, similarity), Hit(RETURNS, -1.0)), threshold) == (HOURS if certain else None)


def test_nothing_found_and_an_faq_without_answer_are_never_certain() -> None:
    assert certain_faq((), 0.0) is None
    assert certain_faq((Hit(Faq("routing", "Talk to a person", ""), 1.0),), 0.5) is None


@pytest.mark.parametrize("error", [IndexFolderError("gone"), OSError("disk"), RuntimeError("faiss")])
def test_a_knowledge_base_that_fails_means_no_evidence_no_faqs_and_a_mark(error: Exception) -> None:
    retriever, policy = FakeRetriever(FAQS), ScriptedPolicy()
    retriever.error = error
    made = plan("When are you open?", retriever=retriever, policy=policy, options=config(static_threshold=0.5))
    assert (made.hits, made.degraded, made.static) == ((), ("kb_unavailable",), None)
    assert policy.states[0].evidence is None
    assert made.prompt.shown == ()


def test_a_policy_that_fails_means_fetch_and_a_mark() -> None:
    policy = ScriptedPolicy(error=ZeroDivisionError("weights"))
    made = plan("When are you open?", policy=policy)
    assert (made.decision.action, made.decision.behavior_prob, made.decision.policy_version) == (Action.FETCH, 1.0, "scripted:1")
    assert (made.degraded, made.prompt.fetched) == (("policy_failed",), ("hours",))


def test_a_log_that_cannot_be_read_means_unknown_actions_and_a_mark() -> None:
    log, policy = InMemoryLog(), ScriptedPolicy()
    log.error = LogError("locked")
    made = plan("q1", "a1", "When are you open?", log=log, policy=policy)
    assert made.degraded == ("log_unavailable",)
    assert policy.states[0].previous_actions == (None,)
    assert made.prompt.fetched == ("hours",)
    assert texts(made.prompt.messages)[1:3] == ["<question>\nq1\n</question>", "a1"]


def test_all_that_can_fail_may_fail_at_once() -> None:
    log, retriever = InMemoryLog(), FakeRetriever(FAQS)
    log.error, retriever.error = LogError("locked"), OSError("disk")
    made = plan("q1", "a1", "now", log=log, retriever=retriever, policy=ScriptedPolicy(error=RuntimeError("cuda")))
    assert made.degraded == ("log_unavailable", "kb_unavailable", "policy_failed")
    assert made.decision.action is Action.FETCH


def test_a_message_list_without_a_query_is_refused_before_anything_is_searched() -> None:
    retriever = FakeRetriever(FAQS)
    retriever.error = AssertionError("searched")
    with pytest.raises(InvalidRequestError):
        plan("q1", "a1", retriever=retriever)


def test_each_stage_has_its_milliseconds() -> None:
    made = plan("When are you open?")
    assert list(made.latency_ms) == ["recall", "retrieve", "decide", "prompt"]
    assert all(0.0 <= milliseconds < 5_000 for milliseconds in made.latency_ms.values())


def test_a_conversation_of_100000_turns_is_planned_by_its_last_ones_in_a_moment() -> None:
    said = [text for n in range(100_000) for text in (f"q{n}", f"a{n}")]
    long = messages(*said, "When are you open?")
    log = Remembering(*(replace(FETCHED, query=f"q{n}", answer=f"a{n}") for n in range(99_000, 100_000)))
    planner = TurnPlanner(FakeRetriever(FAQS), ScriptedPolicy(), log, config())
    began = perf_counter()
    made = planner.plan(long, "local", "c1")
    assert perf_counter() - began < 1.0
    assert [turn.query for turn in made.history] == ["q99998", "q99999"]
    assert made.state.previous_actions == (Action.FETCH, Action.FETCH)
    assert len(made.prompt.messages) == 6
    assert log.limits == [8]


# evidence beside the top-1: by hand, with shares of words for cosines


def evidence_of(query: str, *history: LoggedExchange, options: PipelineConfig | None = None) -> Evidence:
    policy = ScriptedPolicy()
    said = [text for exchange in history for text in (exchange.query, exchange.answer)]
    plan(*said, query, log=Remembering(*history), policy=policy, options=options or config(min_similarity=0.0))
    found = policy.states[0].evidence
    assert found is not None
    return found


ASKED_HOURS = LoggedExchange("When are you open?", "a1", Action.FETCH, ("hours",), ("hours",), ("hours",))


def test_a_first_query_has_evidence_of_the_fetch_alone() -> None:
    found = evidence_of("Can I park?", options=config(PromptSettings(k=2), min_similarity=0.0))
    # {can, i, park}: 3 of 4 with {where, can, i, park}, 2 of 5 with {can, i, return, things}, nothing of {when, are, you, open}
    assert found == Evidence(
        top1_similarity=3 / 4, margin=3 / 4 - 2 / 5, top1_in_prompt=False, turns_since_fetch=None, last_similarity=2 / 5,
        fetch_characters=sum(len(faq.question) + len(faq.answer) for faq in (PARKING, RETURNS)),
    )


def test_the_query_is_compared_with_what_stands_in_the_prompt_and_with_the_query_before() -> None:
    found = evidence_of("open when I park?", ASKED_HOURS,
                        options=config(PromptSettings(k=2), min_similarity=0.0, search_previous=False))
    # {open, when, i, park}: 2 of 6 with {when, are, you, open}; 2 of 6 with {where, can, i, park}; 1 of 7 with {can, i, return, things}
    assert (found.top1_similarity, found.prompt_similarity, found.previous_similarity) == (2 / 6, 2 / 6, 2 / 6)
    assert (found.top1_in_prompt, found.prompt_faqs, found.turns_since_fetch) == (True, 1, 0)
    # both together: {when, are, you, open, i, park}: 4 of 6 with the question of HOURS
    assert (found.joined_top1_similarity, found.joined_prompt_similarity) == (4 / 6, 4 / 6)
    assert (found.joined_top1_in_prompt, found.joined_top1_same) == (True, True)


@pytest.mark.parametrize(("repeats", "added"), [(True, (HOURS, PARKING)), (False, (PARKING,))])
def test_what_a_fetch_would_add_is_what_it_would_show_anew(repeats: bool, added: tuple[Faq, ...]) -> None:
    found = evidence_of("open when I park?", ASKED_HOURS, options=config(PromptSettings(k=2, repeats=repeats), min_similarity=0.0))
    assert (found.prompt_faqs, found.fetched_in_prompt) == (1, 1)
    assert found.fetch_characters == sum(len(faq.question) + len(faq.answer) for faq in added)


def test_a_follow_up_that_names_nothing_is_known_by_the_query_before() -> None:
    found = evidence_of("xyzzy", ASKED_HOURS, options=config(min_similarity=0.0, search_previous=False))
    assert (found.top1_similarity, found.prompt_similarity, found.previous_similarity) == (0.0, 0.0, 0.0)
    assert (found.joined_top1_similarity, found.joined_prompt_similarity, found.joined_top1_in_prompt) == (4 / 5, 4 / 5, True)


@pytest.mark.parametrize(("together", "similarity"), [(True, 4 / 5), (False, 0.0)])
def test_a_follow_up_is_searched_for_together_with_the_query_before_unless_that_is_turned_off(together: bool, similarity: float) -> None:
    found = evidence_of("xyzzy", ASKED_HOURS, options=config(min_similarity=0.0, search_previous=together))
    assert found.top1_similarity == similarity


def test_faqs_that_left_the_prompt_are_no_evidence() -> None:
    window = PromptSettings(history_turns=1, faq_turns=0)
    found = evidence_of("When are you open?", ASKED_HOURS, options=config(window, min_similarity=0.0))
    assert (found.prompt_faqs, found.prompt_similarity, found.top1_in_prompt, found.fetched_in_prompt) == (0, None, False, 0)
    assert (found.previous_similarity, found.joined_top1_similarity, found.joined_prompt_similarity) == (1.0, 1.0, None)
