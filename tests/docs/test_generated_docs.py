"""The docs that are made are those that would be made now, and nothing in them is left without words."""

from pathlib import Path

import pytest

from service import docs
from service.settings import Settings
from tests.conftest import ROOT

STALE = "is stale; run `.venv/bin/python -m service.docs`"


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == docs.cli_page(), f"docs/cli.md {STALE}"


def test_the_page_of_the_settings_is_up_to_date() -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == docs.settings_page(), f"docs/settings.md {STALE}"


def test_the_terminal_and_the_environment_do_not_change_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    before = docs.cli_page(), docs.settings_page()
    for name, value in (("COLUMNS", "40"), ("TERMINAL_WIDTH", "40"), ("FORCE_COLOR", "1"), ("TERM", "dumb"), ("LC_ALL", "C"),
                        ("FETCHGATE_PORT", "9"), ("FETCHGATE_DATABASE", "elsewhere.db")):
        monkeypatch.setenv(name, value)
    assert (docs.cli_page(), docs.settings_page()) == before


def test_every_command_has_help_and_stands_on_the_page() -> None:
    page = docs.cli_page()
    for command, context in docs.commands():
        assert (command.help or "").strip(), f"{context.command_path}: expected a docstring or help, got none"
        assert f"## `{context.command_path}`\n" in page


def test_every_option_and_argument_has_help() -> None:
    for command, context in docs.commands():
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            assert record is not None, f"{context.command_path}: {parameter.name} has no help"
            # what typer adds, like [default: 20], stands in brackets at the end
            assert record[1].strip().partition("[")[0], f"{context.command_path}: {parameter.name} has no help but {record[1]!r}"


def test_every_setting_has_a_description_a_type_in_words_and_a_row() -> None:
    page = docs.settings_page()
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name}: expected a description, got none"
        assert docs.type_name(field)
        assert f"| `FETCHGATE_{name.upper()}` |" in page


def test_no_secret_or_path_of_this_machine_stands_in_the_defaults() -> None:
    assert str(Path.home()) not in docs.settings_page()
    assert str(ROOT) not in docs.settings_page() + docs.cli_page()


def test_writing_makes_both_pages_and_refuses_what_is_no_folder(tmp_path: Path) -> None:
    docs.write(tmp_path)
    assert (tmp_path / "cli.md").read_text(encoding="utf-8") == docs.cli_page()
    assert (tmp_path / "settings.md").read_text(encoding="utf-8") == docs.settings_page()
    with pytest.raises(NotADirectoryError, match="run this in a checkout"):
        docs.write(tmp_path / "nowhere")
