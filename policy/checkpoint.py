"""A policy on disk: a folder that says what it is, holds what was learned, and is replaced as a whole or not at all.

    config.json         record: network, decision, prompt setting, data, certificate, figures, hash of the weights
    model.safetensors   the part that was trained; all else is in the encoder
    tokenizer*.json     the encoder's tokenizer with the action tokens
    encoder/            the encoder itself, where it isn't one that the project ships or the hub has unchanged
    README.md           model card

Nothing is pickled. Leaves out training (`train.py`) and promotion.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chat.prompt import PromptSettings
from policy.decide import DecisionConfig, Exploration, NetworkPolicy
from policy.encoder import load_encoder, quiet_transformers
from policy.encoding import StateEncoder
from policy.errors import CheckpointError
from policy.folder import check_replaceable, replaced
from policy.network import GateNetwork, NetworkConfig, build_network, trained_names

FORMAT = 1
RECORD = "config.json"
WEIGHTS = "model.safetensors"
ENCODER = "encoder"


@dataclass(frozen=True, slots=True)
class SkipCertificate:
    """Which error budget the skip threshold was certified for, on sessions that training hadn't seen."""

    budget: float
    """Harmful skips as a share of the skips, one-sided 95 %."""
    certified: bool
    """False: there were too few labelled skips; the threshold is then the one that keeps the tightest budget that could be had."""
    upper_conversation: float
    upper_turn: float
    skips: int
    conversations: int
    more_needed: int
    """Further labelled skips, one a conversation, that the budget needs if no further harm is seen; 0 when certified."""


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """What `config.json` says of a policy."""

    network: NetworkConfig
    decision: DecisionConfig
    prompt: PromptSettings
    """The setting that the gate was trained for, and serves with."""
    frugal: PromptSettings
    """The cheapest always-fetch setting that was as good on dev: what its saving is against."""
    seed: int
    preset: str
    """Reward preset."""
    static: bool = False
    """Whether the FAQs that the knowledge base's calibration is certain of answered by themselves, before the gate was asked."""
    certificate: SkipCertificate | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the sessions by split, and the version of the knowledge base."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Configuration and course of the training."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    format: int = FORMAT

    @property
    def version(self) -> str:
        """Changes with weights, threshold, dropout and prompt setting."""
        told = f"{self.weights_sha256}{self.network}{self.decision}{self.prompt}"
        return f"gate:{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def save_policy(folder: Path, network: GateNetwork, tokenizer: Any, record: PolicyRecord, card: str) -> PolicyRecord:
    """Write a policy; what stood there is replaced once all of the new one is on the disk. Returns the record as written.

    Raises: CheckpointError when weights aren't finite, or the folder can't be written or is somebody else's.
    """
    import torch
    from safetensors.torch import save_file

    names = trained_names(network)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items() if name in names}
    if damaged := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise CheckpointError(f"{folder}: expected finite weights, got NaN or infinity in {damaged[0]}; nothing was written")
    check_replaceable(folder, RECORD)
    with replaced(folder, RECORD) as new:
        config = network.config
        if _own_encoder(network):
            _write_encoder(network, tokenizer, new / ENCODER)
            config = replace(config, encoder=ENCODER)
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder.") or "lora_" in name}
        save_file(tensors, new / WEIGHTS)
        tokenizer.save_pretrained(new)
        written = replace(record, network=config, weights_sha256=_sha256(new / WEIGHTS))
        (new / RECORD).write_bytes(TypeAdapter(PolicyRecord).dump_json(written, indent=2))
        (new / "README.md").write_text(card, encoding="utf-8")
    return written


def read_record(folder: Path) -> PolicyRecord:
    """What a policy folder says of itself. Raises: CheckpointError."""
    path = folder / RECORD
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder}: expected a policy folder with {RECORD}, and it can't be read ({error.strerror}); train one with "
                              "`fetchgate policy train`, or name always, never or evidence") from error
    try:
        known = json.loads(content)
        found = known.get("format") if isinstance(known, dict) else type(known).__name__
        if found != FORMAT:
            raise CheckpointError(f"{path}: expected policy format {FORMAT}, got {found!r}; is it another model's config.json? "
                                  "Train a policy with this version")
        record: PolicyRecord = TypeAdapter(PolicyRecord).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {where}: {first['msg']}, got {str(first['input'])[:60]!r}; train the policy anew") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON, and it doesn't parse ({error}); copy or train the policy anew") from error
    return record


def load_policy(folder: Path, exploration: Exploration | None = None) -> tuple[NetworkPolicy, PolicyRecord]:
    """The policy of a folder, ready to decide, with its record.

    Raises: CheckpointError when a part is missing, truncated, or of another architecture.
    """
    record = read_record(folder)
    network, tokenizer = load_network(folder, record)
    for module in network.modules():  # low-rank updates are added to the weights once, so that serving doesn't pay for them
        if hasattr(module, "lora_A"):
            module.merge()  # type: ignore[operator]
    with _fits(folder):
        encoder = StateEncoder(tokenizer, record.network.max_tokens, record.network.previous_queries)
    return NetworkPolicy(network, encoder, record.decision, record.version, exploration=exploration), record


def load_network(folder: Path, record: PolicyRecord) -> tuple[GateNetwork, Any]:
    """The network of a policy folder and its tokenizer. Raises: CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        found = _sha256(path)
        if found != record.weights_sha256:
            raise CheckpointError(f"{path}: expected SHA-256 {record.weights_sha256}, got {found}; the file is truncated or of another "
                                  "policy, copy or train it anew")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected the policy's weights, and they can't be read ({error}); copy or train it anew") from error
    config = record.network
    if config.encoder == ENCODER:
        config = replace(config, encoder=str(folder / ENCODER))
    with _fits(folder):
        network, tokenizer = build_network(config, seed=record.seed)
    own = network.state_dict()
    wrong = sorted(name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape)
    missing = sorted(name for name in trained_names(network) - set(tensors) if config.encoder == record.network.encoder
                     or not name.startswith("encoder.") or "lora_" in name)
    if wrong or missing:
        raise CheckpointError(f"{path}: expected the weights of the network that {RECORD} describes, got others ("
                              f"{(wrong or missing)[0]}{'' if wrong else ' is missing'}); do the two files belong together?")
    network.load_state_dict(tensors, strict=False)
    return network, tokenizer


@contextmanager
def _fits(folder: Path) -> Iterator[None]:
    """A size that no network of this encoder can have is the record's fault."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"{folder / RECORD}: {error}; train the policy anew") from error


def _own_encoder(network: GateNetwork) -> bool:
    """Whether the encoder must travel with the policy: it was changed, or is a folder of this machine's."""
    config = network.config
    if network.encoder is None:
        return False
    return config.trainable in ("full", "top_layers") or Path(config.encoder).expanduser().is_dir()


def _write_encoder(network: GateNetwork, tokenizer: Any, folder: Path) -> None:
    """The encoder as it is now, or, where low-rank updates stand beside it, as it was before them."""
    if network.config.trainable in ("full", "top_layers"):
        with quiet_transformers():
            network.encoder.save_pretrained(folder)  # type: ignore[union-attr, operator]
            tokenizer.save_pretrained(folder)
        return
    folder.mkdir()
    for path in Path(network.config.encoder).expanduser().iterdir():
        if path.is_file() and path.suffix in (".json", ".txt", ".safetensors", ".model"):
            shutil.copy(path, folder)
    load_encoder(str(folder))  # what was copied must be whole


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
