"""The policy that ships with the project, and how a policy folder is named."""

from pathlib import Path

from policy.errors import CheckpointError

DEMO = "demo"
SHIPPED = Path(__file__).parent / "data" / DEMO
"""Trained on the help desk that ships; `fetchgate policy train --seed 0` made it (docs/results.md)."""


def policy_folder(name: str, *others: str) -> Path:
    """The folder of a name: `demo`, or a path. `others` are names that would have done too: they are told when it isn't there.

    Raises: CheckpointError.
    """
    folder = SHIPPED if name == DEMO else Path(name).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"policy: expected {', '.join([*others, DEMO])} or a policy folder, got {name!r}, which isn't there; "
                              "train one with `fetchgate policy train`")
    return folder
