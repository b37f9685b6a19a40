"""The tables of people's ratings in docs/results.md, as Markdown: `python -m evaluation.people_tables`.

Consensus and poison are planted: raters who err as often as they are told to, and keys that rate falsely. Implicit signals are counted on
the conversations that ship, with their encoder. Everything is seeded; a minute on one core. Leaves out what the tables are about
(`reward/consensus.py`, `reward/sift.py`, `reward/signals.py`).
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from random import Random

import numpy as np

from chat.log.ratings import Rating
from evaluation.datasets import CALIBRATION_QUERIES, HELPDESK_ENCODER, HELPDESK_FAQS, Session, read_helpdesk
from evaluation.stats import resampled, share
from kb.embedder import EmbedderConfig, load_embedder
from kb.queries import read_queries
from kb.source import read_faqs
from reward.consensus import METHODS, Consensus, Vote, consensus
from reward.feedback import verdict_of
from reward.sift import sift
from reward.signals import KINDS, Embed, Exchange, SignalConfig, is_chat, signals

SEEDS, TURNS = 12, 200
GOOD = 0.6
"""Share of the turns that are Good."""
Skills = Mapping[str, float]
"""How often each rater is right."""
Raters = Mapping[str, tuple[Skills, int | None]]
"""By name, and how many of them rate a turn; None: all."""
RATERS: Raters = {
    "five of .95 .9 .85 .75 .65, all on each turn": ({"a": 0.95, "b": 0.9, "c": 0.85, "d": 0.75, "e": 0.65}, None),
    "two of .95 among three of .55": ({"a": 0.95, "b": 0.95, "x": 0.55, "y": 0.55, "z": 0.55}, None),
    "twelve of .6 to .95, three on each turn": ({f"r{n}": 0.6 + 0.35 * n / 11 for n in range(12)}, 3),
}
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOSTILE = "fg-hostile"
HOSTILE_TURNS = 300
PAIRS = 5_000
"""Of queries about different FAQs, drawn."""
Attack = Callable[[int, bool], tuple[str, bool, float]]
"""From a turn's number and whether it is Good to a rater's name, what they say, and the second at which they do."""
ATTACKS: Mapping[str, Attack | None] = {
    "none": None,
    "thumbs up to everything, slowly": lambda n, good: ("e", True, 100.0 * n),
    "the contrary of the truth, one a second": lambda n, good: ("e", not good, 1.0 * n),
    "the contrary, slowly, under 50 raters' names": lambda n, good: (f"e{n % 50}", not good, 100.0 * n),
}


@dataclass(frozen=True, slots=True)
class Poisoned:
    """What came of one attack, shares."""

    raw: float
    """Wrong labels by weight, as they came."""
    sifted: float
    hostile: float
    """The hostile key's part of the weight, sifted."""
    honest_aside: float
    """Honest ratings that were set aside."""


def planted(seed: int, skills: Skills, each: int | None, turns: int = TURNS) -> tuple[dict[str, bool], tuple[Vote, ...]]:
    """The truth of each turn, and votes of raters who are right as often as their skill says; `each` of them, or all, on a turn."""
    random = Random(seed)
    truth = {f"t{n}": random.random() < GOOD for n in range(turns)}
    votes = [Vote(turn, rater, good == (random.random() < skills[rater])) for turn, good in truth.items()
             for rater in (list(skills) if each is None else random.sample(list(skills), each))]
    return truth, tuple(votes)


def recovered(found: Consensus, truth: Mapping[str, bool]) -> float:
    """Share of the turns whose consensus is the truth."""
    return float(np.mean([turn.good == truth[turn.turn_id] for turn in found.turns]))


def consensus_table(raters: Raters = RATERS, seeds: int = SEEDS) -> Iterator[str]:
    """Recovery by each method, and how far Dawid-Skene is off in a rater's skill."""
    yield f"| planted raters | {' | '.join(METHODS)} | dawid-skene, mean error of a rater's skill |"
    yield "|---|" + "--:|" * (len(METHODS) + 1)
    for name, (skills, each) in raters.items():
        right: dict[str, list[float]] = {method: [] for method in METHODS}
        errors = []
        for seed in range(seeds):
            truth, votes = planted(seed, skills, each)
            for method in METHODS:
                found = consensus(votes, method, seed=seed)
                right[method].append(recovered(found, truth))
                if method == "dawid-skene":
                    errors.append(float(np.mean([abs((one.skill or 0.0) - skills[one.rater]) for one in found.raters])))
        yield f"| {name} | {' | '.join(map(_over_seeds, right.values()))} | {_over_seeds(errors)} |"


def poisoned(seed: int, attack: Attack | None) -> Poisoned:
    """Three honest keys, two raters of each turn who are right with .85, beside a key whose own 300 turns are rated by the attack."""
    random = Random(seed)
    truth = {f"t{n}": random.random() < GOOD for n in range(TURNS)}
    said = [_rating(turn, f"fg-{n % 3}", f"u{n % 3}-{k}", good == (random.random() < 0.85), 200.0 * n + 20 * k)
            for n, (turn, good) in enumerate(truth.items()) for k in range(2)]
    honest = len(said)
    for n in range(HOSTILE_TURNS):
        truth[f"x{n}"] = random.random() < GOOD
        if attack is not None:
            rater, word, second = attack(n, truth[f"x{n}"])
            said.append(_rating(f"x{n}", HOSTILE, rater, word, second))
    found = sift(sorted(said, key=lambda one: one.created_at))
    kept = [(one.rating, one.weight) for one in found.kept]
    total = sum(weight for _, weight in kept)
    return Poisoned(_wrong([(one, 1.0) for one in said], truth), _wrong(kept, truth),
                    sum(weight for one, weight in kept if one.owner == HOSTILE) / total,
                    sum(one.rating.owner != HOSTILE for one in found.aside) / honest)


