"""The reward model's table of docs/results.md, as Markdown: `python -m evaluation.preference_tables --data FOLDER`.

Cross-validated by group against length and embedding similarity. In the last row everything is chosen inside each training fold: which
kinds of figures are read, and the ridge (`preference_folds.py`). What is left to hindsight on qa-feedback is which figures were thought of
at all. Minutes on one core; with `--cache`, the texts are encoded once. Leaves out fitting (`reward/train.py`) and the command that
trains for use (`preference_run.py`).
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.preference_folds import INNER_FOLDS, RIDGES, Paired, held_out, paired, with_figures, with_ridge
from evaluation.stats import Interval, ratio_difference, resampled, share
from kb.embedder import Embedder, EmbedderConfig, Progress, Vectors, load_embedder
from reward.answer_features import FEATURES, KINDS, LENGTH, SIMILARITY
from reward.calibration import correct, measures
from reward.model import NetworkConfig
from reward.preferences import read_preferences
from reward.train import TrainConfig

Floats = NDArray[np.float64]
FOLDS, SEEDS = 10, 3
AHEAD = 0.05
"""By so much the model should be ahead of both kinds of baseline."""
ALL_FIGURES, DEBIASED = "reward model on all figures, as it ships", "the same, what it owes to length taken off"
MODEL = "**reward model, kinds of figures chosen too**"


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """What prefers, and its logits on pairs that it didn't learn from, shape (seeds, B)."""

    name: str
    logits: Floats
    chosen: tuple[TrainConfig, ...] = ()
    """Configurations that were chosen, one for each fold and seed."""


class KeptVectors:
    """An encoder whose vectors of a list of texts are kept in a folder: reading the same data again takes no time."""

    def __init__(self, base: Embedder, folder: Path) -> None:
        self._base, self._folder = base, folder
        self.model_id, self.dimension = base.model_id, base.dimension

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """As the encoder below gives them. Raises: EmbedderError."""
        name = hashlib.sha256("\0".join([self.model_id, *texts]).encode()).hexdigest()[:16]
        path = self._folder / f"vectors-{name}.npy"
        if path.exists():
            kept: Vectors = np.load(path, allow_pickle=False)
            return kept
        vectors = self._base.embed(texts, progress=progress)
        self._folder.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors, allow_pickle=False)
        return vectors


def arms(data: Paired, *, folds: int = FOLDS, seeds: int = SEEDS, ridges: Sequence[float] = RIDGES) -> tuple[Arm, ...]:
    """What the reward model is compared with, and in the last place the reward model."""
    columns = {name: data.table.rows[:, FEATURES.index(name)] for name in ("prompt", "context")}
    found = [Arm("longer is better", data.gap("log_words")[None]), Arm("cosine to the question", data.gap("prompt")[None]),
             Arm("cosine to the nearest passage", data.gap("context")[None]),
             Arm("larger of the two cosines", data.gaps(np.maximum(columns["prompt"], columns["context"]))[None])]
    for name, figures in (("trained on four figures of length", LENGTH), ("trained on three cosines", SIMILARITY)):
        found.append(Arm(name, np.stack([held_out(data, TrainConfig(seed=seed, network=NetworkConfig(figures=figures)), folds)
                                         for seed in range(seeds)])))
    return (*found, *_reward_arms(data, folds, seeds, ridges))


def _reward_arms(data: Paired, folds: int, seeds: int, ridges: Sequence[float]) -> Iterator[Arm]:
    """Reward models: all figures with the ridge chosen inside, the same debiased, and one whose kinds of figures are chosen inside too."""
    def ridge(training: Paired, config: TrainConfig) -> TrainConfig:
        return with_ridge(training, config, ridges)

    def debiased(_: Paired, config: TrainConfig) -> TrainConfig:
        return replace(next(again), debias_length=True)

    def figures(training: Paired, config: TrainConfig) -> TrainConfig:
        return ridge(training, with_figures(training, config))

    for name, choose in ((ALL_FIGURES, ridge), (DEBIASED, debiased), (MODEL, figures)):
        logits, mine = [], list[TrainConfig]()
        for seed in range(seeds):
            logits.append(held_out(data, TrainConfig(seed=seed), folds, choose, mine))
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
        again = iter(mine)
        yield Arm(name, np.stack(logits), tuple(mine))


def table(data: Paired, found: Sequence[Arm]) -> Iterator[str]:
    """Accuracies, and how far the last arm is ahead of each, on the same resamples of groups."""
    groups, weights = _by_group(data)
    count = np.bincount(groups)
    right = {arm.name: _sums(correct(arm.logits), groups) for arm in found}
    ours = right[found[-1].name]
    yield "| what prefers | accuracy % | reward model ahead by |"
    yield "|---|--:|--:|"
    for arm in found:
        ahead = "" if arm is found[-1] else str(ratio_difference(ours, count, right[arm.name], count, weights))
        yield f"| {arm.name} | {share(right[arm.name], count, weights)} | {ahead} |"


