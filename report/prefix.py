"""How long a prompt with every FAQ in it is: what the alternative of a cached static prefix costs (`alternatives.py`)."""

from collections.abc import Sequence

from chat.ports import TokenCounter
from chat.prompt import PromptSettings, render
from kb.types import Faq


def prefix_tokens(faqs: Sequence[Faq], counter: TokenCounter) -> int:
    """Tokens that these FAQs add to a prompt, as it would print them. Zero without FAQs."""
    if not faqs:
        return 0
    with_all, without = (render(PromptSettings(k=len(faqs)), (), shown, "") for shown in (faqs, ()))
    return counter.count(with_all.messages) - counter.count(without.messages)
