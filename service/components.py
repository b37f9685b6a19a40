"""What the app is made of; `wiring.py` builds it for real, tests build it from fakes."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import time

from service.edits import EditableKb, FaqEdits
from service.feedback import Feedback
from service.keys import HashedKey
from service.reports import Reports
from service.turns import ChatTurns


@dataclass(frozen=True, slots=True)
class Components:
    """Everything that a running service holds."""

    turns: ChatTurns
    kb: EditableKb
    edits: FaqEdits
    feedback: Feedback
    keys: tuple[HashedKey, ...]
    checks: Mapping[str, Callable[[], object]]
    """Part to a call that fails when the part isn't ready."""
    close: Callable[[], None]
    """Gives everything back: log, knowledge base, connections."""
    max_body_bytes: int
    allowed_hosts: tuple[str, ...]
    follow: Path | None = None
    """FAQ file or manifest that the knowledge base is kept in step with; None: nobody else changes it."""
    reports: Reports | None = None
    """None: turns are kept nowhere that a report could be made of."""
    started_at: int = field(default_factory=lambda: int(time()))
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("service"))
