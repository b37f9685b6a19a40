"""`fetchgate serve --policy FOLDER`: a learned gate decides over HTTP, its figures are logged, and a damaged one is no start."""

import json
import os
import subprocess
from pathlib import Path

import httpx2 as httpx
import pytest

from chat.log.store import SqlConversationLog
from chat.prompt import PromptSettings
from chat.types import Action
from kb.folder import read_manifest
from policy.checkpoint import WEIGHTS, PolicyRecord, save_policy
from policy.decide import DecisionConfig
from tests.real_service import FETCHGATE, real_service
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_gate import tiny_gate

PROMPT = PromptSettings(k=2, history_faqs="cited", repeats=False)


@pytest.fixture
def gate(tmp_path: Path, helpdesk_index: Path) -> tuple[Path, PolicyRecord]:
    """A policy folder whose network skips everywhere, and its record."""
    network, _, tokenizer = tiny_gate(make_tiny_encoder(tmp_path / "encoder"))
    record = PolicyRecord(network.config, DecisionConfig(skip_threshold=0.0, uncertainty_penalty=0.0), PROMPT, PromptSettings(k=1), seed=0,
                          preset="budget", data={"knowledge_base": read_manifest(helpdesk_index).content_hash})
    return tmp_path / "gate", save_policy(tmp_path / "gate", network, tokenizer, record, "# A card\n")


def test_a_learned_gate_decides_over_http_and_its_figures_are_logged(
    tmp_path: Path, helpdesk_index: Path, gate: tuple[Path, PolicyRecord]
) -> None:
    """12 turns at a rate of 0.5: all alike with a chance of 1 in 2,000, and nothing here fails for it."""
    folder, record = gate
    with real_service(tmp_path, "--kb", str(helpdesk_index), "--policy", str(folder), env={"FETCHGATE_EXPLORE_TO_FETCH": "0.5"}) as url:
        answers = [httpx.post(f"{url}/v1/chat/completions", timeout=60, json={
            "model": "fetchgate", "messages": [{"role": "user", "content": f"How much is the late payment fee? {n}"}]}) for n in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-fetchgate-policy-version"] for answer in answers} == {record.version}
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        turns = [turn for answer in answers if (turn := log.turn("local", answer.json()["id"])) is not None]
    assert len(turns) == len(answers)
    for turn in turns:
        assert turn.degraded == ()
        assert turn.decision.policy_version == record.version
        assert turn.decision.behavior_prob == 0.5
        assert turn.decision.uncertainty > 0.0
        assert 0.0 < turn.decision.fetch_probability < 1.0
        assert turn.decision.action in (Action.FETCH, Action.NO_FETCH)
        assert len(turn.fetched) == (PROMPT.k if turn.decision.action is Action.FETCH else 0), "the gate's own prompt setting is served"
        assert turn.state.evidence is not None
        assert turn.state.evidence.fetch_characters > 0


def test_the_terminal_chat_takes_a_learned_gate(tmp_path: Path, helpdesk_index: Path, gate: tuple[Path, PolicyRecord]) -> None:
    done = fetchgate(tmp_path, "chat", "--json", "--kb", str(helpdesk_index), "--policy", str(gate[0]), stdin="late fee?\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["action"] == "NO_FETCH"


@pytest.mark.parametrize(("damage", "says"), [
    (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]), "the file is truncated or of another policy"),
    (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json: expected JSON"),
    (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "is it another model's config.json?"),
    (lambda folder: (folder / "config.json").unlink(), "train one with `fetchgate policy train`"),
], ids=["truncated", "no weights", "no json", "another model's", "no record"])
def test_a_damaged_policy_folder_is_one_line_and_exit_code_1(
    tmp_path: Path, helpdesk_index: Path, gate: tuple[Path, PolicyRecord], damage: object, says: str
) -> None:
    damage(gate[0])  # type: ignore[operator]
    done = fetchgate(tmp_path, "serve", "--port", "0", "--kb", str(helpdesk_index), "--policy", str(gate[0]))
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def fetchgate(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FETCHGATE_")}
    return subprocess.run([*FETCHGATE, *arguments], cwd=folder, input=stdin, capture_output=True, text=True, timeout=120, check=False,
                          env={**inherited, "COLUMNS": "300", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "FETCHGATE_HOLDBACK": "0",
                               "FETCHGATE_DATA_DIR": str(folder)})
