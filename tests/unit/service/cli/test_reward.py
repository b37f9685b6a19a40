"""`fetchgate reward train`: on files of pairs and of judged answers, on a log, and on what ships."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chat.log.ratings import Rating, record_ratings
from chat.log.sessions import import_sessions
from chat.log.store import SqlConversationLog
from kb.embedder import EmbedderConfig, load_embedder
from reward.preferences import Preference, write_preferences
from reward.saved import load_reward
from service.cli.main import app

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PAIRS = tuple(Preference(f"q{n}", f"What does lamp {n} cost?", (f"Lamp {n} costs {n + 20} rupees.",), f"Lamp {n} costs {n + 20} rupees.",
                         "Nobody can say. Ask again some other day.", margin=1.0) for n in range(24))


def run(out: Path, *options: object) -> Result:
    return CliRunner().invoke(app, ["reward", "train", "--out", str(out), *map(str, options)])


def printed(out: Path, *options: object) -> dict[str, Any]:
    result = run(out, *options, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    write_preferences(tmp_path / "preferences.jsonl", PAIRS)
    return tmp_path / "preferences.jsonl"


def test_a_model_of_plain_pairs_prefers_held_out_pairs_as_people_did_and_can_be_loaded(pairs: Path, tmp_path: Path) -> None:
    found = printed(tmp_path / "model", "--data", pairs.parent, "--margin")
    assert found["held_out_pairs"] + found["trained_on"] == len(PAIRS)
    assert found["accuracy"]["value"] == 1.0
    assert found["accuracy"]["too_small"]
    assert found["ece"] < 0.5
    assert found["longer_preferred_by_people"] == 0.0
    model, record = load_reward(tmp_path / "model", load_embedder(EmbedderConfig()))
    assert record.version == found["version"]
    assert (model.logits(PAIRS[:3]) > 0).all()


@pytest.mark.parametrize("objective", ["logistic", "kto"])
def test_answers_called_good_or_bad_train_the_other_objectives(objective: str, tmp_path: Path) -> None:
    lines = [{"group": pair.group, "prompt": pair.prompt, "context": list(pair.context), "answer": answer, "good": good}
             for pair in PAIRS for answer, good in ((pair.chosen, True), (pair.rejected, False))]
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = printed(tmp_path / "model", "--data", tmp_path / "judged.jsonl", "--objective", objective)
    assert found["judged_accuracy"]["value"] == 1.0


def test_the_same_seed_gives_the_same_model(pairs: Path, tmp_path: Path) -> None:
    versions = [printed(tmp_path / name, "--data", pairs, "--seed", seed)["version"] for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert versions[0] == versions[1] != versions[2]


def test_without_data_pairs_are_made_of_the_help_desk_and_figures_are_printed(tmp_path: Path) -> None:
    result = run(tmp_path / "model", "--conversations", 1)
    assert result.exit_code == 0, result.output
    assert "help desk" in result.stdout
    assert "accuracy_longer" in result.stdout
    assert "too small to trust" in result.stdout


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A log with the pairs' answers, one after the other."""
    turns = [{"query": pair.prompt, "answer": answer, "gold": [], "kind": "faq"} for pair in PAIRS for answer in pair_answers(pair)]
    (tmp_path / "sessions.jsonl").write_text(json.dumps({"id": "s", "turns": turns}) + "\n")
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        import_sessions(log, [tmp_path / "sessions.jsonl"])
    return tmp_path / "log.db"


def test_a_log_trains_on_the_ratings_that_count(database: Path, tmp_path: Path) -> None:
    with SqlConversationLog(str(database)) as log:
        ids = [row["id"] for row in log.rows()]
        record_ratings(log, [Rating(turn, "import", "ann", "expert", NOON, good=n % 2 == 0) for n, turn in enumerate(ids)])
    found = printed(tmp_path / "model", "--db", database, "--objective", "logistic")
    assert found["source"] == "log"
    assert found["held_out_judged"] > 0
    refused = run(tmp_path / "model", "--db", database)
    assert refused.exit_code == 1
    assert "expected rankings that count, got none" in refused.stderr


def test_a_log_s_rankings_train_on_pairs_and_their_margins(database: Path, tmp_path: Path) -> None:
    with SqlConversationLog(str(database)) as log:
        ids = [row["id"] for row in log.rows()]
        record_ratings(log, [Rating(better, "import", "ann", "expert", NOON, ranking=(better, worse), strength="significantly")
                             for better, worse in zip(ids[::2], ids[1::2], strict=True)])
    found = printed(tmp_path / "model", "--db", database, "--margin")
    assert found["held_out_pairs"] + found["trained_on"] == len(PAIRS)
    assert found["accuracy"]["value"] == 1.0


def pair_answers(pair: Preference) -> tuple[str, str]:
    return pair.chosen, pair.rejected


def test_bad_data_ends_in_one_line_that_names_file_line_and_field(pairs: Path, tmp_path: Path) -> None:
    pairs.write_text('{"group": "a", "prompt": 3}\n')
    bad = run(tmp_path / "model", "--data", pairs)
    assert bad.exit_code == 1
    assert f"{pairs}:1: prompt: expected text, got 3" in bad.stderr
    assert "Traceback" not in bad.output
    nothing = run(tmp_path / "model", "--data", tmp_path / "nowhere.jsonl")
    assert nothing.exit_code == 1
    assert "nowhere.jsonl: can't be read" in nothing.stderr
    (tmp_path / "empty").mkdir()
    assert "expected preferences.jsonl or judged.jsonl" in run(tmp_path / "model", "--data", tmp_path / "empty").stderr
    assert not (tmp_path / "model").exists()


def test_a_folder_of_something_else_is_left_alone_and_options_that_contradict_are_refused(pairs: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--data", pairs).exit_code == 1
    assert pairs.exists()
    assert run(tmp_path / "model", "--data", pairs, "--db", "x").exit_code == 2
    assert run(tmp_path / "model", "--data", pairs, "--objective", "kto", "--margin").exit_code == 2
