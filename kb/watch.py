"""When to look: a knowledge base kept in step with its FAQ file or index folder while both are in use.

Leaves out what is done then (`living.py`) and who is told (`service/`).
"""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from kb.edits import Difference
from kb.errors import KbError
from kb.living import LivingKb

logger = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds: network file systems and swapped links tell nothing, so that it is looked in any case."""


def changes(kb: LivingKb, folder: Path, stop: threading.Event) -> Iterator[Difference | Exception]:
    """What others changed, each time once it is taken in, or the error for which it wasn't; ends when `stop` is set.

    `folder` holds the file that is looked at. A change is taken in within two looks: it must have settled.
    """
    for _ in _looks(folder, stop):
        try:
            if made := kb.refresh():
                yield made
        except (KbError, OSError, RuntimeError) as error:  # RuntimeError is what FAISS and torch raise
            yield error


def _looks(folder: Path, stop: threading.Event) -> Iterator[None]:
    """Comes when something changed in a folder, and every `LOOK_EVERY` in any case."""
    from watchfiles import watch

    told = watch(folder, recursive=False, watch_filter=None, stop_event=stop, rust_timeout=int(LOOK_EVERY * 1000), yield_on_timeout=True)
    try:
        while not stop.is_set() and next(told, None) is not None:
            yield
    except (OSError, RuntimeError) as error:  # the system watches no more folders, or not this one
        logger.warning("%s can't be watched (%s); it is looked at every %g s", folder, error, LOOK_EVERY)
        while not stop.wait(LOOK_EVERY):
            yield
