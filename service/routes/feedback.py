"""POST /v1/feedback: what a person thinks of an answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends

from service.access import Components_, FeedbackOwner, json_only

router = APIRouter(prefix="/v1")


@router.post("/feedback", dependencies=[Depends(json_only)])
def give_feedback(body: Annotated[Any, Body()], owner: FeedbackOwner, components: Components_) -> dict[str, Any]:
    """Rate an answer of one's own key: good, bad or 1 to 5, with a comment, or ranked with other answers."""
    return components.feedback.take(owner, body)
