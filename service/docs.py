"""The docs that are made: `python -m service.docs` writes docs/cli.md, docs/settings.md and docs/report.schema.json, here or in the
folder given.

The words are those of the commands' help, of the settings' descriptions and of the report's figures. Leaves out every doc that people
write.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup

from report.export import schema
from service.cli.main import app
from service.settings import Settings

WIDTH = 110
"""Characters of a help text's line."""
MADE = "<!-- Made by `python -m service.docs`; change the help text in the code instead. -->\n\n"
TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", SecretStr: "text, kept secret"}
BOUNDS = (("ge", "at least {}"), ("gt", "more than {}"), ("le", "at most {}"), ("lt", "less than {}"))


def cli_page() -> str:
    """Every command with its help text, plain and of one width, whatever the terminal."""
    parts = ["# The `fetchgate` command\n\nData goes to standard output, progress and messages to standard error. "
             "Exit codes: 0 done, 1 failed, 2 misused.\n"]
    for command, context in commands():
        parts.append(f"\n## `{context.command_path}`\n\n```text\n{_help(command, context)}\n```\n")
    return MADE + "".join(parts)


def settings_page() -> str:
    """Every setting in a table: environment variable, type, default and description."""
    rows = [f"| `{variable(name)}` | {type_name(field)} | {_default(field)} | {_cell(field.description or '')} |"
            for name, field in Settings.model_fields.items()]
    head = ("# Settings\n\nRead once at start, from the environment or a file `.env` in the working folder; an option of the "
            "command line goes before both.\n\n| variable | type | default | what it does |\n|---|---|---|---|\n")
    return MADE + head + "\n".join(rows) + "\n"


def commands() -> Iterator[tuple[TyperCommand | TyperGroup, typer.Context]]:
    """Every command that isn't hidden, groups before what is in them, each with a context that its help is written in."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup), "there are several commands, so the app is a group"
    yield from _tree(root, typer.Context(root, info_name="fetchgate", terminal_width=WIDTH))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{Settings.model_config['env_prefix']}{name}".upper()


def type_name(field: FieldInfo) -> str:
    """A setting's type in words, with its bounds."""
    bounds = [words.format(value) for bound, words in BOUNDS for part in field.metadata
              if (value := getattr(part, bound, None)) is not None]
    return ", ".join([_words(field.annotation), *bounds])


def write(folder: Path) -> None:
    """Write them all. Raises: NotADirectoryError."""
    if not folder.is_dir():
        raise NotADirectoryError(f"expected the folder of the docs, got {folder}; run this in a checkout, or name the folder")
    (folder / "cli.md").write_text(cli_page(), encoding="utf-8")
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")
    (folder / "report.schema.json").write_text(schema(), encoding="utf-8")


def _tree(command: TyperCommand | TyperGroup, context: typer.Context) -> Iterator[tuple[TyperCommand | TyperGroup, typer.Context]]:
    yield command, context
    if not isinstance(command, TyperGroup):
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert isinstance(child, TyperCommand | TyperGroup), "typer makes all of them"
        if not child.hidden:
            yield from _tree(child, typer.Context(child, info_name=name, parent=context, terminal_width=WIDTH))


def _help(command: TyperCommand | TyperGroup, context: typer.Context) -> str:
    command.rich_markup_mode = None  # boxes and colours depend on the terminal; this tree of commands is ours alone
    return "\n".join(line.rstrip() for line in command.get_help(context).strip().splitlines())


def _words(annotation: Any) -> str:
    """A type in words; None beside another type only says that it can be left out."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_words(kind) for kind in inner if kind is not NoneType)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"{_words(inner[0])}, several separated by commas"
    return TYPES[annotation]


def _default(field: FieldInfo) -> str:
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    shown = ",".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return f"`{shown}`" if shown else "not set"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write(Path(*sys.argv[1:]) if sys.argv[1:] else Path("docs"))
