"""A reward model for use: fitted on most groups, measured on the others, and written with its figures.

Leaves out where preferences come from (`preference_data.py`) and cross-validation against baselines (`preference_tables.py`).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.stats import Interval, resampled, share
from kb.embedder import Embedder, Progress
from reward.answer_features import FEATURES, Floats
from reward.calibration import correct, measures
from reward.errors import PreferenceError
from reward.model import RewardModel
from reward.preferences import JUDGED, PREFERENCES, Judged, Preference, read_judged, read_preferences, split
from reward.saved import check_replaceable, save_reward
from reward.train import Table, TrainConfig, fit, tabulate, told

HELD_OUT = 0.2
"""About this share of the groups measures."""
RESAMPLES = 2_000

Item = Preference | Judged


def read_items(path: Path) -> tuple[Item, ...]:
    """The pairs and judged answers of a folder, of those files that it has, or of one file of pairs, or of `judged.jsonl`.

    Raises: PreferenceError naming file, line and field, or the files that were expected.
    """
    if not path.is_dir():
        return read_judged(path) if path.name == JUDGED else read_preferences(path)
    there = [name for name in (PREFERENCES, JUDGED) if (path / name).exists()]
    if not there:
        raise PreferenceError(f"{path}: expected {PREFERENCES} or {JUDGED} in the folder, got neither; name a file, or another folder")
    pairs: tuple[Item, ...] = read_preferences(path) if PREFERENCES in there else ()
    return pairs if JUDGED not in there else (*pairs, *read_judged(path))


def train_reward(items: Sequence[Item], embedder: Embedder, config: TrainConfig, out: Path, *, source: str,
                 progress: Progress | None = None) -> dict[str, Any]:
    """Figures of the model that now lies in the folder: what it learned from, and how it does on groups that it hasn't seen.

    Raises: PreferenceError when the folder is somebody else's, or there is too little to divide.
    """
    check_replaceable(out)
    kept, held = split(items, HELD_OUT, config.seed)
    if not kept or not held:
        raise PreferenceError(f"{source}: expected groups enough to train on and to hold out, got {len({one.group for one in items})}; "
                              "give more, or another --seed")
    table = tabulate(items, embedder, progress=progress)
    model = fit(kept, table, embedder, config).model
    metrics = measured(model, table, held)
    training = {"config": told(config), "source": source, "items": len(kept), "groups": _groups(kept), "data": _hash(items)}
    record = save_reward(out, model, training, metrics)
    return {"folder": str(out), "version": record.version, "source": source, "trained_on": len(kept),
            "trained_on_groups": _groups(kept), **metrics}


def measured(model: RewardModel, table: Table, held: Sequence[Item]) -> dict[str, Any]:
    """Accuracy with its interval by group, calibration and length bias on pairs; accuracy on judged answers. None: can't be told."""
    rewards = model.of_figures(table.rows)
    pairs = [one for one in held if isinstance(one, Preference)]
    judged = [one for one in held if isinstance(one, Judged)]
    found: dict[str, Any] = {"held_out_pairs": len(pairs), "held_out_judged": len(judged), "held_out_groups": _groups(held)}
    if pairs:
        found |= _of_pairs(pairs, rewards, table)
    if judged:
        rows = table.of([one.answers[0] for one in judged])
        signed = rewards[rows] * np.where([one.good for one in judged], 1.0, -1.0)
        found["judged_accuracy"] = _interval(correct(signed), judged)
    return found


def _of_pairs(pairs: Sequence[Preference], rewards: Floats, table: Table) -> dict[str, Any]:
    first, second = (table.of([pair.answers[n] for pair in pairs]) for n in (0, 1))
    words = table.rows[:, FEATURES.index("log_words")]
    logits, longer = rewards[first] - rewards[second], words[first] - words[second]
    figures = asdict(measures(logits, longer))
    figures["accuracy"] = _interval(correct(logits), pairs)
    figures["longer_is_better_accuracy"] = _interval(correct(longer), pairs)
    figures["bins"] = list(figures.pop("bins"))
    del figures["pairs"]
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in figures.items()}


def _interval(right: Floats, items: Sequence[Item]) -> Mapping[str, float | bool]:
    """Share that is right, by group."""
    numbers = {group: n for n, group in enumerate(dict.fromkeys(one.group for one in items))}
    groups = np.array([numbers[one.group] for one in items])
    found: Interval = share(np.bincount(groups, right), np.bincount(groups), resampled(len(numbers), resamples=RESAMPLES))
    return asdict(found)


def _groups(items: Sequence[Item]) -> int:
    return len({one.group for one in items})


def _hash(items: Sequence[Item]) -> str:
    return hashlib.sha256("\n".join(map(repr, items)).encode()).hexdigest()
