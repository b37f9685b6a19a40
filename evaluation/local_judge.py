"""`python -m evaluation.local_judge`: fit the local judge, write its folder, and print what it reaches.

    python -m evaluation.local_judge fit [--out FOLDER] [--ratings FILE] [--log DATABASE]
                                                                           train on the train split, choose the band on dev
    python -m evaluation.local_judge corruptions [--ratings FILE]          each type of corruption held out of training, FAQs too
    python -m evaluation.local_judge by-hand [--ratings FILE]              answers in free words, their FAQs held out
    python -m evaluation.local_judge turns [--split dev|test]              against the reference judge, extractive and ideal reader
    python -m evaluation.local_judge ratings --ratings FILE                against people's ratings, 5 folds by conversation
    python -m evaluation.local_judge bench                                 verdicts a second

Tables are Markdown; `--json` prints the figures. Leaves out making answers (`judged_answers.py`) and ratings' files (`human_ratings.py`).
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.datasets import Split, read_helpdesk
from evaluation.human_ratings import read_judgements
from evaluation.judged_answers import hand_written, played, right_answers, wrong_answers
from evaluation.local_judge_ratings import against_people, logged_examples, rated_examples
from evaluation.stats import FEWEST_CONVERSATIONS, Interval, resampled, share
from evaluation.world import load_knowledge
from kb.embedder import RUNTIMES, Embedder, EmbedderConfig, Runtime, load_embedder
from kb.retriever import FaqRetriever
from kb.tuned import untuned
from reward.corruptions import CORRUPTIONS, RIGHT
from reward.examining import Examined, Examiner
from reward.kappa import cohen_kappa
from reward.local_judge import SHIPPED, LocalJudge, load_local_judge
from reward.local_model import Model, encoder_of, load_model, probability_of_good, save_model, supported_probability
from reward.local_model import part as part_of
from reward.local_training import Example, FitConfig, fit, fit_support, with_band, with_support
from reward.readers import ReaderName

Floats = NDArray[np.float64]
FALSE_ALARMS = 0.05
FAQ_FOLDS = 4
READERS: tuple[ReaderName, ...] = ("extractive", "ideal")
READ = 256
"""Cases examined at a time."""
RESAMPLES = 2_000


def training_examples(split: Split, embedder: Embedder, retriever: FaqRetriever, *, right: int, wrong: int,
                      seed: int) -> tuple[Example, ...]:
    """All answers of a split: those that the extractive answerer gave, those of the ideal reader, and made ones for each turn."""
    sessions = read_helpdesk(split)
    given = played(sessions, embedder, retriever, "extractive")
    ideal = played(sessions, embedder, retriever, "ideal")
    return (*given, *ideal, *right_answers(ideal, retriever, each=right, seed=seed + 1),
            *wrong_answers(ideal, retriever, each=wrong, seed=seed + 2))


def all_examples(embedder: Embedder, retriever: FaqRetriever, config: FitConfig) -> tuple[Example, ...]:
    """What a judge is fitted on without people's ratings: the train split's answers, and those written by hand."""
    return (*training_examples("train", embedder, retriever, right=2, wrong=3, seed=config.seed), *hand_written(retriever))


def examined(examples: Sequence[Example], examiner: Examiner) -> tuple[Examined, ...]:
    """Each example's figures."""
    cases = [example.case for example in examples]
    return tuple(one for first in range(0, len(cases), READ) for one in examiner.examine(cases[first : first + READ]))


def fitted(embedder: Embedder, retriever: FaqRetriever, config: FitConfig, extra: Sequence[Example] = ()) -> Model:
    """A model of the train split, and of further examples where there are; its band is chosen on dev's real turns."""
    examples = (*all_examples(embedder, retriever, config), *extra)
    base = untuned(embedder)
    alone, searching = Examiner(base), Examiner(base, retriever)
    model = fit(examples, examined(examples, alone), examined(examples, searching), encoder_of(base.model_id), config)
    dev = played(read_helpdesk("dev"), embedder, retriever, "extractive")
    return with_band(model, examined(dev, searching), config)


def probabilities(model: Model, found: Sequence[Examined], *, searched: bool = True) -> Floats:
    """Of Good, nan where nobody could tell; shape (cases,)."""
    return np.array([np.nan if (p := probability_of_good(model, one, searched=searched)) is None else p for one in found])


