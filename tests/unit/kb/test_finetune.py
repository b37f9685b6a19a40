"""Contrastive training: losses by hand, a planted confusion that is learned, and nothing lost by a failure or a kill."""

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from kb.embedder import EmbedderConfig, load_embedder
from kb.errors import EmbedderError
from kb.finetune import DevRecall, TrainConfig, Tuning, finetune, infonce_loss, train_config, triplet_loss
from kb.pairs import NO_FAQ, SOME_FAQ, Examples
from kb.queries import LabelledQuery
from kb.tuned import WEIGHTS
from kb.types import Faq
from tests.tiny_encoder import DIMENSION, make_tiny_encoder

ROOT = Path(__file__).parents[3]

# losses


def unit(*rows: tuple[float, float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


ANCHORS = unit((1.0, 0.0), (0.6, 0.8), (0.0, 1.0))
CANDIDATES = unit((0.9, 0.1), (0.5, 0.8), (0.1, 0.9), (0.8, -0.6), (0.7, 0.7), (-1.0, 0.2))


def loss_of(labels: list[list[int]], temperature: float = 0.5) -> float:
    return float(infonce_loss(ANCHORS, CANDIDATES, torch.tensor(labels), temperature=temperature))


def by_hand(counted: list[list[int]], temperature: float = 0.5) -> float:
    """Of each anchor, the candidates that count beside its own: one exponential at a time."""
    total = 0.0
    for row, columns in enumerate(counted):
        power = [math.exp(sum(float(a) * float(c) for a, c in zip(ANCHORS[row], candidate, strict=True)) / temperature)
                 for candidate in CANDIDATES]
        total -= math.log(power[row] / sum(power[column] for column in {row, *columns}))
    return total / len(counted)


def test_infonce_of_one_pair_has_a_closed_form() -> None:
    anchor, far = unit((1.0, 0.0)), unit((0.0, 1.0))
    found = infonce_loss(anchor, torch.cat([anchor, far]), torch.tensor([[0, 1]]), temperature=0.5)
    assert float(found) == pytest.approx(math.log(1 + math.exp(-2)))


def test_infonce_of_different_faqs_is_the_cross_entropy_over_all_candidates() -> None:
    labels = [[0, 3], [1, 4], [2, NO_FAQ]]
    expected = torch.nn.functional.cross_entropy(ANCHORS @ CANDIDATES.T / 0.5, torch.arange(3))
    assert loss_of(labels) == pytest.approx(float(expected)) == pytest.approx(by_hand([[0, 1, 2, 3, 4, 5]] * 3))


def test_infonce_leaves_out_candidates_of_the_anchors_own_faq() -> None:
    labels = [[7, 8], [7, 9], [9, 7]]  # the first two pairs are of one FAQ, the last two are against each other's
    counted = [[2, 3, 4], [2, 3, 4], [0, 1, 3, 5]]
    assert loss_of(labels) == pytest.approx(by_hand(counted))
    everything = by_hand([[0, 1, 2, 3, 4, 5]] * 3)
    without_own_positive_of_others = by_hand([[2, 3, 4, 5], [2, 3, 4, 5], [0, 1, 3, 4, 5]])
    assert abs(loss_of(labels) - everything) > 0.05
    assert abs(loss_of(labels) - without_own_positive_of_others) > 0.001


def test_infonce_takes_a_query_of_some_faq_as_a_negative_of_its_own_anchor_alone() -> None:
    assert loss_of([[0, 5], [1, SOME_FAQ], [2, SOME_FAQ]]) == pytest.approx(by_hand([[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 5]]))
    assert loss_of([[0, 5], [1, NO_FAQ], [2, NO_FAQ]]) == pytest.approx(by_hand([[0, 1, 2, 3, 4, 5]] * 3))


def test_a_lower_temperature_weighs_the_nearest_negatives_more() -> None:
    labels = [[0, 3], [1, 4], [2, 5]]
    for temperature in (0.05, 2.0):
        assert loss_of(labels, temperature) == pytest.approx(by_hand([[0, 1, 2, 3, 4, 5]] * 3, temperature), rel=1e-4)


def test_the_triplet_loss_by_hand() -> None:
    anchors = unit((1.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    positives, negatives = unit((0.6, 0.8), (1.0, 0.0), (0.6, 0.8)), unit((0.8, 0.6), (0.0, 1.0), (0.8, 0.6))
    found = triplet_loss(anchors, positives, negatives, margin=0.3)
    assert float(found) == pytest.approx((0.8 - 0.6 + 0.3 + 0.0 + 0.6 - 0.8 + 0.3) / 3)  # the second is far enough, the others are within


@pytest.mark.parametrize("loss", ["infonce", "triplet"])
def test_going_down_a_loss_brings_a_pair_together_and_going_up_drives_it_apart(loss: str) -> None:
    labels = torch.tensor([[0, 1], [1, 0]])
    anchors, positives, negatives = unit((1.0, 0.2), (0.2, 1.0)), unit((0.7, 0.7), (0.6, 0.7)), unit((0.9, 0.4), (0.3, 0.9))

    def lead(matrix: Tensor) -> tuple[Tensor, Tensor]:
        a, p, n = (torch.nn.functional.normalize(vectors @ matrix.T, dim=-1) for vectors in (anchors, positives, negatives))
        value = triplet_loss(a, p, n, margin=0.2) if loss == "triplet" else infonce_loss(a, torch.cat([p, n]), labels, temperature=0.1)
        return value, ((a * p).sum(1) - (a * n).sum(1)).mean()

    leads = {}
    for sign in (1, -1):
        matrix = torch.eye(2, requires_grad=True)
        for _ in range(50):
            step, = torch.autograd.grad(lead(matrix)[0], matrix)
            matrix = (matrix - sign * 0.01 * step).detach().requires_grad_()
        leads[sign] = lead(matrix)[1].item()
    assert leads[-1] < lead(torch.eye(2))[1].item() < leads[1]


# a planted confusion: two FAQs that share all words but one


FAQS = (Faq("pin", "reset my card pin", "Ask at the desk.", paraphrases=("pin of card forgotten", "new pin for the card")),
        Faq("limit", "reset my card limit", "Ask by phone.", paraphrases=("limit of card too low", "new limit for the card")))
QUERIES = (LabelledQuery("card pin is gone", ("pin",)), LabelledQuery("card limit is low", ("limit",)))
DEV = (LabelledQuery("the pin of my card", ("pin",)), LabelledQuery("the limit of my card", ("limit",)),
       LabelledQuery("my card pin", ("pin",)), LabelledQuery("my card limit", ("limit",)))
SWAPPED = tuple(LabelledQuery(query.query, ("limit",) if query.gold == ("pin",) else ("pin",)) for query in DEV)
EXAMPLES, NO_DEV = Examples.of(FAQS, QUERIES), Examples.of(FAQS, ())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny"))


def config(**changed: Any) -> TrainConfig:
    return TrainConfig(**({"epochs": 20, "batch_size": 8, "learning_rate": 2e-2, "patience": 20} | changed))


def tuned(tiny: str, folder: Path, *, dev: tuple[LabelledQuery, ...] = DEV, work: Path | None = None, **changed: Any) -> Tuning:
    return finetune(tiny, EXAMPLES, Examples.of(FAQS, dev), folder, config(**changed), work=work)


def matrix(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def recall(model: str | Path, queries: tuple[LabelledQuery, ...] = DEV) -> float:
    """Share of the queries whose nearest passage is of their FAQ, by the encoder as it is loaded for use."""
    embedder = load_embedder(EmbedderConfig(str(model)))
    vectors = embedder.embed([text for text, _ in EXAMPLES.passages])
    nearest = (embedder.embed([query.query for query in queries]) @ vectors.T).argmax(axis=1)
    return float(np.mean([FAQS[EXAMPLES.passages[n][1]].id in (query.gold or ()) for n, query in zip(nearest, queries, strict=True)]))


@pytest.fixture(scope="module")
def learned(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuning]:
    folder = tmp_path_factory.mktemp("learned") / "tuned"
    return folder, tuned(tiny, folder)


@pytest.mark.parametrize("loss", ["infonce", "triplet"])
def test_what_the_encoder_confuses_a_projection_learns_to_tell_apart(
    tiny: str, tmp_path: Path, learned: tuple[Path, Tuning], loss: str
) -> None:
    folder, found = learned if loss == "infonce" else (tmp_path / "tuned", tuned(tiny, tmp_path / "tuned", loss=loss))
    assert (found.recall_before, found.recall) == (0.5, 1.0) == (recall(tiny), recall(folder))
    assert found.steps == math.ceil(found.pairs / 8)
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, "tuning.json", "README.md", "training.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["tuned"]


@pytest.mark.parametrize("method", ["lora", "top-layers"])
def test_so_do_the_weights_of_the_encoder_itself(tiny: str, tmp_path: Path, method: str) -> None:
    before = load_file(Path(tiny) / "model.safetensors")
    found = tuned(tiny, tmp_path / "tuned", method=method, learning_rate=1e-2, top_layers=1)
    assert (found.recall_before, found.recall) == (0.5, 1.0) == (recall(tiny), recall(tmp_path / "tuned"))
    after = load_file(tmp_path / "tuned" / "model.safetensors")
    assert after.keys() == before.keys(), "a whole encoder, without adapters"
    changed = {name for name in after if (after[name] != before[name]).any()}
    assert changed
    assert all(name.startswith("encoder.layer.0.") or (method == "lora" and name.startswith("pooler.")) for name in changed)
    assert (load_file(Path(tiny) / "model.safetensors")["embeddings.LayerNorm.weight"] == before["embeddings.LayerNorm.weight"]).all()


def test_a_projection_that_learned_nothing_leaves_vectors_as_they_are(tiny: str, tmp_path: Path) -> None:
    found = tuned(tiny, tmp_path / "tuned", epochs=1, learning_rate=1e-12)
    texts = [query.query for query in DEV]
    before, after = (load_embedder(EmbedderConfig(model)).embed(texts) for model in (tiny, str(tmp_path / "tuned")))
    assert after == pytest.approx(before, abs=1e-6)
    assert found.recall == found.recall_before


def test_the_decay_holds_the_matrix_near_the_identity(tiny: str, tmp_path: Path) -> None:
    distances = []
    for decay in (0.0, 10.0):
        tuned(tiny, tmp_path / "tuned", dev=(), decay=decay, epochs=4)
        distances.append(float(np.linalg.norm(load_file(tmp_path / "tuned" / WEIGHTS)["projection"].astype(float) - np.eye(DIMENSION))))
    assert distances[1] < distances[0] / 2


def test_standard_output_is_left_to_data(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned(tiny, tmp_path / "encoder")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "loss" in printed.err


def test_the_same_seed_gives_the_same_matrix_and_another_seed_another(tiny: str, tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        tuned(tiny, tmp_path / name, seed=seed, epochs=2)
    assert matrix(tmp_path / "a") == matrix(tmp_path / "b") != matrix(tmp_path / "c")


def evaluations(work: Path) -> list[float]:
    last = max(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return [entry["eval_dev_recall_at_1"] for entry in history if "eval_dev_recall_at_1" in entry]


def test_the_encoder_that_is_kept_is_the_best_of_those_evaluated_and_not_the_last(tiny: str, tmp_path: Path) -> None:
    found = tuned(tiny, tmp_path / "tuned", dev=SWAPPED, work=tmp_path / "work")  # what is learned is wrong by these
    seen = evaluations(tmp_path / "work")
    assert seen[-1] == 0.0 < max(seen)
    assert found.recall == max(seen) == recall(tmp_path / "tuned", SWAPPED)


def test_training_stops_when_dev_is_patient_no_longer_and_goes_on_to_the_end_without_dev(tiny: str, tmp_path: Path) -> None:
    stopped = tuned(tiny, tmp_path / "tuned", dev=SWAPPED, patience=2)
    assert stopped.steps < math.ceil(stopped.pairs / 8)
    whole = tuned(tiny, tmp_path / "tuned", dev=(), patience=1)
    assert whole.steps == math.ceil(whole.pairs / 8)
    assert math.isnan(whole.recall_before)
    assert math.isnan(whole.recall)
    assert recall(tmp_path / "tuned") == 1.0


def test_a_dev_query_of_two_faqs_is_found_by_either() -> None:
    class Given:
        """Gives the vectors of a table, as a SentenceTransformer does."""

        def encode(self, texts: list[str], **_: object) -> np.ndarray[Any, Any]:
            table = {"a": (1.0, 0.0), "b": (0.0, 1.0), "both": (0.1, 0.9), "only a": (0.4, 0.6)}
            return np.array([table[text] for text in texts])

    faqs = [Faq("a", "a", ""), Faq("b", "b", "")]
    dev = Examples.of(faqs, [LabelledQuery("both", ("a", "b")), LabelledQuery("only a", ("a",))])
    assert DevRecall(Examples.of(faqs, []), dev).recall(Given()) == 0.5


# folders


def test_a_training_that_fails_leaves_the_folder_as_it_was(tiny: str, tmp_path: Path, learned: tuple[Path, Tuning]) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(learned[0], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for method, message in (("full", "(loss|weights): expected .*finite.*; lower the learning rate"),
                            ("projection", "(loss|projection): expected .*; lower the learning rate")):
        with pytest.raises(EmbedderError, match=message):
            tuned(tiny, folder, dev=(), method=method, learning_rate=1e9, epochs=3)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_an_encoder_is_replaced_by_one_of_another_kind_whole(tiny: str, tmp_path: Path, learned: tuple[Path, Tuning]) -> None:
    shutil.copytree(learned[0], tmp_path / "tuned")
    tuned(tiny, tmp_path / "tuned", method="top-layers", epochs=1)
    assert (tmp_path / "tuned" / "modules.json").exists()
    assert not {WEIGHTS, "tuning.json"} & {path.name for path in (tmp_path / "tuned").iterdir()}
    tuned(tiny, tmp_path / "tuned", epochs=1)
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {WEIGHTS, "tuning.json", "README.md", "training.json"}


def test_a_folder_of_other_files_and_the_encoder_itself_are_not_replaced(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("mine", "file"):
        with pytest.raises(EmbedderError, match=f"{name}: expected no such folder, or an encoder that may be replaced, got other files"):
            tuned(tiny, tmp_path / name)
    with pytest.raises(EmbedderError, match="tiny: expected another folder than the encoder's that is tuned"):
        tuned(tiny, Path(tiny))
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "file"}
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    tuned(tiny, tmp_path / "empty", epochs=1)
    assert (tmp_path / "empty" / WEIGHTS).exists()


def test_a_tuned_encoder_is_refused_once_the_encoder_below_is_another(tiny: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    tuned(str(base), tmp_path / "tuned", epochs=1)
    assert load_embedder(EmbedderConfig(str(tmp_path / "tuned"))).dimension == DIMENSION
    shutil.rmtree(base)
    make_tiny_encoder(base, seed=1)
    with pytest.raises(EmbedderError, match="tuned: expected the encoder base@.* that it was trained on, got base@.*; train it anew"):
        load_embedder(EmbedderConfig(str(tmp_path / "tuned")))


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from tests.unit.kb.test_finetune import tuned

tiny, folder, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def kill() -> None:
    while len([path for path in work.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]) < 2:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
tuned(tiny, folder, epochs=30, patience=3, work=work)
"""


def test_a_run_that_was_killed_goes_on_to_what_it_would_have_come_to(tiny: str, tmp_path: Path) -> None:
    whole = tuned(tiny, tmp_path / "whole", epochs=30, patience=3)
    killed = subprocess.run([sys.executable, "-c", KILLED, tiny, str(tmp_path / "tuned"), str(tmp_path / "work")], cwd=ROOT,
                            capture_output=True, text=True, timeout=150)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "tuned").exists()
    for step, state in ((997, None), (998, ""), (999, '{"epoch": 0.')):  # as a kill while a checkpoint is written leaves it
        (tmp_path / "work" / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / "work" / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert tuned(tiny, tmp_path / "tuned", epochs=30, patience=3, work=tmp_path / "work") == whole
    assert matrix(tmp_path / "tuned") == matrix(tmp_path / "whole")


def test_checkpoints_of_another_run_are_refused(tiny: str, tmp_path: Path) -> None:
    tuned(tiny, tmp_path / "tuned", epochs=1, work=tmp_path / "work")
    for changed in ({"seed": 1}, {"temperature": 0.2}):
        with pytest.raises(EmbedderError, match="work: expected the checkpoints of these FAQs, queries and settings, got those of others"):
            tuned(tiny, tmp_path / "tuned", epochs=1, work=tmp_path / "work", **changed)
    with pytest.raises(EmbedderError, match="got those of others; remove the folder, or choose another"):
        finetune(tiny, NO_DEV, Examples.of(FAQS, DEV), tmp_path / "tuned", config(epochs=1), work=tmp_path / "work")


def test_the_same_run_may_be_called_again_with_its_checkpoints(tiny: str, tmp_path: Path) -> None:
    first = tuned(tiny, tmp_path / "tuned", epochs=2, work=tmp_path / "work")
    before = matrix(tmp_path / "tuned")
    assert tuned(tiny, tmp_path / "tuned", epochs=2, work=tmp_path / "work") == first
    assert matrix(tmp_path / "tuned") == before


@pytest.mark.parametrize(("changed", "message"), [
    ({"method": "magic"}, "method: expected one of projection, lora, top-layers, full, got 'magic'"),
    ({"loss": "magic"}, "loss: expected one of infonce, triplet, got 'magic'"),
    ({"epochs": 0}, "expected at least 1, 2 and 1, got 0"), ({"batch_size": 1}, "expected at least 1, 2 and 1"),
    ({"patience": 0}, "expected at least 1, 2 and 1"), ({"temperature": 0.0}, "temperature, decay, hard_negatives: expected above 0"),
    ({"decay": -1.0}, "expected above 0, and from 0"), ({"hard_negatives": -1}, "expected above 0, and from 0"),
    ({"top_layers": 0}, "top_layers, lora_rank: expected at least 1, got 0 and 16"),
    ({"learning_rate": 0.0}, "learning_rate: expected above 0, got 0.0"), ({"learning_rate": math.nan}, "learning_rate: expected above 0"),
])
def test_settings_that_train_nothing_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changed)


def test_what_is_not_given_suits_the_method() -> None:
    assert (train_config("projection").epochs, train_config("lora").batch_size) == (20, 32)
    assert (train_config("lora", epochs=9).epochs, train_config("full", batch_size=8).batch_size) == (9, 8)
    with pytest.raises(ValueError, match="got 0, 256 and"):
        train_config("projection", epochs=0)
