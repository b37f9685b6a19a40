"""Fits the local judge: networks for what settles a query, logistic models for the rest, and the band in which it can't tell.

The support model's weights are drawn towards values set by hand, and none may be above 0: a kind of fault that no training answer has
keeps its hand-set weight, so kinds that weren't trained on are still seen (a normal prior, MAP; Bishop 2006, section 4.5). Its two heads
are fitted together, by the product of their probabilities: what made a wrong answer wrong needn't be said. Labels may be wrong: an answer
that no figure tells from others, or a right one with an odd word, doesn't drag all weights after it (label flipping; Bootkrajang and
Kabán 2012). Seeded and
deterministic on one machine. Leaves out where answers come from (`evaluation/local_judge.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward import settling, support
from reward.errors import JudgeError
from reward.examining import Examined
from reward.judge import Case
from reward.local_model import Arrays, Floats, Model, case_figures, head_logits, part, probability_of_good, settle_logits, sigmoid

CHANGED: Mapping[str, tuple[float, float]] = {
    "amount_missing": (-6.0, -3.0), "amount_elsewhere": (-4.0, -0.5), "unit_changed": (-6.0, -2.0), "amount_moved": (-1.0, -0.3),
    "amount_owner": (-3.0, -1.0), "denial": (-6.0, -1.0), "negators": (-3.0, -0.3), "polarity": (-3.0, -1.0), "opposite": (-6.0, -1.0),
    "small_words": (-3.0, -0.3), "name_missing": (-5.0, -1.0), "name_elsewhere": (-4.0, -0.5), "name_swapped": (-6.0, -1.0),
    "word_swapped": (-5.0, -0.3), "amount_order": (-5.0, -1.0),
}
"""Set by hand before any fit: what each change takes off the log odds at its most, in an FAQ's own words and in free ones."""
PRIOR: Mapping[str, float] = MappingProxyType({
    **{name: pair[0] for name, pair in CHANGED.items()}, **{f"loose_{name}": pair[1] for name, pair in CHANGED.items()},
    "condition_dropped": -4.0, "cut_short": -4.0, "off_the_point": -3.0, "yes_no": -1.0,
    "words_share": -1.5, "distance": -2.0, "apart": -5.0, "apart_words": -3.0, "mean_words_share": -1.5, "mean_words_elsewhere": -0.5,
    "mean_order": -1.0, "mean_pairs": -1.0, "mean_distance": -9.0,
})
"""The same for every figure."""


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
    """Each claim is in the FAQs shown and is what was asked for; None: not known, or it claims nothing."""
    settled: bool | None
    """It is Good, so far as the query goes; None: not known."""
    weight: float = 1.0
    """How much it counts in what the query asks for."""
    support_weight: float = 1.0
    """How much it counts in what the FAQs hold."""
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
    pull: float = 12.0
    """How strongly the support model's weights are drawn to the hand-set ones, in examples."""
    unseen: float = 0.2
    """Share of the wrong answers, in [0, 1), that are taken to show it in none of the figures."""
    odd: float = 0.03
    """Share of the right answers, in [0, 1), that are taken to look wrong."""
    ridge: float = 0.3
    """Inverse strength of the last step's ridge."""
    line: float = 0.5
    """Probability of Good, in (0, 1), about which it can't tell."""
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
    """weights (features,), each 0 or less, and bias (2,) of the two heads. Right and wrong answers weigh alike as wholes."""
    from scipy.optimize import minimize

    chosen = [n for n, example in enumerate(examples) if example.supported is not None and examined[n].asserts]
    x = np.array([examined[n].support for n in chosen]).reshape(-1, len(support.FEATURES))
    y = np.array([bool(examples[n].supported) for n in chosen])
    _both_kinds("supported answers", y)
    weight = np.array([examples[n].support_weight for n in chosen])
    weight = weight * np.where(y, len(y) / (2 * weight[y].sum()), len(y) / (2 * weight[~y].sum()))
    prior = np.array([PRIOR[name] for name in support.FEATURES])
    found = minimize(_support_loss, np.append(prior, [3.0, 3.0]), args=(x, y, weight, prior, config), jac=True, method="L-BFGS-B",
                     bounds=[(None, 0.0)] * len(prior) + [(None, None)] * 2)
    return {"weights": found.x[:-2].astype(np.float32), "bias": found.x[-2:].astype(np.float32)}


def _support_loss(theta: Floats, x: Floats, y: NDArray[np.bool_], weight: Floats, prior: Floats, config: FitConfig) -> tuple[float, Floats]:
    """The support model's negative log posterior and its slope: with P the product of the heads' probabilities, right answers cost
    -log(odd + (1 - odd) P), wrong ones -log(1 - (1 - unseen) P)."""
    count, pulled = len(support.CONTRADICTION), theta[:-2] - prior
    heads = sigmoid(head_logits(theta[:-2], theta[-2:], x))
    p = heads.prod(axis=1)
    right, wrong = config.odd + (1 - config.odd) * p, 1 - (1 - config.unseen) * p
    slope = weight * np.where(y, -(1 - config.odd) / right, (1 - config.unseen) / np.maximum(wrong, 1e-9)) * p
    by_head = slope[:, None] * (1 - heads)
    value = float(-weight @ np.log(np.where(y, right, np.maximum(wrong, 1e-9))) + config.pull / 2 * pulled @ pulled)
    weights = np.append(x[:, :count].T @ by_head[:, 0], x[:, count:].T @ by_head[:, 1])
    return value, np.append(weights + config.pull * pulled, by_head.sum(axis=0))


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
    """The model with the band about the line that holds the set share of these cases: it can't tell there."""
    found = [probability_of_good(model, one, searched=searched) for one in examined if not one.unread]
    away = np.abs(np.array([p for p in found if p is not None]) - config.line)
    half = float(np.quantile(away, config.unsure)) if len(away) and config.unsure > 0 else 0.0
    half = min(half, config.line - 0.01, 0.99 - config.line)
    return replace(model, band=(round(config.line - half, 4), round(config.line + half, 4)))


def with_support(model: Model, arrays: Arrays) -> Model:
    """The model with another support part."""
    kept = {name: array for name, array in model.arrays.items() if not name.startswith("support.")}
    return Model(kept | {f"support.{name}": array for name, array in arrays.items()}, model.encoder, model.band)


def _both_kinds(what: str, y: NDArray[np.bool_]) -> None:
    if not (y.any() and (~y).any()):
        raise JudgeError(f"{what}: expected examples of both kinds to fit on, got {int(y.sum())} of {len(y)}; give more examples")


__all__ = ["Example", "FitConfig", "fit", "fit_support", "part", "with_band", "with_support"]
