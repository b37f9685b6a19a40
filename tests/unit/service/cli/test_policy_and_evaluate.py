"""`fetchgate policy` and `fetchgate evaluate gate` on folders small enough to write by hand: what they print, and what they refuse."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chat.prompt import PAPER, PromptSettings
from policy.checkpoint import RECORD, WEIGHTS, PolicyRecord, SkipCertificate, save_policy
from policy.decide import DecisionConfig
from service.cli.main import app
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_gate import tiny_gate

FAQS = [
    {"id": "pay", "question": "How do I pay my bill?", "answer": "By card or bank transfer."},
    {"id": "refund", "question": "How do I get a refund?", "answer": "Ask within 30 days."},
    {"id": "hours", "question": "When are you open?", "answer": "Nine to five on weekdays."},
]
SESSIONS = [
    {"id": "one", "turns": [{"query": "How do I pay my bill?", "gold": ["pay"], "kind": "faq"},
                            {"query": "thanks", "gold": [], "kind": "smalltalk"},
                            {"query": "pay by card?", "gold": ["pay"], "kind": "return"}]},
    {"id": "two", "turns": [{"query": "when do you open", "gold": ["hours"], "kind": "faq"},
                            {"query": "and then", "gold": None, "kind": "chat"}]},
]
ASKED_FOR = {
    "dataset", "policy", "reader", "conversations", "turns", "scored_turns", "saving_vs_frugal", "saving_vs_paper", "accuracy",
    "accuracy_frugal", "accuracy_difference", "skip_rate", "static_rate", "bad_skip", "harmful_skip", "useless_fetch", "oracle_needed",
    "oracle_useful", "slices",
}
EXTRA = {"gold", "seeds", "policy_versions", "setting", "frugal", "frugal_chosen_on", "static"}
LISTED = {"folder", "version", "preset", "seed", "skip_threshold", "budget", "certified", "upper_harm", "dev_saving_vs_frugal",
          "dev_accuracy"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_data(folder: Path, sessions: list[dict[str, object]] = SESSIONS) -> Path:  # type: ignore[assignment]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("faqs.jsonl", FAQS), ("sessions.jsonl", sessions)):
        (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "shop")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("models") / "tiny", longest=128)


@pytest.fixture
def gate(encoder: Path, tmp_path: Path) -> Path:
    """A policy folder whose network skips everywhere."""
    network, _, tokenizer = tiny_gate(encoder)
    record = PolicyRecord(network.config, DecisionConfig(skip_threshold=0.0, uncertainty_penalty=0.0), PAPER, PromptSettings(k=1), seed=4,
                          preset="budget", certificate=SkipCertificate(0.1, True, 0.09, 0.08, 60, 40, 0))
    save_policy(tmp_path / "policies" / "gate", network, tokenizer, record, "# A card\n\nof \x1b[31mours\n")
    return tmp_path / "policies" / "gate"


def refused(result: Result, *says: str) -> None:
    """Exit code 1, nothing on standard output, and what is wrong in the first line on standard error."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    line = result.stderr.splitlines()[0]
    assert line.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert [said for said in says if said not in line] == [], line


# policy list, policy info


def test_a_list_has_each_policy_of_a_folder_once(gate: Path) -> None:
    found = [one for one in json.loads(run("policy", "list", gate.parent, "--json").stdout) if one["folder"] == str(gate)]
    assert [set(one) for one in found] == [LISTED]
    assert (found[0]["seed"], found[0]["skip_threshold"], found[0]["budget"], found[0]["certified"]) == (4, 0.0, 0.1, True)
    assert found[0]["version"].startswith("gate:")
    plain = run("policy", "list", gate.parent)
    assert (plain.exit_code, plain.stderr) == (0, "")
    assert str(gate) in plain.stdout


def test_info_prints_the_card_or_the_record_of_a_policy_that_loads(gate: Path) -> None:
    plain, with_json = run("policy", "info", gate), run("policy", "info", gate, "--json")
    assert (plain.exit_code, plain.stdout) == (0, "# A card\n\nof  [31mours\n\n")
    record = json.loads(with_json.stdout)
    assert (record["seed"], record["prompt"]["k"], record["certificate"]["skips"], record["format"]) == (4, 3, 60, 1)


@pytest.mark.parametrize("command", ["list", "info"])
def test_a_damaged_record_is_refused_by_its_file(command: str, gate: Path) -> None:
    (gate / RECORD).write_text("{")
    refused(run("policy", command, gate if command == "info" else gate.parent), f"{gate / RECORD}: expected JSON")


def test_a_policy_that_is_not_there_or_truncated_is_refused(gate: Path, tmp_path: Path) -> None:
    refused(run("policy", "info", tmp_path / "none"), "demo or a policy folder", "fetchgate policy train")
    (gate / WEIGHTS).write_bytes((gate / WEIGHTS).read_bytes()[:-50])
    refused(run("policy", "info", gate), str(gate / WEIGHTS), "truncated")


# evaluate gate


