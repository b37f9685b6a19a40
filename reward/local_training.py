"""Fits the local judge: networks for what settles a query, logistic models for the rest, and the band in which it can't tell.

The support model's weights are drawn towards values set by hand, and none may be above 0: a kind of fault that no training answer has
keeps its hand-set weight, so kinds that weren't trained on are still seen (a normal prior, MAP; Bishop 2006, section 4.5). Seeded and
deterministic on one machine. Leaves out where answers come from (`evaluation/local_judge.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward import settling, support
from reward.errors import JudgeError
from reward.examining import Examined
from reward.judge import Case
from reward.local_model import Arrays, Floats, Model, case_figures, part, probability_of_good, settle_logits

PRIOR: Mapping[str, float] = {
    "amount_missing": -7.0, "amount_elsewhere": -4.0, "unit_changed": -6.0, "amount_moved": -1.0, "amount_owner": -3.0, "denial": -6.0,
    "opposite": -6.0, "small_words": -3.0, "name_missing": -5.0, "name_elsewhere": -2.5, "words_missing": -4.0, "words_share": -4.0,
    "words_elsewhere": -3.0, "order": -1.0, "distance": -2.0, "condition_dropped": -3.0, "cut_short": -6.0, "off_the_point": -3.0,
    "name_swapped": -5.0, "word_swapped": -3.0, "amount_order": -4.0,
}
"""Set by hand before any fit: what each fault takes off the log odds of being supported, at its most."""


@dataclass(frozen=True, slots=True)
class Example:
    """An answer with what is known of it."""

    case: Case
    """With gold, where the FAQs that settle the query are known."""
    group: str
    """Examples of one conversation are never parted."""
    kind: str
    """What was done to make the answer, or who gave it."""
    supported: bool | None
    """Each claim is in the FAQs shown; None: not known, or it claims nothing."""
    settled: bool | None
    """It is Good, so far as the query goes; None: not known."""
    weight: float = 1.0
    """How much it counts in what the query asks for."""
    played: bool = False
    """The turn was played: its FAQs teach what settles a query."""


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How it is fitted."""

    nets: int = 6
    hidden: int = 16
    decay: float = 1.0
    """Weight decay of the networks."""
    epochs: int = 60
    folds: int = 3
    """By conversation: what the last step is fitted on comes from networks that never saw the conversation."""
    pull: float = 4.0
    """How strongly the support model's weights are drawn to the hand-set ones, in examples."""
    ridge: float = 0.3
    """Inverse strength of the last step's ridge."""
    unsure: float = 0.2
    """Share of the dev cases about which it may say that it can't tell."""
    seed: int = 0


def fit(examples: Sequence[Example], examined: Sequence[Examined], searched: Sequence[Examined], encoder: str, config: FitConfig) -> Model:
    """The model of some examples; the band is still empty. `examined` without and `searched` with the knowledge base's search.

    Raises: JudgeError when a step has examples of one kind only.
    """
    arrays = {f"support.{name}": array for name, array in fit_support(examples, examined, config).items()}
    for name, read in (("alone", examined), ("search", searched)):
        arrays |= {f"{name}.{key}": array for key, array in _fit_settled(examples, read, config, alone=name == "alone").items()}
    return Model(arrays, encoder, (0.5, 0.5))


def fit_support(examples: Sequence[Example], examined: Sequence[Examined], config: FitConfig) -> dict[str, NDArray[np.float32]]:
    """weights (21,), each 0 or less, and bias (1,). Right and wrong answers weigh alike as wholes."""
    from scipy.optimize import minimize

    chosen = [n for n, example in enumerate(examples) if example.supported is not None and examined[n].asserts]
    x = np.array([examined[n].support for n in chosen]).reshape(-1, len(support.FEATURES))
    y = np.array([bool(examples[n].supported) for n in chosen])
    _both_kinds("supported answers", y)
    weight = np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum()))
    sign, prior = np.where(y, 1.0, -1.0), np.array([PRIOR[name] for name in support.FEATURES])

    def loss(theta: Floats) -> tuple[float, Floats]:
        margin = sign * (x @ theta[:-1] + theta[-1])
        slope = -weight * sign / (1 + np.exp(np.clip(margin, -30, 30)))
        pulled = theta[:-1] - prior
        value = float(weight @ np.logaddexp(0, -margin) + config.pull / 2 * pulled @ pulled)
        return value, np.append(x.T @ slope + config.pull * pulled, slope.sum())

    found = minimize(loss, np.append(prior, 2.0), jac=True, method="L-BFGS-B", bounds=[(None, 0.0)] * len(prior) + [(None, None)])
    return {"weights": found.x[:-1].astype(np.float32), "bias": found.x[-1:].astype(np.float32)}


