"""`fetchgate evaluate retrieval` on folders small enough to write by hand: what it prints, and what it refuses."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from evaluation.retrieval_run import RetrievalRun, Static, answered, calibrated_half, domain_scores, faq_file, static_rows
from kb.bounds import clopper_pearson_upper
from kb.calibrate import FEATURES, Searched, calibrate, searched
from kb.queries import LabelledQuery
from kb.types import Faq, Hit
from service.cli.main import app
from tests.docs.test_metrics_page import METRICS, keys, section, undefined
from tests.tiny_encoder import make_tiny_encoder

FAQS = [
    {"id": "pay", "question": "How do I pay my bill?", "answer": "By card or bank transfer."},
    {"id": "refund", "question": "How do I get a refund?", "answer": ""},
    {"id": "hours", "question": "When are you open?", "answer": "Nine to five on weekdays."},
]
QUERIES: list[dict[str, object]] = [
    {"query": "How do I pay my bill?", "gold": ["pay"]},
    {"query": "How do I pay my bill?", "gold": ["pay"]},
    {"query": "how do i get a refund", "gold": ["refund", "pay"]},
    {"query": "When are you open?", "gold": ["hours"]},
    {"query": "bill ka paisa kaise dena hai", "gold": ["pay"], "language": "hinglish"},
    {"query": "what is the weather on mars", "gold": []},
    {"query": "only what is wrong is known", "gold": None, "wrong": ["pay"]},
]
ASKED_FOR = {"dataset", "embedder", "queries", "recall_at_1", "recall_at_3", "mrr", "ood_auroc", "ood_fpr95", "static"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(folder: Path, queries: Sequence[dict[str, object]] = QUERIES, faqs: Sequence[dict[str, object]] | None = FAQS) -> Path:  # type: ignore[assignment]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("faqs.jsonl", faqs), ("queries.jsonl", queries)):
        if lines is not None:
            (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("models") / "tiny")


def evaluated(*arguments: object) -> dict[str, Any]:
    result = run("evaluate", "retrieval", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_one_object_holds_every_figure(tmp_path: Path, encoder: Path) -> None:
    found = evaluated("--data", write(tmp_path / "shop"), "--embedder", encoder)
    assert set(found) >= ASKED_FOR
    assert (found["dataset"], found["embedder"], found["queries"], found["ood_queries"]) == ("shop", str(encoder), 6, 1)
    assert set(found["recall_at_1"]) == {"value", "low", "high", "too_small"}
    assert found["recall_at_3"]["value"] == 1  # of three FAQs, one is among the first three
    assert found["ood_score"] == "similarity"
    assert set(found["static"]) == {"threshold", "precision", "precision_lower", "coverage"}
    assert set(found["by_language"]) == {"main", "hinglish"}
    assert found["by_language"]["hinglish"]["queries"] == 1
    assert found["by_language"]["hinglish"]["ood_auroc"] is None


def test_every_figure_is_defined_on_the_metrics_page(tmp_path: Path, encoder: Path) -> None:
    found = evaluated("--data", write(tmp_path / "shop"), "--embedder", encoder)
    printed = keys({**found, "by_language": None}) | keys(found["by_language"]["main"])
    assert {"ood_fpr95", "precision_lower", "ood_queries", "too_small"} <= printed
    assert undefined(printed - {"value", "low", "high", "too_small"}, section("`evaluate retrieval`")) == set()
    assert undefined(printed, METRICS) == set()


def test_a_table_is_printed_without_json(tmp_path: Path, encoder: Path) -> None:
    result = run("evaluate", "retrieval", "--data", write(tmp_path / "shop"), "--embedder", encoder)
    assert result.exit_code == 0
    assert "recall_at_1.value" in result.stdout


def test_an_index_is_evaluated_with_its_own_encoder_and_gives_the_same(tmp_path: Path, encoder: Path) -> None:
    data = write(tmp_path / "shop")
    built = run("kb", "build", "--faqs", data / "faqs.jsonl", "--out", tmp_path / "kb", "--embedder", encoder)
    assert built.exit_code == 0, built.output
    of_index, fresh = evaluated("--data", data, "--kb", tmp_path / "kb"), evaluated("--data", data, "--embedder", encoder)
    assert {**of_index, "embedder": None, "embedder_version": None} == {**fresh, "embedder": None, "embedder_version": None}


def test_a_calibrated_index_is_taken_with_its_calibration(tmp_path: Path, encoder: Path) -> None:
    """Forty queries of each FAQ hold its words, which tells them from the strangers and the right FAQ from the others."""
    sure: list[dict[str, object]] = [{"query": f"{faq['question']} {n}", "gold": [faq["id"]]} for faq in FAQS for n in range(40)]
    strange: list[dict[str, object]] = [{"query": f"zork plugh xyzzy {n}", "gold": []} for n in range(40)]
    data = write(tmp_path / "shop", [*sure, *strange])
    assert run("kb", "build", "--faqs", data / "faqs.jsonl", "--out", tmp_path / "kb", "--embedder", encoder).exit_code == 0
    calibrated = run("kb", "calibrate", "--kb", tmp_path / "kb", "--queries", data / "queries.jsonl", "--budget", "0.2")
    assert calibrated.exit_code == 0, calibrated.output
    found = evaluated("--data", data, "--kb", tmp_path / "kb")
    assert (found["ood_score"], found["budget"]) == ("known_probability", 0.2)
    assert found["ood_auroc"]["value"] > 0.99
    assert found["static"]["threshold"] is not None
    assert found["static"]["precision"] > 0.8
    assert found["static"]["coverage"] > 0.5


def test_faqs_and_the_weight_of_words_may_be_given(tmp_path: Path, encoder: Path) -> None:
    data, faqs = write(tmp_path / "shop", faqs=None), write(tmp_path / "faqs")
    found = evaluated("--data", data, "--faqs", faqs / "faqs.jsonl", "--embedder", encoder, "--lexical-weight", 0)
    assert found["lexical_weight"] == 0
    assert evaluated("--data", faqs, "--embedder", encoder)["knowledge_base"] != found["knowledge_base"]


def test_labels_of_one_kind_leave_null_what_they_cannot_tell(tmp_path: Path, encoder: Path) -> None:
    inside = evaluated("--data", write(tmp_path / "in", QUERIES[:5]), "--embedder", encoder)
    assert inside["ood_auroc"] is inside["ood_fpr95"] is None
    assert inside["mrr"] is not None
    outside = evaluated("--data", write(tmp_path / "out", QUERIES[5:6]), "--embedder", encoder)
    assert outside["recall_at_1"] is outside["mrr"] is outside["ood_auroc"] is None
    assert outside["static"] == {"threshold": None, "precision": None, "precision_lower": None, "coverage": None}


@pytest.mark.parametrize(("queries", "message"), [
    ([{"query": "pay", "gold": ["gone"]}], "queries.jsonl:1: gold: .*'gone'.*lacks"),
    ([{"query": "pay", "gold": "pay"}], "queries.jsonl:1: gold: expected a list"),
    ([{"query": " ", "gold": []}], "queries.jsonl:1: query: expected a text"),
    ([{"query": "pay", "gold": None, "wrong": ["pay"]}], "expected queries with `gold`.*label some"),
    ([], "expected at least one labelled query"),
    (None, "queries.jsonl: can't be read"),
])
def test_unusable_queries_are_refused_with_file_line_and_mend(
    tmp_path: Path, encoder: Path, queries: list[dict[str, object]] | None, message: str
) -> None:
    data = write(tmp_path / "shop", queries or [])
    if queries is None:
        (data / "queries.jsonl").unlink()
    result = run("evaluate", "retrieval", "--data", data, "--embedder", encoder, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(result.stderr)


def test_missing_faqs_and_what_does_not_go_together_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "shop", faqs=None)
    for arguments, told in (([], "expected faqs.jsonl in this folder"), (["--faqs", tmp_path / "none.jsonl"], "none.jsonl"),
                            (["--kb", tmp_path], "expected an index folder"), (["--budget", 0], "budget: expected a share above 0"),
                            (["--kb", tmp_path, "--embedder", "x"], "embedder: expected none beside an index folder"),
                            (["--faqs", write(tmp_path / "f") / "faqs.jsonl", "--lexical-weight", 1], "lexical_weight: expected a share")):
        result = run("evaluate", "retrieval", "--data", data, *arguments)
        assert result.exit_code == 1
        assert told in result.stderr


def test_the_help_desks_own_queries_are_about_the_faqs_that_ship() -> None:
    from evaluation.datasets import HELPDESK, HELPDESK_FAQS

    assert faq_file(RetrievalRun(HELPDESK)) == HELPDESK_FAQS


def planted(count: int, *, seed: int = 0) -> Searched:
    """Half of the queries look sure and are right; of the others, which look unsure, 4 in 10 are."""
    rng = np.random.default_rng(seed)
    sure = rng.random(count) < 0.5
    features = np.zeros((count, len(FEATURES)))
    features[:, 0] = np.where(sure, 0.9, 0.3) + 0.02 * rng.random(count)
    return Searched(features, tuple(f"faq-{n % 5}" for n in range(count)), sure | (rng.random(count) < 0.4),
                    np.ones(count, dtype=bool), np.zeros(count, dtype=bool), np.arange(count))


def test_static_answers_are_measured_on_the_half_that_did_not_calibrate() -> None:
    data = planted(2000)
    found = calibrated_half(data, 0.05, seed=0)
    assert found.threshold is not None
    assert found.coverage is not None
    assert 0.45 < found.coverage < 0.65
    assert found.precision is not None
    assert found.precision_lower is not None
    assert found.precision_lower < found.precision
    assert calibrated_half(data, 0.05, seed=0) == found
    assert calibrated_half(data, 0.05, seed=1) != found
    assert calibrated_half(planted(3), 0.05, seed=0) == Static()


def test_precision_has_the_exact_bound() -> None:
    data = planted(2000)
    calibration = calibrate(data, "", budget=0.05, seed=0)
    found = answered(data, calibration)
    assert found.coverage is not None
    assert found.precision is not None
    count = round(found.coverage * len(data))
    wrong = round((1 - found.precision) * count)
    assert found.precision_lower == pytest.approx(1 - clopper_pearson_upper(wrong, count))


def test_static_answers_are_those_that_the_calibration_lets_stand_alone() -> None:
    data = planted(600)
    later = Searched(data.features, data.top, data.right, data.known, np.arange(600) % 2 == 0, data.groups)
    calibration = calibrate(later, "", budget=0.2, seed=0)
    hits = [(Hit(Faq(top, "?", ""), similarity), Hit(Faq("none", "?", ""), 0.0))
            for top, similarity in zip(data.top, data.features[:, 0].tolist(), strict=True)]
    seen = searched([LabelledQuery("?", (), previous="before" if one else None) for one in later.later], hits)
    found = static_rows(seen, calibration)
    alone = [calibration.alone(calibration.confidence(one)) for one in hits]
    assert found.tolist() == [one == "always" or (one == "first" and not mid) for one, mid in zip(alone, seen.later, strict=True)]
    assert 0 < found.sum() < 600


def test_the_domain_is_told_by_the_calibrated_chance_where_there_is_one() -> None:
    found = [(Hit(Faq("a", "?", ""), 0.9), Hit(Faq("b", "?", ""), 0.1)), (Hit(Faq("a", "?", ""), 0.3),), ()]
    told, scores = domain_scores(found, None)
    assert (told, scores.tolist()) == ("similarity", [0.9, 0.3, -1.0])
    data = planted(600)
    labels = Searched(data.features, data.top, data.right, data.features[:, 0] > 0.5, data.later, data.groups)
    told, scores = domain_scores(found, calibrate(labels, "", budget=0.2, seed=0))
    assert told == "known_probability"
    assert scores[0] > 0.9 > scores[1] > scores[2] == 0
    assert domain_scores(found, calibrate(data, "", budget=0.2, seed=0))[0] == "similarity"  # calibrated without out-of-domain queries


def test_nothing_answered_has_no_precision_and_no_coverage() -> None:
    data = planted(100)
    calibration = calibrate(data, "", budget=0.001, seed=0)
    assert answered(data, calibration) == Static(None, None, None, 0.0)
