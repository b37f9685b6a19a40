"""Which `min_similarity` the evidence rule needs: a sweep over replayed help-desk sessions with the real encoder.

`python -m evaluation.evidence_threshold` plays the sessions of train and dev once per threshold, each on its own
transcript, and prints what is skipped and whom that harms under the ideal reader. The rule skips for two reasons; the
reference is the rule with the first one alone (the best FAQ is in the prompt already), whose harm no threshold can mend.
Leaves out the calibration and test splits, other readers, and tokens.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from chat.plan import PipelineConfig
from chat.ports import Retriever
from chat.prompt import PromptSettings
from chat.tokens import TiktokenCounter
from evaluation.datasets import LabelledTurn, Session, read_helpdesk
from evaluation.rollout import Replay, Step, World, play, replays
from evaluation.stats import RESAMPLES, Share, Weights, resampled, share
from evaluation.world import load_knowledge, read_queries
from policy.rules import EvidenceRule
from reward.judge import Gold, ReferenceJudge
from reward.readers import IdealReader

CONFIG = PipelineConfig(prompt=PromptSettings(repeats=False))
"""As served by default; whether an FAQ is shown twice changes tokens, not what a reader can know."""
REFERENCE = -1.0
"""No similarity is below it, so that only the best FAQ's being in the prompt skips."""
THRESHOLDS = (REFERENCE, *(round(0.10 + 0.02 * n, 2) for n in range(26)))
SLACK = 0.005
"""Harmful skips, as a share of all turns, that a threshold may add to the reference's."""
Pair = tuple[Replay, Replay]
"""One conversation, where any gold FAQ makes an answer Good and where all do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A turn under the ideal reader, who says Good when a gold FAQ is in the prompt or none is needed."""

    conversation: int
    labelled: LabelledTurn
    skipped: bool
    good_skipping: bool
    good_fetching: bool
    harmful_for_all: bool
    """A harmful skip for the stricter reader, who needs all gold FAQs."""

    @property
    def harmful(self) -> bool:
        """Skipped, the answer is Bad, and a fetch would have made it Good."""
        return self.skipped and self.good_fetching and not self.good_skipping

    @property
    def useless(self) -> bool:
        """Fetched, and the answer is no better than without."""
        return not self.skipped and (self.good_skipping or not self.good_fetching)


@dataclass(frozen=True, slots=True)
class Row:
    """What one threshold does."""

    min_similarity: float
    skipped: Share
    harmful: Share
    """Of all turns."""
    added_harm: Share
    """`harmful` less the reference's, on the same resamples."""
    harmful_for_all: Share
    useless: Share
    """Of the fetches."""


def replay_pairs(sessions: Sequence[Session], retriever: Retriever) -> tuple[Pair, ...]:
    """A replay of each session for a reader who needs any gold FAQ, and one for a reader who needs all.

    Raises: DatasetError naming session and turn whose gold id the knowledge base lacks.
    """
    counter = TiktokenCounter()
    any_gold, all_gold = (replays(sessions, World(retriever, counter, IdealReader(), ReferenceJudge(gold), CONFIG))
                          for gold in get_args(Gold))
    return tuple(zip(any_gold, all_gold, strict=True))


def outcomes(pairs: Sequence[Pair], min_similarity: float) -> tuple[Outcome, ...]:
    """Play conversations under the evidence rule. Turns without labels are played too, and have no outcome."""
    rule = EvidenceRule(min_similarity)
    played = [(number, steps) for number, (any_gold, all_gold) in enumerate(pairs)
              for steps in zip(play(any_gold, rule), play(all_gold, rule), strict=True)]
    return tuple(_outcome(number, step, strict) for number, (step, strict) in played if step.turn.gold is not None)


def _outcome(conversation: int, step: Step, strict: Step) -> Outcome:
    harmful_for_all = step.skipped and strict.fetch.good and not strict.skip.good
    return Outcome(conversation, step.turn, step.skipped, bool(step.skip.good), bool(step.fetch.good), bool(harmful_for_all))