def poison_table(seeds: int = SEEDS) -> Iterator[str]:
    """Wrong labels by weight before and after sifting."""
    yield "| attack | unsifted | sifted | hostile share of the weight | honest ratings set aside |"
    yield "|---|--:|--:|--:|--:|"
    for name, attack in ATTACKS.items():
        found = [poisoned(seed, attack) for seed in range(seeds)]
        columns = ([one.raw for one in found], [one.sifted for one in found], [one.hostile for one in found],
                   [one.honest_aside for one in found])
        yield f"| {name} | {' | '.join(map(_over_seeds, columns))} |"


def signals_table(sessions: Sequence[Session], embed: Embed) -> Iterator[str]:
    """How often each signal fires, by the kind of the turn at which it does: its own, or for `left` the last."""
    yield f"{len(sessions)} conversations, {sum(len(one.turns) for one in sessions)} turns"
    yield ""
    yield "| signal | fires | by the kind of the turn |"
    yield "|---|--:|---|"
    for how, encoder in (("cosine", embed), ("shared words", None)):
        fired: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        for one in sessions:
            for found in signals([Exchange(str(n), turn.query) for n, turn in enumerate(one.turns)], embed=encoder):
                place = int(found.turn_id) + (found.kind != "left")
                fired[found.kind][one.turns[place].kind] += 1
        for kind in KINDS:
            if how == "cosine" or kind == "asked_again":  # the others look at no vectors
                name = f"`{kind}`, {how}" if kind == "asked_again" else f"`{kind}`"
                yield f"| {name} | {fired[kind].total()} | {', '.join(f'{turn} {n}' for turn, n in fired[kind].most_common())} |"


def nearness_table(sessions: Sequence[Session], asked: Mapping[str, Sequence[str]], embed: Embed, *, seed: int = 0) -> Iterator[str]:
    """Cosines of queries that ask the same and of others: neighbours in conversations by kind of the second, and first messages.

    asked: by FAQ, the messages that ask for it.
    """
    threshold = SignalConfig().same_question
    near: dict[str, list[float]] = {}
    for one in sessions:
        vectors = embed([turn.query for turn in one.turns])
        for before, after, cosine in zip(one.turns, one.turns[1:], np.sum(vectors[:-1] * vectors[1:], axis=1), strict=False):
            if not (is_chat(before.query) or is_chat(after.query)):
                near.setdefault(after.kind, []).append(float(cosine))
    yield f"| pairs of queries | pairs | nearest | cosine at least {threshold:g} |"
    yield "|---|--:|--:|--:|"
    for kind, cosines in sorted(near.items(), key=lambda item: -len(item[1])):
        yield f"| neighbours, {kind} | {len(cosines)} | {max(cosines):.2f} | {_reached(cosines, threshold)} |"
    owner = [faq for faq, queries in asked.items() for _ in queries]
    cosines_of_all = (vectors := embed([query for queries in asked.values() for query in queries])) @ vectors.T
    same = [float(cosines_of_all[one, other]) for one, other in combinations(range(len(owner)), 2) if owner[one] == owner[other]]
    draws = np.random.default_rng(seed).integers(len(owner), size=(4 * PAIRS, 2))
    others = [float(cosines_of_all[one, other]) for one, other in draws if owner[one] != owner[other]][:PAIRS]
    for name, cosines in (("first messages about one FAQ", same), ("about different FAQs", others)):
        yield f"| {name} | {len(cosines)} | {max(cosines):.2f} | {_reached(cosines, threshold)} |"


def main(arguments: Sequence[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m evaluation.people_tables", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="so many, from 0")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error(f"--seeds: expected from 2, got {options.seeds}")
    embedder = load_embedder(EmbedderConfig(str(HELPDESK_ENCODER)))
    sessions = (*read_helpdesk("train"), *read_helpdesk("dev"))
    for title, lines in (("Consensus", consensus_table(seeds=options.seeds)), ("Poison", poison_table(options.seeds)),
                         ("Implicit signals", signals_table(sessions, embedder.embed)),
                         ("Queries that are alike", nearness_table(sessions, _asked(), embedder.embed))):
        print(f"### {title}\n")
        for line in lines:
            print(line, flush=True)
        print()


def _asked() -> dict[str, list[str]]:
    """The calibration queries that one FAQ settles, by FAQ."""
    found: dict[str, list[str]] = {}
    for one in read_queries(CALIBRATION_QUERIES, (faq.id for faq in read_faqs(HELPDESK_FAQS))):
        if one.gold is not None and len(one.gold) == 1:
            found.setdefault(one.gold[0], []).append(one.query)
    return found


def _reached(cosines: Sequence[float], threshold: float) -> str:
    return f"{100 * float(np.mean(np.array(cosines) >= threshold)):.2f} %"


def _rating(turn: str, owner: str, rater: str, good: bool, second: float) -> Rating:
    return Rating(turn, owner, rater, "user", NOON + timedelta(seconds=second), good=good)


def _wrong(weighed: Sequence[tuple[Rating, float]], truth: Mapping[str, bool]) -> float:
    """Share of the weight that says the contrary of the truth."""
    return sum(weight for one, weight in weighed if verdict_of(one) != truth[one.turn_id]) / sum(weight for _, weight in weighed)


def _over_seeds(values: Sequence[float]) -> str:
    """The mean with its 95 % bootstrap interval over seeds."""
    found = share(np.array(values), np.ones(len(values)), resampled(len(values)))
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    main(sys.argv[1:])
