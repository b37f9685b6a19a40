"""Turns of the log become cases and verdicts: both arms on a share, nothing twice, nothing invented where something is gone."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from chat.errors import LLMError
from chat.log.sessions import import_sessions
from chat.log.store import SqlConversationLog
from chat.log.verdicts import LoggedVerdict, latest_verdicts
from chat.plan import PipelineConfig
from chat.ports import Chunk
from chat.prompt import PromptSettings
from chat.types import Action, Message, Refusal, Sampling, Turn
from evaluation.errors import EvaluationError
from evaluation.labelling import Labelled, LabelOptions, harm_of, label_log, sample
from evaluation.logged_arms import Answering, chosen
from kb.types import Faq
from reward.judge import Case, Judge, ReferenceJudge, Verdict
from reward.judgements import Judgement
from tests.conftest import ROOT
from tests.conversation import FAQS, PARKING, Conversation
from tests.fakes import FakeRetriever, ScriptedPolicy, WordCounter

SETTING = PipelineConfig(PromptSettings(k=1, repeats=False), {}, min_similarity=0.5, search_previous=False)
BOTH = LabelOptions(both_arms=1.0)


class ReadingLLM:
    """Says what the last FAQ of its prompt says, where the question shares a word with it; else that it doesn't know."""

    def __init__(self, model: str = "reader", fails_on: str = "") -> None:
        self.model = model
        self.fails_on = fails_on
        self.asked = 0

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        self.asked += 1
        query = re.findall(r"<question>\n(.*)\n</question>", messages[-1].content)[0]
        if self.fails_on and self.fails_on in query:
            raise LLMError("the reader is down; try again", retryable=True)
        faqs = re.findall(r'<faq id="(\S+)">\nQ: (.*)\nA: (.*)\n', "\n".join(message.content for message in messages))
        known = [(name, answer) for name, asked, answer in faqs if set(query.lower().split()) & set(asked.lower().split())]
        yield Chunk(f"{known[-1][1]} [{known[-1][0]}]" if known else "I don't know.")
        yield Chunk("", "stop")


@dataclass
class StrictJudge:
    """Good where the answer is an FAQ's, or isn't known and no FAQ was found; keeps what it saw."""

    version: str = "strict:1"
    cases: list[Case] = field(default_factory=list)

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        self.cases += cases
        return tuple(None if "riddle" in case.query else self._verdict(case) for case in cases)

    def _verdict(self, case: Case) -> Verdict:
        said = re.sub(r" \[\S+\]", "", case.answer)
        good = any(said == faq.answer for faq in case.evidence) or (said == "I don't know." and not case.evidence)
        return Verdict(good, "strict", hedged=said == "I don't know.")


@dataclass
class PaidJudge:
    """An accounting judge with money for so many words; `fails` are queries that its server fails at."""

    money: int = 10_000
    fails: tuple[str, ...] = ()
    version: str = "paid:1"
    asked_for: list[str] = field(default_factory=list)

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        raise AssertionError("an accounting judge is asked for its words")

    async def asked(self, cases: Sequence[Case]) -> tuple[Judgement, ...]:
        return tuple(map(self._word, cases))

    def _word(self, case: Case) -> Judgement:
        if case.query in self.fails:
            return Judgement("failed", None, "the server fails")
        if not self.money:
            return Judgement("unasked", None, "no money")
        self.money -= 1
        self.asked_for.append(case.query)
        return Judgement("verdict", Verdict(True, "paid"), "paid", cost=0.5, currency="USD")


def answering(llm: ReadingLLM | None = None, faqs: Sequence[Faq] = FAQS, config: PipelineConfig = SETTING) -> Answering:
    return Answering(FakeRetriever(faqs), llm or ReadingLLM(), WordCounter(), config)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlConversationLog]:
    with SqlConversationLog(str(tmp_path / "log.db")) as opened:
        yield opened


def serve(log: SqlConversationLog, queries: Sequence[str], actions: Sequence[Action], **parts: Any) -> list[Turn]:
    """A conversation through the real pipeline."""
    talk = Conversation(log=log, policy=ScriptedPolicy(actions), **{"llm": ReadingLLM(), "config": SETTING, **parts})

    async def converse() -> list[Turn]:
        return [await talk.ask(query) for query in queries]

    return asyncio.run(converse())


