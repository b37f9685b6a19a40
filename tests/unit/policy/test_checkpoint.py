"""A policy folder decides as what was saved, travels whole, and is refused when it isn't."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from chat.prompt import PAPER, PromptSettings
from policy.checkpoint import RECORD, WEIGHTS, PolicyRecord, SkipCertificate, load_network, load_policy, read_record, save_policy
from policy.decide import DecisionConfig, Exploration, NetworkPolicy
from policy.encoding import StateEncoder
from policy.errors import CheckpointError
from policy.network import GateNetwork, NetworkConfig, Trainable, build_network
from tests.tiny_gate import STATES, gate_state, tiny_gate

CERTIFICATE = SkipCertificate(0.1, True, 0.09, 0.08, 60, 40, 0)
MANY = (*STATES, *(gate_state("card " * n, n / 20) for n in range(20)))


def record(network: GateNetwork, **options: Any) -> PolicyRecord:
    decision = DecisionConfig(skip_threshold=0.45, uncertainty_penalty=0.5, seed=3)
    return PolicyRecord(network.config, decision, PAPER, PromptSettings(k=1), seed=0, preset="budget", **options)


def disturbed(encoder: Path, **options: Any) -> tuple[GateNetwork, StateEncoder, Any]:
    """A network in which all that can learn is not as it was drawn, as after a training."""
    network, states, tokenizer = tiny_gate(encoder, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
        network.standardise(network.pooled(states.batch(MANY)), states.batch(MANY).evidence)
    return network, states, tokenizer


def saved(folder: Path, encoder: Path, **options: Any) -> tuple[GateNetwork, StateEncoder, PolicyRecord]:
    """A policy in a folder, and what it was made of."""
    network, states, tokenizer = disturbed(encoder, **options)
    return network, states, save_policy(folder, network, tokenizer, record(network), "# A card\n")


@pytest.fixture(scope="module")
def made(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "gate"
    saved(folder, bert)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A policy folder that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "gate"))


# there and back


@pytest.mark.parametrize("trainable", ["head", "top_layers", "lora", "full"])
def test_what_is_loaded_decides_as_what_was_saved_also_where_the_encoders_folder_is_gone(
    trainable: Trainable, encoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """To the last bit, but with low-rank updates, which are added to the weights: to 1e-5 there."""
    origin = Path(shutil.copytree(encoder, tmp_path / "origin"))
    network, states, written = saved(tmp_path / "gate", origin, trainable=trainable)
    shutil.rmtree(origin)
    moved = (tmp_path / "gate").rename(tmp_path / "elsewhere")
    loaded, found = load_policy(moved)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert found == written
    assert str(tmp_path) not in (moved / RECORD).read_text()
    original = NetworkPolicy(network, states, written.decision, written.version)
    ours, theirs = [original.decide(state) for state in MANY], [loaded.decide(state) for state in MANY]
    assert {one.action for one in ours} == {one.action for one in theirs}
    assert [one.action for one in ours] == [one.action for one in theirs]
    if trainable == "lora":
        assert loaded.scores(MANY) == pytest.approx(original.scores(MANY), abs=1e-5)
    else:
        assert ours == theirs
        assert np.array_equal(loaded.scores(MANY), original.scores(MANY))


@pytest.mark.parametrize("trainable", ["head", "lora", "full"])
def test_a_loaded_policy_can_be_saved_and_loaded_again(trainable: Trainable, encoder: Path, tmp_path: Path) -> None:
    _, _, first = saved(tmp_path / "a", encoder, trainable=trainable)
    network, tokenizer = load_network(tmp_path / "a", first)
    second = save_policy(tmp_path / "b", network, tokenizer, first, "")
    assert second == first
    shutil.rmtree(tmp_path / "a")
    assert load_policy(tmp_path / "b")[1].version == first.version


def test_an_evidence_policy_needs_no_encoder_of_its_own(bert: Path, tmp_path: Path) -> None:
    network, states, written = saved(tmp_path / "gate", bert, text=False)
    loaded, _ = load_policy(tmp_path / "gate")
    assert np.array_equal(loaded.scores(MANY), NetworkPolicy(network, states, written.decision, "x").scores(MANY))


def test_the_record_says_all_that_it_was_given(bert: Path, tmp_path: Path) -> None:
    network, _, tokenizer = tiny_gate(bert)
    given = record(network, static=True, certificate=CERTIFICATE, data={"train": "abc"}, training={"epochs": [{"loss": 0.5}]},
                   metrics={"saving": {"value": 0.1, "low": None}})
    written = save_policy(tmp_path / "gate", network, tokenizer, given, "# A card\n")
    found = read_record(tmp_path / "gate")
    assert found == written
    assert found == replace(given, network=found.network, weights_sha256=found.weights_sha256)
    assert (found.static, found.certificate, len(found.weights_sha256)) == (True, CERTIFICATE, 64)
    assert (tmp_path / "gate" / "README.md").read_text() == "# A card\n"


def test_a_loaded_policy_explores_as_it_is_told(folder: Path) -> None:
    """200 draws at 0.5: all alike with a chance of 2e-60."""
    assert len({load_policy(folder)[0].decide(STATES[0]).action for _ in range(3)}) == 1
    curious, _ = load_policy(folder, Exploration(0.5, 0.5))
    assert len({curious.decide(STATES[0]).action for _ in range(200)}) == 2


@pytest.mark.parametrize("trainable", ["head", "lora", "full"])
def test_nothing_in_the_folder_is_pickled(trainable: Trainable, encoder: Path, tmp_path: Path) -> None:
    saved(tmp_path / "gate", encoder, trainable=trainable)
    files = [path for path in (tmp_path / "gate").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".txt"}
    for path in files:
        content = path.read_bytes()
        with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError, AttributeError, ImportError)):
            pickle.loads(content)


def test_a_head_over_the_packaged_encoder_takes_less_than_2_mb_and_decides_alike(tmp_path: Path) -> None:
    network, tokenizer = build_network(NetworkConfig(), seed=0)
    written = save_policy(tmp_path / "gate", network, tokenizer, record(network), "")
    files = [path for path in (tmp_path / "gate").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert not (tmp_path / "gate" / "encoder").exists()
    loaded, found = load_policy(tmp_path / "gate")
    assert found == written
    states = StateEncoder(tokenizer, network.config.max_tokens, network.config.previous_queries)
    assert np.array_equal(loaded.scores(STATES), NetworkPolicy(network, states, written.decision, "x").scores(STATES))


# versions


@pytest.mark.parametrize("change", [
    {"decision": DecisionConfig(skip_threshold=0.46, uncertainty_penalty=0.5, seed=3)},
    {"decision": DecisionConfig(skip_threshold=0.45, uncertainty_penalty=0.5, seed=4)},
    {"decision": DecisionConfig(skip_threshold=0.45, uncertainty_penalty=0.5, seed=3, mc_dropout="off")},
    {"prompt": PromptSettings(k=2)},
    {"weights_sha256": "0" * 64},
])
def test_the_version_changes_with_what_can_change_a_decision(change: dict[str, Any], folder: Path) -> None:
    found = read_record(folder)
    assert replace(found, **change).version != found.version


def test_the_version_stays_with_what_cannot(folder: Path) -> None:
    found = read_record(folder)
    assert replace(found, metrics={"saving": 1}, data={"train": "x"}, certificate=CERTIFICATE).version == found.version
    assert load_policy(folder)[0].version == found.version


def test_other_weights_are_another_version(bert: Path, tmp_path: Path) -> None:
    assert saved(tmp_path / "a", bert)[2].version != saved(tmp_path / "b", bert, seed=1)[2].version
    assert saved(tmp_path / "c", bert)[2].version == read_record(tmp_path / "a").version


# refused


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / RECORD).read_text())
    change(content)
    (folder / RECORD).write_text(json.dumps(content))


def other_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Other weights, under a hash that fits them."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    rehash(folder)


def rehash(folder: Path) -> None:
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    edited(folder, lambda content: content.update(weights_sha256=digest))


def truncate(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])


def truncated_under_its_hash(folder: Path) -> None:
    truncate(folder / WEIGHTS, 1000)
    rehash(folder)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "gate: expected a policy folder with config.json.*train one with `fetchgate policy train`"),
    "no record": (lambda at: (at / RECORD).unlink(), "gate: expected a policy folder with config.json, and it can't be read"),
    "truncated record": (lambda at: truncate(at / RECORD, 200), r"config.json: expected JSON, and it doesn't parse .*; copy or train"),
    "empty record": (lambda at: truncate(at / RECORD, 0), "config.json: expected JSON"),
    "record that isn't text": (lambda at: (at / RECORD).write_bytes(b"\xff\x00\xff"), "config.json: expected JSON"),
    "record that is nested without end": (lambda at: (at / RECORD).write_text("[" * 100_000), "config.json: expected JSON"),
    "record of another model": (lambda at: (at / RECORD).write_text('{"model_type": "roberta", "hidden_size": 768}'),
                                "config.json: expected policy format 1, got None; is it another model's config.json?"),
    "record that is a list": (lambda at: (at / RECORD).write_text("[]"), "config.json: expected policy format 1, got 'list'"),
    "later format": (lambda at: edited(at, lambda c: c.update(format=2)), "config.json: expected policy format 1, got 2"),
    "text for a number": (lambda at: edited(at, lambda c: c["decision"].update(samples="many")),
                          "config.json: decision.samples: .*, got 'many'; train the policy anew"),
    "number out of range": (lambda at: edited(at, lambda c: c["decision"].update(samples=0)),
                            "config.json: decision: .*expected at least 1"),
    "unknown choice": (lambda at: edited(at, lambda c: c["network"].update(pooling="max")), "config.json: network.pooling: .*, got 'max'"),
    "missing part": (lambda at: edited(at, lambda c: c.pop("prompt")), "config.json: prompt: Field required"),
    "other width": (lambda at: edited(at, lambda c: c["network"].update(hidden=9)),
                    "model.safetensors: expected the weights of the network that config.json describes, got others"),
    "other inputs": (lambda at: edited(at, lambda c: c["network"].update(evidence=False)),
                     "model.safetensors: expected the weights of the"),
    "updates that aren't there": (lambda at: edited(at, lambda c: c["network"].update(trainable="lora")),
                                  "model.safetensors: expected the weights of the .* is missing"),
    "more tokens than are read": (lambda at: edited(at, lambda c: c["network"].update(max_tokens=4096)),
                                  "config.json: max_tokens: expected at most 64"),
    "too few tokens": (lambda at: edited(at, lambda c: c["network"].update(max_tokens=3)), "config.json: max_tokens: expected at least 16"),
    "no encoder there": (lambda at: edited(at, lambda c: c["network"].update(encoder="/no/such/folder")),
                         "/no/such/folder: expected a folder with a BERT or GPT-2 checkpoint, got none"),
    "no weights": (lambda at: (at / WEIGHTS).unlink(), "model.safetensors: expected the policy's weights, and they can't be read"),
    "truncated weights": (lambda at: truncate(at / WEIGHTS, 1000),
                          "model.safetensors: expected SHA-256 .*, got .*; the file is truncated or of another policy, copy or train"),
    "empty weights": (lambda at: truncate(at / WEIGHTS, 0), "model.safetensors: expected SHA-256"),
    "weights under a false hash": (lambda at: truncated_under_its_hash(at),
                                   "model.safetensors: expected the policy's weights, and they can't be read"),
    "a tensor less": (lambda at: other_weights(at, lambda t: t.pop("body.bias")), "model.safetensors: .*body.bias is missing"),
    "a tensor more": (lambda at: other_weights(at, lambda t: t.update(more=torch.zeros(1))), "model.safetensors: .*got others .more"),
    "a tensor of another shape": (lambda at: other_weights(at, lambda t: t.update({"body.bias": torch.zeros(3)})),
                                  "model.safetensors: .*got others .body.bias"),
    "an encoder without weights": (lambda at: (at / "encoder" / WEIGHTS).unlink(), "encoder: expected model.safetensors in it"),
    "an encoder of another kind": (lambda at: (at / "encoder" / RECORD).write_text('{"model_type": "roberta"}'),
                                   "config.json: expected model_type bert or gpt2, got 'roberta'"),
    "a truncated encoder": (lambda at: truncate(at / "encoder" / WEIGHTS, 1000),
                            "encoder: expected a BERT or GPT-2 checkpoint that is whole"),
    "no encoder": (lambda at: shutil.rmtree(at / "encoder"), "encoder: expected a folder with a BERT or GPT-2 checkpoint, got none"),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED)
def test_a_folder_that_is_not_whole_is_refused_with_file_and_mend(damage: Callable[[Path], object], message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_policy(folder)


def test_the_weights_of_another_policy_are_refused(bert: Path, folder: Path, tmp_path: Path) -> None:
    saved(tmp_path / "other", bert, seed=5)
    shutil.copy(tmp_path / "other" / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="model.safetensors: expected SHA-256 .* or of another policy"):
        load_policy(folder)


def test_a_folder_of_an_encoder_is_no_policy(bert: Path) -> None:
    with pytest.raises(CheckpointError, match="config.json: expected policy format 1, got None"):
        load_policy(bert)


# a bad one never takes the place of a good one


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_leave_the_good_policy_untouched(damage: float, bert: Path, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in ("deep", "text_mean"):
        network, _, tokenizer = disturbed(bert)
        with torch.no_grad():
            (network.deep.weight if name == "deep" else network.text_mean)[0] = damage
        with pytest.raises(CheckpointError, match=f"gate: expected finite weights, got NaN or infinity in {name}.*; nothing was written"):
            save_policy(folder, network, tokenizer, record(network), "")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["gate"]


def test_an_encoder_that_was_trained_to_no_numbers_leaves_the_good_policy_untouched(bert: Path, folder: Path) -> None:
    before = (folder / WEIGHTS).read_bytes()
    network, _, tokenizer = disturbed(bert, trainable="full")
    with torch.no_grad():
        next(one for name, one in network.named_parameters() if name.startswith("encoder."))[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="expected finite weights, got NaN or infinity in encoder."):
        save_policy(folder, network, tokenizer, record(network), "")
    assert (folder / WEIGHTS).read_bytes() == before


def test_a_new_policy_takes_the_place_of_the_old_one_and_of_nothing_else(bert: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "stale").touch()
    _, _, written = saved(folder, bert, seed=9)
    assert load_policy(folder)[1] == written
    assert not (folder / "stale").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    with pytest.raises(CheckpointError, match="home: expected an empty folder or one with config.json, got one with other files"):
        saved(tmp_path / "home", bert)


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file/gate: can't be written \(.*\); what was there is unchanged"):
        saved(tmp_path / "file" / "gate", bert)
