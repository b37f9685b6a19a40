"""The log that ships is what the pipeline makes of the test sessions today, and every count in it comes out again."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import JSON

from chat.log.records import Row, turn_of
from chat.log.schema import turns
from chat.log.store import SqlConversationLog
from chat.log.verdicts import latest_verdicts
from chat.tokens import TiktokenCounter
from chat.types import Action, Turn
from evaluation.datasets import read_helpdesk
from evaluation.world import load_knowledge
from policy.checkpoint import load_policy
from policy.decide import Exploration
from policy.shipped import policy_folder
from report.example import EXAMPLE, HELD_BACK, TURNS, VERDICTS, example_config, gold_of, serve_example
from report.recount import Recounter

STALE = "make it anew: `python -m report.example`"
NESTED = [column.name for column in turns.columns if isinstance(column.type, JSON)]


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Turn]]:
    """Turns by conversation."""
    found: dict[str, list[Turn]] = {}
    for row in pyarrow.parquet.read_table(EXAMPLE / TURNS).to_pylist():
        turn = turn_of(_row(row))
        assert isinstance(turn, Turn)
        found.setdefault(turn.conversation_id, []).append(turn)
    return found


def _row(row: Mapping[str, Any]) -> Row:
    return {name: json.loads(value) if name in NESTED and value is not None else value for name, value in row.items()}


def told(turn: Turn) -> tuple[object, ...]:
    """What a report reads of a turn, and does not differ from run to run."""
    return (turn.query, turn.answer, turn.decision.action, turn.decision.policy_version, turn.usage, turn.counterfactuals, turn.hits,
            turn.price, turn.kb_version)


def test_each_test_session_is_there_twice(shipped: dict[str, list[Turn]]) -> None:
    sessions = read_helpdesk("test")
    assert set(shipped) == {session.id + ending for session in sessions for ending in ("", HELD_BACK)}
    for session in sessions:
        for ending in ("", HELD_BACK):
            assert [turn.query for turn in shipped[session.id + ending]] == [turn.query.strip() for turn in session.turns]


def test_a_session_served_today_comes_out_as_it_ships(shipped: dict[str, list[Turn]], tmp_path: Path) -> None:
    begun = 4
    session = next(one for one in read_helpdesk("test") if Action.NO_FETCH in {turn.decision.action for turn in shipped[one.id][:begun]})
    session = replace(session, turns=session.turns[:begun])  # what comes later changes nothing of these
    serve_example(tmp_path / "log.db", [session])
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        served = {conversation: log.turns_of("local", conversation) for conversation in (session.id, session.id + HELD_BACK)}
        verdicts = [(one.turn_id, one.arm, one.good) for one in latest_verdicts(log)]
    for conversation, now in served.items():
        assert [told(turn) for turn in now if isinstance(turn, Turn)] == [told(turn) for turn in shipped[conversation][:begun]], STALE
    assert len(verdicts) == 4 * len(session.turns), "both arms of every turn, in both plays"
    places = {turn.id: (conversation, n) for conversation, now in served.items() for n, turn in enumerate(now)}
    ids = {turn.id: (conversation, n) for conversation, then in shipped.items() for n, turn in enumerate(then)}
    before = {(*ids[row["turn_id"]], row["arm"]): row["good"] for row in pyarrow.parquet.read_table(EXAMPLE / VERDICTS).to_pylist()}
    assert {(*places[turn], arm): good for turn, arm, good in verdicts}.items() <= before.items(), STALE


def test_every_prompt_of_the_log_that_ships_counts_as_it_was_logged(shipped: dict[str, list[Turn]]) -> None:
    _, retriever = load_knowledge(None)
    config = example_config(load_policy(policy_folder("demo"), Exploration())[1])
    recounter = Recounter(TiktokenCounter(remembered=1 << 16), retriever.get, retriever.version, config.prompt, config.baselines)
    done = recounter.recount(turn for conversation in shipped.values() for turn in conversation)
    total = sum(map(len, shipped.values()))
    assert (done.agreed, done.turns_differing, done.passed_over) == (total, 0, {}), STALE
    assert total > 1000


def test_labels_that_two_sessions_disagree_on_are_nobodys() -> None:
    first, second = read_helpdesk("test")[:2]
    assert gold_of([first])["", first.turns[0].query.strip()] == first.turns[0].gold
    assert set(gold_of([first, second])) == set(gold_of([first])) | set(gold_of([second]))
