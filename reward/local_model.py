"""The local judge's weights and what is computed with them: figures of a case to the probability that its answer is Good.

Three steps: small networks say whether each FAQ settles the query, two logistic heads say whether the claims contradict the FAQs and
whether they are in them, and another joins the first with what the conversation tells. Arrays in safetensors and a JSON record beside
them, never pickle. Leaves out reading cases (`examining.py`) and fitting (`local_training.py`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward import settling, support
from reward.errors import JudgeError
from reward.examining import Examined

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[np.float32]]
FEATURE_VERSION = 2
"""Changes with any figure that the weights are for."""
TOP = ("smalltalk", "leaning", "asks", "confidence", "found_best", "cited_before")
"""What the last step reads of the FAQ that fits best, or of the turn."""
WEIGHTS, RECORD = "model.safetensors", "judge.json"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """The weights, and the band in which the judge can't tell."""

    arrays: Arrays
    """`support.*`, and for each of `alone` (no search) and `search`: `*.settle.*`, `*.resting.*`, `*.silent.*`, `*.scale`."""
    encoder: str
    """Name and weights of the encoder that it was fitted on."""
    band: tuple[float, float]
    """Probabilities of Good between which it can't tell."""

    @property
    def version(self) -> str:
        digest = hashlib.sha256(f"{FEATURE_VERSION}\0{self.encoder}\0{self.band}".encode())
        for name in sorted(self.arrays):
            digest.update(name.encode() + np.ascontiguousarray(self.arrays[name], dtype="<f4").tobytes())
        return digest.hexdigest()[:12]


def settle_logits(arrays: Arrays, rows: Floats) -> Floats:
    """Log odds that each FAQ settles the query: the mean probability of some small networks, shape (FAQs,).

    arrays: mean, scale (F,); w1 (N, F, H), b1 (N, H), w2 (N, H), b2 (N,).
    """
    x = (rows - arrays["mean"]) / arrays["scale"]
    hidden = np.maximum(np.einsum("rf,nfh->nrh", x, arrays["w1"]) + arrays["b1"][:, None, :], 0.0)
    out = np.einsum("nrh,nh->nr", hidden, arrays["w2"]) + arrays["b2"][:, None]
    return log_odds(sigmoid(out).mean(axis=0))


def case_figures(one: Examined, logits: Floats) -> Floats:
    """What the last step reads of a case, shape (12,): of the FAQs that the answer rests on, and of the best there is."""
    if len(logits) == 0:
        return np.array([-5.0, 0.0, 0.0, -5.0, -5.0, -5.0, *[0.0] * len(TOP)])
    ranked = np.sort(logits)[::-1]
    resting = max((logits[n] for n in one.resting), default=-5.0)
    top = dict(zip(settling.FEATURES, one.settling[int(np.argmax(logits))], strict=True))
    anyone = log_odds(np.array([1.0 - np.prod(1.0 - sigmoid(logits))]))[0]
    return np.array([resting, resting == ranked[0], resting - ranked[0], ranked[0], anyone, ranked[1] if len(ranked) > 1 else -5.0,
                     *(top[name] for name in TOP)])


def probability_of_good(model: Model, one: Examined, *, searched: bool) -> float | None:
    """Of an answer, in [0, 1]; None where nobody could tell. On passages without questions, whether the claims are in them counts alone."""
    if not one.asserts and (one.bare or (not one.ids and not searched)):
        return None
    if one.bare:
        supported = supported_probability(part(model.arrays, "support"), one.support)
        return supported if supported >= 0.5 or one.english else None
    settled = _settled(model, one, searched=searched)
    if not one.asserts:
        return settled
    supported = supported_probability(part(model.arrays, "support"), one.support)
    if supported < 0.5 and not one.english:
        return None
    good = supported * settled
    if supported < 0.5 or one.said.refuses:  # words added to a refusal make it no better
        good = min(good, _settled(model, replace(one, claims=(), resting=()), searched=searched))
    return float(good)


def _settled(model: Model, one: Examined, *, searched: bool) -> float:
    """Probability that the FAQs which the answer rests on settle the query, or of one that claims nothing that none does."""
    arrays = part(model.arrays, "search" if searched else "alone")
    row = case_figures(one, settle_logits(part(arrays, "settle"), one.settling))
    head = part(arrays, "resting" if one.asserts else "silent")
    return float(sigmoid(np.array([row @ head["weights"] + head["bias"][0]]))[0])


def supported_probability(arrays: Arrays, figures: Floats) -> float:
    """That all claims are in the FAQs: the product of both heads. The weights are 0 or less, so it falls with each figure.

    arrays: weights (features,), bias (2,), of `support.CONTRADICTION` and then of `support.SUPPORT`.
    """
    return float(np.prod(sigmoid(head_logits(arrays["weights"], arrays["bias"], figures[None, :]))))


def head_logits(weights: NDArray[Any], bias: NDArray[Any], rows: Floats) -> Floats:
    """Log odds that there is no contradiction, and that there is support; shape (rows, 2)."""
    count = len(support.CONTRADICTION)
    heads: Floats = np.stack([rows[:, :count] @ weights[:count] + bias[0], rows[:, count:] @ weights[count:] + bias[1]], axis=1)
    return heads


def part(arrays: Arrays, name: str) -> dict[str, NDArray[np.float32]]:
    """The arrays under a name, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}


def sigmoid(x: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0)))
    return result


def log_odds(p: Floats) -> Floats:
    """In [-5, 5]."""
    clipped = np.clip(p, 1e-9, 1 - 1e-9)
    result: Floats = np.clip(np.log(clipped / (1 - clipped)), -5.0, 5.0)
    return result


def load_model(folder: Path) -> Model:
    """The weights of a folder. Raises: JudgeError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        record = json.loads((folder / RECORD).read_bytes())
        arrays = load_file(folder / WEIGHTS)
        low, high = record["band"]
        model = Model(arrays, str(record["encoder"]), (float(low), float(high)))
        version, features = record["version"], record["features"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise JudgeError(f"{folder}: expected {RECORD} and {WEIGHTS} of a local judge, and they don't load ({error}); "
                         "fit it anew") from error
    if features != FEATURE_VERSION:
        raise JudgeError(f"{folder / RECORD}: expected figures of version {FEATURE_VERSION}, got {features}; fit the judge anew")
    if version != model.version or not all(np.isfinite(array).all() for array in arrays.values()):
        raise JudgeError(f"{folder / WEIGHTS}: expected the weights of version {version}, got {model.version}; fit the judge anew")
    return model


def save_model(folder: Path, model: Model, about: Mapping[str, object]) -> None:
    """Write the folder's two files. `about` says what it was fitted on, for people."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array, dtype=np.float32) for name, array in sorted(model.arrays.items())}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # the library keeps it from other users
    record = {"features": FEATURE_VERSION, "encoder": model.encoder, "band": list(model.band), "version": model.version, **about}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def encoder_of(model_id: str) -> str:
    """Name and weights of an encoder, without how many tokens it reads and what runs it."""
    name, _, rest = model_id.rpartition("@")
    return f"{name}@{rest.partition('/')[0]}" if name else model_id
