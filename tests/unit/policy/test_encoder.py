"""Which encoders are loaded and which aren't, and what new tokens change in one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kb.embedder import EmbedderConfig, SentenceEmbedder
from policy.encoder import ENCODER_DEFAULT, GPT2_ROLES, SPECIAL_TOKENS, add_special_tokens, load_encoder, quiet_transformers
from policy.errors import CheckpointError
from tests.unit.policy.conftest import TEXTS


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    """A folder of the tiny BERT that a test may damage."""
    import shutil

    return Path(shutil.copytree(bert, tmp_path / "copy"))


def hidden(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(input_ids=torch.tensor([ids])).last_hidden_state
    return result


def test_the_packaged_encoder_reads_as_sentence_transformers_does(capfd: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = load_encoder(ENCODER_DEFAULT)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (type(model).__name__, model.training, model.pooler) == ("BertModel", False, None)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    vectors = torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1)
    theirs = torch.from_numpy(SentenceEmbedder(EmbedderConfig()).embed(TEXTS))
    assert ((vectors * theirs).sum(dim=1) > 0.9999).all()


def test_new_tokens_leave_the_packaged_encoders_reading_of_text_as_it_was() -> None:
    model, tokenizer = load_encoder(ENCODER_DEFAULT)
    ids = tokenizer(TEXTS[0])["input_ids"]
    before = hidden(model, ids)
    assert add_special_tokens(model, tokenizer, 0) == SPECIAL_TOKENS
    assert tokenizer(TEXTS[0])["input_ids"] == ids
    assert torch.equal(hidden(model, ids), before)


@pytest.mark.parametrize(("kind", "added"), [("bert", SPECIAL_TOKENS), ("gpt2", (*GPT2_ROLES.values(), *SPECIAL_TOKENS))])
def test_new_tokens_are_added_once_and_survive_saving(
    kind: str, added: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, tokenizer = load_encoder(str(request.getfixturevalue(kind)))
    old = model.get_input_embeddings().weight.clone()
    assert add_special_tokens(model, tokenizer, 3) == added
    assert torch.equal(model.get_input_embeddings().weight[: len(old)], old)
    with quiet_transformers():
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)

    again, its_tokenizer = load_encoder(str(tmp_path))
    saved = again.get_input_embeddings().weight.clone()
    assert add_special_tokens(again, its_tokenizer, 99) == ()
    assert torch.equal(again.get_input_embeddings().weight, saved)
    assert torch.equal(saved, model.get_input_embeddings().weight)
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
    state = "card [SEP] [FETCH] and back [SEP] [UNKNOWN] so"
    ids = its_tokenizer(state, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer(state, add_special_tokens=False)["input_ids"]
    for token in ("[SEP]", "[FETCH]", "[UNKNOWN]"):
        assert its_tokenizer.convert_tokens_to_ids(token) in ids
    assert None not in (its_tokenizer.pad_token_id, its_tokenizer.cls_token_id, its_tokenizer.sep_token_id)
    assert again.config.pad_token_id == its_tokenizer.pad_token_id


def test_the_seed_alone_determines_the_new_rows(bert: Path) -> None:
    def rows(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # whatever else was drawn
        model, tokenizer = load_encoder(str(bert))
        before = torch.get_rng_state()
        add_special_tokens(model, tokenizer, seed)
        assert torch.equal(torch.get_rng_state(), before)
        weight: torch.Tensor = model.get_input_embeddings().weight[-len(SPECIAL_TOKENS) :]
        return weight

    assert torch.equal(rows(1), rows(1))
    assert not torch.equal(rows(1), rows(2))
    assert (rows(1)[0] - rows(1)[1]).abs().max() > 0


def test_a_query_reads_the_same_at_the_beginning_and_after_a_new_token(gpt2: Path) -> None:
    model, tokenizer = load_encoder(str(gpt2))
    add_special_tokens(model, tokenizer, 0)
    alone = tokenizer("block my card", add_special_tokens=False)["input_ids"]
    after = tokenizer("well [SEP] [FETCH] block my card", add_special_tokens=False)["input_ids"]
    assert after[-len(alone) :] == alone
    assert after[-len(alone) - 1] == tokenizer.convert_tokens_to_ids("[FETCH]")


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(CheckpointError, match="config.json: expected model_type bert or gpt2, got 'roberta'; choose a BERT or"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\x00\x01"])
def test_a_folder_without_a_configuration_that_reads_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config.json: expected (the configuration of a BERT or GPT-2|model_type bert or gpt2)"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("kept", [0, 4, 1000])
def test_truncated_weights_are_refused(kept: int, copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"{copy}: expected a BERT or GPT-2 checkpoint that is whole, and it doesn't load"):
        load_encoder(str(copy))


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="expected model.safetensors in it, got none; only safetensors weights are loaded"):
        load_encoder(str(copy))


def test_weights_that_lack_a_layer_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(CheckpointError, match=r"expected weights for all of a bert encoder, got none for encoder.layer.1\..* and 15 more"):
        load_encoder(str(copy))


def test_weights_of_another_width_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(CheckpointError, match="expected a BERT or GPT-2 checkpoint that is whole"):
        load_encoder(str(copy))


def test_weights_that_are_not_finite_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][3] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="expected finite weights, got NaN or infinity in encoder.layer.0.output.dense.bias"):
        load_encoder(str(copy))


def test_a_checkpoint_without_a_tokenizer_is_refused(copy: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="expected a tokenizer .tokenizer.json, vocab.txt, vocab.json., got none"):
        load_encoder(str(copy))


def test_a_tokenizer_with_tokens_that_have_no_embedding_is_refused(copy: Path) -> None:
    _, tokenizer = load_encoder(str(copy))
    known = len(tokenizer)
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(CheckpointError, match=f"expected an embedding for each of the tokenizer's {known + 1} tokens, got {known}"):
        load_encoder(str(copy))


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "~/no such folder"])
def test_a_path_without_a_folder_is_named(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name}: expected a folder with a BERT or GPT-2 checkpoint, got none"):
        load_encoder(name)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "not a model id", "a/b/c"])
def test_a_hub_model_that_cannot_be_fetched_is_an_error_of_ours(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name}: expected '{ENCODER_DEFAULT}', a folder, or the id of a model on the hub"):
        load_encoder(name)


def test_importing_loads_neither_torch_nor_transformers() -> None:
    code = "import policy.encoder, policy.pretrain, sys; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
                         env={**os.environ, "PYTHONWARNINGS": "error"}).stdout
    assert out == "[]\n"
