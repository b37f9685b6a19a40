"""Liveness and readiness, for whatever keeps the process running; both without a key."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from service.access import Components_

router = APIRouter(prefix="/health")


@router.get("/live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(components: Components_) -> JSONResponse:
    """Every part can take a turn; else 503 with the parts that can't."""
    failing = {}
    for name, check in components.checks.items():
        try:
            await asyncio.to_thread(check)
        except Exception as error:  # whatever is wrong with a part, the answer is that it isn't ready
            failing[name] = f"{type(error).__name__}: not ready; the server's log says why"
            components.logger.warning("%s is not ready", name, exc_info=error)
    if failing:
        return JSONResponse({"status": "unavailable", "failing": failing}, 503, {"Retry-After": "5"})
    return JSONResponse({"status": "ok"})
