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

import numpy as np
from numpy.typing import NDArray

from chat.citations import cited_ids
from chat.plan import PipelineConfig, Plan, TurnPlanner
from chat.ports import LoggedExchange, Retriever
from chat.prompt import PromptSettings, faqs_in_history
from chat.types import Action, Message, Turn
from evaluation.datasets import HELPDESK_FAQS, LabelledTurn, Session, read_helpdesk
from evaluation.stats import RESAMPLES, Share, Weights, resampled, share
from kb.embedder import Embedder, EmbedderConfig, Progress, SentenceEmbedder, Vectors
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from policy.rules import EvidenceRule

CONFIG = PipelineConfig(prompt=PromptSettings(repeats=False))
"""As served by default; whether an FAQ is shown twice changes tokens, not what a reader can know."""
REFERENCE = -1.0
"""No similarity is below it, so that only the best FAQ's being in the prompt skips."""
THRESHOLDS = (REFERENCE, *(round(0.10 + 0.02 * n, 2) for n in range(26)))
SLACK = 0.005
"""Harmful skips, as a share of all turns, that a threshold may add to the reference's."""
NO_FAQ_ANSWER = "I don't know."



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


class RememberingEmbedder:
    """An encoder that reads each text once, so that a sweep costs one pass."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}

    @property
    def model_id(self) -> str:
        return self._embedder.model_id

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """As the encoder embedded them the first time; shape (len(texts), dimension)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors |= dict(zip(new, self._embedder.embed(new, progress=progress), strict=True))
        return np.array([self._vectors[text] for text in texts], dtype=np.float32).reshape(-1, self.dimension)


class Transcript:
    """The log of one replayed conversation: exchanges, of which it needs no more than the planner reads."""

    def __init__(self) -> None:
        self._exchanges: list[LoggedExchange] = []

    def remember(self, exchange: LoggedExchange) -> None:
        """Add an exchange that was not served, so that there is no whole `Turn` of it."""
        self._exchanges.append(exchange)

    def append(self, turn: Turn) -> None:
        """Add a served turn."""
        hits = tuple(faq_id for faq_id, _ in turn.hits)
        self.remember(LoggedExchange(turn.query, turn.answer, turn.decision.action, hits, turn.fetched, turn.cited))

    def recent(self, owner: str, conversation_id: str, *, limit: int) -> tuple[LoggedExchange, ...]:
        """The last exchanges, whoever asks: there is one conversation."""
        return tuple(self._exchanges[max(0, len(self._exchanges) - limit) :])

    def find_conversation(self, owner: str, transcript_mac: str) -> str | None:
        """None: a replay names its conversation."""
        return None


def replay(sessions: Sequence[Session], retriever: Retriever, min_similarity: float) -> tuple[Outcome, ...]:
    """Play sessions under the evidence rule. Turns without labels are played too, and have no outcome."""
    played = (_replay(number, session, retriever, min_similarity) for number, session in enumerate(sessions))
    return tuple(outcome for outcomes in played for outcome in outcomes)


def _replay(number: int, session: Session, retriever: Retriever, min_similarity: float) -> list[Outcome]:
    log = Transcript()
    planner = TurnPlanner(retriever, EvidenceRule(min_similarity), log, CONFIG)
    messages: list[Message] = []
    outcomes: list[Outcome] = []
    for turn in session.turns:
        messages.append(Message("user", turn.query))
        plan = planner.plan(tuple(messages), "replay", session.id)
        if turn.gold is not None:
            outcomes.append(_outcome(number, turn, turn.gold, plan))
        answer = _answer(turn, retriever)
        messages.append(Message("assistant", answer))
        log.remember(LoggedExchange(plan.dialogue.query, answer, plan.decision.action, tuple(hit.faq.id for hit in plan.hits),
                                    plan.prompt.fetched, cited_ids(answer, plan.prompt.shown)))
    return outcomes


def _outcome(conversation: int, turn: LabelledTurn, gold: tuple[str, ...], plan: Plan) -> Outcome:
    skipping = set(faqs_in_history(CONFIG.prompt, plan.history))
    fetching = skipping | {hit.faq.id for hit in plan.hits[: CONFIG.prompt.k]}
    skipped = plan.decision.action is Action.NO_FETCH
    return Outcome(
        conversation, turn, skipped,
        good_skipping=not gold or not skipping.isdisjoint(gold),
        good_fetching=not gold or not fetching.isdisjoint(gold),
        harmful_for_all=skipped and fetching.issuperset(gold) and not skipping.issuperset(gold),
    )