def imported(log: SqlConversationLog, folder: Path, turns: Sequence[tuple[str, list[str] | None, str | None]], name: str = "s1") -> None:
    records = [{"query": query, "gold": gold, "kind": "faq", **({} if answer is None else {"answer": answer})}
               for query, gold, answer in turns]
    file = folder / f"{name}.jsonl"
    file.write_text(json.dumps({"id": name, "turns": records}) + "\n")
    import_sessions(log, [file])


def stored(log: SqlConversationLog, judge: Judge) -> dict[tuple[str, Action], LoggedVerdict]:
    return {(one.turn_id, one.arm): one for one in latest_verdicts(log, judge=judge.version)}


def label(log: SqlConversationLog, judge: Judge, options: LabelOptions = BOTH, **parts: Any) -> Labelled:
    return label_log(log, judge, answering(**parts), options)


FETCH, SKIP = Action.FETCH, Action.NO_FETCH
ASKED = ["When are you open?", "When are you open now?", "Where can I park?"]


def test_the_arm_taken_is_judged_as_served_and_the_other_as_it_would_have_been(log: SqlConversationLog) -> None:
    turns, judge = serve(log, ASKED, [FETCH, SKIP, SKIP]), StrictJudge()
    done = label(log, judge)
    found = stored(log, judge)
    assert [(found[turn.id, FETCH].good, found[turn.id, SKIP].good) for turn in turns] == [(True, False), (True, True), (True, False)]
    assert found[turns[2].id, SKIP].answer is None, "it is the turn's own"
    other = found[turns[2].id, FETCH]
    assert other.answer == "Behind the house, free of charge. [parking]"
    always = next(one for one in turns[2].counterfactuals if one.baseline == "always_fetch")
    assert other.input_tokens is not None
    assert (other.input_tokens <= always.input_tokens, other.output_tokens) == (True, 7)
    assert (done.turns, done.good, done.bad, done.written, done.hedged) == (3, 4, 2, 3, 2)


def test_the_other_arms_prompt_is_the_renderers_own_on_the_history_of_the_log(log: SqlConversationLog) -> None:
    (first, second) = serve(log, ASKED[:2], [FETCH, FETCH])
    judge = StrictJudge()
    label(log, judge)
    skipped = next(case for case in judge.cases if case.query == ASKED[1])
    assert [(past.query, past.answer, past.action) for past in skipped.history] == [(ASKED[0], first.answer, FETCH)]
    assert stored(log, judge)[second.id, SKIP].answer == "Nine to five. [hours]", "from the FAQ that stands in its history"


def test_a_judge_sees_what_a_fetch_finds_also_where_nothing_was_fetched(log: SqlConversationLog) -> None:
    serve(log, ["Where can I park?", "what is love"], [SKIP, SKIP])
    judge = StrictJudge()
    label(log, judge, LabelOptions(both_arms=0.0))
    seen = [(case.query, case.faqs, case.found) for case in judge.cases]
    assert seen == [("Where can I park?", (), (PARKING,)), ("what is love", (), ())]
    assert [one.good for one in stored(log, judge).values()] == [False, True], "not to know is right out of domain alone"


def test_nothing_is_judged_twice_and_a_larger_share_adds_the_other_arms(log: SqlConversationLog) -> None:
    turns, judge = serve(log, ASKED, [FETCH, SKIP, SKIP]), StrictJudge()
    assert label(log, judge, LabelOptions(both_arms=0.0)).turns == 3
    assert len(judge.cases) == 3
    label(log, judge)
    assert len(judge.cases) == 6
    again = label(log, judge)
    assert (again.turns, len(judge.cases)) == (0, 6)
    assert len(stored(log, judge)) == 6
    assert label(log, StrictJudge("strict:2"), LabelOptions(both_arms=0.0)).turns == len(turns), "another judge has said nothing yet"


