"""The one table from exception to HTTP status, and the error envelope that OpenAI clients read.

    {"error": {"message", "type", "param", "code"}}

Permanent errors carry `x-should-retry: false`; those that time mends carry `Retry-After`.
"""

import logging
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from chat.errors import ChatError, InvalidRequestError, LLMError
from kb.errors import KbError, UnknownFaqError
from report.errors import ReportError, ReportOptionError

logger = logging.getLogger(__name__)

DEFAULT_RETRY_AFTER = 5
"""Seconds; when the upstream named none."""
TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         405: "invalid_request_error", 413: "invalid_request_error", 415: "invalid_request_error", 422: "invalid_request_error",
         429: "rate_limit_error"}


@dataclass(eq=False)
class ApiError(Exception):
    """An answer that is an error."""

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after: int | None = None
    """Seconds; None: trying again won't help."""

    @property
    def body(self) -> dict[str, Any]:
        """The envelope."""
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {"x-should-retry": "false"}
        return {"Retry-After": str(self.retry_after)}


def api_error(error: Exception) -> ApiError:
    """Any exception as an answer; what isn't foreseen is a 500 that tells the client nothing of its inside."""
    match error:
        case ApiError():
            return error
        case InvalidRequestError():
            return ApiError(400, str(error), "invalid_request", error.param)
        case LLMError(retryable=True):
            after = DEFAULT_RETRY_AFTER if error.retry_after is None else max(1, round(error.retry_after))
            return ApiError(503, f"The LLM can't answer right now: {error}", "llm_unavailable", retry_after=after)
        case LLMError():
            return ApiError(502, f"The LLM refused the request: {error}", "llm_refused")
        case UnknownFaqError():
            return ApiError(404, str(error), "faq_not_found", "ids")
        case ReportOptionError():
            return ApiError(400, str(error), "invalid_request", str(error).partition(":")[0])
        case ReportError():
            logger.error("the report can't be made", exc_info=error)
            return ApiError(503, "The report can't be made right now; the server's log says why.", "no_report",
                            retry_after=DEFAULT_RETRY_AFTER)
        case KbError():
            logger.error("the knowledge base can't be edited", exc_info=error)
            return ApiError(503, "The knowledge base can't be changed right now, so nothing was; the server's log says why.",
                            "kb_not_saved", retry_after=DEFAULT_RETRY_AFTER)
        case RequestValidationError():
            return _validation_error(error)
        case HTTPException():
            code = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}.get(error.status_code, "http_error")
            return ApiError(error.status_code, str(error.detail), code)
        case ChatError():
            logger.error("unforeseen error of a turn", exc_info=error)
            return ApiError(500, "The turn failed; the server's log says why.", "turn_failed")
        case _:
            logger.error("unforeseen error", exc_info=error)
            return ApiError(500, "The server failed; its log says why.", "internal_error")


def install(app: FastAPI) -> None:
    """Make every error of an app an envelope."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        found = api_error(error)
        headers = {**found.headers, "x-request-id": getattr(request.state, "request_id", "")}
        return JSONResponse(found.body, found.status, headers)

    for kind in (ApiError, ChatError, KbError, ReportError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _validation_error(error: RequestValidationError) -> ApiError:
    """The first thing wrong with a body, in the words of its field. OpenAI's clients expect 400, not 422."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"][1:]]  # the first part says where: body, query or path
    # behind a field of several types stands the type that was tried: our word, not the client's
    param = ".".join(part for part in path if part not in ("str", "int") and "[" not in part) or None
    if first["type"] == "json_invalid":
        return ApiError(400, "body: expected JSON, got text that doesn't parse", "invalid_json")
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param or 'body'}: {message}", "invalid_request", param)