def _answer(turn: LabelledTurn, retriever: Retriever) -> str:
    """The session's answer, or the gold FAQs' own."""
    if turn.answer is not None:
        return turn.answer
    faqs = [faq for faq in map(retriever.get, turn.gold or ()) if faq is not None]
    return "\n".join(f"{faq.answer} [{faq.id}]" for faq in faqs) or NO_FAQ_ANSWER


def row(min_similarity: float, outcomes: Sequence[Outcome], reference: Sequence[Outcome], weights: Weights) -> Row:
    """The figures of one threshold."""

    def counts(of: Sequence[Outcome], flag: Callable[[Outcome], bool]) -> NDArray[np.int64]:
        return np.bincount([outcome.conversation for outcome in of if flag(outcome)], minlength=weights.shape[1])

    turns = counts(outcomes, lambda o: True)
    harmful = counts(outcomes, lambda o: o.harmful)
    return Row(
        min_similarity,
        skipped=share(counts(outcomes, lambda o: o.skipped), turns, weights),
        harmful=share(harmful, turns, weights),
        added_harm=share(harmful - counts(reference, lambda o: o.harmful), turns, weights),
        harmful_for_all=share(counts(outcomes, lambda o: o.harmful_for_all), turns, weights),
        useless=share(counts(outcomes, lambda o: o.useless), counts(outcomes, lambda o: not o.skipped), weights),
    )


def choose(rows: Sequence[Row], slack: float = SLACK) -> Row:
    """The row that skips most among those that add no more harm than `slack`; the stricter of two that skip alike."""
    allowed = [row for row in rows if row.added_harm.value <= slack]
    return max(allowed, key=lambda row: (row.skipped.value, -row.min_similarity))


def slices(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by kind of turn, and those in Hinglish."""
    kinds = {kind: [o for o in outcomes if o.labelled.kind == kind] for kind in sorted({o.labelled.kind for o in outcomes})}
    return kinds | {"(Hinglish)": [o for o in outcomes if o.labelled.language == "hinglish"]}


def main() -> None:
    """Print the sweep, the threshold that it chooses and what that does by slice, as Markdown tables."""
    parser = argparse.ArgumentParser("python -m evaluation.evidence_threshold", description=__doc__.partition("\n")[0])
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the bootstrap by conversation")
    options = parser.parse_args()
    sessions = read_helpdesk("train") + read_helpdesk("dev")
    retriever = _helpdesk_retriever(sessions)
    weights = resampled(len(sessions), resamples=options.resamples)
    played: dict[float, tuple[Outcome, ...]] = {}
    for threshold in THRESHOLDS:
        played[threshold] = replay(sessions, retriever, threshold)
        print(f"\rplayed {len(played)} of {len(THRESHOLDS)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows = [row(threshold, outcomes, played[REFERENCE], weights) for threshold, outcomes in played.items()]
    chosen = choose(rows)
    _print_sweep(rows, chosen, sum(len(session.turns) for session in sessions), len(sessions))
    _print_slices(played[chosen.min_similarity])


def _helpdesk_retriever(sessions: Sequence[Session]) -> Retriever:
    """The help desk's FAQs, with an encoder that has read every query."""
    embedder = RememberingEmbedder(SentenceEmbedder(EmbedderConfig()))
    embedder.embed([turn.query for session in sessions for turn in session.turns])
    return FaqRetriever.build(embedder, read_faqs(HELPDESK_FAQS))


def _print_sweep(rows: Sequence[Row], chosen: Row, turns: int, conversations: int) -> None:
    print(f"{turns} turns of {conversations} conversations; per cent, with 95 % intervals by conversation\n")
    print("| min_similarity | skipped | harmful skips | added to the reference | harmful, all gold needed | useless fetches |")
    print("|--:|--:|--:|--:|--:|--:|")
    for r in rows:
        name = "reference" if r.min_similarity == REFERENCE else f"{r.min_similarity:.2f}{' (chosen)' if r is chosen else ''}"
        print(f"| {name} | {r.skipped} | {r.harmful} | {r.added_harm} | {r.harmful_for_all} | {r.useless} |")
    print(f"\nchosen: {chosen.min_similarity:g}, which skips most of those that add at most {100 * SLACK:g} points of harm\n")


def _print_slices(outcomes: Sequence[Outcome]) -> None:
    print("| slice | turns | skipped | harmful skips | useless of the fetches |")
    print("|---|--:|--:|--:|--:|")
    for name, part in slices(outcomes).items():
        fetches = [o for o in part if not o.skipped]
        useless = f"{sum(o.useless for o in fetches) / len(fetches):.1%}" if fetches else "no fetches"
        print(f"| {name} | {len(part)} | {sum(o.skipped for o in part) / len(part):.1%} | "
              f"{sum(o.harmful for o in part) / len(part):.1%} | {useless} |")


if __name__ == "__main__":
    main()
