"""What a turn cost, and what it would have cost had every turn fetched (MEASURES.md, "the counterfactual in the log").

    counterfactual = server_actual + local(counterfactual prompt) - local(actual prompt)

Both local counts use one tokenizer, so that rulers don't mix; the answers are those that were given. Only a replay gives
the saving of a policy as a whole; this is the saving of a turn, given what happened before it. What a turn spends besides its answer
(`rewrite.py`) is part of its usage and of no counterfactual: it lessens what is saved.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from chat.plan import Plan
from chat.ports import TokenCounter
from chat.prompt import PAPER, PromptSettings, render_always_fetch
from chat.types import Counterfactual, Usage

FRUGAL = "frugal"
"""The cheapest always-fetch setting that is as good as any (docs/metrics.md), where the policy's record names it."""
WITHOUT_REWRITE = "without_rewrite"
REPEATS, ONE_FAQ, NO_HISTORY_FAQS, NO_FAQS = "repeats", "one_faq", "no_history_faqs", "no_faqs"


def baselines(serving: PromptSettings, frugal: PromptSettings | None = None) -> Mapping[str, PromptSettings]:
    """What turns served with this setting are compared with, by name: `paper`, `frugal` where it is known, and the alternatives."""
    return {"paper": PAPER, **({} if frugal is None else {FRUGAL: frugal}), **alternatives(serving)}


def alternatives(serving: PromptSettings) -> Mapping[str, PromptSettings]:
    """Simpler ways to save than a gate, beside which a report puts it: always-fetch settings that differ from the serving one in one thing.

    `no_faqs` fetches nothing at all: it is what a prompt costs besides its FAQs.
    """
    return {
        REPEATS: replace(serving, repeats=True), ONE_FAQ: replace(serving, k=min(1, serving.k)),
        NO_HISTORY_FAQS: replace(serving, history_faqs="none"), NO_FAQS: replace(serving, k=0, history_faqs="none"),
    }


def usage_of(plan: Plan, answer: str, counted: Usage | None, counter: TokenCounter) -> Usage:
    """The usage that the LLM reported, else our own count of what was sent and received."""
    if counted is not None:
        return counted
    return Usage(counter.count(plan.prompt.messages), counter.count_text(answer), source="local")


def with_overhead(usage: Usage, overhead: Usage | None) -> Usage:
    """The usage of an answer and of another call that the turn made; `local` where not both were counted by the same."""
    if overhead is None:
        return usage
    cached = [count for count in (usage.cached_input_tokens, overhead.cached_input_tokens) if count is not None]
    source = overhead.source if usage.source in ("none", overhead.source) else "local"
    return Usage(usage.input_tokens + overhead.input_tokens, usage.output_tokens + overhead.output_tokens, sum(cached) if cached else None,
                 source)


def without_rewrite(usage: Usage, overhead: Usage | None) -> tuple[Counterfactual, ...]:
    """What the turn would have cost had its query not been rewritten, given its answer; () where it wasn't."""
    if overhead is None:
        return ()
    return (Counterfactual(WITHOUT_REWRITE, usage.input_tokens, usage.output_tokens, "same_answer"),)


def counterfactuals(
    plan: Plan, answer: str, usage: Usage, counter: TokenCounter, settings: Mapping[str, PromptSettings]
) -> tuple[Counterfactual, ...]:
    """The turn's cost under each always-fetch setting, by name."""
    hits = [hit.faq for hit in plan.hits]
    actual = counter.count(plan.prompt.messages)

    @cache
    def counted(setting: PromptSettings) -> int:
        prompt = render_always_fetch(setting, plan.history, hits, plan.dialogue.query, operator=plan.dialogue.operator)
        return counter.count(prompt.messages)

    def under(name: str, setting: PromptSettings) -> Counterfactual:
        local = counted(setting)
        if plan.static is not None:  # no LLM was called: its whole prompt is saved, and an answer about as long
            return Counterfactual(name, local, counter.count_text(answer), "static_answer")
        if usage.source == "none":  # the LLM was down, and would have been down for this prompt too
            return Counterfactual(name, 0, 0, "same_answer")
        return Counterfactual(name, usage.input_tokens + local - actual, usage.output_tokens, "same_answer")

    return tuple(under(name, setting) for name, setting in settings.items())
