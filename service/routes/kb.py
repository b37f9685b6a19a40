"""The knowledge base: `GET /v1/kb` for everybody, its FAQs to read and edit under `/v1/kb/faqs` for administrators."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query

from kb.errors import UnknownFaqError
from kb.types import Faq
from service.access import AdminOwner, AnyKey, Components_, json_only
from service.edits import faq_object, faqs_of, ids_of

router = APIRouter(prefix="/v1/kb")

EXAMPLES = 4
MAX_PAGE = 1000


# the body of whatever form is read by our own rules, which name the FAQ and the field
Json = Annotated[Any, Body()]


@router.get("")
def describe(caller: AnyKey, components: Components_) -> dict[str, Any]:
    """Size, version and examples, one from each of the first categories."""
    kb = components.kb.current
    by_category = {faq.category: faq.question for faq in reversed(kb.faqs) if faq.question}
    examples = list(dict.fromkeys(by_category.values()))[-EXAMPLES:][::-1]
    return {"faqs": len(kb.faqs), "version": kb.version, "examples": examples}


@router.get("/faqs")
def list_faqs(
    owner: AdminOwner, components: Components_, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100, after: str = ""
) -> dict[str, Any]:
    """A page of FAQs in the order of their ids, those after `after`."""
    kb = components.kb.current
    rest = sorted((faq for faq in kb.faqs if faq.id > after), key=lambda faq: faq.id)
    return {"object": "list", "data": [faq_object(faq) for faq in rest[:limit]], "has_more": len(rest) > limit, "faqs": len(kb.faqs),
            "version": kb.version}


@router.post("/faqs", dependencies=[Depends(json_only)])
async def put_faqs(body: Json, owner: AdminOwner, components: Components_) -> dict[str, Any]:
    """Add or replace FAQs, all or none."""
    return await components.edits.put(owner, faqs_of(body))


@router.delete("/faqs", dependencies=[Depends(json_only)])
async def delete_faqs(body: Json, owner: AdminOwner, components: Components_) -> dict[str, Any]:
    """Delete FAQs, all or none."""
    return await components.edits.delete(owner, ids_of(body))


@router.get("/faqs/{faq_id:path}")
def get_faq(faq_id: str, owner: AdminOwner, components: Components_) -> dict[str, Any]:
    """One FAQ."""
    return faq_object(_known(components.kb.get(faq_id), faq_id))


@router.delete("/faqs/{faq_id:path}")
async def delete_faq(faq_id: str, owner: AdminOwner, components: Components_) -> dict[str, Any]:
    """Delete one FAQ."""
    return await components.edits.delete(owner, [faq_id])


def _known(faq: Faq | None, faq_id: str) -> Faq:
    if faq is None:
        raise UnknownFaqError(f"{faq_id[:80]}: expected the id of an FAQ that is there, got another")
    return faq
