"""GET /v1/kb: how large the knowledge base is, and a few questions to begin with."""

from typing import Any

from fastapi import APIRouter

from service.access import Components_, Owner

router = APIRouter(prefix="/v1")

EXAMPLES = 4


@router.get("/kb")
def describe(owner: Owner, components: Components_) -> dict[str, Any]:
    """Size, version and examples, one from each of the first categories."""
    faqs = components.retriever.faqs
    by_category = {faq.category: faq.question for faq in reversed(faqs) if faq.question}
    examples = list(dict.fromkeys(by_category.values()))[-EXAMPLES:][::-1]
    return {"faqs": len(faqs), "version": components.retriever.version, "examples": examples}