def held_out_types(embedder: Embedder, retriever: FaqRetriever, model: Model, config: FitConfig,
                   extra: Sequence[Example] = ()) -> list[dict[str, Any]]:
    """Recall of each type of corruption on dev's turns, by support weights that saw neither the type nor the FAQ.

    The threshold is where 5 % of the right answers of the same FAQs' folds are called Bad, all kinds of right answer together.
    """
    train = (*all_examples(embedder, retriever, config), *extra)
    dev = training_examples("dev", embedder, retriever, right=len(RIGHT), wrong=len(CORRUPTIONS), seed=config.seed + 7)
    dev = tuple(one for one in dev if one.kind in RIGHT or one.kind in CORRUPTIONS)
    alone = Examiner(untuned(embedder))
    read_train, read_dev = examined(train, alone), examined(dev, Examiner(untuned(embedder), retriever))
    fold = _faq_folds(retriever)
    kinds, groups = np.array([one.kind for one in dev]), np.array([one.group for one in dev])
    right_kinds = np.isin(kinds, list(RIGHT))
    rows = []
    for kind in CORRUPTIONS:
        scores, supported = np.full(len(dev), np.nan), np.full(len(dev), np.nan)
        for part, other in _folds_models(model, train, read_train, fold, config, without=kind):
            for n in np.flatnonzero((kinds == kind) | right_kinds):
                if fold[_gold(dev[n])] == part:
                    value = probability_of_good(other, read_dev[n], searched=True)
                    scores[n] = np.nan if value is None else value
                    if read_dev[n].asserts:
                        supported[n] = supported_probability(part_of(other.arrays, "support"), read_dev[n].support)
        right, wrong = right_kinds & ~np.isnan(scores), (kinds == kind) & ~np.isnan(scores)
        threshold = float(np.quantile(scores[right], FALSE_ALARMS))
        rows.append({"type": kind, "answers": int(wrong.sum()), "recall": _share(scores < threshold, wrong, groups),
                     "recall_by_support_alone": _share(supported <= np.quantile(supported[right], FALSE_ALARMS), wrong, groups),
                     "recall_at_half": _share(scores < 0.5, wrong, groups), "false_alarms_at_half": _share(scores < 0.5, right, groups),
                     "threshold": threshold})
    return rows


def by_hand(embedder: Embedder, retriever: FaqRetriever, model: Model, config: FitConfig, extra: Sequence[Example] = ()) -> list[dict[str,
                                                                                                                               Any]]:
    """Verdicts on the answers written by hand, each by support weights that saw no answer about its FAQ; intervals by FAQ."""
    train = (*all_examples(embedder, retriever, config), *extra)
    held = hand_written(retriever)
    alone = Examiner(untuned(embedder))
    read_train, read, fold = examined(train, alone), examined(held, alone), _faq_folds(retriever)
    p = np.full(len(held), np.nan)
    for part, other in _folds_models(model, train, read_train, fold, config):
        at = [n for n, one in enumerate(held) if fold[_gold(one)] == part]
        p[at] = probabilities(other, [read[n] for n in at], searched=False)
    low, high = model.band
    kinds, groups = np.array([one.kind for one in held]), np.array([_gold(one) for one in held])
    told = ~np.isnan(p) & ~((p > low) & (p < high))
    return [{"answers": kind, "count": int((kinds == kind).sum()), "judged": _share(told, kinds == kind, groups),
             "called_good_of_judged": _share(p >= 0.5, told & (kinds == kind), groups),
             "called_good": _share(p >= 0.5, (kinds == kind) & ~np.isnan(p), groups)} for kind in dict.fromkeys(kinds.tolist())]


def _faq_folds(retriever: FaqRetriever) -> dict[str, int]:
    return {faq.id: n % FAQ_FOLDS for n, faq in enumerate(sorted(retriever.faqs, key=lambda faq: faq.id))}


def _gold(example: Example) -> str:
    return (example.case.gold or ("",))[0]


def _folds_models(model: Model, train: Sequence[Example], read: Sequence[Examined], fold: Mapping[str, int], config: FitConfig, *,
                  without: str = "") -> Iterator[tuple[int, Model]]:
    """The model with support weights that saw no answer about the fold's FAQs, and none of a kind."""
    for part in range(FAQ_FOLDS):
        chosen = [n for n, one in enumerate(train) if one.kind != without and fold.get(_gold(one), -1) != part]
        yield part, with_support(model, fit_support([train[n] for n in chosen], [read[n] for n in chosen], config))


def against_reference(embedder: Embedder, retriever: FaqRetriever, model: Model, split: Split) -> list[dict[str, Any]]:
    """Kappa and agreement with the reference judge on both arms of a split's turns, extractive and ideal reader."""
    rows = []
    for reader in READERS:
        found = played(read_helpdesk(split), embedder, retriever, reader)
        good = np.array([bool(one.settled) and one.supported is not False for one in found])
        groups = np.array([one.group for one in found])
        skips = np.array([one.kind.endswith("NO_FETCH") for one in found])
        for searched in (True, False):
            p = probabilities(model, examined(found, Examiner(untuned(embedder), retriever if searched else None)), searched=searched)
            low, high = model.band
            told = ~np.isnan(p) & ~((p > low) & (p < high))
            for arm, chosen in (("both", np.ones(len(p), bool)), ("FETCH", ~skips), ("NO_FETCH", skips)):
                for band, judged in (("with can't tell", told), ("all told", ~np.isnan(p))):
                    at = chosen & judged
                    rows.append({"reader": reader, "search": searched, "arm": arm, "verdicts": band, "turns": int(chosen.sum()),
                                 "judged": float(at.sum() / chosen.sum()), "kappa": _kappa(good[at], p[at] >= 0.5, groups[at]),
                                 "agreement": _share((p >= 0.5) == good, at, groups)})
    return rows


