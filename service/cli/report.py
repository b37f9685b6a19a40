"""`fetchgate report`: what was saved and whether answers got worse, of a log or its export; two of them compared; prices.

Leaves out the figures and files, which are `report/`'s; here are options and what a terminal shows.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.console import failures, print_table, printable, stderr
from service.cli.database import DEFAULT_DB, Db

if TYPE_CHECKING:
    from chat.types import Price
    from kb.types import Faq
    from report.export import Report
    from report.figures import Comparison, SavingsReport
    from report.source import TurnTable
    from report.sums import ReportOptions

app = typer.Typer(help="The token-savings report.", no_args_is_help=True, add_completion=False)

Parquet = Annotated[Path | None, typer.Option(
    metavar="FILE", help="Turns as `fetchgate log export` wrote them to Parquet, in place of the log.")]
Verdicts = Annotated[Path | None, typer.Option(metavar="FILE", help="Verdicts in Parquet, beside --turns.")]
Ratings = Annotated[Path | None, typer.Option(metavar="FILE", help="Ratings in Parquet, beside --turns.")]
Kb = Annotated[Path | None, typer.Option(
    "--kb", metavar="FILE_OR_DIR", help="FAQs, a file or an index folder: topics of turns, and what all FAQs in one prompt would cost.")]
Currency = Annotated[str | None, typer.Option(help="Currency of the report. Default: the one that most tokens are priced in.")]
Rates = Annotated[list[str] | None, typer.Option(
    "--rate", metavar="CODE=NUMBER", help="What one of another currency is worth in the report's; may be given several times.")]
Prices = Annotated[Path | None, typer.Option(metavar="FILE", help="Price table (JSON) in place of the prices at the time of each turn.")]
PriceAs = Annotated[str | None, typer.Option(metavar="MODEL", help="Price every turn as if this model of the table had answered.")]
Judge = Annotated[str | None, typer.Option(help="Version of the judge whose verdicts count. Default: the one with most.")]
Resamples = Annotated[int, typer.Option(min=100, help="Times that conversations are drawn again for the intervals.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report to a file: .html, .json, .csv or .parquet.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as docs/report.schema.json says.")]


@app.command()
def savings(
    since: Annotated[str | None, typer.Option("--from", metavar="DAY", help="First day (UTC), or a time with its zone.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last day, or a time that is no more in it.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only turns of this policy version.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only turns of this API key, by its first characters.")] = None,
    category: Annotated[str | None, typer.Option(help="Only turns on this topic; needs --kb.")] = None,
    currency: Currency = None,
    rate: Rates = None,
    prices: Prices = None,
    price_as: PriceAs = None,
    hour_price: Annotated[float | None, typer.Option(min=0, help="Price of an hour of computing, in the report's currency.")] = None,
    month: Annotated[int | None, typer.Option(min=1, help="Turns a month: adds a forecast.")] = None,
    judge: Judge = None,
    resamples: Resamples = 10_000,
    budget: Annotated[float | None, typer.Option(min=0, max=1, help="Share of skips that may do harm, to hold the bound against.")] = None,
    db: Db = DEFAULT_DB,
    turns: Parquet = None,
    verdicts: Verdicts = None,
    ratings: Ratings = None,
    kb: Kb = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """What was saved against always fetching, how surely, in money, and whether answers got worse."""
    with failures():
        _check(out)
        from report.period import since_of, until_of
        from report.sums import ReportOptions

        options = ReportOptions(
            since=since_of(since) if since else None, until=until_of(until) if until else None, policy=policy, owner=owner,
            category=category, currency=currency, rates=_rates(rate), prices=_table(prices), price_as=price_as, hour_price=hour_price,
            turns_a_month=month, judge=judge, budget=budget, resamples=resamples)
        _print(_savings(options, db, (turns, verdicts, ratings), kb), out, as_json=as_json)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="`policy:VERSION`, or a period like `2026-10-01..2026-10-31`.")],
    b: Annotated[str, typer.Argument(help="The same, to compare with.")],
    currency: Currency = None,
    rate: Rates = None,
    prices: Prices = None,
    price_as: PriceAs = None,
    judge: Judge = None,
    resamples: Resamples = 10_000,
    db: Db = DEFAULT_DB,
    turns: Parquet = None,
    verdicts: Verdicts = None,
    ratings: Ratings = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Two policies or two periods side by side, and their differences with intervals."""
    with failures():
        _check(out)
        from datetime import UTC, datetime

        from report.compare import compare as compared
        from report.sums import ReportOptions

        common = ReportOptions(currency=currency, rates=_rates(rate), prices=_table(prices), price_as=price_as, judge=judge,
                               resamples=resamples)
        with _opened(db, (turns, verdicts, ratings), ()) as table:
            found = compared(table, _side(a, common), _side(b, common), datetime.now(UTC))
        _print(found, out, as_json=as_json)


