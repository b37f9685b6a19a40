"""Encoders with a learned matrix on top: what is saved comes back, and only on the encoder that it was trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kb.embedder import EmbedderConfig, Vectors, load_embedder
from kb.errors import EmbedderError
from kb.tuned import (
    TUNING,
    WEIGHTS,
    ProjectedEmbedder,
    base_model,
    is_projection,
    load_projection,
    projected,
    save_projection,
    untuned,
)
from tests.fakes import HashEmbedder
from tests.tiny_encoder import DIMENSION, make_tiny_encoder

TEXTS = ("How do I pay?", "refund", "")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny")


def matrix(dimension: int = 64, seed: int = 0) -> Vectors:
    return (np.eye(dimension) + np.random.default_rng(seed).normal(0, 0.1, (dimension, dimension))).astype(np.float32)


def saved(folder: Path, projection: Vectors, model: str = "hash", base_id: str = "hash@1/64") -> Path:
    folder.mkdir(exist_ok=True)
    save_projection(folder, projection, model=model, base_id=base_id)
    return folder


class Named(HashEmbedder):
    """A hash encoder with another id."""

    def __init__(self, model_id: str) -> None:
        super().__init__()
        self._id = model_id

    @property
    def model_id(self) -> str:
        return self._id


def test_a_vector_is_turned_by_the_matrix_and_made_unit_again() -> None:
    turned = projected(np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32), np.array([[3, 1], [4, 0]], dtype=np.float32))
    assert turned == pytest.approx(np.array([[0.6, 0.8], [1, 0], [0, 0]]))  # P v takes the columns; of nothing it is nothing


def test_the_identity_leaves_vectors_as_they_are() -> None:
    base = HashEmbedder()
    assert ProjectedEmbedder(base, np.eye(64, dtype=np.float32), "same").embed(TEXTS) == pytest.approx(base.embed(TEXTS), abs=1e-6)


def test_what_is_saved_in_half_precision_comes_back_as_near_as_that_is(tmp_path: Path) -> None:
    projection = matrix()
    tuned = load_projection(saved(tmp_path / "tuned", projection), Named("hash@1/64"))
    expected = projected(HashEmbedder().embed(TEXTS), projection.astype(np.float16).astype(np.float32))
    assert load_file(tmp_path / "tuned" / WEIGHTS)["projection"].dtype == np.float16
    assert (tuned.embed(TEXTS) == expected).all()
    assert tuned.embed(TEXTS) == pytest.approx(projected(HashEmbedder().embed(TEXTS), projection), abs=2e-3)
    assert (tmp_path / "tuned" / WEIGHTS).stat().st_size < 64 * 64 * 2 + 200


def test_the_id_names_folder_matrix_and_encoder_below_and_changes_with_each(tmp_path: Path) -> None:
    base = Named("hash@1/64")
    tuned = load_projection(saved(tmp_path / "tuned", matrix()), base)
    assert tuned.model_id.startswith("tuned@")
    assert tuned.model_id.endswith("+hash@1/64")
    again = load_projection(saved(tmp_path / "tuned", matrix()), base)
    other = load_projection(saved(tmp_path / "tuned", matrix(seed=1)), base)
    longer = load_projection(saved(tmp_path / "tuned", matrix()), Named("hash@1/128"))
    assert again.model_id == tuned.model_id
    assert len({tuned.model_id, other.model_id, longer.model_id}) == 3
    assert (tuned.dimension, tuned.base, untuned(tuned), untuned(base)) == (64, base, base, base)


@pytest.mark.parametrize("here", ["hash@1/64", "hash@1/128", "hash@1/64/onnx", "hash@1/32/onnx-int8"])
def test_the_same_weights_fit_whatever_runs_them_and_however_much_they_read(tmp_path: Path, here: str) -> None:
    assert load_projection(saved(tmp_path / "tuned", matrix()), Named(here)).model_id.endswith(here)


@pytest.mark.parametrize("here", ["hash@2/64", "other@1/64", "hash@1+hash@1/64"])
def test_another_encoder_below_is_refused(tmp_path: Path, here: str) -> None:
    with pytest.raises(EmbedderError, match="tuned: expected the encoder hash@1 that it was trained on, got .*; train it anew"):
        load_projection(saved(tmp_path / "tuned", matrix()), Named(here))


def test_a_matrix_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"tuned: expected a projection of shape \(64, 64\), got \(8, 8\)"):
        load_projection(saved(tmp_path / "tuned", matrix(8)), Named("hash@1/64"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9, -7e4])
def test_a_matrix_that_half_precision_cannot_hold_is_not_saved(tmp_path: Path, value: float) -> None:
    projection = matrix()
    projection[3, 4] = value
    with pytest.raises(EmbedderError, match="projection: expected weights up to 65504, got .*; lower the learning rate"):
        save_projection(tmp_path, projection, model="hash", base_id="hash@1/64")
    assert not list(tmp_path.iterdir())


def test_a_damaged_matrix_is_refused(tmp_path: Path) -> None:
    folder, base = saved(tmp_path / "tuned", matrix()), Named("hash@1/64")
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-7])
    with pytest.raises(EmbedderError, match="projection.safetensors: expected the learned matrix, and it doesn't load"):
        load_projection(folder, base)
    save_file({"other": matrix()}, folder / WEIGHTS)
    with pytest.raises(EmbedderError, match="expected the learned matrix, and it doesn't load .*; train it anew"):
        load_projection(folder, base)
    save_file({"projection": np.full((64, 64), np.nan, dtype=np.float16)}, folder / WEIGHTS)
    with pytest.raises(EmbedderError, match="expected finite weights, got NaN or infinity; train it anew"):
        load_projection(folder, base)
    (folder / WEIGHTS).unlink()
    with pytest.raises(EmbedderError, match="expected the learned matrix, and it doesn't load"):
        load_projection(folder, base)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2, "model": "m", "base": "b@1"}', '{"format": 1, "model": "m"}',
                                     '{"format": 1, "model": 7, "base": "b@1"}'])
def test_a_damaged_description_is_refused(tmp_path: Path, content: str) -> None:
    folder = saved(tmp_path / "tuned", matrix())
    (folder / TUNING).write_text(content)
    for read in (base_model, lambda folder: load_projection(folder, HashEmbedder())):
        with pytest.raises(EmbedderError, match="tuning.json: expected .*; train the encoder anew"):
            read(folder)


def test_a_tuned_folder_is_loaded_with_the_encoder_below_like_any_encoder(tmp_path: Path, tiny: Path) -> None:
    base = load_embedder(EmbedderConfig(str(tiny), 16))
    projection = matrix(DIMENSION)
    folder = saved(tmp_path / "tuned", projection, str(tiny), base.model_id)
    assert (is_projection(folder), is_projection(tiny), base_model(folder)) == (True, False, str(tiny))
    tuned = load_embedder(EmbedderConfig(str(folder), 16))
    assert tuned.model_id.endswith(f"+{base.model_id}")
    assert tuned.embed(TEXTS) == pytest.approx(projected(base.embed(TEXTS), projection), abs=2e-3)


def test_a_tuned_encoder_may_be_tuned_again(tmp_path: Path, tiny: Path) -> None:
    base = load_embedder(EmbedderConfig(str(tiny), 16))
    first = saved(tmp_path / "first", matrix(DIMENSION), str(tiny), base.model_id)
    below = load_embedder(EmbedderConfig(str(first), 16))
    second = saved(tmp_path / "second", matrix(DIMENSION, 1), str(first), below.model_id)
    tuned = load_embedder(EmbedderConfig(str(second), 16))
    assert tuned.embed(TEXTS) == pytest.approx(projected(below.embed(TEXTS), matrix(DIMENSION, 1)), abs=2e-3)
    assert untuned(tuned).model_id == base.model_id
    saved(first, matrix(DIMENSION, 2), str(tiny), base.model_id)
    with pytest.raises(EmbedderError, match="second: expected the encoder first@"):
        load_embedder(EmbedderConfig(str(second), 16))


def test_the_description_is_json_that_a_reader_understands(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tuned", matrix())
    assert json.loads((folder / TUNING).read_text()) == {"format": 1, "model": "hash", "base": "hash@1/64"}
