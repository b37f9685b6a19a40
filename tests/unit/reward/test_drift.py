"""Verdicts on the probe set, run after run; and the probe set itself."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from evaluation.datasets import HELPDESK_FAQS
from kb.source import read_faqs
from reward.agreement import Word
from reward.drift import ProbeRun, add_run, drift, latest_run, mcnemar_p, read_runs
from reward.errors import AgreementError
from reward.judge import ReferenceJudge
from reward.probe import probe_cases, probe_hash, read_probe

FAQS = {faq.id: faq for faq in read_faqs(HELPDESK_FAQS)}


def run(*verdicts: Word, judge: str = "local:1", time: str = "2026-01-01T00:00:00+00:00") -> ProbeRun:
    return ProbeRun(time, judge, "a" * 64, {str(number): word for number, word in enumerate(verdicts)})


def test_the_same_verdicts_are_no_drift() -> None:
    found = drift(run(True, False, None), run(True, False, None))
    assert (found.changes, found.p_value, found.same_judge) == ((), 1.0, True)


def test_changes_are_listed_and_counted_by_their_way() -> None:
    found = drift(run(True, False, True, None, True), run(False, True, False, True, None, judge="local:2"))
    assert [change.id for change in found.changes] == ["0", "1", "2", "3", "4"]
    assert (found.to_good, found.to_bad, found.lost, found.same_judge) == (1, 2, 1, False)
    assert found.p_value == 1.0


def test_ten_verdicts_that_all_turned_bad_are_no_chance() -> None:
    assert drift(run(*[True] * 10), run(*[False] * 10)).p_value == pytest.approx(2 * 0.5**10)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_s_p_value_is_that_of_the_binomial(one: int, other: int) -> None:
    expected = min(1.0, 2 * float(binom.cdf(min(one, other), one + other, 0.5)))
    assert mcnemar_p(one, other) == pytest.approx(expected)
    assert mcnemar_p(one, other) == mcnemar_p(other, one)


def test_runs_over_two_sets_aren_t_compared() -> None:
    with pytest.raises(AgreementError, match="one probe set"):
        drift(run(True), replace(run(True), probe_hash="b" * 64))
    with pytest.raises(AgreementError, match="one probe set"):
        drift(run(True), run(True, True))


def test_runs_are_lines_and_the_last_one_of_its_kind_is_found(tmp_path: Path) -> None:
    file = tmp_path / "new" / "runs.jsonl"
    assert read_runs(file) == ()
    runs = (run(True), run(None, judge="llm:1"), run(False, judge="local:2"))
    for one in runs:
        add_run(file, one)
    assert read_runs(file) == runs
    assert latest_run(runs, "a" * 64, "local") == runs[2]
    assert latest_run(runs, "b" * 64, "local") is None


def test_a_line_that_a_kill_cut_short_costs_no_other(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    add_run(file, run(True))
    with file.open("a") as opened:
        opened.write('{"time": "2026')
    assert read_runs(file) == (run(True),)
    add_run(file, run(False))
    assert read_runs(file) == (run(True), run(False))


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"verdicts": {}}', '{"time": "", "judge": "", "probe_hash": "", "verdicts": {"a": 1}}'])
def test_a_damaged_run_says_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "runs.jsonl").write_text(line + "\n")
    with pytest.raises(AgreementError, match=r"runs\.jsonl:1"):
        read_runs(tmp_path / "runs.jsonl")


def test_the_probe_set_that_ships_has_enough_of_both_labels_and_every_kind_names_real_faqs() -> None:
    probes = read_probe()
    kinds = Counter(probe.kind for probe in probes)
    assert len(probes) >= 60
    assert 0.4 < sum(probe.good for probe in probes) / len(probes) < 0.6
    assert set(kinds) == {"right", "paraphrase", "changed_number", "negation", "other_faq", "half_answer", "right_refusal", "invented",
                          "wrong_refusal", "small_talk", "injection", "hinglish"}
    cases = probe_cases(probes, FAQS)
    assert all(set(case.gold or ()) <= set(FAQS) for case in cases)
    assert all(probe.why for probe in probes)


def test_a_judge_of_labels_alone_is_blind_to_changed_facts() -> None:
    """What the probe set is for: citing the right FAQ isn't saying what it says."""
    probes = read_probe()
    verdicts = ReferenceJudge().judge(probe_cases(probes, FAQS))
    fooled = [probe.id for probe, verdict in zip(probes, verdicts, strict=True) if verdict and verdict.good and not probe.good]
    assert {"number-1", "negation-1", "inject-1"} <= set(fooled)


def test_the_hash_changes_with_an_answer_a_label_or_an_faq() -> None:
    probes = read_probe()
    first = probe_hash(probes, FAQS)
    shown = probes[0].faqs[0]
    assert first == probe_hash(read_probe(), FAQS)
    assert first != probe_hash((replace(probes[0], answer="other"), *probes[1:]), FAQS)
    assert first != probe_hash((replace(probes[0], good=not probes[0].good), *probes[1:]), FAQS)
    assert first != probe_hash(probes, {**FAQS, shown: replace(FAQS[shown], answer="other")})


def test_a_probe_set_for_another_knowledge_base_says_which_faq_is_missing() -> None:
    with pytest.raises(AgreementError, match=r"right-1.*fee-late"):
        probe_cases(read_probe(), {})


@pytest.mark.parametrize(("field", "value"), [("good", "yes"), ("faqs", "a"), ("history", [["a"]]), ("query", None), ("gold", [1])])
def test_a_damaged_probe_says_line_and_field(tmp_path: Path, field: str, value: object) -> None:
    row = {"id": "a", "kind": "right", "query": "q", "faqs": [], "answer": "a", "gold": [], "good": True, field: value}
    (tmp_path / "probe.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(AgreementError, match=rf"probe\.jsonl:1.*{field}"):
        read_probe(tmp_path / "probe.jsonl")
