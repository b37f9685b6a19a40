"""Cross-validation of reward models by group: logits of pairs by models that learned from other groups, all choices made inside a fold.

A ridge is chosen by fitting reward models. Kinds of figures are chosen by the same linear reward without early stopping, which is
logistic regression on a pair's difference: milliseconds a fit, where a reward model takes a second. Leaves out what is compared and
printed (`preference_tables.py`) and fitting (`reward/train.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kb.embedder import Embedder
from reward.answer_features import FEATURES, KINDS
from reward.model import CLIPPED_AT
from reward.preferences import Preference, place
from reward.train import Table, TrainConfig, fit, tabulate

Floats = NDArray[np.float64]
RIDGES = (0.02, 0.05, 0.15, 0.5)
INNER_FOLDS = 3
STRENGTHS = (30.0, 100.0, 300.0, 1000.0)
"""Of the penalty `strength / 2 * |weights|^2`, beside a log loss that is summed over pairs; the best of them speaks for its figures."""
INNER_SEED = 1000
"""Added to a seed, so that inner folds aren't cut as the outer ones are."""


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """Preferences with the figures of their answers."""

    pairs: tuple[Preference, ...]
    table: Table
    embedder: Embedder

    @property
    def groups(self) -> NDArray[np.int64]:
        """Number of each pair's group, in order of appearance, shape (B,)."""
        names = {group: n for n, group in enumerate(dict.fromkeys(pair.group for pair in self.pairs))}
        return np.array([names[pair.group] for pair in self.pairs])

    def gaps(self, values: Floats) -> Floats:
        """Chosen less rejected, from a value for each row of the table: shape (N,) to (B,), or (N, F) to (B, F)."""
        chosen, rejected = (self.table.of([pair.answers[n] for pair in self.pairs]) for n in (0, 1))
        gap: Floats = values[chosen] - values[rejected]
        return gap

    def gap(self, figure: str) -> Floats:
        """Of one figure."""
        return self.gaps(self.table.rows[:, FEATURES.index(figure)])

    def only(self, kept: NDArray[np.bool_]) -> "Paired":
        return Paired(tuple(pair for pair, keep in zip(self.pairs, kept, strict=True) if keep), self.table, self.embedder)


Choice = Callable[[Paired, TrainConfig], TrainConfig]
"""Makes the configuration of a fold from its training pairs alone."""


def paired(pairs: Sequence[Preference], embedder: Embedder) -> Paired:
    """Preferences with figures on this encoder. Raises: EmbedderError."""
    return Paired(tuple(pairs), tabulate(pairs, embedder), embedder)


def folds_of(data: Paired, folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each pair, shape (B,): groups in an order that a hash gives, dealt out one by one."""
    order = sorted({pair.group for pair in data.pairs}, key=lambda group: place(group, seed))
    fold = {group: n % folds for n, group in enumerate(order)}
    return np.array([fold[pair.group] for pair in data.pairs])


def held_out(data: Paired, config: TrainConfig, folds: int, choose: Choice | None = None,
             chosen: list[TrainConfig] | None = None) -> Floats:
    """Logits of every pair by a model that learned from the other folds; folds and training by the configuration's seed, shape (B,).

    `chosen` takes each fold's configuration.
    """
    fold, logits = folds_of(data, folds, config.seed), np.zeros(len(data.pairs))
    for number in range(folds):
        training = data.only(fold != number)
        mine = config if choose is None else choose(training, config)
        model = fit(training.pairs, data.table, data.embedder, mine).model
        logits[fold == number] = data.gaps(model.of_figures(data.table.rows))[fold == number]
        if chosen is not None:
            chosen.append(mine)
    return logits


def with_ridge(training: Paired, config: TrainConfig, ridges: Sequence[float] = RIDGES, folds: int = INNER_FOLDS) -> TrainConfig:
    """The ridge whose log loss is least, cross-validated by group among these pairs alone."""
    inner = replace(config, seed=config.seed + INNER_SEED)

    def loss(ridge: float) -> float:
        return _log_loss(held_out(training, replace(inner, ridge=ridge), folds))

    return replace(config, ridge=ridges[0] if len(ridges) == 1 else min(ridges, key=loss))


def with_figures(training: Paired, config: TrainConfig, folds: int = INNER_FOLDS) -> TrainConfig:
    """The kinds of figures that are left when every kind without which the log loss falls has been dropped, the worst first.

    The log loss is cross-validated by group among these pairs alone, at the best of STRENGTHS each time.
    """
    fold = folds_of(training, folds, config.seed + INNER_SEED)

    def loss(kinds: Sequence[str]) -> float:
        gaps = _scaled_gaps(training, [name for kind in kinds for name in KINDS[kind]])
        return min(_log_loss(_linear(gaps, fold, strength)) for strength in STRENGTHS)

    kept = list(KINDS)
    least = loss(kept)
    while len(kept) > 1:
        found = {kind: loss([other for other in kept if other != kind]) for kind in kept}
        worst = min(kept, key=found.__getitem__)
        if found[worst] >= least:
            break
        kept, least = [kind for kind in kept if kind != worst], found[worst]
    return replace(config, network=replace(config.network, figures=tuple(name for kind in kept for name in KINDS[kind])))


def _scaled_gaps(data: Paired, names: Sequence[str]) -> Floats:
    """Differences of figures as the network reads them: in standard deviations over these pairs' answers, clipped; shape (B, F)."""
    columns = [FEATURES.index(name) for name in names]
    rows = data.table.rows[:, columns]
    used = rows[data.table.of(list(dict.fromkeys(answer for pair in data.pairs for answer in pair.answers)))]
    spread = used.std(axis=0)
    scaled = (rows - used.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)
    return data.gaps(np.clip(scaled, -CLIPPED_AT, CLIPPED_AT))


def _linear(gaps: Floats, fold: NDArray[np.int64], strength: float) -> Floats:
    """Logits of every pair by weights that were fitted to the other folds, shape (B,)."""
    from sklearn.linear_model import LogisticRegression

    logits = np.zeros(len(gaps))
    for number in np.unique(fold):
        learned = gaps[fold != number]
        both = np.concatenate([learned, -learned])  # a pair and its mirror image: two classes, as it wants them
        first = np.repeat([True, False], len(learned))
        fitted = LogisticRegression(C=1 / strength, fit_intercept=False, max_iter=500).fit(both, first, np.full(len(both), 0.5))
        logits[fold == number] = gaps[fold == number] @ fitted.coef_[0]
    return logits


def _log_loss(logits: Floats) -> float:
    return float(np.mean(np.logaddexp(0, -logits)))
