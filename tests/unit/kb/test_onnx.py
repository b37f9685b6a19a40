"""Which encoders are made for onnxruntime, how they are kept, and what is refused; what one does is in the contract suite."""

import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb.embedder import EmbedderConfig, Runtime, SentenceEmbedder, load_embedder
from kb.errors import EmbedderError
from kb.onnx import OnnxEmbedder
from tests.tiny_encoder import DIMENSION, LONGEST, make_tiny_encoder

TEXTS = ["", "pay", "how do I get a refund", "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 5, "x1 y2"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the tiny encoder in fp32."""
    cache = tmp_path_factory.mktemp("made")
    OnnxEmbedder(EmbedderConfig(str(tiny), runtime="onnx", cache=cache))
    return cache


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "cache"))


def config(model: Path, cache: Path, runtime: Runtime = "onnx", **options: Any) -> EmbedderConfig:
    return EmbedderConfig(str(model), runtime=runtime, cache=cache, **options)


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != ".lock")


def with_modules(folder: Path, tiny: Path, *more: Any, pooling: str = "mean") -> Path:
    """The tiny encoder with another pooling, and modules after it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = SentenceTransformer(str(tiny), device="cpu")[0]
    SentenceTransformer(modules=[transformer, Pooling(DIMENSION, pooling), *more], device="cpu").save(str(folder))
    return folder


def test_the_runtime_decides_which_embedder_is_loaded(tiny: Path, cache: Path) -> None:
    assert isinstance(load_embedder(config(tiny, cache, "torch")), SentenceEmbedder)
    assert isinstance(load_embedder(config(tiny, cache, "onnx")), OnnxEmbedder)


def test_an_encoder_is_made_once(tiny: Path, cache: Path) -> None:
    [name] = files(cache)
    before = (cache / name).stat()
    again = OnnxEmbedder(config(tiny, cache))
    assert files(cache) == [name]
    assert (cache / name).stat().st_mtime_ns == before.st_mtime_ns
    np.testing.assert_allclose(again.embed(TEXTS), SentenceEmbedder(EmbedderConfig(str(tiny))).embed(TEXTS), atol=1e-5)


def test_a_kept_encoder_is_used_where_nothing_can_be_written(tiny: Path, cache: Path) -> None:
    (cache / ".lock").unlink()
    cache.chmod(0o500)
    try:
        assert OnnxEmbedder(config(tiny, cache)).embed(["pay"]).shape == (1, DIMENSION)
        assert not (cache / ".lock").exists()
    finally:
        cache.chmod(0o700)


@pytest.mark.parametrize("damage", ["cut", "a byte", "empty"])
def test_a_damaged_file_is_noticed_and_made_anew(tiny: Path, cache: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = OnnxEmbedder(config(tiny, cache, "onnx-int8")).embed(TEXTS)
    [path] = cache.glob("*-int8-*.onnx")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes({"cut": whole[:-100], "a byte": bytes(flipped), "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(OnnxEmbedder(config(tiny, cache, "onnx-int8")).embed(TEXTS), expected)
    assert f"{path}: expected content with the hash in its name" in caplog.text
    assert path.read_bytes() == whole


def test_what_a_maker_that_died_left_is_cleared(tiny: Path, cache: Path) -> None:
    (cache / ".new-1").write_bytes(b"half")
    OnnxEmbedder(config(tiny, cache, "onnx-int8"))
    assert [name.split("-")[2] for name in files(cache)] == ["fp32", "int8"]


def test_the_same_weights_with_other_modules_are_another_file_made_in_silence(
    tiny: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense

    folder = with_modules(tmp_path / "dense", tiny, Dense(DIMENSION, 8), pooling="cls")
    torch = SentenceEmbedder(EmbedderConfig(str(folder)))
    before = (list(logging.getLogger().handlers), logging.getLogger("torch.onnx").level)
    capfd.readouterr()
    embedder = OnnxEmbedder(config(folder, cache))
    assert capfd.readouterr() == ("", "")
    assert (list(logging.getLogger().handlers), logging.getLogger("torch.onnx").level) == before
    assert (embedder.dimension, len(files(cache))) == (8, 2)
    np.testing.assert_allclose(embedder.embed(TEXTS), torch.embed(TEXTS), atol=1e-5)


def test_an_encoder_that_is_no_transformer_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models

    words = StaticEmbedding(Tokenizer(models.WordLevel({"pay": 0, "[UNK]": 1}, unk_token="[UNK]")), embedding_dim=DIMENSION)
    SentenceTransformer(modules=[words], device="cpu").save(str(tmp_path / "static"))
    with pytest.raises(EmbedderError, match="static: expected an encoder with a fast tokenizer .*, got another, .*; use runtime 'torch'"):
        OnnxEmbedder(config(tmp_path / "static", tmp_path / "cache"))
    assert files(tmp_path / "cache") == []


def test_a_default_prompt_is_refused(tiny: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny), device="cpu", prompts={"query": "query: "}, default_prompt_name="query")
    model.save(str(tmp_path / "prompted"))
    with pytest.raises(EmbedderError, match="prompted: expected an encoder with a fast tokenizer and without a default prompt"):
        OnnxEmbedder(config(tmp_path / "prompted", tmp_path / "cache"))


def test_weights_that_give_nan_are_refused(tiny: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny, tmp_path / "nan")
    weights = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EmbedderError, match="nan: expected finite vectors, got NaN or infinity; the weights are damaged"):
        OnnxEmbedder(config(folder, tmp_path / "cache"))


def test_a_missing_model_is_refused_as_by_torch(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match="none: expected a folder with a sentence-transformers model, got none"):
        OnnxEmbedder(config(tmp_path / "none", tmp_path))


def test_a_cache_that_cannot_be_a_folder_is_named(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbedderError, match=f"{tmp_path}/file: expected a folder where encoders for onnxruntime can be kept"):
        OnnxEmbedder(config(tiny, tmp_path / "file"))


def test_text_beyond_the_token_limit_is_not_read(tiny: Path, cache: Path) -> None:
    a, b, c = OnnxEmbedder(config(tiny, cache, max_tokens=8)).embed(["a b c d e f", "a b c d e f g h", "a b c d e x"])
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert not np.allclose(a, c)
    assert OnnxEmbedder(config(tiny, cache, max_tokens=5000)).model_id.endswith(f"/{LONGEST}/onnx")


def test_int8_vectors_do_not_depend_on_the_texts_beside_them(tiny: Path, cache: Path) -> None:
    embedder = OnnxEmbedder(config(tiny, cache, "onnx-int8"))
    together = embedder.embed(TEXTS)
    np.testing.assert_array_equal(np.concatenate([embedder.embed([text]) for text in TEXTS]), together)


def test_threads_that_make_the_same_encoder_make_one_file(tiny: Path, cache: Path) -> None:
    found: list[Any] = []

    def load() -> None:
        try:
            found.append(OnnxEmbedder(config(tiny, cache, "onnx-int8")).embed(TEXTS))
        except BaseException as error:
            found.append(error)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(cache.glob("*-int8-*.onnx"))) == 1
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_a_list_is_encoded_by_as_many_threads_as_are_asked_for(tiny: Path, cache: Path) -> None:
    one, three = (OnnxEmbedder(config(tiny, cache, threads=threads)) for threads in (1, 3))
    before = threading.active_count()
    np.testing.assert_allclose(one.embed(TEXTS * 20), three.embed(TEXTS * 20), atol=1e-6)
    assert threading.active_count() - before <= 1 + 3


def test_a_list_starts_no_more_threads_than_the_process_may_use_cores(tiny: Path, cache: Path) -> None:
    """A container's share of the machine, not the machine, is what threads are started for."""
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system doesn't say which cores a process may use")
    before = threading.active_count()
    OnnxEmbedder(config(tiny, cache)).embed(TEXTS * 20)
    assert threading.active_count() - before <= len(os.sched_getaffinity(0))
