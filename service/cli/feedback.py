"""`fetchgate feedback`: people's ratings out of the log, experts' into it, and a look at all of them.

Leaves out the work, which is `chat/log/`'s and `reward/`'s; here are options, tables and one line for an error.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.console import failures, print_table, stderr
from service.cli.database import DEFAULT_DB, Db

if TYPE_CHECKING:
    from chat.log.ratings import Rating
    from chat.log.store import SqlConversationLog
    from reward.review import Review, ShownFaq
    from reward.signals import Signal

app = typer.Typer(help="What people think of answers: export, import, review.", no_args_is_help=True, add_completion=False)


class Method(StrEnum):
    """How the consensus of several raters is found."""

    MAJORITY = "majority"
    DAWID_SKENE = "dawid-skene"
    MACE = "mace"
    WAWA = "wawa"


MethodOption = Annotated[Method | None, typer.Option(
    "--method", help="Of the consensus. When not given: dawid-skene where three raters share ten turns each with others, else a majority "
                     "that weighs experts above users.")]


@app.command("export")
def export(
    out: Annotated[str, typer.Argument(help="The file to write; - is standard output.")] = "-",
    preferences: Annotated[bool, typer.Option("--preferences", help="Pairs of answers, from the rankings that count.")] = False,
    consensus: Annotated[bool, typer.Option("--consensus", help="One verdict a turn, from the ratings that count.")] = False,
    method: MethodOption = None,
    faqs: Annotated[Path | None, typer.Option(help="FAQ file that --preferences takes texts from. Default: the one that ships.")] = None,
    db: Db = DEFAULT_DB,
) -> None:
    """Export feedback as JSON lines: every rating as it was given, or --preferences, or --consensus."""
    if preferences and consensus:
        raise typer.BadParameter("expected --preferences or --consensus, got both", param_hint="--consensus")
    with _opened(db) as log:
        from chat.log.rating_records import rating_object
        from chat.log.ratings import ratings
        from reward.review import review, training_pairs

        if preferences:
            records: Iterable[dict[str, object]] = [pair.record for pair in training_pairs(review(log), _texts(faqs))]
        elif consensus:
            found = review(log, method.value if method else None)
            records = [_verdict(found, n) for n, turn in enumerate(found.consensus.turns) if found.turns[turn.turn_id].trains]
        else:
            records = map(rating_object, ratings(log))
        _write(out, records)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Ratings, a JSON object a line: id, rating, and comment, ranking, strength, rater.")],
    rater: Annotated[str | None, typer.Option(help="Who rated, where a line doesn't say.")] = None,
    db: Db = DEFAULT_DB,
) -> None:
    """Import experts' ratings of turns in the log: all lines or none. What a rater said last already is not stored again."""
    with _opened(db) as log:
        from datetime import UTC, datetime

        from chat.log.rating_records import read_ratings
        from chat.log.ratings import record_ratings

        found = read_ratings(file, log, rater=rater, now=datetime.now(UTC))
        stored = record_ratings(log, found)
    stderr.print(f"imported {stored} ratings, {len(found) - stored} were there")


@app.command("review")
def review_(
    method: MethodOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows of each table, at most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with everything in it.")] = False,
    db: Db = DEFAULT_DB,
) -> None:
    """Show turns that raters disagree on, ratings set aside and why, raters and outliers among them, and implicit signals."""
    with _opened(db) as log:
        from datetime import UTC, datetime

        from reward.review import log_signals, review

        found = review(log, method.value if method else None)
        implicit = tuple(log_signals(log, now=datetime.now(UTC)))
    if as_json:
        typer.echo(json.dumps(_as_object(found, implicit), ensure_ascii=False, indent=2))
    else:
        _print_review(found, implicit, limit)


@contextmanager
def _opened(db: str) -> "Iterator[SqlConversationLog]":
    from chat.log.store import SqlConversationLog

    with failures("interrupted; nothing was changed"), SqlConversationLog(db, create=False) as log:
        yield log


