"""Who may call: the dependency of every route that needs a key, and the components that routes use."""

from typing import Annotated

from fastapi import Depends, Request

from service.components import Components
from service.errors import ApiError
from service.keys import owner_of


def components(request: Request) -> Components:
    """The components that the app was created with."""
    found = request.app.state.components
    assert isinstance(found, Components)
    return found


Components_ = Annotated[Components, Depends(components)]


def owner(request: Request, parts: Components_) -> str:
    """The owner whom the bearer token speaks for. Raises: ApiError 401."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    found = owner_of(key.strip() if scheme.lower() == "bearer" else "", parts.keys)
    if found is None:
        raise ApiError(401, "Authorization: expected `Bearer` and an API key of this server, got none or another", "invalid_api_key")
    return found


Owner = Annotated[str, Depends(owner)]