def test_the_share_of_both_arms_is_by_a_hash_of_the_turn() -> None:
    names = [f"turn-{n}" for n in range(20_000)]
    tenth, half = ({name for name in names if chosen(name, share)} for share in (0.1, 0.5))
    assert len(tenth) == pytest.approx(2000, abs=200)  # the hash is fixed: this can't fail by chance
    assert tenth < half
    assert (any(chosen(name, 0.0) for name in names), all(chosen(name, 1.0) for name in names)) == (False, True)


def test_what_was_not_answered_in_earnest_is_passed_over(log: SqlConversationLog) -> None:
    (turn,) = serve(log, ASKED[:1], [FETCH])
    for name, fields in (("degraded", {"degraded": ("policy_failed",)}), ("background", {"background": True}),
                         ("broken", {"finish_reason": "cancelled"}), ("refused", {"refusal": Refusal("input", "harm", "f1")}),
                         ("gone", {"shown": ("nowhere",), "fetched": ("nowhere",)})):
        log.append(replace(turn, id=name, conversation_id=name, **fields))
    judge = StrictJudge()
    done = label(log, judge)
    assert {turn_id for turn_id, _ in stored(log, judge)} == {turn.id}
    assert done.passed_over == {"degraded": 1, "broken off": 1, "refused by a filter": 1, "an FAQ that it was shown is gone": 1}


def test_a_static_answer_has_no_other_arm(log: SqlConversationLog) -> None:
    (turn,) = serve(log, ["When are you open?"], [FETCH], config=replace(SETTING, static_threshold=0.9))
    judge = StrictJudge()
    assert label(log, judge).one_arm == {}
    assert list(stored(log, judge)) == [(turn.id, Action.STATIC)]


@pytest.mark.parametrize(("parts", "reason"), [
    ({"llm": ReadingLLM("another")}, "another LLM answered it"),
    ({"config": replace(SETTING, prompt=PromptSettings(k=1, history_faqs="none"))}, "its prompt can't be rendered again"),
])
def test_an_arm_that_can_not_be_had_is_left_and_the_one_taken_is_judged(log: SqlConversationLog, parts: Any, reason: str) -> None:
    turns, judge = serve(log, ASKED[:2], [FETCH, SKIP]), StrictJudge()
    done = label(log, judge, **parts)
    assert done.one_arm[reason] >= 1
    assert {(turns[0].id, FETCH), (turns[1].id, SKIP)} <= set(stored(log, judge))
    assert (turns[1].id, FETCH) not in stored(log, judge)


def test_a_conversation_that_began_elsewhere_has_its_taken_arm_judged_alone(log: SqlConversationLog) -> None:
    said = [Message("user", "hello"), Message("assistant", "Hi there.")]
    (turn,) = serve(log, ["Where can I park?"], [FETCH], messages=said)
    judge = StrictJudge()
    assert label(log, judge).one_arm == {"what was said before isn't in the log": 1}
    assert list(stored(log, judge)) == [(turn.id, FETCH)]


def test_an_edited_question_is_not_taken_for_history(log: SqlConversationLog) -> None:
    """The client asks again in other words: the first try stays in the log and out of the later turn's history."""
    serve(log, ["Can I return things?"], [FETCH])
    turns, judge = serve(log, ["Where can I park?", "When are you open?"], [FETCH, FETCH]), StrictJudge()
    label(log, judge)
    last = next(case for case in judge.cases if case.query == "When are you open?")
    assert [past.query for past in last.history] == ["Where can I park?"]
    assert (turns[-1].id, SKIP) in stored(log, judge)


def test_imported_queries_are_played_with_a_fetch_on_every_turn_and_both_arms_are_written(log: SqlConversationLog, tmp_path: Path) -> None:
    imported(log, tmp_path, [("When are you open?", ["hours"], None), ("When are you open now?", ["hours"], None), ("thanks", [], None),
                             ("Where can I park?", ["parking"], None)])
    done = label(log, ReferenceJudge())
    found = stored(log, ReferenceJudge())
    goods = [(found[f"import:s1:{n}", FETCH].good, found[f"import:s1:{n}", SKIP].good) for n in range(4)]
    assert goods == [(True, False), (True, True), (True, True), (True, False)]
    assert found["import:s1:1", SKIP].answer == "Nine to five. [hours]"
    assert (done.turns, done.written) == (4, 8)
    harm = harm_of(log, "reference:any")
    assert (harm.turns, harm.known, harm.harm_if_skipped, harm.skips) == (4, 4, 2, None)


