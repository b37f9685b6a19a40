"""A folder that is replaced as a whole: written to the side, on the disk, and then renamed into its place.

Leaves out what is in it. Between the two renames that replace an old folder, a crash leaves the old one beside it, under the
name `.NAME.old`; the next writer puts it back.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from kb.folder import sync
from policy.errors import CheckpointError


def check_replaceable(out: Path, marker: str) -> None:
    """Nothing, if `out` is free, empty, or has a file `marker`: one of ours. Worth asking before hours of training.

    Raises: CheckpointError.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise CheckpointError(f"{out}: expected a folder or a free name, got a file; choose another name")
    if any(out.iterdir()) and not (out / marker).is_file():
        raise CheckpointError(f"{out}: expected an empty folder or one with {marker}, got one with other files; "
                              "choose another folder")


@contextmanager
def replaced(out: Path, marker: str) -> Iterator[Path]:
    """A new, empty folder to write into; it takes the place of `out` when the block ends, unless by an exception.

    Raises: CheckpointError when it can't be written or `out` is somebody else's; `out` is then as it was.
    """
    out = out.resolve()  # a link stays one, and what it points to is replaced
    new, old = out.with_name(f".{out.name}.new-{os.getpid()}"), out.with_name(f".{out.name}.old")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _recover(out, old)
        check_replaceable(out, marker)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
        for path in (*new.rglob("*"), new):
            sync(path)
        _swap(new, out, old)
    except (OSError, SafetensorError) as error:  # the latter is what a full disk is called when weights are written
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{out}: can't be written ({reason}); what was there is unchanged") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _recover(out: Path, old: Path) -> None:
    """Mend what a crash left: put the old folder back, or delete it if the new one is there."""
    if not old.exists():
        return
    if out.exists():
        shutil.rmtree(old)
    else:
        os.replace(old, out)


def _swap(new: Path, out: Path, old: Path) -> None:
    if not out.exists():
        os.replace(new, out)
    else:
        os.replace(out, old)
        try:
            os.replace(new, out)
        except OSError:
            os.replace(old, out)
            raise
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)
