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
from evaluation.agreement_run import check_kept
from reward.agreement import AgreementRecord, read_agreement, write_agreement
from reward.errors import JudgeRefusedError
from reward.rubric import RUBRIC_VERSION
from service.cli.main import app
from tests.unit.service.cli.test_log_label import judging

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
    for part in ("changed_number", "8/8", "kappa 0.27", "not good enough to train a policy", "--force-judge"):
        assert part in result.stdout


def test_a_second_run_says_what_changed_since_the_first() -> None:
    assert printed(*PROBE_ALONE)["sets"][0]["drift"] is None
    drift = printed(*PROBE_ALONE)["sets"][0]["drift"]
    assert (drift["same_judge"], drift["changed"], drift["p_value"]) == (True, [], 1.0)
    assert "0 verdicts turned Good, 0 turned Bad" in run(*PROBE_ALONE).stdout


def test_a_measurement_is_kept_and_what_a_log_s_raters_said_is_checked_by_trainings(tmp_path: Path, database: Path) -> None:
    run(*PROBE_ALONE, "--kept", tmp_path / "kept")
    run("--db", database, "--kept", tmp_path / "kept")
    records = read_agreement(tmp_path / "kept" / "agreement.json")
    assert [(one.judge, one.data, one.cases) for one in records] == [("reference:any", "probe", 70), ("local:7", "log", 12)]
    check_kept(tmp_path / "kept", "reference:any", 0.6)
    with pytest.raises(JudgeRefusedError, match=r"local:7: expected kappa against people of at least 0\.60, got 0\.50 .*--force"):
        check_kept(tmp_path / "kept", "local:7", 0.6)


def test_a_training_refuses_a_judge_that_a_log_s_raters_disagree_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked: the server isn't there."""
    monkeypatch.setenv("FETCHGATE_JUDGE_MODEL", "m")
    monkeypatch.setenv("FETCHGATE_JUDGE_BASE_URL", "http://127.0.0.1:9/v1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "faqs.jsonl").write_text('{"id": "pay", "question": "How do I pay?", "answer": "By card."}\n')
    (tmp_path / "data" / "sessions.jsonl").write_text("".join(
        json.dumps({"id": f"s{n}", "turns": [{"query": f"How do I pay {n}?", "gold": ["pay"], "kind": "faq"}]}) + "\n" for n in range(20)))
    judge = f"llm:m:rubric-{RUBRIC_VERSION}:votes-1"
    write_agreement(tmp_path / "var" / "agreement.json",
                    AgreementRecord(judge, "people", "log", "", NOON.isoformat(), 90, 90, 40, 0.41, 0.2, 0.6, 0.3, 0.3))
    train = ("policy", "train", "--data", tmp_path / "data", "--out", tmp_path / "out", "--reward", "llm")
    refused = CliRunner().invoke(app, [str(one) for one in train])
    assert refused.exit_code == 1
    assert "against people of at least 0.60, got 0.41 (95 % interval 0.20 to 0.60) on 90 of 90 cases of log" in refused.stderr


def test_an_llm_judge_is_measured_on_the_probe_set_over_http_and_pays_once() -> None:
    """A server that calls everything Bad: kappa can't be told from chance, and a second run finds all verdicts in the cache."""
    options = ("--judge", "llm", "--judge-model", "m", "--conversations", 0)
    with judging({"quotes": [], "reason": "So it is.", "hedged": False, "safe": True, "verdict": "bad"}) as (url, requests):
        (found,) = printed(*options, "--judge-base-url", url)["sets"]
        asked = len(requests)
        (again,) = printed(*options, "--judge-base-url", url)["sets"]
    assert found["judge"].startswith("llm:m:rubric-")
    assert (found["cases"], found["missing"], asked, len(requests)) == (70, 0, 70, 70)
    assert (found["confusion"]["good_good"], found["confusion"]["bad_good"], found["kappa"]["value"]) == (0, 0, 0.0)
    assert (found["false_bad"]["value"], found["may_train"]) == (1.0, False)
    assert again["confusion"] == found["confusion"]
    assert again["drift"]["changed"] == []


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
