"""One network behind every choice: shapes, what learns, what is pooled, and what padding must not change."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policy.encoder import add_special_tokens, load_encoder
from policy.encoding import EVIDENCE, Batch, evidence_features
from policy.errors import CheckpointError
from policy.network import GateNetwork, NetworkConfig, Passes, Pooling, Trainable, build_network, encoder_frozen, trained_names
from tests.tiny_encoder import DIMENSION, make_tiny_gpt2
from tests.tiny_gate import STATES, tiny_gate
from tests.unit.policy.conftest import TEXTS

TRAINABLE: tuple[Trainable, ...] = ("head", "top_layers", "lora", "full")
POOLING: tuple[Pooling, ...] = ("cls", "mean", "query", "last")
HEADS = {"read", "body", "deep", "action", "value", "verdict"}


def learning(network: GateNetwork) -> set[str]:
    """Names of the encoder's parameters that learn."""
    return {name.removeprefix("encoder.") for name, one in network.named_parameters() if one.requires_grad and name.startswith("encoder.")}


def logits(network: GateNetwork, batch: Batch) -> Tensor:
    with torch.inference_mode():
        return network(batch)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("trainable", TRAINABLE)
def test_every_encoder_gives_two_logits_and_a_value_and_learns_where_it_may(trainable: Trainable, encoder: Path) -> None:
    network, states, _ = tiny_gate(encoder, trainable=trainable, text_dropout=0.0)
    assert not network.training
    found, values = network(states.batch(STATES))
    assert (found.shape, values.shape) == ((3, len(STATES), 2), (3, len(STATES)))
    assert torch.isfinite(found).all()
    (found[..., 0].sum() + values.sum()).backward()
    reached = {name for name, one in network.named_parameters() if one.grad is not None}
    assert {name.split(".")[0] for name in reached} - {"encoder"} == HEADS - {"verdict"}, "it has a loss of its own"
    assert reached == {name for name, one in network.named_parameters() if one.requires_grad and not name.startswith("verdict.")}
    assert encoder_frozen(network) is (trainable == "head")


@pytest.mark.parametrize("trainable", TRAINABLE)
def test_just_what_was_asked_for_learns(trainable: Trainable, tmp_path: Path) -> None:
    network, _, _ = tiny_gate(make_tiny_gpt2(tmp_path, TEXTS, layers=3), trainable=trainable, top_layers=2)
    assert network.encoder is not None
    everything = {name for name, _ in network.encoder.named_parameters()}
    updates = {name for name in everything if "lora_" in name}
    expected: dict[str, set[str]] = {"head": set(), "lora": updates, "full": everything,
                "top_layers": {name for name in everything if name.startswith(("h.1.", "h.2."))}}
    assert learning(network) == expected[trainable]
    assert len(updates) == (6 if trainable == "lora" else 0), "two matrices beside c_attn in each layer"


def test_low_rank_updates_of_a_bert_stand_beside_query_and_value(bert: Path) -> None:
    network, _, _ = tiny_gate(bert, trainable="lora", lora_rank=3)
    names = learning(network)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {"query", "value"}
    assert {3} == {min(one.shape) for name, one in network.named_parameters() if "lora_" in name}


def test_low_rank_updates_start_as_no_change(encoder: Path) -> None:
    plain, states, _ = tiny_gate(encoder, trainable="head")
    updated, _, _ = tiny_gate(encoder, trainable="lora")
    batch = states.batch(STATES)
    with torch.inference_mode():
        assert torch.allclose(updated.pooled(batch), plain.pooled(batch), atol=1e-6)


