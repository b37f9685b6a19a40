"""What can go wrong with a learned policy.

    PolicyError
    ├── CheckpointError  an encoder or policy folder that can't be loaded or written: which, what is wrong, what to do
    └── TrainingError    a training that can't begin, or went wrong; what it was to replace is unchanged
"""


class PolicyError(Exception):
    """Base of every error that `policy` raises."""


class CheckpointError(PolicyError):
    """Weights, configuration or tokenizer can't be loaded, are not of a kind that is known, or can't be written."""


class TrainingError(PolicyError):
    """There is nothing to train on, or the training diverged; nothing was written."""