def test_an_imported_answer_is_judged_as_it_is_and_makes_the_transcript(log: SqlConversationLog, tmp_path: Path) -> None:
    imported(log, tmp_path, [("When are you open?", ["hours"], "Nine to five."), ("Where can I park?", None, None)])
    judge, llm = StrictJudge(), ReadingLLM()
    label(log, judge, llm=llm)
    found = stored(log, judge)
    assert set(found) == {("import:s1:0", FETCH), ("import:s1:1", FETCH), ("import:s1:1", SKIP)}, "who wrote the first can't be asked again"
    assert (found["import:s1:0", FETCH].good, found["import:s1:0", FETCH].answer) == (True, None)
    assert judge.cases[-1].history[0].answer == "Nine to five."
    assert llm.asked == 2


def test_a_judge_by_labels_passes_over_what_has_none(log: SqlConversationLog, tmp_path: Path) -> None:
    serve(log, ASKED[:1], [FETCH])
    imported(log, tmp_path, [("When are you open?", None, None), ("Where can I park?", ["parking"], "Behind the house."),
                             ("Where can I park?", ["parking"], "Behind the house [parking].")])
    done = label(log, ReferenceJudge())
    assert done.passed_over == {"no gold label": 2, "its own answer cites no FAQ": 1}
    assert set(stored(log, ReferenceJudge())) == {("import:s1:2", FETCH)}


def test_labels_about_other_faqs_are_an_error_that_says_what_to_give(log: SqlConversationLog, tmp_path: Path) -> None:
    imported(log, tmp_path, [("When are you open?", ["elsewhere"], None)])
    with pytest.raises(EvaluationError, match=r"import:s1:0: gold: .*'elsewhere'.*--faqs or --kb"):
        label(log, ReferenceJudge())


def test_a_missing_verdict_is_stored_with_its_reason_and_is_no_trial_lost(log: SqlConversationLog) -> None:
    (turn,), judge = serve(log, ["When is the riddle open?"], [SKIP]), StrictJudge()
    done = label(log, judge)
    assert done.missing == {"the judge can't tell": 2}
    assert {(one.good, one.reason) for one in stored(log, judge).values()} == {(None, "the judge can't tell")}
    assert label(log, judge).turns == 0, "asked once"
    harm = harm_of(log, judge.version)
    assert harm.skips is not None
    assert (harm.turns, harm.known, harm.skips.skips, harm.skips.missing, harm.skips.upper_conversation) == (1, 0, 1, 1, 1.0)
    assert turn.decision.action is SKIP


def test_harmful_skips_are_counted_among_those_that_were_skipped(log: SqlConversationLog) -> None:
    serve(log, ASKED, [FETCH, SKIP, SKIP])
    judge = StrictJudge()
    label(log, judge)
    harm = harm_of(log, judge.version)
    assert harm.skips is not None
    assert (harm.turns, harm.known, harm.harm_if_skipped, harm.skips.skips, harm.skips.value) == (3, 3, 2, 2, 0.5)
    assert harm.skips.too_small


def test_a_limit_is_in_turns_and_the_rest_comes_next(log: SqlConversationLog, tmp_path: Path) -> None:
    turns = serve(log, ASKED, [FETCH, SKIP, SKIP])
    imported(log, tmp_path, [(query, None, None) for query in ASKED])
    judge, llm = StrictJudge(), ReadingLLM()
    options = LabelOptions(both_arms=1.0, limit=2)
    assert label(log, judge, options, llm=llm).turns == 2
    assert llm.asked <= 4, "what isn't judged isn't written"
    for _ in range(4):
        label(log, judge, options)
    assert len(stored(log, judge)) == 2 * (len(turns) + len(ASKED))


def test_a_budget_that_is_used_up_stops_the_run_and_another_goes_on(log: SqlConversationLog) -> None:
    serve(log, ASKED, [FETCH, SKIP, SKIP])
    poor = PaidJudge(money=2)
    done = label(log, poor)
    assert (done.stopped, done.cost, done.currency, done.failed) == ("the budget is used up", 1.0, "USD", {"no money": 4})
    rich = PaidJudge()
    done = label(log, rich)
    assert (done.stopped, done.cost, len(rich.asked_for)) == (None, 2.0, 4)
    assert len(stored(log, rich)) == 6
    assert stored(log, rich)[log.turns_of("local", "c1")[0].id, FETCH].cost == 0.5


