"""`fetchgate log`: look at the conversation log and the audit, export, import labelled sessions, label, erase.

Leaves out the work, which is `chat/log/`'s, and labelling (`label.py`); here are options, tables and one line for an error.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chat.errors import ChatError
from service.cli.console import failures, print_table, printable, progress_bar, stderr
from service.cli.database import DEFAULT_DB, Db
from service.cli.label import label

if TYPE_CHECKING:
    from chat.log.records import LoggedTurn
    from chat.log.store import Conversation, SqlConversationLog
    from chat.types import Refusal

app = typer.Typer(help="The conversation log: show, export, import, label, erase, audit.", no_args_is_help=True, add_completion=False)


class Format(StrEnum):
    """What an export holds."""

    SESSIONS = "sessions"
    TURNS = "turns"
    PARQUET = "parquet"
    VERDICTS = "verdicts"
    RATINGS = "ratings"


FORMAT_OF_SUFFIX = {".jsonl": Format.SESSIONS, ".ndjson": Format.SESSIONS, ".parquet": Format.PARQUET}

app.command("label")(label)


@app.command("show")
def show(
    conversation: Annotated[str | None, typer.Argument(help="Show the turns of this one; without it, list the latest.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whose conversation, where several owners have one of that id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many: the latest conversations, or turns.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    db: Db = DEFAULT_DB,
) -> None:
    """List the latest conversations, or show the turns of one: query, action, cited FAQs, tokens, tokens saved, refusal."""
    with _opened(db) as log:
        if conversation is None:
            found = log.conversations(limit=limit)
            _print_json(map(_summary, found)) if as_json else _print_conversations(found)
            return
        one = _choose(log, conversation, owner)
        if as_json:
            from chat.log.export import turn_object

            _print_json(map(turn_object, list(log.rows(owner=one.owner, conversation_id=one.id))[-limit:]))
        else:
            _print_turns(log.turns_of(one.owner, one.id)[-limit:])


@app.command("export")
def export(
    out: Annotated[str, typer.Argument(help="The file to write; - is standard output, for sessions and turns.")],
    what: Annotated[Format | None, typer.Option(
        "--format", help="sessions: plain sessions (JSON lines); turns: all that is known of each turn (JSON lines); "
                         "parquet: the same as a table; verdicts, ratings: those of judges and people as a table. When not given: "
                         ".jsonl and - are sessions, .parquet is parquet.",
    )] = None,
    db: Db = DEFAULT_DB,
) -> None:
    """Export the whole log. The file appears when it is complete, or not at all."""
    chosen = what or (Format.SESSIONS if out == "-" else FORMAT_OF_SUFFIX.get(Path(out).suffix.lower()))
    if chosen is None:
        raise typer.BadParameter(f"expected a file ending in .jsonl or .parquet, got {out!r}; or give --format", param_hint="OUT")
    if out == "-" and chosen not in (Format.SESSIONS, Format.TURNS):
        raise typer.BadParameter(f"expected a file for {chosen.value}, got standard output", param_hint="OUT")
    with _opened(db) as log, progress_bar("exporting turns", log.turn_count()) as advance:
        from chat.log import export

        if out == "-":
            write = export.write_sessions if chosen is Format.SESSIONS else export.write_turns
            write(log, sys.stdout, progress=advance)
        else:
            writers = {Format.SESSIONS: export.export_sessions, Format.TURNS: export.export_turns,
                       Format.PARQUET: export.export_parquet, Format.VERDICTS: export.export_verdicts,
                       Format.RATINGS: export.export_ratings}
            writers[chosen](log, Path(out), progress=advance)


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of plain sessions (JSON lines).", metavar="FILE...")],
    db: Db = DEFAULT_DB,
) -> None:
    """Import labelled sessions: all files or nothing. Sessions that are in the log already are skipped."""
    with _opened(db, create=True) as log:
        from chat.log.sessions import import_sessions

        with progress_bar("importing sessions") as advance:
            done = import_sessions(log, files, progress=advance)
    stderr.print(f"imported {done.sessions} sessions with {done.turns} turns, skipped {done.skipped} that were there")


@app.command("erase")
def erase(
    conversation: Annotated[str, typer.Argument(help="Its id; `fetchgate log show` lists them.")],
    owner: Annotated[str | None, typer.Option(help="Whose conversation, where several owners have one of that id.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask first.")] = False,
    db: Db = DEFAULT_DB,
) -> None:
    """Erase a conversation for good: its turns, their ratings and verdicts, and what LLM judges were paid to say of its questions.

    Exported files, backups and trained models aren't reached: delete the files, and train anew.
    """
    from chat.log.erasure import erase_conversation
    from service.judges import erase_judgements
    from service.settings import read_settings

    with _opened(db) as log:
        one = _choose(log, conversation, owner)
        if not yes:
            typer.confirm(f"Erase {printable(one.id)} of {printable(one.owner)} with its {one.turns} turns?", abort=True, err=True)
        # the cache first: were it last and failed, nobody would know any more what to look for
        words = erase_judgements(read_settings(), [turn.query for turn in log.turns_of(one.owner, one.id)])
        erase_conversation(log, one.owner, one.id)
    stderr.print(f"erased {one.turns} turns and {words} cached judgements")


@app.command("audit")
def audit(
    limit: Annotated[int, typer.Option(min=1, help="At most so many: the latest.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    db: Db = DEFAULT_DB,
) -> None:
    """Show what administrators did, the latest first: when, who, which FAQs, and the knowledge base's version before and after."""
    with _opened(db) as log:
        from dataclasses import asdict

        from chat.log.audit import latest_acts

        acts = latest_acts(log, limit=limit)
    if as_json:
        _print_json(asdict(act) | {"created_at": act.created_at.isoformat()} for act in acts)
        return
    rows = [(act.created_at.strftime("%Y-%m-%d %H:%M:%S"), act.owner, act.act, ", ".join(act.ids), act.kb_version_before,
             act.kb_version_after) for act in acts]
    print_table(("time (UTC)", "owner", "act", "FAQs", "before", "after"), rows)


