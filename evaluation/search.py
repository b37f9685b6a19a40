"""Hyperparameters by Optuna (TPE, Akiba et al. 2019): configurations tried on train, compared on dev, never on test or calibration."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation.training import GateConfig, Prepared, trained


@dataclass(frozen=True, slots=True)
class Found:
    """The best configuration of a search."""

    config: GateConfig
    parameters: dict[str, Any]
    dev: float
    """Mean saving on dev at `TrainConfig.select_budgets`, over the two seeds of the trial."""


def search(ready: Prepared, config: GateConfig, *, trials: int, seed: int, progress: Callable[[], None] | None = None) -> Found:
    """The best of so many configurations, each trained with two seeds."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))

    def value(trial: Any) -> float:
        tried = _suggested(trial, config)
        found = [trained(ready, replace(tried, train=replace(tried.train, seed=seed + n)))[3] for n in range(2)]
        if progress is not None:
            progress()
        return float(np.mean([one.epochs[one.best].dev for one in found]))

    study.optimize(value, n_trials=trials)
    return Found(_suggested(study.best_trial, config), dict(study.best_params), float(study.best_value))


def _suggested(trial: Any, config: GateConfig) -> GateConfig:
    """The configuration of a trial; a finished one suggests what it was given."""
    network = replace(
        config.network, text_dropout=trial.suggest_float("text_dropout", 0.3, 0.9), dropout=trial.suggest_float("dropout", 0.05, 0.4),
        text_width=trial.suggest_categorical("text_width", [8, 16, 32]), hidden=trial.suggest_categorical("hidden", [16, 32, 64]),
    )
    train = replace(
        config.train, learning_rate=trial.suggest_float("learning_rate", 3e-4, 5e-3, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-3, 0.3, log=True),
        entropy_coef=trial.suggest_float("entropy_coef", 0.03, 0.3, log=True),
        multiplier=trial.suggest_float("multiplier", 2.0, 12.0, log=True),
    )
    decision = replace(config.decision, uncertainty_penalty=trial.suggest_float("uncertainty_penalty", 0.0, 1.0))
    return replace(config, network=network, train=train, decision=decision)