def row(min_similarity: float, found: Sequence[Outcome], reference: Sequence[Outcome], weights: Weights) -> Row:
    """The figures of one threshold."""

    def counts(of: Sequence[Outcome], flag: Callable[[Outcome], bool]) -> NDArray[np.int64]:
        return np.bincount([outcome.conversation for outcome in of if flag(outcome)], minlength=weights.shape[1])

    turns = counts(found, lambda o: True)
    harmful = counts(found, lambda o: o.harmful)
    return Row(
        min_similarity,
        skipped=share(counts(found, lambda o: o.skipped), turns, weights),
        harmful=share(harmful, turns, weights),
        added_harm=share(harmful - counts(reference, lambda o: o.harmful), turns, weights),
        harmful_for_all=share(counts(found, lambda o: o.harmful_for_all), turns, weights),
        useless=share(counts(found, lambda o: o.useless), counts(found, lambda o: not o.skipped), weights),
    )


def choose(rows: Sequence[Row], slack: float = SLACK) -> Row:
    """The row that skips most among those that add no more harm than `slack`; the stricter of two that skip alike."""
    allowed = [row for row in rows if row.added_harm.value <= slack]
    return max(allowed, key=lambda row: (row.skipped.value, -row.min_similarity))


def slices(found: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by kind of turn, and those in Hinglish."""
    kinds = {kind: [o for o in found if o.labelled.kind == kind] for kind in sorted({o.labelled.kind for o in found})}
    return kinds | {"(Hinglish)": [o for o in found if o.labelled.language == "hinglish"]}


def main() -> None:
    """Print the sweep, the threshold that it chooses and what that does by slice, as Markdown tables."""
    parser = argparse.ArgumentParser("python -m evaluation.evidence_threshold", description=__doc__.partition("\n")[0])
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the bootstrap by conversation")
    options = parser.parse_args()
    sessions = read_helpdesk("train") + read_helpdesk("dev")
    retriever = _helpdesk_retriever(sessions)
    weights = resampled(len(sessions), resamples=options.resamples)
    pairs = replay_pairs(sessions, retriever)
    played: dict[float, tuple[Outcome, ...]] = {}
    for threshold in THRESHOLDS:
        played[threshold] = outcomes(pairs, threshold)
        print(f"\rplayed {len(played)} of {len(THRESHOLDS)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows = [row(threshold, found, played[REFERENCE], weights) for threshold, found in played.items()]
    chosen = choose(rows)
    _print_sweep(rows, chosen, sum(len(session.turns) for session in sessions), len(sessions))
    _print_slices(played[chosen.min_similarity])


def _helpdesk_retriever(sessions: Sequence[Session]) -> Retriever:
    """The help desk's FAQs, with an encoder that has read every query."""
    embedder, retriever = load_knowledge(None)
    read_queries(embedder, sessions)
    return retriever


def _print_sweep(rows: Sequence[Row], chosen: Row, turns: int, conversations: int) -> None:
    print(f"{turns} turns of {conversations} conversations; per cent, with 95 % intervals by conversation\n")
    print("| min_similarity | skipped | harmful skips | added to the reference | harmful, all gold needed | useless fetches |")
    print("|--:|--:|--:|--:|--:|--:|")
    for r in rows:
        name = "reference" if r.min_similarity == REFERENCE else f"{r.min_similarity:.2f}{' (chosen)' if r is chosen else ''}"
        print(f"| {name} | {r.skipped} | {r.harmful} | {r.added_harm} | {r.harmful_for_all} | {r.useless} |")
    print(f"\nchosen: {chosen.min_similarity:g}, which skips most of those that add at most {100 * SLACK:g} points of harm\n")


def _print_slices(found: Sequence[Outcome]) -> None:
    print("| slice | turns | skipped | harmful skips | useless of the fetches |")
    print("|---|--:|--:|--:|--:|")
    for name, part in slices(found).items():
        fetches = [o for o in part if not o.skipped]
        useless = f"{sum(o.useless for o in fetches) / len(fetches):.1%}" if fetches else "no fetches"
        print(f"| {name} | {len(part)} | {sum(o.skipped for o in part) / len(part):.1%} | "
              f"{sum(o.harmful for o in part) / len(part):.1%} | {useless} |")


if __name__ == "__main__":
    main()
