"""Who may call: the dependencies of routes that need a key or a scope, and the components that routes use."""

from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from service.components import Components
from service.errors import ApiError
from service.keys import Caller, Scope, caller_of
from service.settings import LOOPBACK


def components(request: Request) -> Components:
    """The components that the app was created with."""
    found = request.app.state.components
    assert isinstance(found, Components)
    return found


Components_ = Annotated[Components, Depends(components)]


def caller(request: Request, parts: Components_) -> Caller:
    """Whom the bearer token speaks for. Raises: ApiError 401."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    found = caller_of(key.strip() if scheme.lower() == "bearer" else "", parts.keys)
    if found is None:
        raise ApiError(401, "Authorization: expected `Bearer` and an API key of this server, got none or another", "invalid_api_key")
    return found


def requires(scope: Scope) -> Callable[..., str]:
    """A dependency: the owner whom the bearer token speaks for, if it has the scope. Raises: ApiError 401, 403."""

    def owner(request: Request, parts: Components_, found: Annotated[Caller, Depends(caller)]) -> str:
        if scope not in found.scopes:
            raise ApiError(403, f"Authorization: expected a key with the scope {scope}, got one with {', '.join(sorted(found.scopes))}; "
                           f"make one with `fetchgate keys create --scope {scope}`", "missing_scope")
        if scope in (Scope.ADMIN, Scope.REPORT) and not parts.keys:
            _refuse_foreign_page(request)
        return found.owner

    return owner


def json_only(request: Request) -> None:
    """Refuses what a page of another site can send without being asked: forms and plain text. Raises: ApiError 415."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, f"Content-Type: expected application/json, got {kind[:80] or 'none'!r}", "unsupported_media_type")


def _refuse_foreign_page(request: Request) -> None:
    """Without keys, being on this machine is all the right there is, and any page in a browser here has that.

    A page of another site can't send our JSON without asking first, which we never allow. One that has its own name point at
    this machine (DNS rebinding) is of our origin to the browser, but the name stays its own. Raises: ApiError 403.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if _name(host) not in LOOPBACK or (origin is not None and origin.partition("://")[2] != host):
        raise ApiError(403, f"Host: expected this machine by the name {', '.join(LOOPBACK)}, and no page of another site, got host "
                       f"{host[:80]!r} and origin {(origin or 'none')[:80]!r}; from elsewhere, use a key, made with "
                       "`fetchgate keys create --scope admin`", "foreign_origin")


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


AnyKey = Annotated[Caller, Depends(caller)]
"""Whoever has a key, whatever its scopes."""
ChatOwner = Annotated[str, Depends(requires(Scope.CHAT))]
FeedbackOwner = Annotated[str, Depends(requires(Scope.FEEDBACK))]
AdminOwner = Annotated[str, Depends(requires(Scope.ADMIN))]
