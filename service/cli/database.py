"""The option by which commands name the conversation log."""

from typing import Annotated

import typer

Db = Annotated[str, typer.Option(
    "--db", metavar="URL_OR_PATH", envvar="FETCHGATE_DATABASE", help="The log: a database URL, or the path of an SQLite file.",
)]
DEFAULT_DB = "var/log.db"
