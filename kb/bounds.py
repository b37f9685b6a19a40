"""Exact bounds of a probability from independent trials, and how many trials a budget needs.

Leaves out how independent trials are had of conversations (`calibrate.py`, `evaluation/certify.py`).
"""

from scipy.special import betaincinv


def clopper_pearson_upper(failures: int, trials: int, level: float = 0.95) -> float:
    """Exact one-sided upper bound of a probability from independent trials; 1 where there are none (Clopper & Pearson 1934)."""
    if not 0 <= failures <= trials:
        raise ValueError(f"failures: expected 0 to trials ({trials}), got {failures}")
    return 1.0 if failures == trials else float(betaincinv(failures + 1, trials - failures, level))


def needed_trials(failures: int, budget: float, level: float = 0.95) -> int:
    """The fewest independent trials of which so many failures keep the exact upper bound within `budget`, in (0, 1)."""
    if not 0 < budget < 1:
        raise ValueError(f"budget: expected a share above 0 and below 1, got {budget}")
    enough = failures + 1
    while clopper_pearson_upper(failures, enough, level) > budget:
        enough *= 2
    too_few = failures  # of which the bound is 1
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if clopper_pearson_upper(failures, middle, level) > budget:
            too_few = middle
        else:
            enough = middle
    return enough


def needed_without_failure(budget: float, level: float = 0.95) -> int:
    """The fewest independent trials that certify `budget` when none fails: 299 for 1 %."""
    return needed_trials(0, budget, level)
