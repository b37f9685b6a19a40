"""What verdicts cost with each judge, before any is asked for: tokens of real cases with the real rubric, at list prices.

    cost of V verdicts = V * asks * (mean input tokens * input price + mean output tokens * output price) / 1e6

Input is counted by our tokenizer (o200k_base, that of the GPT-4o and GPT-4.1 families; of GPT-4 an estimate). Output is an assumption:
a reply with a reason of 20 words and a sentence quoted from each cited FAQ; a model that reasons before it answers writes, and costs,
more. No input is taken as cached. The local judge costs no money but time, which is measured elsewhere and handed over. Leaves out
what was really spent, which stands in the log's verdicts.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chat.ports import TokenCounter
from chat.types import Price
from reward.judge import Case
from reward.rubric import MAX_QUOTES, render_case

VERDICTS = 10_000
LOCAL = "local"
ASSUMED_REASON = ("The answer gives the amount and the condition exactly as the cited FAQ states them, "
                  "and so it answers the question.")


@dataclass(frozen=True, slots=True)
class CaseTokens:
    """Mean tokens of one asking, over some cases."""

    cases: int
    input_tokens: float
    output_tokens: float
    """Of the assumed reply."""


@dataclass(frozen=True, slots=True)
class JudgeCost:
    """What a number of verdicts cost with one judge."""

    judge: str
    """The model's name; `local` for the model that ships."""
    verdicts: int
    cost: float
    """With as few votes as a majority needs."""
    cost_at_most: float
    """With all votes asked for."""
    currency: str | None
    """None: no money."""
    seconds: float | None
    """Of computing here; None: unknown, or it is another's machine."""


def measured_tokens(cases: Sequence[Case], counter: TokenCounter) -> CaseTokens:
    """Mean tokens of the prompts of these cases, and of the replies that are assumed. Raises: ValueError without cases."""
    if not cases:
        raise ValueError("cases: expected at least one to measure, got none")
    sent = sum(counter.count(render_case(case)) for case in cases)
    received = sum(counter.count_text(assumed_reply(case)) for case in cases)
    return CaseTokens(len(cases), sent / len(cases), received / len(cases))


def assumed_reply(case: Case) -> str:
    """A reply as the rubric asks for it, as long as one is taken to be."""
    cited = [faq for faq in case.evidence if faq.id in case.used][:MAX_QUOTES]
    quotes = [re.split(r"(?<=[.!?])\s", faq.answer, maxsplit=1)[0] for faq in cited]
    return json.dumps({"quotes": quotes, "reason": ASSUMED_REASON, "hedged": False, "safe": True, "verdict": "good"}, ensure_ascii=False)


def judge_costs(
    tokens: CaseTokens, prices: Mapping[str, Price], *, verdicts: int = VERDICTS, votes: int = 1, local_seconds: float | None = None
) -> tuple[JudgeCost, ...]:
    """The local judge, then every model of a price table that can judge, the cheapest first.

    `votes`: asked for by each case, of which a majority may do. `local_seconds`: measured time of one local verdict.
    """
    local = JudgeCost(LOCAL, verdicts, 0.0, 0.0, None, None if local_seconds is None else local_seconds * verdicts)
    found = []
    for name, price in prices.items():
        one = (tokens.input_tokens * price.input + tokens.output_tokens * price.output) / 1e6
        if one > 0:  # what costs nothing in the table is the embedded answerer, which judges nothing
            found.append(JudgeCost(name, verdicts, verdicts * (votes // 2 + 1) * one, verdicts * votes * one, price.currency, None))
    return local, *sorted(found, key=lambda judge: judge.cost)
