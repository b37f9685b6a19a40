"""Settings: from the environment, overridden by options, refused by name."""

import pytest

from service.settings import read_settings


def test_an_option_goes_before_the_environment_and_the_environment_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().port == 8000
    monkeypatch.setenv("FETCHGATE_PORT", "9000")
    assert read_settings().port == 9000
    assert read_settings(port=9001, host=None).port == 9001


def test_zero_is_a_threshold_and_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().static_threshold is None
    monkeypatch.setenv("FETCHGATE_STATIC_THRESHOLD", "0")
    assert read_settings().static_threshold == 0.0


def test_hosts_are_a_list_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETCHGATE_ALLOWED_HOSTS", "a.example, b.example")
    assert read_settings().allowed_hosts == ["a.example", "b.example"]


@pytest.mark.parametrize(("name", "value"), [("K", "0"), ("PORT", "70000"), ("HISTORY_FAQS", "some"), ("STATIC_THRESHOLD", "high")])
def test_a_bad_value_is_refused_with_the_variable_that_set_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FETCHGATE_{name}", value)
    with pytest.raises(ValueError, match=f"FETCHGATE_{name}"):
        read_settings()


def test_secrets_do_not_show_when_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETCHGATE_LLM_API_KEY", "sk-very-secret")
    assert "very-secret" not in repr(read_settings())