def leads(data: Paired, found: Sequence[Arm]) -> Mapping[str, Interval]:
    """How far the reward model is ahead of each baseline."""
    groups, weights = _by_group(data)
    count, ours = np.bincount(groups), _sums(correct(found[-1].logits), groups)
    return {arm.name: ratio_difference(ours, count, _sums(correct(arm.logits), groups), count, weights)
            for arm in found if arm.name not in (MODEL, ALL_FIGURES, DEBIASED)}


def target(found: Mapping[str, Interval]) -> str:
    """Whether the model is far enough ahead of every baseline."""
    name, least = min(found.items(), key=lambda item: item[1].value)
    met = least.value >= AHEAD and all(one.low > 0 for one in found.values())
    shown = "the interval lies above it too" if least.low >= AHEAD else "the interval reaches below it, so that much isn't shown"
    return (f"Target, {100 * AHEAD:.0f} points ahead of length and of similarity with intervals above zero: {'met' if met else 'not met'}. "
            f"The closest is *{name}*, {least} points behind; of {100 * AHEAD:.0f} points, {shown}.")


def details(data: Paired, arm: Arm) -> Iterator[str]:
    """Calibration and length of one arm, means over seeds."""
    groups, weights = _by_group(data)
    longer = data.gap("log_words")
    loss = np.logaddexp(0, -arm.logits)
    every = [measures(logits, longer) for logits in arm.logits]

    def part(where: NDArray[np.bool_]) -> Interval:
        return share(_sums(correct(arm.logits) * where, groups), np.bincount(groups, where), weights)

    log_loss = share(_sums(loss, groups), np.bincount(groups), weights)
    yield f"{arm.name.strip('*')}:"
    yield f"- accuracy by seed: {', '.join(f'{100 * one.accuracy:.1f}' for one in every)} %"
    yield (f"- log loss {log_loss.value:.3f} ({log_loss.low:.3f} to {log_loss.high:.3f}) nats, 0.693 knows nothing; ECE by seed "
           f"{', '.join(f'{one.ece:.3f}' for one in every)}")
    yield f"- right where people chose the longer answer {part(longer > 0)} %, where the shorter {part(longer < 0)} %"
    yield (f"- prefers the longer in {100 * _mean(one.longer_preferred for one in every):.1f} % of pairs, people in "
           f"{100 * every[0].longer_preferred_by_people:.1f} %; correlation of logits with length "
           f"{_mean(one.length_correlation for one in every):.2f}")


def report(data: Paired, found: Sequence[Arm], *, folds: int, ridges: Sequence[float] = RIDGES) -> Iterator[str]:
    """The whole text."""
    *_, whole, debiased, model = found
    yield (f"{len(data.pairs)} pairs of {len({pair.group for pair in data.pairs})} groups; {folds} folds by group, seeds 0 to "
           f"{len(model.logits) - 1} of folds and training; 95 % intervals by group, paired; a tie counts half.")
    yield ""
    yield from table(data, found)
    yield ""
    yield target(leads(data, found))
    yield ""
    yield from choices(model, ridges)
    for arm in (model, whole, debiased):
        yield ""
        yield from details(data, arm)


def choices(model: Arm, ridges: Sequence[float]) -> Iterator[str]:
    """What was chosen inside the folds."""
    ridge = Counter(config.ridge for config in model.chosen)
    kinds = {kind: sum(set(names) <= set(config.network.figures) for config in model.chosen) for kind, names in KINDS.items()}
    yield (f"Chosen inside each of {len(model.chosen)} training folds by log loss over {INNER_FOLDS} folds by group: the ridge "
           f"({', '.join(f'{one:g} {ridge[one]} times' for one in ridges)}) and the kinds of figures, of which were kept "
           f"{', '.join(f'{kind} {times} times' for kind, times in kinds.items())}.")


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("python -m evaluation.preference_tables", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="preferences.jsonl, or a folder that holds it")
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="so many, from 0")
    parser.add_argument("--cache", type=Path, help="folder where vectors of texts are kept")
    options = parser.parse_args(arguments)
    if options.folds < 2 or options.seeds < 1:
        parser.error(f"--folds, --seeds: expected from 2 and from 1, got {options.folds} and {options.seeds}")
    encoder = load_embedder(EmbedderConfig())
    data = paired(read_preferences(options.data), encoder if options.cache is None else KeptVectors(encoder, options.cache))
    for line in report(data, arms(data, folds=options.folds, seeds=options.seeds), folds=options.folds):
        print(line, flush=True)


def _by_group(data: Paired) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group of each pair, and bootstrap weights of the groups."""
    groups = data.groups
    return groups, resampled(int(groups.max()) + 1)


def _sums(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """By group, shape (seeds, B) to (seeds, groups)."""
    return np.stack([np.bincount(groups, row) for row in values])


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))


if __name__ == "__main__":
    main(sys.argv[1:])
