"""`fetchgate keys`: API keys for a server that others reach."""

import json
from typing import Annotated

import typer

from service.keys import DEFAULT_SCOPES, Scope, create_key

app = typer.Typer(no_args_is_help=True, help="API keys, for a server that others reach.")


@app.command()
def create(
    scope: Annotated[list[Scope] | None, typer.Option(
        help="What the key may do; give it once for each. Default: chat, feedback and report. admin edits the knowledge base.",
    )] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a key: shown once; the server keeps only its hash and its scopes, in FETCHGATE_API_KEYS."""
    key, hashed = create_key(scope or DEFAULT_SCOPES)
    if as_json:
        print(json.dumps({"key": key, "hashed": str(hashed)}))
    else:
        print(f"key (give it to the client, it is not shown again): {key}")
        print(f"hash (add it to FETCHGATE_API_KEYS, by commas):     {hashed}")
