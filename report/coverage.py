"""How often the report's intervals hold a truth that is known: `python -m report.coverage` prints the table of docs/results.md.

Logs are made up, conversation by conversation: turns are geometric, sizes log-normal, and how many turns skip differs from conversation
to conversation, so that a few conversations cost and save much. The truth is that of the formula, not of a larger log. Leaves out rates
of Good answers (`rates.py`).
"""

import argparse
import math
import sys
from dataclasses import dataclass

import numpy as np

from report.intervals import Asked, Draws, Floats, estimates, linear, saved_share

FAQ_TOKENS, SKIP_TOKENS = 400.0, 250.0
"""What a turn of a conversation of size 1 costs under the baseline, and what a skip saves of it."""
SKIPS = (0.6, 1.2)
"""Of the beta distribution of a conversation's share of skips: a third on average."""
OPENING = (5.0, 1.0)
"""Of the log-normal tokens that every conversation costs once."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What conversations are like."""

    name: str
    mean_turns: float
    sigma: float
    """Of the log of a conversation's size."""

    @property
    def truth(self) -> tuple[float, float]:
        """The saving, and tokens saved a conversation."""
        per_turn = math.exp(self.sigma**2 / 2) * self.mean_turns
        saved = SKIP_TOKENS * per_turn * SKIPS[0] / sum(SKIPS)
        return saved / (FAQ_TOKENS * per_turn + math.exp(OPENING[0] + OPENING[1] ** 2 / 2)), saved


USUAL = Traffic("usual", 4.0, 0.4)
HEAVY = Traffic("heavy-tailed", 12.5, 1.0)
SIZES = ((30, 30), (60, 60), (400, 400), (4000, 400))
"""Conversations, and the blocks that are drawn."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share of the logs whose interval holds the truth: of the saving, and of tokens saved in all."""

    saving: float
    total: float
    percentile_saving: float
    """Of the plain percentile interval from the same resamples."""
    percentile_total: float


def conversations(generator: np.random.Generator, count: int, traffic: Traffic = USUAL) -> Floats:
    """Tokens paid and tokens of the baseline, shape (count, 2)."""
    turns = generator.geometric(1 / traffic.mean_turns, size=count)
    size = generator.lognormal(0.0, traffic.sigma, size=count)
    skips = generator.binomial(turns, generator.beta(*SKIPS, size=count))
    baseline = FAQ_TOKENS * size * turns + generator.lognormal(*OPENING, size=count)
    return np.stack([baseline - SKIP_TOKENS * size * skips, baseline], axis=1)


def coverage(count: int, blocks: int, traffic: Traffic = USUAL, *, logs: int = 2000, resamples: int = 2000, seed: int = 1) -> Coverage:
    """Of `logs` made-up logs of `count` conversations each, which are drawn again in so many blocks."""
    saving, saved = traffic.truth
    truths, statistics = (saving, saved * count), (saved_share(0, 1), linear((-1, 1)))
    generator, draws = np.random.default_rng(seed), Draws(blocks, resamples)
    held = np.zeros(4)
    for _ in range(logs):
        values = _in_blocks(conversations(generator, count, traffic), blocks)
        figures = estimates([Asked(values, statistics[0], highest=1.0), Asked(values, statistics[1])], draws)
        drawn = draws.sums(values)
        plain = [np.quantile(statistic(drawn), (0.025, 0.975)) for statistic in statistics]
        ends = [*((figure.low, figure.high) for figure in figures), *((float(low), float(high)) for low, high in plain)]
        held += [low is not None and high is not None and low <= truth <= high
                 for (low, high), truth in zip(ends, (*truths, *truths), strict=True)]
    return Coverage(*(float(share) for share in held / logs))


def _in_blocks(values: Floats, blocks: int) -> Floats:
    return np.stack([np.bincount(np.arange(len(values)) % blocks, column, blocks) for column in values.T], axis=1)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m report.coverage", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--logs", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    lines = ["| traffic | conversations | units drawn | saving | percentile | tokens in all | percentile |",
             "|---|---|---|---|---|---|---|"]
    for traffic in (USUAL, HEAVY):
        for count, blocks in SIZES:
            one = coverage(count, blocks, traffic, logs=given.logs, resamples=given.resamples, seed=given.seed)
            shares = (f"{100 * share:.1f}" for share in (one.saving, one.percentile_saving, one.total, one.percentile_total))
            lines.append(f"| {traffic.name} | {count:,} | {blocks} | {' | '.join(shares)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
