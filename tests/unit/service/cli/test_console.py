"""What the commands share: errors in one line, exit codes, and a progress bar that scripts don't see."""

import pytest
import typer

from chat.errors import ChatError
from kb.errors import SourceError
from service.cli.console import fail, failures, progress_bar


@pytest.mark.parametrize("error", [ChatError("expected [a], got [b]"), SourceError("x" * 300), ValueError("port: too high")])
def test_an_error_of_ours_is_one_line_and_exit_code_1(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised, failures():
        raise error
    assert raised.value.exit_code == 1
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_an_error_that_nobody_foresaw_keeps_its_trace() -> None:
    with pytest.raises(ZeroDivisionError), failures():
        raise ZeroDivisionError


def test_an_interrupt_is_one_line_and_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised, failures("stopped; nothing was written"):
        raise KeyboardInterrupt
    assert raised.value.exit_code == 130
    assert capsys.readouterr() == ("", "stopped; nothing was written\n")


def test_a_failure_inside_the_block_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), failures():
        fail("host: expected \x1b[31ma loopback address")
    assert capsys.readouterr() == ("", "error: host: expected  [31ma loopback address\n")


def test_a_progress_bar_is_silent_where_no_terminal_is(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar("embedding passages", 10) as advance:
        advance(5)
        advance(5)
    assert capfd.readouterr() == ("", "")
