"""A folder that is replaced whole or not at all."""

from pathlib import Path

import pytest

from policy.errors import CheckpointError
from policy.folder import check_replaceable, replaced

MARKER = "record.json"


def write(out: Path, text: str) -> None:
    with replaced(out, MARKER) as folder:
        (folder / MARKER).write_text(text)
        (folder / "part").mkdir()
        (folder / "part" / "weights").write_text(text)


def content(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in out.rglob("*") if path.is_file()}


def test_a_new_folder_takes_the_place_of_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "encoder"
    write(out, "first")
    (out / "stale").touch()
    write(out, "second")
    assert content(out) == {MARKER: "second", "weights": "second"}
    assert [path.name for path in out.parent.iterdir()] == ["encoder"]


def test_an_exception_leaves_the_old_folder_and_no_litter(tmp_path: Path) -> None:
    out = tmp_path / "encoder"
    write(out, "first")
    with pytest.raises(KeyboardInterrupt), replaced(out, MARKER) as folder:
        (folder / MARKER).write_text("half")
        raise KeyboardInterrupt
    assert content(out) == {MARKER: "first", "weights": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_a_full_disk_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="encoder: can't be written .No space left.; what was there is unchanged"), \
         replaced(tmp_path / "encoder", MARKER):
        raise OSError(28, "No space left")


def test_somebody_elses_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="home: expected an empty folder or one with record.json, got one with other files"):
        write(tmp_path / "home", "x")
    with pytest.raises(CheckpointError, match="file: expected a folder or a free name, got a file"):
        write(tmp_path / "file", "x")
    assert content(tmp_path / "home") == {"letter.txt": ""}
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty", MARKER)
    write(tmp_path / "empty", "x")


def test_what_a_crash_left_is_mended_by_the_next_writer(tmp_path: Path) -> None:
    out, old = tmp_path / "encoder", tmp_path / ".encoder.old"
    write(out, "first")
    out.rename(old)  # killed between the two renames
    with pytest.raises(RuntimeError), replaced(out, MARKER):
        raise RuntimeError
    assert content(out) == {MARKER: "first", "weights": "first"}
    old.mkdir()  # killed before the old folder was deleted
    write(out, "second")
    assert content(out) == {MARKER: "second", "weights": "second"}
    assert not old.exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    write(tmp_path / "v1", "first")
    (tmp_path / "active").symlink_to("v1")
    write(tmp_path / "active", "second")
    assert (tmp_path / "active").is_symlink()
    assert content(tmp_path / "v1") == {MARKER: "second", "weights": "second"}