def _texts(faqs: Path | None) -> "ShownFaq":
    """FAQ id to text, from a file."""
    from kb.source import read_faqs
    from service.wiring import SHIPPED_FAQS

    known = {faq.id: faq.text for faq in read_faqs(faqs or SHIPPED_FAQS)}
    return known.get


def _verdict(found: "Review", n: int) -> dict[str, object]:
    turn = found.consensus.turns[n]
    return {"id": turn.turn_id, "good": turn.good, "probability": round(turn.probability, 6), "disagreement": round(turn.disagreement, 6),
            "votes": turn.votes, "method": found.consensus.method}


def _write(out: str, records: Iterable[dict[str, object]]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if out == "-":
        sys.stdout.writelines(lines)
        return
    try:
        with Path(out).open("x", encoding="utf-8") as file:
            file.writelines(lines)
    except FileExistsError as error:
        raise ValueError(f"{out}: expected a file that isn't there yet, got one that is; name another, or remove it") from error
    except OSError as error:
        raise ValueError(f"{out}: can't be written ({error.strerror}); check its folder, permissions and free space") from error


def _as_object(found: "Review", implicit: "tuple[Signal, ...]") -> dict[str, object]:
    from dataclasses import asdict

    from chat.log.rating_records import rating_object
    from reward.review import signal_counts

    return {
        "ratings": len(found.ratings), "replaced": found.replaced,
        "turns": [_verdict(found, n) for n in range(len(found.consensus.turns))],
        "kept": [rating_object(one.rating) | {"weight": one.weight} for one in found.sifted.kept],
        "set_aside": [rating_object(one.rating) | {"reason": one.reason, "detail": one.detail} for one in found.sifted.aside],
        "raters": [asdict(one) for one in found.consensus.raters],
        "ranked": asdict(found.ranked),
        "signals": {"counts": signal_counts(implicit), "all": [asdict(signal) for signal in implicit]},
    }


def _print_review(found: "Review", implicit: "tuple[Signal, ...]", limit: int) -> None:
    """A table of each, where there is anything to show. People's words can neither style them nor steer the terminal."""
    from reward.review import signal_counts

    _print_some(("ratings", "replaced", "set aside", "count", "consensus by"),
                [(len(found.ratings), found.replaced, len(found.sifted.aside), len(found.sifted.kept), found.consensus.method)])
    split = sorted((turn for turn in found.consensus.turns if turn.disagreement > 0), key=lambda turn: -turn.disagreement)
    _print_some(("turn in dispute", "query", "P(Good)", "disagreement (bits)", "votes"),
                [(turn.turn_id, found.turns[turn.turn_id].query, f"{turn.probability:.2f}", f"{turn.disagreement:.2f}", turn.votes)
                 for turn in split[:limit]])
    _print_some(("rating set aside", "rater", "says", "why", "comment"),
                [(one.rating.turn_id, "/".join(one.rating.said_by), _says(one.rating), one.detail, one.rating.comment)
                 for one in found.sifted.aside[:limit]])
    raters = sorted(found.consensus.raters, key=lambda one: (not one.outlier, -one.votes))
    _print_some(("rater", "votes", "skill", "agrees with the rest", "outlier"),
                [(one.rater, one.votes, None if one.skill is None else f"{one.skill:.2f}", f"{one.agreed} of {one.compared}",
                  "yes" if one.outlier else "no") for one in raters[:limit]])
    _print_some(("not called Good", "query", "comment"),
                [(one.rating.turn_id, found.turns[one.rating.turn_id].query, one.rating.comment) for one in found.sifted.kept
                 if one.rating.comment is not None and not _is_good(one.rating)][:limit])
    _print_some(("implicit signal", "times"), sorted(signal_counts(implicit).items()))


def _print_some(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        print_table(header, rows)


def _says(rating: "Rating") -> str:
    if rating.stars is not None:
        return f"{rating.stars} stars"
    return "a ranking" if rating.good is None else "good" if rating.good else "bad"


def _is_good(rating: "Rating") -> bool:
    from reward.feedback import verdict_of

    return verdict_of(rating) is True
