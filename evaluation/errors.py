"""What can go wrong when measuring.

    EvaluationError
    └── DatasetError   a data file can't be used: file, line, field, what to do
"""


class EvaluationError(Exception):
    """Base of every error that `evaluation` raises."""


class DatasetError(EvaluationError):
    """A file of labelled conversations can't be used; the message names file, line and field."""
