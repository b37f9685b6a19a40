"""The fixture that starts `fetchgate serve` says what went wrong when it doesn't start or doesn't stop well."""

import sys
from pathlib import Path

import pytest

from tests.real_service import real_service

ANNOUNCE = "import signal, sys; print('Chat at http://127.0.0.1:9/', file=sys.stderr, flush=True); "


def stand_in(script: str) -> list[str]:
    """A program in place of `fetchgate`; it gets the same options."""
    return [sys.executable, "-c", script]


def test_a_service_that_ends_before_its_address_is_reported_with_what_it_said(tmp_path: Path) -> None:
    script = "import sys; sys.exit(f'no such option: {sys.argv[-1]}')"
    with pytest.raises(AssertionError, match="ended before it announced an address:\nno such option: --colour"), \
            real_service(tmp_path, "--colour", command=stand_in(script)):
        raise AssertionError("it must not get here")


def test_a_service_that_never_announces_its_address_is_ended(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="announced no address within 0 s"), \
            real_service(tmp_path, command=stand_in("import signal; signal.pause()"), start_limit=0.1):
        raise AssertionError("it must not get here")


def test_a_service_that_is_killed_by_the_signal_has_not_stopped_well(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="expected exit code 0 after SIGTERM, got -15"), \
            real_service(tmp_path, command=stand_in(f"{ANNOUNCE} signal.pause()")) as url:
        assert url == "http://127.0.0.1:9"


def test_what_a_test_raises_is_what_it_fails_with(tmp_path: Path) -> None:
    with pytest.raises(KeyError), real_service(tmp_path, command=stand_in(f"{ANNOUNCE} signal.pause()")):
        raise KeyError("the test's own")


def test_much_on_standard_error_does_not_stop_the_service(tmp_path: Path) -> None:
    noise = "[print('x' * 1000, file=sys.stderr) for _ in range(300)]"  # a pipe that nobody reads holds less
    script = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit({noise} and 0)); {noise}; {ANNOUNCE} signal.pause()"
    with real_service(tmp_path, command=stand_in(script)):
        pass


def test_the_environment_of_the_developer_stays_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETCHGATE_POLICY", "mine")
    script = "import os, sys; sys.exit(str(sorted(name for name in os.environ if name.startswith('FETCHGATE_'))))"
    with pytest.raises(AssertionError, match=r"\['FETCHGATE_DATA_DIR', 'FETCHGATE_HOLDBACK', 'FETCHGATE_K'\]"), \
            real_service(tmp_path, env={"FETCHGATE_K": "5"}, command=stand_in(script)):
        raise AssertionError("it must not get here")
