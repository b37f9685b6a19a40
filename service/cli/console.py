"""What the commands share: messages on standard error, one line for an error of ours, a progress bar.

Standard output is for data alone. Leaves out what a command prints there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

FAILED = 1
INTERRUPTED = 130
FIGURES = ("turns", "tokens", "saved", "votes", "times", "ratings", "replaced", "count")
"""Columns of numbers, which stand at the right."""

# soft_wrap: a message stays on its line, whoever reads it; no markup: brackets in people's texts are text
stderr = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def fail(message: str) -> NoReturn:
    """End the command: the message on standard error, exit code 1."""
    stderr.print(f"error: {printable(message)}", style="red")
    raise typer.Exit(FAILED)


@contextmanager
def failures(interrupted: str = "interrupted") -> Iterator[None]:
    """Errors that say what to mend end the command with their message and 1, Ctrl-C with this line and 130.

    Neither shows a stack trace; errors that nobody foresaw do.
    """
    from chat.errors import ChatError
    from evaluation.errors import EvaluationError
    from kb.errors import KbError
    from policy.errors import PolicyError
    from report.errors import ReportError
    from reward.errors import RewardError

    try:
        yield
    except (KbError, ChatError, PolicyError, RewardError, EvaluationError, ReportError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        stderr.print(interrupted, style="yellow")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def progress_bar(doing: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on standard error, gone when done; nothing where that isn't a terminal.

    Gives the function to call with the number of items done since the last call.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda done: bar.advance(task, done)


def printable(text: str) -> str:
    """People's text, unable to steer the terminal; line breaks stay."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on standard output; unknown is a dash, and people's text can neither style it nor steer the terminal."""
    from rich.table import Table

    table = Table()
    for name in header:
        table.add_column(name, justify="right" if name in FIGURES else "left")
    for row in rows:
        cells = ("-" if value is None else str(value) for value in row)
        table.add_row(*(Text(printable(cell).replace("\n", " ")) for cell in cells))
    Console().print(table)


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")
