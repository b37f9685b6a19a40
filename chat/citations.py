"""Which FAQs an answer cites: ids in brackets, as the prompt asks for them."""

import re
from collections.abc import Iterable


def cited_ids(answer: str, shown: Iterable[str]) -> tuple[str, ...]:
    """Ids of `shown` that stand in brackets in the answer, alone or in a list (`[a]`, `[a, b]`), each once, in order."""
    possible = set(shown)
    bracketed = re.findall(r"\[([^\[\]\n]{1,400})\]", answer)
    named = (part.strip() for inner in bracketed for part in (inner, *re.split(r"[,;]", inner)))  # an id may hold a comma
    return tuple(dict.fromkeys(faq_id for faq_id in named if faq_id in possible))