def bench(judge: LocalJudge, cases: Sequence[Any], *, warm: int = 64) -> float:
    """Verdicts a second over the cases in one call, after the FAQs have been read once."""
    judge.judge(cases[:warm])
    started = perf_counter()
    judge.judge(cases)
    return len(cases) / (perf_counter() - started)


def _share(values: NDArray[np.bool_], chosen: NDArray[np.bool_], groups: NDArray[Any]) -> Interval:
    """Share of the chosen that are true, with its interval by conversation."""
    names = np.unique(groups)
    part = np.array([int((values & chosen & (groups == name)).sum()) for name in names])
    whole = np.array([int((chosen & (groups == name)).sum()) for name in names])
    return share(part, whole, resampled(len(names), resamples=RESAMPLES))


def _kappa(a: NDArray[np.bool_], b: NDArray[np.bool_], groups: NDArray[Any]) -> Interval:
    """Cohen's kappa of two judges, with its interval by conversation."""
    names = np.unique(groups)
    tables = np.array([[[int((here & (a == x) & (b == y)).sum()) for y in (True, False)] for x in (True, False)]
                       for here in (groups == name for name in names)], dtype=float)
    drawn = np.einsum("rn,nij->rij", resampled(len(names), resamples=RESAMPLES).astype(float), tables)
    low, high = np.nanquantile(cohen_kappa(drawn), (0.025, 0.975))
    return Interval(float(cohen_kappa(tables.sum(axis=0))), float(low), float(high), len(names) < FEWEST_CONVERSATIONS)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as Markdown; shares in percent, kappas as they are."""
    def cell(name: str, value: Any) -> str:
        if isinstance(value, Interval):
            return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    names = list(rows[0])
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cell(name, row[name]) for name in names)} |" for row in rows)])


def _printed(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{name: asdict(value) if isinstance(value, Interval) else value for name, value in row.items()} for row in rows]))
    else:
        print(table(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command that is asked for."""
    parser = argparse.ArgumentParser("python -m evaluation.local_judge", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["fit", "corruptions", "by-hand", "turns", "ratings", "bench"])
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder that `fit` writes")
    parser.add_argument("--judge", type=Path, default=SHIPPED, help="folder of the judge to measure")
    parser.add_argument("--ratings", type=Path, help="rated answers (judgements.jsonl): `ratings` measures on them, `fit` learns from them")
    parser.add_argument("--log", help="conversation log (a database's URL): `fit` learns from the feedback in it too")
    parser.add_argument("--split", default="dev", choices=["dev", "test"], help="of `turns` and `bench`; test is for the last measurement")
    parser.add_argument("--runtime", default="onnx-int8", choices=RUNTIMES, help="of `bench`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    config = FitConfig(seed=options.seed)
    embedder, retriever = load_knowledge(None)
    extra = () if options.ratings is None else rated_examples(read_judgements(options.ratings))
    if options.what == "fit":
        logged = () if options.log is None else logged_examples(options.log, retriever)
        model = fitted(embedder, retriever, config, (*extra, *logged))
        save_model(options.out, model, {"config": asdict(config), "knowledge_base": retriever.version, "rated_answers": len(extra),
                                        "rated_turns": len(logged)})
        print(f"{options.out}: version {model.version}, can't tell between {model.band[0]:.3f} and {model.band[1]:.3f}", file=sys.stderr)
    elif options.what == "corruptions":
        _printed(held_out_types(embedder, retriever, load_model(options.judge), config, extra), as_json=options.json)
    elif options.what == "by-hand":
        _printed(by_hand(embedder, retriever, load_model(options.judge), config, extra), as_json=options.json)
    elif options.what == "turns":
        _printed(against_reference(embedder, retriever, load_model(options.judge), options.split), as_json=options.json)
    elif options.what == "ratings":
        if options.ratings is None:
            parser.error("--ratings: expected the file of rated answers, got none")
        base = untuned(embedder)
        helpdesk = all_examples(embedder, retriever, config)
        rated = read_judgements(options.ratings)
        _printed(against_people(rated, base, load_model(options.judge), helpdesk, retriever, config), as_json=options.json)
    else:
        _printed(benched(options.judge, options.runtime, embedder, retriever, options.split), as_json=options.json)


def benched(folder: Path, runtime: Runtime, embedder: Embedder, retriever: FaqRetriever, split: Split) -> list[dict[str, Any]]:
    """Rates on the extractive answerer's turns and on answers in other words, without and with the knowledge base's search."""
    given = played(read_helpdesk(split), embedder, retriever, "extractive")
    ideal = played(read_helpdesk(split), embedder, retriever, "ideal")
    made = right_answers(ideal, retriever, each=2, seed=5)
    encoder = load_embedder(EmbedderConfig(runtime=runtime))
    rows = []
    for name, search in (("none", None), ("the knowledge base", retriever)):
        for answers, examples in (("extractive", given), ("in other words", made)):
            judge = load_local_judge(encoder, folder, retriever=search)
            rows.append({"answers": answers, "search": name, "runtime": runtime, "cases": len(examples),
                         "verdicts_a_second": bench(judge, [example.case for example in examples])})
    return rows


if __name__ == "__main__":
    main()
