"""A training on disk, epoch by epoch, so that one that was killed goes on to the result that it would have had.

Tensors are safetensors, numbers JSON, nothing is pickled; the folder is replaced as a whole after each epoch. Leaves out the finished
policy (`checkpoint.py`).
"""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from policy.errors import TrainingError
from policy.folder import replaced

if TYPE_CHECKING:
    from policy.train import Epoch, Trainer

STATE = "state.json"
TENSORS = "tensors.safetensors"


def store(trainer: "Trainer", folder: Path) -> None:
    """Keep all that the next epoch needs."""
    state = trainer.state
    tensors = {f"now/{name}": tensor for name, tensor in trainer.network.state_dict().items() if name in state.best_weights}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best_weights.items()}
    if state.reference is not None:
        tensors["reference"] = state.reference
    optimizer = trainer.optimizer.state_dict()["state"]
    tensors |= {f"optimizer/{number}/{name}": torch.as_tensor(value) for number, kept in optimizer.items() for name, value in kept.items()}
    numbers = {"training": fingerprint(trainer), "multiplier": state.multiplier, "kl_coef": state.kl_coef, "baseline": state.baseline,
               "best": state.best, "best_dev": state.best_dev, "epochs": [asdict(epoch) for epoch in state.epochs]}
    with replaced(folder, STATE) as new:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, new / TENSORS)
        (new / STATE).write_text(json.dumps(numbers), encoding="utf-8")


def restore(trainer: "Trainer", folder: Path) -> "tuple[Epoch, ...]":
    """Go on where the kept training stood; the epochs that were done, () where nothing was kept.

    Raises: TrainingError when the folder is damaged, or of a training on other data or with another configuration.
    """
    from policy.train import Epoch

    if not (folder / STATE).exists():
        return ()
    try:
        numbers: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        tensors = load_file(folder / TENSORS)
        known = numbers["training"]
        epochs = [Epoch(**epoch) for epoch in numbers["epochs"]]
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise _damaged(folder, error) from error
    if known != fingerprint(trainer):
        raise TrainingError(f"{folder}: expected a training with this configuration on these data, got another one; delete it to begin "
                            "anew, or train into another folder")
    state = trainer.state
    try:
        state.multiplier, state.kl_coef, state.baseline = numbers["multiplier"], numbers["kl_coef"], numbers["baseline"]
        state.best, state.best_dev = numbers["best"], numbers["best_dev"]
        trainer.network.load_state_dict(_under(tensors, "now/"), strict=False)
    except (LookupError, RuntimeError) as error:  # the latter is what torch raises for other shapes
        raise _damaged(folder, error) from error
    state.epochs = epochs
    state.best_weights = _under(tensors, "best/")
    state.reference = tensors.get("reference")
    _restore_optimizer(trainer.optimizer, _under(tensors, "optimizer/"))
    return tuple(state.epochs)


def _damaged(folder: Path, error: Exception) -> TrainingError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return TrainingError(f"{folder}: expected a training that was kept, and it doesn't read ({reason}); delete it to begin anew")


def forget(folder: Path) -> None:
    """Delete a training that is done."""
    shutil.rmtree(folder, ignore_errors=True)


def fingerprint(trainer: "Trainer") -> str:
    """Differs for another configuration, network, graph or rewards."""
    graph, dev = trainer.graphs
    digest = hashlib.sha256(repr((trainer.config, trainer.decision, trainer.network.config)).encode())
    for one in (graph, dev):
        digest.update(repr(one.states).encode())
        for array in (one.successors, one.tokens, one.good):
            digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(np.ascontiguousarray(trainer.first_rewards).tobytes())
    return digest.hexdigest()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _restore_optimizer(optimizer: torch.optim.Optimizer, kept: dict[str, Tensor]) -> None:
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in kept.items():
        number, _, part = name.partition("/")
        state.setdefault(int(number), {})[part] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