@contextmanager
def _opened(db: str, *, create: bool = False) -> "Iterator[SqlConversationLog]":
    from chat.log.store import SqlConversationLog

    with failures("interrupted; nothing was changed"), SqlConversationLog(db, create=create) as log:
        yield log


def _choose(log: "SqlConversationLog", conversation_id: str, owner: str | None) -> "Conversation":
    found = [one for one in log.conversations_named(conversation_id) if owner in (None, one.owner)]
    if not found:
        raise ChatError(f"expected a conversation of the log, got {conversation_id!r}; `fetchgate log show` lists them")
    if len(found) > 1:
        owners = ", ".join(one.owner for one in found)
        raise typer.BadParameter(f"expected one of the owners {owners}, got none; {conversation_id!r} is an id of each",
                                 param_hint="--owner")
    return found[0]


def _summary(one: "Conversation") -> dict[str, object]:
    return {"owner": one.owner, "id": one.id, "source": one.source, "created_at": one.created_at.isoformat(),
            "turns": one.turns, "tokens": one.tokens}


def _print_json(objects: Iterable[dict[str, object]]) -> None:
    typer.echo(json.dumps(list(objects), ensure_ascii=False, indent=2))


def _print_conversations(found: "Iterable[Conversation]") -> None:
    rows = [(one.id, one.owner, one.source, one.created_at.strftime("%Y-%m-%d %H:%M"), one.turns, one.tokens) for one in found]
    print_table(("conversation", "owner", "source", "began (UTC)", "turns", "tokens"), rows)


def _print_turns(said: "Iterable[LoggedTurn]") -> None:
    from chat.types import Turn

    rows: list[tuple[object, ...]] = []
    for turn in said:
        if isinstance(turn, Turn):
            tokens = turn.usage.input_tokens + turn.usage.output_tokens
            rows.append((turn.query, turn.decision.action, ", ".join(turn.cited), tokens, turn.saved_tokens, _refused(turn.refusal)))
        else:
            rows.append((turn.query, None, None, None, None, None))
    print_table(("query", "action", "cited", "tokens", "saved", "refused"), rows)


def _refused(refusal: "Refusal | None") -> str | None:
    """Whether query or answer was refused, as what, and by which filter."""
    return None if refusal is None else f"{refusal.where}: {refusal.category} ({refusal.filter})"
