"""API keys: random, shown once, kept as a hash with a lookup prefix and scopes, compared in constant time.

Without keys the server takes any bearer token, with every scope, and listens on loopback only. Leaves out expiry.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "fg-"
LOOKUP_CHARS = 8
LOCAL_OWNER = "local"
"""Owner of every conversation when no keys are configured."""


class Scope(StrEnum):
    """What a key may do."""

    CHAT = "chat"
    FEEDBACK = "feedback"
    REPORT = "report"
    ADMIN = "admin"


EVERY_SCOPE = frozenset(Scope)
DEFAULT_SCOPES = EVERY_SCOPE - {Scope.ADMIN}
"""Of a key that names none."""


@dataclass(frozen=True, slots=True)
class HashedKey:
    """What is kept of a key."""

    lookup: str
    """Its first characters, by which it is found; also the owner's id in the log."""
    sha256: str
    scopes: frozenset[Scope] = DEFAULT_SCOPES

    def __str__(self) -> str:
        named = "" if self.scopes == DEFAULT_SCOPES else f":{'+'.join(sorted(self.scopes))}"
        return f"{self.lookup}:{self.sha256}{named}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what they may do."""

    owner: str
    scopes: frozenset[Scope]


def create_key(scopes: Iterable[Scope] = DEFAULT_SCOPES) -> tuple[str, HashedKey]:
    """A new key, to be shown once, and what to keep of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, HashedKey(key[: len(PREFIX) + LOOKUP_CHARS], _hash(key), frozenset(scopes))


def parse_keys(text: str) -> tuple[HashedKey, ...]:
    """Hashed keys from `lookup:sha256[:scope+scope]` entries, separated by commas. Raises: ValueError on a malformed entry."""
    keys = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        lookup, _, rest = entry.partition(":")
        digest, named, scopes = rest.partition(":")
        if not lookup.startswith(PREFIX) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError("api_keys: expected entries like fg-…:<64 hex digits>, as `fetchgate keys create` prints them, "
                             f"got one that begins with {entry[:8]!r}")
        keys.append(HashedKey(lookup, digest, _scopes(lookup, scopes) if named else DEFAULT_SCOPES))
    return tuple(keys)


def caller_of(key: str, keys: tuple[HashedKey, ...]) -> Caller | None:
    """Whom a key speaks for; None when it is unknown. Without configured keys every caller is local and may do everything."""
    if not keys:
        return Caller(LOCAL_OWNER, EVERY_SCOPE)
    digest = _hash(key)
    found = None
    for candidate in keys:
        if hmac.compare_digest(candidate.sha256, digest):
            found = Caller(candidate.lookup, candidate.scopes)
    return found


def _scopes(lookup: str, named: str) -> frozenset[Scope]:
    try:
        return frozenset(map(Scope, named.split("+")))
    except ValueError as error:
        raise ValueError(f"api_keys: {lookup}: expected scopes among {', '.join(Scope)}, joined by +, got {named[:40]!r}; "
                         "make the key anew with `fetchgate keys create --scope …`") from error


def _hash(key: str) -> str:
    # a plain hash is enough: the key has 256 random bits, so there is no dictionary to try
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