@app.command()
def prices(
    table: Annotated[Path | None, typer.Option("--prices", metavar="FILE", help="Price table (JSON) in place of the bundled one.")] = None,
    db: Annotated[str | None, typer.Option("--db", metavar="URL_OR_PATH", help="A log: its models that have no price are listed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The prices that turns are priced with, with their date and source; models of a log that have none."""
    with failures():
        from report.price_list import price_list

        if db is None:
            found = price_list(table)
        else:
            with _opened(db, (None, None, None), ()) as log:
                found = price_list(table, log)
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps(asdict(found), ensure_ascii=False, indent=2))
        return
    rows = ((one.model, one.input, one.cached_input, one.output) for one in found.models)
    print_table(("model", "input", "cached input", "output"), rows)
    typer.echo(f"{found.currency} per million tokens; table {found.version}" + (f"; {printable(found.source)}" if found.source else ""))
    for model in found.unknown_models:
        typer.echo(f"no price: {printable(model)}")


@app.command()
def recount(
    kb: Annotated[Path | None, typer.Option(metavar="DIR", help="Index folder that was served.")] = None,
    faqs: Annotated[Path | None, typer.Option(metavar="FILE", help="FAQ file that was served. Default: the help desk that ships.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy that served, for its prompt setting.")] = None,
    db: Db = DEFAULT_DB,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Render every logged prompt again and count it: does the log say what it should? Ends with 1 where a count differs.

    It takes the FAQs and settings that served. Turns of another version of the knowledge base and rewritten ones are passed over, and told.
    """
    with failures():
        from chat.log.store import SqlConversationLog
        from service.recounting import recounted
        from service.settings import read_settings

        with SqlConversationLog(db, create=False) as log:
            done = recounted(log, read_settings(kb=kb, faqs=faqs, policy=policy))
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps(asdict(done), ensure_ascii=False, indent=2))
    else:
        typer.echo(f"{done.agreed} turns agree, {done.turns_differing} differ")
        for reason, turns in done.passed_over.items():
            typer.echo(f"{turns} passed over: {reason}")
        for one in done.differing[:20]:
            typer.echo(f"{one.turn_id}: {one.what}: logged {one.logged}, recounted {one.recounted}")
    raise typer.Exit(1 if done.differing else 0)


def _savings(options: "ReportOptions", db: str, files: tuple[Path | None, Path | None, Path | None], kb: Path | None) -> "SavingsReport":
    from datetime import UTC, datetime

    from chat.tokens import TiktokenCounter
    from report.prefix import prefix_tokens
    from report.savings import savings_report

    faqs = () if kb is None else _faqs(kb)
    if faqs:
        options = replace(options, prefix_tokens=prefix_tokens(faqs, TiktokenCounter()))
    with _opened(db, files, faqs) as table:
        return savings_report(table, options, datetime.now(UTC))


@contextmanager
def _opened(db: str, files: tuple[Path | None, Path | None, Path | None], faqs: "tuple[Faq, ...]") -> "Iterator[TurnTable]":
    """The tables of a log, or of its export."""
    from report.source import open_log, open_parquet

    categories = {faq.id: faq.category for faq in faqs if faq.category}
    turns, verdicts, ratings = files
    if turns is not None:
        with open_parquet(turns, verdicts, ratings, categories) as table:
            yield table
        return
    if verdicts is not None or ratings is not None:
        raise typer.BadParameter("expected --turns beside --verdicts and --ratings, got none; a log has them itself", param_hint="--turns")
    from chat.log.store import SqlConversationLog

    with SqlConversationLog(db, create=False) as log, open_log(log, categories) as table:
        yield table


def _faqs(kb: Path) -> "tuple[Faq, ...]":
    """The FAQs of a file, or of an index folder."""
    from kb.source import read_faqs

    if not kb.is_dir():
        return tuple(read_faqs(kb))
    from kb.folder import load_index

    return load_index(kb)[2]


def _side(text: str, common: "ReportOptions") -> "ReportOptions":
    from report.period import BETWEEN, period_of

    kind, colon, version = text.partition(":")
    if colon and kind == "policy" and version:
        return replace(common, policy=version)
    if BETWEEN not in text:
        raise typer.BadParameter(f"expected `policy:VERSION` or a period like `2026-10-01{BETWEEN}2026-10-31`, got {text[:80]!r}")
    since, until = period_of(text)
    return replace(common, since=since, until=until)


def _rates(given: list[str] | None) -> dict[str, float]:
    rates = {}
    for text in given or ():
        code, _, number = text.partition("=")
        try:
            rates[code.strip()] = float(number)
        except ValueError as error:
            raise typer.BadParameter(f"expected a rate like USD=0.92, got {text[:40]!r}", param_hint="--rate") from error
    return rates


def _table(path: Path | None) -> "Mapping[str, Price] | None":
    from chat.prices import load_prices

    return None if path is None else load_prices(path)


def _check(out: Path | None) -> None:
    """Before anything is computed."""
    from report.export import check_suffix

    if out is not None:
        check_suffix(out.suffix)


def _print(report: "Report", out: Path | None, *, as_json: bool) -> None:
    from report.export import to_json, write
    from report.figures import SavingsReport

    if out is not None:
        write(report, out)
        stderr.print(f"wrote {out}")
    if as_json:
        typer.echo(to_json(report), nl=False)
    elif out is None:
        _print_savings(report) if isinstance(report, SavingsReport) else _print_comparison(report)
    for warning in report.warnings:
        stderr.print(f"note: {printable(warning)}", style="yellow")


def _print_savings(report: "SavingsReport") -> None:
    """The headline figures; the files have all."""
    from report import words

    head, money, quality, currency = report.headline, report.money, report.quality, report.money.currency
    rows: list[tuple[object, ...]] = [("turns, conversations", f"{report.scope.turns:,}, {report.scope.conversations:,}", None, None)]
    for one in report.against:
        rows.append((f"saved against {one.baseline}", words.share(one.saving.value), words.interval(one.saving), words.trust(one.saving)))
    for part in report.parts:
        rows.append((f"  {words.PARTS[part.part]}" if head else part.part, words.share(part.share.value), words.interval(part.share), None))
    rows += [
        ("saved money", words.money(money.saved.value, currency), words.interval(money.saved, "money", currency), words.trust(money.saved)),
        ("net of judging and computing", words.money(money.net.value, currency), words.interval(money.net, "money", currency),
         words.trust(money.net)),
        ("Good answers, policy less holdback", words.points(quality.difference.value), words.interval(quality.difference, "points"),
         words.quality_verdict(quality)[0]),
        ("harmful skips of those judged", words.share(quality.harmful_share), f"at most {words.share(quality.harmful_upper)}", None),
    ]
    print_table(("figure", "value", "95 % interval", ""), rows)
    for sentence in (words.saving_verdict(head), words.quality_verdict(quality)[2], *words.winners(report.alternatives, currency)):
        typer.echo(printable(sentence))


def _print_comparison(comparison: "Comparison") -> None:
    from report import words

    rows = []
    for one in comparison.figures:
        difference, between = words.compared(one.figure, one.difference, difference=True)
        values = [words.compared(one.figure, figure)[0] for figure in (one.a, one.b)]
        rows.append((one.figure, *values, difference, between, words.trust(one.difference)))
    print_table(("figure", "A", "B", "B less A", "95 % interval", ""), rows)