def _fit_settled(examples: Sequence[Example], examined: Sequence[Examined], config: FitConfig, *, alone: bool) -> dict[str,
    NDArray[np.float32]]:
    """`settle.*` of all conversations; `resting.*` and `silent.*` on what networks say of conversations that they never saw."""
    played = [n for n, example in enumerate(examples) if example.played and example.case.gold is not None and examined[n].ids]
    used = [n for n, example in enumerate(examples) if example.settled is not None]
    groups = sorted({examples[n].group for n in used + played})
    order = np.random.default_rng(config.seed).permutation(len(groups))
    fold_of = {groups[at]: n % config.folds for n, at in enumerate(order)}
    logits: dict[int, Floats] = {}
    for fold in range(config.folds):
        nets = _fit_nets([n for n in played if fold_of[examples[n].group] != fold], examples, examined, config, alone=alone, nets=2)
        logits |= {n: settle_logits(nets, examined[n].settling) for n in used if fold_of[examples[n].group] == fold}
    arrays = {f"settle.{name}": array
              for name, array in _fit_nets(played, examples, examined, config, alone=alone, nets=config.nets).items()}
    for name, asserts in (("resting", True), ("silent", False)):
        chosen = [n for n in used if examined[n].asserts is asserts]
        rows = np.array([case_figures(examined[n], logits[n]) for n in chosen])
        weight = np.array([examples[n].weight for n in chosen])
        arrays |= {f"{name}.{key}": array for key, array in
                   _logistic(rows, np.array([bool(examples[n].settled) for n in chosen]), weight, config.ridge, name).items()}
    return arrays


def _fit_nets(chosen: Sequence[int], examples: Sequence[Example], examined: Sequence[Examined], config: FitConfig, *, alone: bool,
              nets: int) -> dict[str, NDArray[np.float32]]:
    """Networks of one hidden layer; without the search, its figures are 0 for all and count for nothing."""
    from sklearn.neural_network import MLPClassifier

    x = np.concatenate([examined[n].settling for n in chosen])
    y = np.array([faq in (examples[n].case.gold or ()) for n in chosen for faq in examined[n].ids])
    _both_kinds("FAQs that settle a query", y)
    if alone:
        x = x.copy()
        x[:, settling.FOUND :] = 0.0
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-3)
    fitted: list[Any] = []
    for n in range(nets):
        net = MLPClassifier((config.hidden,), alpha=config.decay, max_iter=config.epochs, learning_rate_init=3e-3, tol=0.0,
                            n_iter_no_change=config.epochs + 1, random_state=config.seed * 1000 + n)
        fitted.append(_quietly(net, (x - mean) / scale, y))
    arrays = {"mean": mean, "scale": scale, "w1": np.stack([net.coefs_[0] for net in fitted]),
              "b1": np.stack([net.intercepts_[0] for net in fitted]), "w2": np.stack([net.coefs_[1][:, 0] for net in fitted]),
              "b2": np.array([net.intercepts_[1][0] for net in fitted])}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _quietly(net: Any, x: Floats, y: NDArray[np.bool_]) -> Any:
    """The net, fitted; that it would go on if it were let is no news."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return net.fit(x, y)


def _logistic(x: Floats, y: NDArray[np.bool_], weight: Floats, ridge: float, name: str) -> dict[str, NDArray[np.float32]]:
    """A ridge-regularised logistic model on standardised figures, written for the figures as they are."""
    from sklearn.linear_model import LogisticRegression

    _both_kinds(name, y)
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-3)
    found = LogisticRegression(C=ridge, max_iter=3000).fit((x - mean) / scale, y, sample_weight=weight)
    weights = found.coef_[0] / scale
    return {"weights": weights.astype(np.float32), "bias": (found.intercept_ - weights @ mean).astype(np.float32)}


def with_band(model: Model, examined: Sequence[Examined], config: FitConfig, *, searched: bool = True) -> Model:
    """The model with the band about one half that holds the set share of these cases: it can't tell there."""
    found = [probability_of_good(model, one, searched=searched) for one in examined if not one.unread]
    away = np.abs(np.array([p for p in found if p is not None]) - 0.5)
    half = float(np.quantile(away, config.unsure)) if len(away) and config.unsure > 0 else 0.0
    half = round(min(half, 0.49), 4)
    return Model(model.arrays, model.encoder, (0.5 - half, 0.5 + half))


def with_support(model: Model, arrays: Arrays) -> Model:
    """The model with another support part."""
    kept = {name: array for name, array in model.arrays.items() if not name.startswith("support.")}
    return Model(kept | {f"support.{name}": array for name, array in arrays.items()}, model.encoder, model.band)


def _both_kinds(what: str, y: NDArray[np.bool_]) -> None:
    if not (y.any() and (~y).any()):
        raise JudgeError(f"{what}: expected examples of both kinds to fit on, got {int(y.sum())} of {len(y)}; give more examples")


__all__ = ["Example", "FitConfig", "fit", "fit_support", "part", "with_band", "with_support"]
