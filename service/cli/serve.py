"""`fetchgate serve`: the HTTP API and the chat page."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import fail, failures, progress_bar, stderr


def serve(
    faqs: Annotated[Path | None, typer.Option(help="FAQ file, .jsonl or .csv; indexed first. Default: the help desk that ships.")] = None,
    kb: Annotated[Path | None, typer.Option(help="Index folder made by `fetchgate kb build`.")] = None,
    watch: Annotated[bool | None, typer.Option("--watch", help="Take in changes of the FAQ file while serving; an index "
                                               "folder's always are.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Encoder for an FAQ file: the packaged default, a folder or a hub id.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; only loopback without API keys.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    policy: Annotated[str | None, typer.Option(help="always, never, evidence, demo, or a policy folder.")] = None,
    llm: Annotated[str | None, typer.Option(help="extractive, openai or local.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name at the server, or folder or hub id of a local model.")] = None,
) -> None:
    """Serve the chat page and the OpenAI-compatible API.

    Every option has a setting FETCHGATE_… too, and there are more of them: see docs/settings.md.
    """
    from service.app import create_app
    from service.logs import configure
    from service.server import run
    from service.settings import LOOPBACK, read_settings
    from service.wiring import build_components

    with failures():
        settings = read_settings(faqs=faqs, kb=kb, watch=watch, embedder=embedder, host=host, port=port, policy=policy, llm=llm,
                                 llm_model=model)
        if settings.loopback_only and settings.host not in LOOPBACK:
            fail(f"host: expected a loopback address, got {settings.host}: no API keys are configured, so only this machine may "
                 "connect; make one with `fetchgate keys create`")
        configure()
        components = build_components(settings, progress_bar)
        app = create_app(components)
        stderr.print(f"{len(components.kb.faqs)} FAQs, policy {settings.policy}, filter {settings.filter}, answers by {settings.llm} "
                     f"{settings.llm_model}")
        if settings.loopback_only:
            stderr.print("No API keys are configured: any bearer token is taken, and only this machine can connect.")
        run(app, settings.host, settings.port, grace=settings.shutdown_grace, announce=lambda url: stderr.print(f"Chat at {url}"))