def test_the_seed_draws_the_heads_and_nothing_else(encoder: Path) -> None:
    before = torch.get_rng_state()
    one, two, other = (tiny_gate(encoder, seed=seed, trainable="lora")[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert {name.split(".")[0] for name in changed if "lora_A" not in name} == HEADS
    assert any("lora_A" in name for name in changed)


def test_what_a_checkpoint_holds_is_what_learns_and_what_was_measured(encoder: Path) -> None:
    network, _, _ = tiny_gate(encoder)
    names = trained_names(network)
    assert not any(name.startswith("encoder.") for name in names)
    assert {name.split(".")[0] for name in names} == HEADS | {"evidence_mean", "evidence_scale", "text_mean", "text_scale"}
    lora, _, _ = tiny_gate(encoder, trainable="lora")
    assert {name for name in trained_names(lora) if name.startswith("encoder.")} == {f"encoder.{name}" for name in learning(lora)}


@pytest.mark.parametrize("pooling", POOLING)
def test_each_pooling_is_what_it_says(pooling: Pooling, encoder: Path) -> None:
    network, states, _ = tiny_gate(encoder, pooling=pooling)
    batch = states.batch(STATES)
    bare, tokenizer = load_encoder(str(encoder))
    add_special_tokens(bare, tokenizer, generator_seed=0)
    with torch.inference_mode():
        found = network.pooled(batch)
        assert found.shape == (len(STATES), DIMENSION)
        for row, state in enumerate(STATES):
            ids = states.ids(state)
            hidden = bare(input_ids=torch.tensor([ids])).last_hidden_state[0]
            query = len(tokenizer.tokenize(state.query))
            expected = {"cls": hidden[0], "last": hidden[-1], "mean": hidden.mean(dim=0), "query": hidden[-1 - query : -1].mean(dim=0)}
            read = "last" if pooling == "cls" and bare.config.model_type == "gpt2" else pooling  # its first token has seen nothing else
            assert torch.allclose(found[row], expected[read], atol=1e-5)


@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize("trainable", ["head", "lora"])
def test_padding_does_not_change_what_a_state_gives(trainable: Trainable, pooling: Pooling, encoder: Path) -> None:
    """To 1e-5 in the logits, which are about 1 in size: float32 sums in another order."""
    network, states, _ = tiny_gate(encoder, pooling=pooling, trainable=trainable)
    together = logits(network, states.batch(STATES))
    assert len({len(states.ids(state)) for state in STATES}) == len(STATES), "each is padded to another length"
    for row, state in enumerate(STATES):
        assert torch.allclose(logits(network, states.batch([state]))[:, 0], together[:, row], atol=1e-5)
    batch = states.batch(STATES)
    garbage = replace(batch, input_ids=torch.where(batch.attention_mask == 1, batch.input_ids, 7))
    assert torch.allclose(logits(network, garbage), together, atol=1e-5)


def test_a_network_that_reads_no_text_needs_no_encoder() -> None:
    network = GateNetwork(None, DIMENSION, NetworkConfig(text=False, members=2))
    evidence = torch.from_numpy(evidence_features(STATES))
    empty = torch.zeros(len(STATES), 5, dtype=torch.int64)
    found, values = network(Batch(empty, empty, empty, evidence))
    assert (found.shape, values.shape) == ((2, len(STATES), 2), (2, len(STATES)))
    assert (network.read, encoder_frozen(network)) == (None, True)


def test_a_built_network_that_reads_no_text_has_none_of_the_encoder(encoder: Path) -> None:
    network, states, _ = tiny_gate(encoder, text=False)
    assert network.encoder is None
    one, other = ([replace(state, query=query) for state in STATES] for query in ("words", "others"))
    assert torch.equal(logits(network, states.batch(one)), logits(network, states.batch(other)))


def test_a_network_without_evidence_does_not_see_it(encoder: Path) -> None:
    network, states, _ = tiny_gate(encoder, evidence=False)
    bare = [replace(state, evidence=None) for state in STATES]
    assert torch.equal(logits(network, states.batch(STATES)), logits(network, states.batch(bare)))
    seeing, states, _ = tiny_gate(encoder)
    assert not torch.allclose(logits(seeing, states.batch(STATES)), logits(seeing, states.batch(bare)), atol=1e-4)


def test_inputs_are_standardised_by_training_states_and_a_constant_one_stays_finite(encoder: Path) -> None:
    network, states, _ = tiny_gate(encoder)
    batch = states.batch(STATES)
    with torch.inference_mode():
        pooled = network.pooled(batch)
    network.standardise(pooled, batch.evidence)
    scaled = network.scaled(pooled)
    assert torch.allclose(scaled.mean(dim=0), torch.zeros(DIMENSION), atol=1e-5)
    assert scaled.square().mean().item() == pytest.approx(1.0, abs=1e-4)
    seen = (batch.evidence - network.evidence_mean) / network.evidence_scale
    varying = batch.evidence.std(dim=0, correction=0) > 1e-3
    assert torch.allclose(seen[:, varying].std(dim=0, correction=0), torch.ones(int(varying.sum())), atol=1e-4)
    assert not seen[:, ~varying].any()
    assert torch.isfinite(logits(network, batch)).all()


def test_masks_take_the_place_of_dropout_at_three_sites(bert: Path) -> None:
    network, states, _ = tiny_gate(bert)
    batch = states.batch(STATES)
    assert network.mask_widths == (4 + len(EVIDENCE), 8, 8)
    first, second, third = (torch.ones(2, 1, width) for width in network.mask_widths)
    with torch.inference_mode():
        texts = network.scaled(network.pooled(batch))
        found, values = network.heads(texts, batch.evidence, Passes(torch.tensor([2, 0]), (first, second, third)))
        assert (found.shape, values.shape) == ((2, len(STATES), 2), (2, len(STATES)))
        assert torch.equal(found, logits(network, batch)[[2, 0]])
        blind, _ = network.heads(texts, batch.evidence, Passes(torch.tensor([2, 0]), (first, second, 0.0 * third)))
    assert torch.equal(blind, network.action.bias[[2, 0]].expand(2, len(STATES), 2))


def test_members_begin_differently_and_one_of_them_alone_is_a_plain_network(bert: Path) -> None:
    network, states, _ = tiny_gate(bert)
    batch = states.batch(STATES)
    together = logits(network, batch)
    assert (together[0] - together[1]).abs().max() > 0.01
    with torch.inference_mode():
        text = torch.tanh(network.scaled(network.pooled(batch)) @ network.read.weight[1] + network.read.bias[1])  # type: ignore[union-attr]
        seen = (batch.evidence - network.evidence_mean) / network.evidence_scale
        hidden = torch.cat([text, seen], dim=1)
        for layer in (network.body, network.deep):
            hidden = torch.tanh(hidden @ layer.weight[1] + layer.bias[1])
        alone = hidden @ network.action.weight[1] + network.action.bias[1]
    assert torch.allclose(together[1], alone, atol=1e-5)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"dropout": 1.0}, "dropout: expected 0 <= p < 1, got 1.0"),
    ({"dropout": -0.1}, "dropout: expected 0 <= p < 1"),
    ({"text_dropout": float("nan")}, "text_dropout: expected 0 <= p < 1, got nan"),
    ({"text": False, "evidence": False}, "text, evidence: expected at least one of them, got neither"),
    ({"top_layers": 0}, "top_layers: expected 1 or more, got 0"),
    ({"lora_rank": 0}, "lora_rank: expected 1 or more, got 0"),
    ({"hidden": 0}, "hidden: expected 1 or more, got 0"),
    ({"text_width": -1}, "text_width: expected 1 or more, got -1"),
    ({"members": 0}, "members: expected at least 1, got 0"),
    ({"previous_queries": -1}, "previous_queries: expected 0 or more, got -1"),
]


@pytest.mark.parametrize(("options", "message"), INVALID)
def test_a_configuration_that_makes_no_network_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**options)


def test_more_tokens_than_the_encoder_reads_are_refused(encoder: Path) -> None:
    with pytest.raises(ValueError, match="max_tokens: expected at most 64, which .* reads, got 65"):
        build_network(NetworkConfig(encoder=str(encoder), max_tokens=65), seed=0)


def test_a_missing_encoder_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a folder with a BERT or GPT-2 checkpoint, got none"):
        build_network(NetworkConfig(encoder=str(tmp_path / "none")), seed=0)


def test_the_packaged_default_is_frozen_and_reads_the_states() -> None:
    network, tokenizer = build_network(NetworkConfig(), seed=0)
    assert (network.width, encoder_frozen(network), tokenizer.convert_tokens_to_ids("[NO_FETCH]") > 0) == (384, True, True)
