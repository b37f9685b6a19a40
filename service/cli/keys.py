"""`fetchgate keys`: API keys for a server that others reach."""

import json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="API keys, for a server that others reach.")


@app.command()
def create(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Make a key: shown once; the server keeps only its hash, in FETCHGATE_API_KEYS."""
    from service.keys import create_key

    key, hashed = create_key()
    if as_json:
        print(json.dumps({"key": key, "hashed": str(hashed)}))
    else:
        print(f"key (give it to the client, it is not shown again): {key}")
        print(f"hash (add it to FETCHGATE_API_KEYS, by commas):     {hashed}")
