"""Does a certified threshold keep its budget? Many random resplits of labelled queries: two thirds calibrate, a third is held out.

Each resplit calibrates as a knowledge base is calibrated (`kb/calibrate.py`: a third fits, the rest certifies); searching is done once. A
third has sampling noise of its own, so a true share just within the budget shows above it now and then: shares that are above beyond
chance stand apart. The command is `tables.py`'s.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.retrieval_run import RetrievalRun, knowledge, labelled, search, static_rows
from kb.bounds import clopper_pearson_upper
from kb.calibrate import FITTING_SHARE, SEEN_HITS, Searched, calibrate, searched
from kb.errors import CalibrationError

FEWEST_GROUPS = 6


@dataclass(frozen=True, slots=True)
class Resplit:
    """One calibration on the held-out third."""

    queries: int
    answered: int
    wrong: int
    certified: bool
    more_needed: int | None
    """Labelled queries, to be shared out again, that would certify if no further answer were wrong; None: certified, or no telling."""

    @property
    def share(self) -> float:
        """Wrong share of the static answers; 0 without one."""
        return self.wrong / self.answered if self.answered else 0.0

    @property
    def lower(self) -> float:
        """Exact one-sided 95 % bound of it."""
        return 1 - clopper_pearson_upper(self.answered - self.wrong, self.answered)


def thirds(data: Searched, seed: int) -> tuple[Searched, Searched]:
    """Two thirds to calibrate on and one that is held out, whole conversations together."""
    count = int(data.groups.max()) + 1
    out = (np.random.default_rng([seed, 1]).permutation(count) < count // 3)[data.groups]  # not the draws that calibrate splits by
    return data.take(np.flatnonzero(~out)), data.take(np.flatnonzero(out))


def resplit(data: Searched, budget: float, seed: int) -> Resplit:
    """Calibrate on two thirds and measure on the rest."""
    used, held_out = thirds(data, seed)
    try:
        calibration = calibrate(used, "", budget=budget, seed=seed)
    except CalibrationError:  # labels of one kind
        return Resplit(len(held_out), 0, 0, False, None)
    rows, first = static_rows(held_out, calibration), calibration.first
    certified = first.threshold is not None
    reached = first.trials / calibration.certified_on  # share of the queries that give a trial
    more = None if certified or not reached else round(first.more_needed / reached / (1 - FITTING_SHARE))
    return Resplit(len(held_out), int(rows.sum()), int((~held_out.right[rows]).sum()), certified, more)


def row(budget: float, found: Sequence[Resplit]) -> str:
    """What came of all resplits at a budget, as a row of Markdown."""
    coverage = np.array([one.answered / one.queries for one in found])
    low, middle, high = np.quantile(coverage, (0.05, 0.5, 0.95))
    some = [one for one in found if one.answered]
    wrong = f"{100 * np.mean([one.share for one in some]):.2f}" if some else "–"
    more = [one.more_needed for one in found if one.more_needed is not None]
    return (f"| {100 * budget:g} % | {_share([one.share > budget for one in found])} | {_share([one.lower > budget for one in found])} | "
            f"{wrong} | {100 * coverage.mean():.1f} ({100 * low:.1f}, {100 * middle:.1f}, {100 * high:.1f}) | "
            f"{_share([not one.certified for one in found])} | {f'{np.median(more):,.0f}' if more else '–'} |")


def static(options: argparse.Namespace) -> None:
    """Print a row for each budget."""
    known = knowledge(RetrievalRun(options.data, faqs=options.faqs, embedder=options.embedder))
    queries = labelled(options.data, known.retriever)
    data = searched(queries, search(known, queries, k=SEEN_HITS))
    if len(np.unique(data.groups)) < FEWEST_GROUPS:
        raise EvaluationError(f"{options.data}: expected at least {FEWEST_GROUPS} different queries to split in three, got fewer; "
                              "label more")
    print(f"`python -m evaluation.tables static`, {options.data.resolve().name}, encoder {known.embedder.model_id}, words "
          f"{known.retriever.lexical_weight:g}, {options.resplits} resplits of {len(queries)} queries, seed {options.seed}\n")
    print("| budget | over it | over it beyond chance | wrong, mean % | coverage, mean % (5th, 50th, 95th percentile) | nothing certified "
          "| labels it would then take |\n|--:|--:|--:|--:|--:|--:|--:|")
    for budget in options.budgets:
        # seeds far apart: those of another run share no resplit
        found = [resplit(data, budget, options.seed * options.resplits + n) for n in range(options.resplits)]
        print(row(budget, found), flush=True)
        print(f"done {budget:g}", file=sys.stderr)


def _share(values: Sequence[bool]) -> str:
    return f"{100 * np.mean(values):.1f} %"


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`static` among the commands of `tables.py`."""
    mine = commands.add_parser("static", help="whether certified static answers keep their budget, over resplits of labelled queries")
    mine.add_argument("--data", type=Path, required=True, help="folder with queries.jsonl and faqs.jsonl")
    mine.add_argument("--faqs", type=Path, help="FAQ file in place of that folder's")
    mine.add_argument("--embedder", help="encoder that indexes the FAQs")
    mine.add_argument("--budgets", type=float, nargs="+", default=[0.01, 0.05], help="wrong shares of the static answers")
    mine.add_argument("--resplits", type=int, default=200)
    mine.add_argument("--seed", type=int, default=0)
    mine.set_defaults(run=static)