@pytest.mark.parametrize("policy", ["evidence", "gate"])
def test_an_evaluation_prints_one_object_with_every_figure(policy: str, data: Path, gate: Path) -> None:
    named = str(gate) if policy == "gate" else policy
    result = run("evaluate", "gate", "--data", data, "--policy", named, "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    [line] = result.stdout.splitlines()
    found = json.loads(line)
    assert set(found) == ASKED_FOR | EXTRA
    for name in ("saving_vs_frugal", "saving_vs_paper", "accuracy_difference"):
        assert {"value", "low", "high"} <= set(found[name])
    assert set(found["harmful_skip"]) == {"value", "upper_conversation", "upper_turn"}
    assert set(found["oracle_needed"]) == set(found["oracle_useful"]) == {"saving", "accuracy"}
    assert (found["dataset"], found["policy"], found["reader"]) == ("shop", named, "ideal")
    assert (found["conversations"], found["turns"], found["scored_turns"]) == (2, 5, 4)
    assert {"faq", "smalltalk", "return", "chat"} <= set(found["slices"])
    if policy == "gate":
        assert (found["skip_rate"], found["static_rate"]) == (1.0, 0.0)
        assert found["harmful_skip"]["value"] == 0.75, "three of the four labelled turns need an FAQ"


def test_an_evaluation_is_a_table_too_and_says_what_its_figures_are(data: Path) -> None:
    result = run("evaluate", "gate", "--data", data, "--policy", "never")
    assert result.exit_code == 0, result.output
    assert "harmful_skip.value" in result.stdout
    assert "shares from 0 to 1" in result.stderr


def test_a_broken_line_of_the_sessions_is_refused_by_file_and_line(data: Path) -> None:
    with (data / "sessions.jsonl").open("a") as file:
        file.write('{"id": "three", "turns": [{"query": \n')
    refused(run("evaluate", "gate", "--data", data, "--policy", "evidence"), f"{data / 'sessions.jsonl'}:3")


def test_a_knowledge_base_that_lacks_a_gold_id_is_refused_by_session_and_id(data: Path) -> None:
    (data / "faqs.jsonl").write_text("".join(f"{json.dumps(faq)}\n" for faq in FAQS if faq["id"] != "hours"), encoding="utf-8")
    refused(run("evaluate", "gate", "--data", data, "--policy", "evidence"), "session two: turns[0].gold", "'hours'")


def test_without_a_knowledge_base_one_is_asked_for(data: Path) -> None:
    (data / "faqs.jsonl").unlink()
    refused(run("evaluate", "gate", "--data", data, "--policy", "evidence"), "expected faqs.jsonl", "--kb")


def test_a_checkpoint_of_another_architecture_is_refused(data: Path, gate: Path) -> None:
    record = json.loads((gate / RECORD).read_text())
    record["network"]["hidden"] = 9
    (gate / RECORD).write_text(json.dumps(record))
    refused(run("evaluate", "gate", "--data", data, "--policy", gate), str(gate / WEIGHTS), "do the two files belong together?")
    (gate / RECORD).write_text(json.dumps({"model_type": "bert", "hidden_size": 384}))
    refused(run("evaluate", "gate", "--data", data, "--policy", gate), str(gate / RECORD), "is it another model's config.json?")


def test_more_seeds_than_were_trained_and_a_name_that_is_no_policy_are_refused(data: Path, gate: Path) -> None:
    refused(run("evaluate", "gate", "--data", data, "--policy", gate, "--seeds", 2), "expected 2 trained seeds", "got 1")
    refused(run("evaluate", "gate", "--data", data, "--policy", "psychic"), "expected always, never, evidence, demo or a policy folder")


# policy train


def many(rewards: bool = False) -> list[dict[str, object]]:
    """Sessions enough for every split; half of the turns need an FAQ."""
    column = {"rewards": {"FETCH": 0.2, "NO_FETCH": -0.1}} if rewards else {}
    asked = [("How do I pay my bill?", ["pay"], "faq"), ("thanks", [], "smalltalk"), ("a refund please", ["refund"], "faq"),
             ("bye", [], "smalltalk")]
    return [{"id": f"s{n}", "turns": [{"query": f"{query} {n}", "gold": gold, "kind": kind, **column} for query, gold, kind in asked]}
            for n in range(24)]


def test_a_training_writes_a_policy_that_can_be_evaluated(encoder: Path, tmp_path: Path) -> None:
    data, out = write_data(tmp_path / "data", many()), tmp_path / "trained"
    done = run("policy", "train", "--data", data, "--out", out, "--encoder", encoder, "--epochs", 2, "--json")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    [made] = json.loads(done.stdout)
    assert (set(made), made["folder"], made["preset"]) == (LISTED, str(out), "budget")
    assert not list(tmp_path.glob(".trained*")), "nothing is left of the training's own files"
    assert json.loads(run("policy", "info", out, "--json").stdout)["metrics"]["dev"]["turns"] > 0
    evaluated = json.loads(run("evaluate", "gate", "--data", data, "--policy", out, "--json").stdout)
    assert evaluated["policy_versions"] == [made["version"]]
    assert evaluated["frugal_chosen_on"] == "dev"


def test_a_reward_column_with_a_gap_is_refused_by_file_and_line(encoder: Path, tmp_path: Path) -> None:
    sessions = many(rewards=True)
    del sessions[6]["turns"][2]["rewards"]  # type: ignore[index]
    data = write_data(tmp_path / "data", sessions)
    done = run("policy", "train", "--data", data, "--out", tmp_path / "out", "--encoder", encoder, "--preset", "column")
    refused(done, f"{data / 'sessions.jsonl'}:7: turns[2].rewards: expected rewards", "fill the gap")
    assert not (tmp_path / "out").exists()
