"""Scores of answers from many raters' comparisons, and how reliable each rater is: Bradley-Terry with noise.

    P(i before j | rater) = s(g) s(x_i - x_j) + (1 - s(g)) s(+-b)

with s the logistic function, x scores, g the rater's reliability and b the rater's bias to the side that is shown first. The model and the
optimiser are crowd-kit's. Its gradient (1.4.2) isn't that of its likelihood: the bias' and the reliability's parts are written one place
off and hold the last comparison alone, and its regulariser pulls scores apart. Likelihood and gradient are therefore written here, and a
test holds one to the other. Leaves out turns' verdicts (`consensus.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward.errors import ShapingInputError

PRIOR = 0.05
"""Weight of the pull of scores and biases to 0 and of reliability to `RELIABLE`, where what few comparisons can't tell stays."""
RELIABLE = 2.0
"""Log odds: a rater of whom nothing is known is taken to look at the answers with probability .88."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A rater's choice between two answers."""

    rater: str
    left: str
    """Id of the answer that was shown first."""
    right: str
    left_is_better: bool


@dataclass(frozen=True, slots=True)
class RankedAnswers:
    """What the comparisons say."""

    scores: dict[str, float]
    """Log odds, of mean 0: s(a - b) is how likely a reliable rater is to prefer a."""
    reliability: dict[str, float]
    """P(the rater looks at the answers), in [0, 1]."""


def rank_answers(comparisons: Sequence[Compared], *, seed: int = 0) -> RankedAnswers:
    """Scores of all answers that were compared and reliability of all raters. Raises: ShapingInputError."""
    import pandas as pd  # type: ignore[import-untyped]
    from crowdkit.aggregation import NoisyBradleyTerry

    class Fitted(NoisyBradleyTerry):
        _compute_log_likelihood = staticmethod(loss)
        _compute_gradient = staticmethod(gradient)

    if not comparisons:
        return RankedAnswers({}, {})
    if same := next((one for one in comparisons if one.left == one.right), None):
        raise ShapingInputError(f"comparisons: expected two answers, got {same.left!r} against itself")
    frame = pd.DataFrame([(one.rater, one.left, one.right, one.left if one.left_is_better else one.right) for one in comparisons],
                         columns=["worker", "left", "right", "label"])
    fitted = Fitted(n_iter=500, tol=1e-9, regularization_ratio=PRIOR, random_state=seed).fit(frame)
    # crowd-kit gives s(x); its inverse are the scores themselves
    scores = np.log(fitted.scores_) - np.log1p(-fitted.scores_)
    scores -= scores.mean()
    return RankedAnswers({str(answer): float(score) for answer, score in scores.items()},
                         {str(rater): float(skill) for rater, skill in fitted.skills_.items()})


def loss(x: NDArray[Any], np_data: NDArray[Any], np_workers: NDArray[Any], labels: int, workers: int, regularization_ratio: float) -> float:
    """Negative log posterior, to minimise.

    Shapes: x (1 + labels + 2 workers,): one spare, scores, biases, reliabilities; np_data (N, 3): left, right and label by place in x.
    """
    won, difference, bias, reliable = _parts(x, np_data, np_workers, labels, workers)
    fit = np.log(_expit(reliable) * _expit(won * difference) + (1 - _expit(reliable)) * _expit(won * bias)).sum()
    scores, biases, gammas = _split(x, labels, workers)
    return float(-fit + regularization_ratio / 2 * ((scores**2).sum() + (biases**2).sum() + ((gammas - RELIABLE) ** 2).sum() + x[0] ** 2))


def gradient(
    x: NDArray[Any], np_data: NDArray[Any], np_workers: NDArray[Any], labels: int, workers: int, regularization_ratio: float
) -> NDArray[Any]:
    """Of `loss`, shape of x."""
    won, difference, bias, reliable = _parts(x, np_data, np_workers, labels, workers)
    look, better, side = _expit(reliable), _expit(won * difference), _expit(won * bias)
    likely = look * better + (1 - look) * side
    by_score = look * won * better * (1 - better) / likely
    found = np.zeros_like(x)
    np.add.at(found, np_data[:, 0], by_score)
    np.add.at(found, np_data[:, 1], -by_score)
    np.add.at(found, 1 + labels + np_workers, (1 - look) * won * side * (1 - side) / likely)
    np.add.at(found, 1 + labels + workers + np_workers, look * (1 - look) * (better - side) / likely)
    away = x.copy()
    away[1 + labels + workers :] -= RELIABLE
    result: NDArray[Any] = regularization_ratio * away - found
    return result


def _parts(
    x: NDArray[Any], np_data: NDArray[Any], np_workers: NDArray[Any], labels: int, workers: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    won = np.where(np_data[:, 0] == np_data[:, 2], 1.0, -1.0)
    return won, x[np_data[:, 0]] - x[np_data[:, 1]], x[1 + labels + np_workers], x[1 + labels + workers + np_workers]


def _split(x: NDArray[Any], labels: int, n_workers: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return x[1 : 1 + labels], x[1 + labels : 1 + labels + n_workers], x[1 + labels + n_workers :]


def _expit(values: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * (1 + np.tanh(values / 2))  # never overflows
