"""POST /v1/chat/completions: a turn, whole or streamed; GET /v1/models: the one model there is."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.access import AnyKey, ChatOwner, Components_
from service.errors import ApiError
from service.schemas import MODEL_ID, ChatRequest

router = APIRouter(prefix="/v1")


@router.post("/chat/completions", response_model=None)
async def create_completion(chat: ChatRequest, request: Request, owner: ChatOwner, components: Components_) -> Response:
    """Answer the last user message, fetching FAQs when that helps."""
    _known(chat.model)
    return await components.turns.answer(await request.body(), chat, owner, request.headers)


@router.get("/models")
def list_models(caller: AnyKey, components: Components_) -> dict[str, Any]:
    """The models that can be asked."""
    return {"object": "list", "data": [_model(components.started_at)]}


@router.get("/models/{model_id:path}")
def get_model(model_id: str, caller: AnyKey, components: Components_) -> dict[str, Any]:
    """One model."""
    _known(model_id)
    return _model(components.started_at)


def _known(model_id: str) -> None:
    if model_id != MODEL_ID:
        raise ApiError(404, f"model: expected {MODEL_ID}, got {model_id[:80]!r}; GET /v1/models lists what there is",
                       "model_not_found", "model")


def _model(created: int) -> dict[str, Any]:
    return {"id": MODEL_ID, "object": "model", "created": created, "owned_by": "fetchgate"}