def test_what_a_server_fails_at_is_not_stored_and_a_whole_batch_of_it_is_an_error(log: SqlConversationLog) -> None:
    serve(log, ASKED, [FETCH, SKIP, SKIP])
    done = label(log, PaidJudge(fails=(ASKED[0],)), LabelOptions(both_arms=0.0))
    assert (done.turns, done.failed) == (2, {"the server fails": 1})
    assert len(stored(log, PaidJudge())) == 2
    with pytest.raises(EvaluationError, match="for a whole batch of 1: the server fails"):
        label(log, PaidJudge(fails=(ASKED[0],)), LabelOptions(both_arms=0.0))
    assert label(log, PaidJudge(), LabelOptions(both_arms=0.0)).turns == 1


def test_an_llm_that_fails_ends_the_run_and_what_was_judged_stays(log: SqlConversationLog, tmp_path: Path) -> None:
    for n in range(3):
        imported(log, tmp_path, [(ASKED[0], None, None), (f"{'broken' if n == 0 else 'open'} now", None, None)], f"s{n}")
    judge = StrictJudge()
    options = LabelOptions(both_arms=0.0, concurrency=1)
    with pytest.raises(LLMError, match="the reader is down"):
        label(log, judge, options, llm=ReadingLLM(fails_on="broken"))
    assert {turn_id for turn_id, _ in stored(log, judge)} == {f"import:s{n}:{k}" for n in (1, 2) for k in (0, 1)}
    label(log, judge, options)
    assert len(stored(log, judge)) == 6


def test_progress_tells_turns_and_cost(log: SqlConversationLog, tmp_path: Path) -> None:
    imported(log, tmp_path, [(ASKED[0], None, None)] * 2, "s1")
    imported(log, tmp_path, [(ASKED[1], None, None)], "s2")
    told: list[tuple[int, float | None, str | None]] = []
    label_log(log, PaidJudge(), answering(), LabelOptions(both_arms=0.0, concurrency=1), lambda *what: told.append(what))
    assert told == [(1, 0.5, "USD"), (2, 1.5, "USD")]


def test_a_sample_asks_and_stores_nothing(log: SqlConversationLog) -> None:
    turns = serve(log, ASKED, [FETCH, SKIP, SKIP])
    cases = list(sample(log, answering(), BOTH))
    assert [(one.turn_id, one.arm) for one in cases] == [(turn.id, arm) for turn, arms in zip(
        turns, ((FETCH, SKIP), (SKIP, FETCH), (SKIP, FETCH)), strict=True) for arm in arms]
    assert list(latest_verdicts(log)) == []


@pytest.mark.parametrize("options", [{"both_arms": -0.1}, {"both_arms": 1.1}, {"concurrency": 0}])
def test_options_that_can_not_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        LabelOptions(**options)


WRITER = """
import sys, time
from tests.unit.evaluation.test_labelling import LabelOptions, PaidJudge, SqlConversationLog, answering, label_log

class Slow(PaidJudge):
    async def asked(self, cases):
        time.sleep(0.05)
        return await super().asked(cases)

with SqlConversationLog(sys.argv[1]) as log:
    label_log(log, Slow(), answering(), LabelOptions(both_arms=0.0, concurrency=1), lambda *what: print(what[1], flush=True))
"""


def test_a_kill_loses_at_most_the_batch_in_flight(log: SqlConversationLog, tmp_path: Path) -> None:
    for n in range(40):
        imported(log, tmp_path, [(ASKED[n % 3], None, None)], f"s{n}")
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "log.db")], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    there = len(stored(log, PaidJudge()))
    assert len(told) <= there <= len(told) + 1 < 40
    judge = PaidJudge()
    label(log, judge, LabelOptions(both_arms=0.0))
    assert (len(judge.asked_for), len(stored(log, judge))) == (40 - there, 40)
