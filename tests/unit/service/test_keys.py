"""API keys: made, kept as hashes, recognised."""

import pytest

from service.keys import LOCAL_OWNER, create_key, owner_of, parse_keys


def test_a_key_is_recognised_by_its_hash_alone() -> None:
    key, hashed = create_key()
    other, other_hashed = create_key()
    keys = parse_keys(f" {hashed}, {other_hashed} ,")
    assert owner_of(key, keys) == hashed.lookup
    assert owner_of(other, keys) == other_hashed.lookup
    assert key not in str(hashed)


@pytest.mark.parametrize("wrong", ["", "fg-", "fg-nothing", "naïve 🔑", "x" * 10_000])
def test_another_key_is_nobodys(wrong: str) -> None:
    _, hashed = create_key()
    assert owner_of(wrong, (hashed,)) is None


def test_a_key_that_shares_the_lookup_prefix_is_nobodys() -> None:
    key, hashed = create_key()
    assert owner_of(key[:-1] + ("a" if key[-1] != "a" else "b"), (hashed,)) is None


def test_without_keys_everybody_is_local() -> None:
    assert owner_of("whatever", ()) == LOCAL_OWNER


def test_two_keys_are_never_alike() -> None:
    assert len({create_key()[0] for _ in range(100)}) == 100


@pytest.mark.parametrize("entry", ["plain", "fg-abc", "fg-abc:123", f"xx-abc:{'a' * 64}", f"fg-abc:{'G' * 64}"])
def test_an_entry_that_is_no_hash_is_refused_without_showing_it_whole(entry: str) -> None:
    with pytest.raises(ValueError, match="fetchgate keys create") as refusal:
        parse_keys(entry)
    assert entry not in str(refusal.value) or len(entry) <= 8
