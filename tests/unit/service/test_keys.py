"""API keys: made, kept as hashes, recognised."""

import pytest

from service.keys import DEFAULT_SCOPES, EVERY_SCOPE, LOCAL_OWNER, Caller, Scope, caller_of, create_key, parse_keys


def test_a_key_is_recognised_by_its_hash_alone() -> None:
    key, hashed = create_key()
    other, other_hashed = create_key()
    keys = parse_keys(f" {hashed}, {other_hashed} ,")
    assert caller_of(key, keys) == Caller(hashed.lookup, DEFAULT_SCOPES)
    assert caller_of(other, keys) == Caller(other_hashed.lookup, DEFAULT_SCOPES)
    assert key not in str(hashed)


@pytest.mark.parametrize("wrong", ["", "fg-", "fg-nothing", "naïve 🔑", "x" * 10_000])
def test_another_key_is_nobodys(wrong: str) -> None:
    _, hashed = create_key()
    assert caller_of(wrong, (hashed,)) is None


def test_a_key_that_shares_the_lookup_prefix_is_nobodys() -> None:
    key, hashed = create_key()
    assert caller_of(key[:-1] + ("a" if key[-1] != "a" else "b"), (hashed,)) is None


def test_without_keys_everybody_is_local_and_may_do_everything() -> None:
    assert caller_of("whatever", ()) == Caller(LOCAL_OWNER, EVERY_SCOPE)


def test_two_keys_are_never_alike() -> None:
    assert len({create_key()[0] for _ in range(100)}) == 100


@pytest.mark.parametrize("scopes", [{Scope.ADMIN}, {Scope.CHAT, Scope.ADMIN}, EVERY_SCOPE, DEFAULT_SCOPES])
def test_a_keys_scopes_are_kept_with_its_hash(scopes: frozenset[Scope]) -> None:
    key, hashed = create_key(scopes)
    assert parse_keys(str(hashed)) == (hashed,)
    caller = caller_of(key, parse_keys(str(hashed)))
    assert caller is not None
    assert caller.scopes == scopes


def test_an_entry_of_before_there_were_scopes_may_do_all_but_administer() -> None:
    _, hashed = create_key()
    assert str(hashed) == f"{hashed.lookup}:{hashed.sha256}"
    assert parse_keys(str(hashed))[0].scopes == {Scope.CHAT, Scope.FEEDBACK, Scope.REPORT}


@pytest.mark.parametrize("scopes", ["", "boss", "admin+", "Admin", "admin chat", "admin:chat"])
def test_a_scope_that_is_none_is_refused_by_name(scopes: str) -> None:
    with pytest.raises(ValueError, match=r"fg-abc: expected scopes among chat, feedback, report, admin, joined by \+"):
        parse_keys(f"fg-abc:{'a' * 64}:{scopes}")


@pytest.mark.parametrize("entry", ["plain", "fg-abc", "fg-abc:123", f"xx-abc:{'a' * 64}", f"fg-abc:{'G' * 64}"])
def test_an_entry_that_is_no_hash_is_refused_without_showing_it_whole(entry: str) -> None:
    with pytest.raises(ValueError, match="fetchgate keys create") as refusal:
        parse_keys(entry)
    assert entry not in str(refusal.value) or len(entry) <= 8
