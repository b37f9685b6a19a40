"""The app: routes, errors, headers and the pages, over components that somebody else built."""

import asyncio
import logging
import re
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kb.living import LivingKb
from kb.watch import changes
from report.render import STYLE
from service import errors
from service.components import Components
from service.errors import ApiError
from service.routes import chat, feedback, health, kb, report

STATIC = Path(__file__).parent / "static"
CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
logger = logging.getLogger(__name__)

FOLLOWER_GRACE = 5.0
"""Seconds that taking in a change gets to finish when the service stops; it is taken in at the next start then."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


def create_app(components: Components) -> FastAPI:
    """The HTTP service over these components, which it closes when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        follower = threading.Thread(target=_follow, args=(components, stop), name="follow", daemon=True)
        follower.start()
        yield
        stop.set()
        await asyncio.to_thread(follower.join, FOLLOWER_GRACE)
        components.close()

    # the docs pages that FastAPI makes load scripts from other hosts, so they are off; the schema itself stays
    app = FastAPI(title="FetchGate", version=version("fetchgate"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.components = components
    errors.install(app)
    for routes in (chat, feedback, kb, report, health):
        app.include_router(routes.router)
    app.add_api_route("/static/report.css", _report_style, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/dashboard", _dashboard, include_in_schema=False)
    app.add_middleware(BodyLimit, max_bytes=components.max_body_bytes)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(components.allowed_hosts))
    app.add_middleware(Headers)
    return app


def _follow(components: Components, stop: threading.Event) -> None:
    """Keep the knowledge base in step with its file or folder while requests are served."""
    if components.follow is None or not isinstance(components.kb, LivingKb):
        return
    for change in changes(components.kb, components.follow.parent, stop):
        if isinstance(change, Exception):
            logger.error("%s was changed and can't be taken in; the knowledge base stays as it was: %s", components.follow, change)
        else:
            logger.info("%s was changed: %d FAQs added, %d replaced, %d removed; the knowledge base is now %s", components.follow,
                        len(change.added), len(change.replaced), len(change.removed), components.kb.version)


async def _page() -> FileResponse:
    """The chat page."""
    return FileResponse(STATIC / "index.html", media_type="text/html")


async def _dashboard() -> FileResponse:
    """The page of the savings report."""
    return FileResponse(STATIC / "dashboard.html", media_type="text/html")


async def _report_style() -> FileResponse:
    """The style sheet of the report, which is the same in a file and on the page."""
    return FileResponse(STYLE, media_type="text/css")


class Headers:
    """Gives every response its request id and what a browser needs to be strict."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = MutableHeaders(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers["content-security-policy"] = CSP
                # pages and scripts are checked for changes at each visit: an update shows at once
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class BodyLimit:
    """Refuses bodies over a size, by what they say of themselves or by what comes. FastAPI's own limit answers in plain text."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._error = ApiError(413, f"body: expected at most {max_bytes} bytes, got more", "request_too_large")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = MutableHeaders(scope=scope).get("content-length", "")
        if said.isdigit() and int(said) > self._max_bytes:
            await JSONResponse(self._error.body, self._error.status, self._error.headers)(scope, receive, send)
            return
        come = 0

        async def receive_within() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > self._max_bytes:
                raise HTTPException(413, self._error.message)
            return message

        await self._app(scope, receive_within, send)
