"""What verdicts cost, against sums by hand."""

import json

import pytest

from chat.prices import load_prices
from chat.tokens import TiktokenCounter
from chat.types import Price
from kb.types import Faq
from reward.costs import ASSUMED_REASON, CaseTokens, JudgeCost, assumed_reply, judge_costs, measured_tokens
from reward.judge import Case
from reward.rubric import read_verdict, render_case
from tests.fakes import WordCounter

FEE = Faq("late-fee", "How much is the late fee?", "The late fee is ₹450. It is charged once a month.")
CASE = Case("how much if i pay late", (), (FEE,), "It is ₹450 [late-fee].", ("late-fee",))
UNKNOWN = Case("what is love", (), (FEE,), "I don't know.", ())
PRICES = {"dear": Price(10.0, 5.0, 100.0, "USD", "1"), "cheap": Price(1.0, None, 2.0, "USD", "1"), "ours": Price(0.0, 0.0, 0.0, "USD", "1")}


def test_tokens_are_means_over_prompts_and_assumed_replies() -> None:
    counter = WordCounter()
    tokens = measured_tokens([CASE, UNKNOWN], counter)
    assert tokens.cases == 2
    assert tokens.input_tokens == sum(counter.count(render_case(case)) for case in (CASE, UNKNOWN)) / 2
    assert tokens.output_tokens == sum(counter.count_text(assumed_reply(case)) for case in (CASE, UNKNOWN)) / 2
    with pytest.raises(ValueError, match="expected at least one"):
        measured_tokens([], counter)


def test_the_assumed_reply_is_one_that_would_be_read() -> None:
    assert json.loads(assumed_reply(CASE))["quotes"] == ["The late fee is ₹450."]
    for case in (CASE, UNKNOWN):
        verdict = read_verdict(assumed_reply(case), case).verdict
        assert verdict is not None
        assert verdict.reason == ASSUMED_REASON
    assert 18 <= len(ASSUMED_REASON.split()) <= 22


def test_costs_are_tokens_times_prices_the_cheapest_first() -> None:
    local, cheap, dear = judge_costs(CaseTokens(1, 1000.0, 50.0), PRICES, local_seconds=0.004)
    assert local == JudgeCost("local", 10_000, 0.0, 0.0, None, 40.0)
    assert (cheap.judge, cheap.currency, cheap.seconds, dear.judge) == ("cheap", "USD", None, "dear")
    assert cheap.cost == pytest.approx(10_000 * (1000 + 100) / 1e6)
    assert dear.cost == pytest.approx(10_000 * (10_000 + 5000) / 1e6)


def test_votes_cost_from_a_bare_majority_to_all() -> None:
    one, five = (judge_costs(CaseTokens(1, 1000.0, 50.0), PRICES, votes=votes)[1] for votes in (1, 5))
    assert five.cost == pytest.approx(3 * one.cost)
    assert five.cost_at_most == pytest.approx(5 * one.cost)
    assert one.cost == one.cost_at_most


def test_the_bundled_prices_and_the_real_tokenizer_give_a_plausible_table() -> None:
    tokens = measured_tokens([CASE], TiktokenCounter())
    assert 500 < tokens.input_tokens < 700
    found = {one.judge: one.cost for one in judge_costs(tokens, load_prices())}
    assert found["local"] == 0.0
    assert found["gpt-4o"] == pytest.approx(10_000 * (tokens.input_tokens * 2.5 + tokens.output_tokens * 10) / 1e6)
