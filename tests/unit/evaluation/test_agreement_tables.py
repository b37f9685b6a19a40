"""The tables of agreement on a handful of rated answers: what stands in which column."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.agreement_sets import LabelledCase, LabelledSet
from evaluation.agreement_tables import judge_tables, main, raters_table
from evaluation.human_ratings import HumanRating, RatedAnswer
from evaluation.metric_correlation import Scored, against_passages, against_reference, correlations, mean_lower
from evaluation.reference_metrics import TokenEncoder
from kb.types import Faq
from reward.judge import Case, Verdict

FACT = "The late payment fee is 650 rupees plus tax."


def answer(number: int, system: str, text: str, lower: int) -> RatedAnswer:
    ratings = tuple(HumanRating(rater, lower, 4, 4, 4, None) for rater in ("a", "b", "c"))
    return RatedAnswer(f"{number}{system}", f"c{number}", system, "ANSWERABLE", (), "fee?", (Faq("p", "", FACT),), text, ratings)


ANSWERS = tuple(one for number in range(4) for one in (
    answer(number, "reference", FACT, 4), answer(number, "good", "The late payment fee is 650 rupees.", 4),
    answer(number, "bad", "Points never expire on a Voyager card, whatever you buy.", 1)))


@pytest.fixture(scope="module")
def encoder() -> TokenEncoder:
    return TokenEncoder()


def test_answers_like_the_reference_rank_above_others_by_every_metric(encoder: TokenEncoder) -> None:
    scored = against_reference(ANSWERS, encoder)
    assert len(scored.answers) == 8, "what people wrote isn't compared with itself"
    found = {one.metric: one for one in correlations(scored)}
    assert {name: found[name].auroc.value for name in ("BLEU", "ROUGE-L F1", "BERTScore F1")} == {
        "BLEU": 1.0, "ROUGE-L F1": 1.0, "BERTScore F1": 1.0}
    assert found["BERTScore F1"].spearman.value == pytest.approx(1.0, abs=0.15), "ties on people's side alone"
    assert found["BLEU"].auroc.too_small


def test_against_passages_every_answer_with_passages_counts(encoder: TokenEncoder) -> None:
    scored = against_passages((*ANSWERS, RatedAnswer("x", "c9", "s", "UNANSWERABLE", (), "q", (), "a", ())), encoder)
    assert len(scored.answers) == 12
    assert scored.scores["BERTScore precision"][0] == pytest.approx(1.0, abs=1e-5)
    assert scored.scores["ROUGE-L precision"][0] == 1.0


def test_an_answer_without_a_consensus_ranks_nowhere() -> None:
    tied = RatedAnswer("t", "c0", "s", "PARTIAL", (), "q", (), "a", ())
    scored = Scored((*ANSWERS, tied), {"words": mean_lower((*ANSWERS, tied))})
    assert correlations(scored)[0].auroc.value == 1.0


def test_raters_who_agree_have_alpha_one_and_kappa_one() -> None:
    lines = list(raters_table(ANSWERS))
    assert any(line.startswith("| faithfulness | Krippendorff's alpha, ordinal | 1.00") for line in lines)
    assert any("one rater against the others (36 pairs) | 1.00" in line for line in lines)


def test_a_judge_s_table_has_a_row_a_kind_and_the_whole() -> None:
    class Half:
        version = "half:1"

        def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
            return tuple(Verdict(case.answer == "a", "", probability=0.9 if case.answer == "a" else 0.1) for case in cases)

    cases = tuple(LabelledCase(Case("q", (), (), text, ()), truth, str(n), kind) for n, (text, truth, kind) in enumerate(
        [("a", True, "right"), ("a", False, "negation"), ("b", False, "negation"), ("b", True, "right")]))
    lines = list(judge_tables(Half(), [LabelledSet("set", "people", "", cases)]))
    assert "| right | 2 | 0 | 50% | 0 of 0 | 1 of 2 | 0.00 |" in lines
    assert "| negation | 2 | 0 | 50% | 1 of 2 | 0 of 0 | 0.00 |" in lines
    assert lines[-1] == "\nAUROC of its probability: 0.500 (0.000 to 1.000)"


def test_a_file_of_rated_answers_becomes_the_report_s_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [{
        "id": one.id, "conversation": one.conversation, "system": one.system, "answerability": one.answerability, "history": [],
        "query": one.query, "context": [{"id": "p", "text": FACT}], "answer": one.answer,
        "ratings": [{"rater": each.rater, "faithfulness": each.faithfulness, "appropriateness": 4, "completeness": 4, "naturalness": 4,
                     "win_rate": 50} for each in one.ratings]} for one in ANSWERS]
    file = tmp_path / "judgements.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["--rated", str(file)])
    printed = capsys.readouterr().out
    for heading in ("### Raters", "### Metrics against the answer that people wrote", "### Metrics against the passages"):
        assert heading in printed
    assert "| BLEU | 8 | 1.000 (1.000 to 1.000)" in printed
