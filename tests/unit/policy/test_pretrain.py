"""A tiny BERT and a tiny GPT-2, really pre-trained on sentences with a pattern."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kb.types import Faq
from policy.encoder import SPECIAL_TOKENS, Kind, add_special_tokens, load_encoder
from policy.errors import CheckpointError, TrainingError
from policy.pretrain import RECORD, PretrainConfig, Step, corpus, default_config, pretrain

TEXTS = [f"{verb} my {thing} {time}" for verb in ("block", "lose", "get") for thing in ("card", "pin", "bill") for time in ("now", "soon")]
DEV = ["block my bill soon", "lose my card now"]


@pytest.fixture(scope="module")
def settings(bert: Path) -> dict[Kind, PretrainConfig]:
    small = PretrainConfig(epochs=8, batch_size=6, learning_rate=1e-2, max_tokens=32)
    return {"bert": replace(small, encoder=str(bert)),
            "gpt2": replace(small, kind="gpt2", layers=1, width=16, heads=2, vocabulary=300)}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_dev_loss_falls_and_what_is_written_loads_as_an_encoder(
    kind: Kind, settings: dict[Kind, PretrainConfig], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Step] = []
    result = pretrain(TEXTS, DEV, settings[kind], tmp_path / "out", seen.append)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert result.loss_after < 0.8 * result.loss_before
    assert result.loss_after == min(result.dev_losses[1:])
    assert result.perplexity_after == pytest.approx(math.exp(result.loss_after))
    assert [step.step for step in seen] == list(range(1, 25))
    assert {step.steps for step in seen} == {result.steps} == {24}
    assert (seen[-1].epoch, max(step.learning_rate for step in seen) <= 1e-2) == (8, True)

    model, tokenizer = load_encoder(str(tmp_path / "out"))
    assert model.config.model_type == kind
    assert set(SPECIAL_TOKENS) <= set(tokenizer.get_vocab())
    assert add_special_tokens(model, tokenizer, 5) == ()
    names = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert names == {".json", ".safetensors"}
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["config"]["seed"] == 0
    assert len(record["data"]["sha256"]) == 64
    assert record["figures"]["loss_after"] == result.loss_after
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_seed_determines_the_weights(kind: Kind, settings: dict[Kind, PretrainConfig], tmp_path: Path) -> None:
    config = replace(settings[kind], epochs=2)
    state = torch.get_rng_state()
    pretrain(TEXTS, DEV, config, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)  # whatever else was drawn
    pretrain(TEXTS, DEV, config, tmp_path / "b")
    pretrain(TEXTS, DEV, replace(config, seed=1), tmp_path / "c")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_dropout_is_on_in_training(settings: dict[Kind, PretrainConfig], bert: Path, tmp_path: Path) -> None:
    import shutil

    dry = Path(shutil.copytree(bert, tmp_path / "dry"))
    config = json.loads((dry / "config.json").read_text())
    (dry / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    once = replace(settings["bert"], epochs=1)
    pretrain(TEXTS, DEV, once, tmp_path / "wet-out")
    pretrain(TEXTS, DEV, replace(once, encoder=str(dry)), tmp_path / "dry-out")
    assert not same(weights(tmp_path / "wet-out"), weights(tmp_path / "dry-out"))


def test_what_was_pretrained_can_be_pretrained_further_and_replaced(settings: dict[Kind, PretrainConfig], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = pretrain(TEXTS, DEV, settings["gpt2"], out)
    more = replace(settings["gpt2"], encoder=str(out), learning_rate=2e-3)
    second = pretrain(TEXTS, DEV, more, out)
    assert second.loss_before == pytest.approx(first.loss_after, rel=1e-5)  # the head is the embeddings, and comes with them
    assert second.loss_after < first.loss_after
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_training_that_diverges_leaves_the_folder_as_it_was(
    kind: Kind, settings: dict[Kind, PretrainConfig], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pretrain(TEXTS, DEV, replace(settings[kind], epochs=1), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(TrainingError, match=r"step \d+ of 24: expected a finite loss and gradient, got .*lower the learning rate"):
        pretrain(TEXTS, DEV, replace(settings[kind], learning_rate=1e30), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_training_that_brings_nothing_is_not_written(settings: dict[Kind, PretrainConfig], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"expected the loss on dev_texts to fall below \d.*nothing is written"):
        pretrain(TEXTS, DEV, replace(settings["gpt2"], learning_rate=10.0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("texts", "dev", "message"), [
    ([], DEV, "texts: expected at least one text, got none"),
    (TEXTS, [" "], "dev_texts: expected at least one text, got none"),
    (["[SEP]"], DEV, "texts: expected words, got only special tokens"),
])
def test_without_texts_there_is_no_training(
    texts: list[str], dev: list[str], message: str, settings: dict[Kind, PretrainConfig], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=message):
        pretrain(texts, dev, settings["bert"], tmp_path / "out")


def test_somebody_elses_folder_is_refused_before_anything_is_trained(settings: dict[Kind, PretrainConfig], tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(CheckpointError, match="expected an empty folder or one with pretraining.json, got one with other files"):
        pretrain(TEXTS, DEV, settings["gpt2"], tmp_path, lambda step: pytest.fail("trained"))


def test_an_encoder_of_another_kind_or_too_short_is_refused(settings: dict[Kind, PretrainConfig], bert: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a gpt2 encoder, got bert; choose its kind, or another encoder"):
        pretrain(TEXTS, DEV, replace(settings["gpt2"], encoder=str(bert)), tmp_path / "out")
    with pytest.raises(CheckpointError, match="expected max_tokens of at most 64, the encoder's positions, got 65"):
        pretrain(TEXTS, DEV, replace(settings["bert"], max_tokens=65), tmp_path / "out")


@pytest.mark.parametrize(("field", "value"), [
    ("kind", "t5"), ("epochs", 0), ("batch_size", 0), ("learning_rate", 0.0), ("learning_rate", math.inf), ("learning_rate", math.nan),
    ("warmup", 1.0), ("warmup", -0.1), ("mask_probability", 0.0), ("mask_probability", 1.0), ("max_tokens", 3), ("seed", -1),
    ("seed", 2**63), ("layers", 0), ("heads", 0), ("width", 0), ("width", 250), ("vocabulary", 299),
])
def test_settings_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field}: expected"):
        PretrainConfig(**{field: value})  # type: ignore[arg-type]


def test_each_kind_has_settings_of_its_own() -> None:
    assert default_config("bert") == PretrainConfig()
    assert default_config("gpt2").kind == "gpt2"
    assert default_config("gpt2").learning_rate > default_config("bert").learning_rate


def test_the_corpus_holds_every_text_once_and_turns_as_a_gate_reads_them() -> None:
    faqs = [Faq("a", "How?", "So.", paraphrases=("how pls", "How?")), Faq("b", "", "Only an answer.")]
    assert corpus(faqs, [["q1", "q2 ", "q3", "q4"], ["q1"], []]) == [
        "How?", "So.", "how pls", "Only an answer.", "q1", "q1 [SEP] [UNKNOWN] q2", "q1 [SEP] [UNKNOWN] q2 [SEP] [UNKNOWN] q3",
        "q2 [SEP] [UNKNOWN] q3 [SEP] [UNKNOWN] q4",
    ]
