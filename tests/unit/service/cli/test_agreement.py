"""`fetchgate reward agreement`: on what ships with no key and no network, on rated answers, and on a log."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chat.log.ratings import Rating, record_ratings
from chat.log.sessions import import_sessions
from chat.log.store import SqlConversationLog
from chat.log.verdicts import LoggedVerdict, record_verdicts
from chat.types import Action
from reward.agreement import accept_recorded, read_agreement
from reward.errors import JudgeRefusedError
from service.cli.main import app

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PROBE_ALONE = ("--judge", "reference", "--conversations", 0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the data folder is


def run(*options: object) -> Result:
    return CliRunner().invoke(app, ["reward", "agreement", *map(str, options)])


def printed(*options: object) -> dict[str, Any]:
    result = run(*options, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def database(tmp_path: Path) -> Path:
    turns = [{"query": f"q{n}", "answer": "a", "gold": [], "kind": "faq"} for n in range(4)]
    (tmp_path / "sessions.jsonl").write_text("".join(json.dumps({"id": f"s{n}", "turns": turns}) + "\n" for n in range(3)))
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        import_sessions(log, [tmp_path / "sessions.jsonl"])
        ids = [row["id"] for row in log.rows()]
        record_verdicts(log, [LoggedVerdict(turn, NOON, Action.FETCH, "local:7", n % 2 == 0, "") for n, turn in enumerate(ids)])
        record_verdicts(log, [LoggedVerdict(turn, NOON, Action.FETCH, "llm:m", n % 2 == 0, "") for n, turn in enumerate(ids[:6])])
        record_ratings(log, [Rating(turn, "import", "ann", "expert", NOON, good=n % 4 == 0) for n, turn in enumerate(ids)])
    return tmp_path / "log.db"


def test_labels_alone_are_no_judge_of_words_and_the_command_shows_it_by_kind() -> None:
    (found,) = printed(*PROBE_ALONE)["sets"]
    assert (found["data"], found["judge"], found["against"], found["cases"]) == ("probe", "reference:any", "people", 70)
    assert (found["may_train"], found["confusion"]["good_bad"]) == (False, 0)
    assert found["kappa"]["low"] < found["kappa"]["value"] < 0.6
    kinds = {one["kind"]: one for one in found["kinds"]}
    assert (kinds["changed_number"]["agreed"], kinds["wrong_refusal"]["agreed"], kinds["right"]["agreed"]) == (0.0, 1.0, 1.0)


def test_the_table_says_what_the_json_says_and_how_to_go_on() -> None:
    result = run(*PROBE_ALONE)
    for part in ("changed_number", "8/8", "kappa 0.27", "may not train a policy", "--force-judge"):
        assert part in result.stdout


def test_a_second_run_says_what_changed_since_the_first() -> None:
    assert printed(*PROBE_ALONE)["sets"][0]["drift"] is None
    drift = printed(*PROBE_ALONE)["sets"][0]["drift"]
    assert (drift["same_judge"], drift["changed"], drift["p_value"]) == (True, [], 1.0)
    assert "0 verdicts turned Good, 0 turned Bad" in run(*PROBE_ALONE).stdout


def test_a_measurement_is_kept_for_trainings_to_check(tmp_path: Path) -> None:
    run(*PROBE_ALONE, "--kept", tmp_path / "kept")
    records = read_agreement(tmp_path / "kept" / "agreement.json")
    assert [(one.judge, one.data, one.cases) for one in records] == [("reference:any", "probe", 70)]
    with pytest.raises(JudgeRefusedError, match="of probe"):
        accept_recorded(records, "reference:any")


def test_strict_ends_with_1_where_the_judge_may_not_train_and_a_lower_minimum_lets_it() -> None:
    refused = run(*PROBE_ALONE, "--strict")
    assert (refused.exit_code, "expected kappa against people of at least 0.60" in refused.stderr) == (1, True)
    assert run(*PROBE_ALONE, "--strict", "--min-kappa", 0.2).exit_code == 0


def test_a_judge_agrees_with_itself() -> None:
    (found,) = printed(*PROBE_ALONE, "--against", "reference")["sets"]
    assert (found["against"], found["agreed"], found["kappa"]["value"]) == ("reference:any", 1.0, 1.0)


def test_a_log_s_verdicts_stand_beside_its_ratings(database: Path) -> None:
    (found,) = printed("--db", database, "--judge", "local")["sets"]
    assert (found["judge"], found["against"], found["cases"], found["conversations"]) == ("local:7", "people", 12, 3)
    assert (found["confusion"]["bad_good"], found["confusion"]["bad_bad"], found["agreed"]) == (3, 6, 0.75)


def test_a_log_s_judges_stand_beside_each_other(database: Path) -> None:
    (found,) = printed("--db", database, "--judge", "local", "--against", "llm")["sets"]
    assert (found["judge"], found["against"], found["cases"], found["agreed"]) == ("local:7", "llm:m", 6, 1.0)


def test_rated_answers_bring_the_raters_own_agreement_along(shared_data: Path) -> None:
    (found,) = printed("--judge", "reference", "--data", shared_data / "mtrag-human" / "judgements.jsonl")["sets"]
    assert (found["cases"], found["missing"], found["kappa"]["value"]) == (371, 371, None), "they have no gold labels"
    assert 0.5 < found["ceiling"]["kappa"]["value"] < 0.6


@pytest.mark.parametrize(("options", "exit_code", "says"), [
    (("--data", "nowhere.jsonl"), 1, "nowhere.jsonl"), (("--db", "a.db", "--data", "b"), 2, "got both"),
    (("--judge", "gpt"), 2, "gpt"), (("--db", "nowhere.db"), 1, "nowhere.db"),
])
def test_what_can_t_be_measured_says_so_on_one_line(options: tuple[str, ...], exit_code: int, says: str) -> None:
    result = run(*options)
    assert (result.exit_code, says in result.stderr) == (exit_code, True)
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_the_answerer_s_turns_over_a_shipped_session_are_judged_with_no_key_and_no_network() -> None:
    """Loads the help desk and its encoder, and answers one conversation both ways."""
    probe, played = printed("--judge", "reference", "--conversations", 1)["sets"]
    assert (probe["data"], played["data"], played["against"]) == ("probe", "helpdesk dev, extractive", "gold:reference:any")
    assert (played["conversations"], played["agreed"]) == (1, 1.0)
