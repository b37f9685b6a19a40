"""A reward model on disk: `reward.json` (what it is, and its figures) and `model.safetensors`. Nothing is pickled.

The frozen encoder isn't copied: its id is in the record, and another one is refused. Leaves out fitting (`train.py`).
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kb.embedder import Embedder
from reward.errors import PreferenceError
from reward.model import NetworkConfig, RewardModel, RewardNetwork, Scale

RECORD, WEIGHTS = "reward.json", "model.safetensors"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class RewardRecord:
    """What `reward.json` says."""

    network: NetworkConfig
    scale: Scale
    encoder: str
    """`Embedder.model_id` of the encoder below."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Configuration of the training, hash of its data."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    format: int = FORMAT

    @property
    def version(self) -> str:
        """Changes with weights, scale, figures and encoder."""
        told = f"{self.weights_sha256}{self.network}{self.scale}{self.encoder}"
        return f"reward:{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def save_reward(folder: Path, model: RewardModel, training: Mapping[str, Any], metrics: Mapping[str, Any]) -> RewardRecord:
    """Write a model to the side and put it in the folder's place.

    Figures of training and metrics that aren't finite are written as null.
    Raises: PreferenceError when weights aren't finite, or the folder is somebody else's or can't be written.
    """
    check_replaceable(folder)
    tensors = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    if damaged := [name for name, tensor in tensors.items() if name != "spread" and not tensor.isfinite().all()]:
        raise PreferenceError(f"{folder}: expected finite weights, got NaN or infinity in {damaged[0]}; nothing was written")
    fresh = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        save_file(tensors, fresh / WEIGHTS)
        record = RewardRecord(model.network.config, model.scale, model.embedder.model_id, _plain(training), _plain(metrics),
                              _sha256(fresh / WEIGHTS))
        (fresh / RECORD).write_text(json.dumps(asdict(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        for path in (fresh / WEIGHTS, fresh / RECORD):
            path.chmod(0o644)
        fresh.chmod(0o755)
        old = fresh.with_name(f"{fresh.name}-old")
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise PreferenceError(f"{folder}: can't be written ({getattr(error, 'strerror', None) or error})") from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)
    return record


def _plain(told: Any) -> Any:
    """As JSON holds it: a figure that isn't there (NaN) is null."""
    if isinstance(told, Mapping):
        return {str(name): _plain(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [_plain(value) for value in told]
    return None if isinstance(told, float) and not math.isfinite(told) else told


def check_replaceable(folder: Path) -> None:
    """Nothing, if the folder is free, empty or a reward model's. Raises: PreferenceError."""
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / RECORD).is_file())):
        raise PreferenceError(f"{folder}: expected a free name, an empty folder or one with {RECORD}, got something else; choose another")


def read_reward(folder: Path) -> RewardRecord:
    """What a folder says of its model. Raises: PreferenceError."""
    path = folder / RECORD
    try:
        record: RewardRecord = TypeAdapter(RewardRecord).validate_json(path.read_bytes())
    except OSError as error:
        raise PreferenceError(f"{path}: expected a reward model's record, and it can't be read ({error.strerror}); train one with "
                              "`fetchgate reward train`") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise PreferenceError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; train the model anew") from error
    if record.format != FORMAT:
        raise PreferenceError(f"{path}: expected format {FORMAT}, got {record.format}; train the model with this version")
    return record


def load_reward(folder: Path, embedder: Embedder) -> tuple[RewardModel, RewardRecord]:
    """The model of a folder on its encoder. Raises: PreferenceError when a part is missing, damaged, or for another encoder."""
    record = read_reward(folder)
    if record.encoder != embedder.model_id:
        raise PreferenceError(f"{folder}: expected the encoder {record.encoder} that it was trained on, got {embedder.model_id}; "
                              "give that one, or train anew")
    path = folder / WEIGHTS
    network = RewardNetwork(record.network)
    try:
        if (found := _sha256(path)) != record.weights_sha256:
            raise PreferenceError(f"{path}: expected SHA-256 {record.weights_sha256}, got {found}; the file is damaged or another model's")
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PreferenceError(f"{path}: expected the weights of the network that {RECORD} describes, and they don't load ({error}); "
                              "train the model anew") from error
    return RewardModel(network, embedder, record.scale), record


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
