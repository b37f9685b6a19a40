"""`fetchgate chat`: the same chat in the terminal."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.console import failures, progress_bar, stderr

if TYPE_CHECKING:
    from chat.pipeline import TurnFinished, TurnPipeline
    from chat.types import Message

BYE = {"/quit", "/exit", "/q"}


def chat(
    faqs: Annotated[Path | None, typer.Option(help="FAQ file, .jsonl or .csv. Default: the help desk that ships.")] = None,
    kb: Annotated[Path | None, typer.Option(help="Index folder made by `fetchgate kb build`.")] = None,
    policy: Annotated[str | None, typer.Option(help="always, never, evidence, demo, or a policy folder.")] = None,
    llm: Annotated[str | None, typer.Option(help="extractive, openai or local.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name at the server, or folder or hub id of a local model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a turn; questions come on stdin, one a line.")] = False,
) -> None:
    """Chat in the terminal: ask, see what was fetched, cited and saved. /new begins anew, /quit or Ctrl-D leaves."""
    from service.settings import read_settings
    from service.wiring import build_chat

    with failures():
        settings = read_settings(faqs=faqs, kb=kb, policy=policy, llm=llm, llm_model=model)
        built = build_chat(settings, progress_bar)
        try:
            asyncio.run(_talk(built.pipeline, as_json=as_json))
        finally:
            built.log.close()


async def _talk(pipeline: "TurnPipeline", *, as_json: bool) -> None:
    """Read questions until the end of input."""
    from chat.types import Message
    from service.identity import new_conversation

    if not as_json:
        stderr.print("Ask something; /new begins anew, /quit leaves.", style="dim")
    conversation, messages, saved = new_conversation(), list[Message](), 0
    while (query := await asyncio.to_thread(_read, "" if as_json else "\n› ")) is not None and query not in BYE:
        if query == "/new":
            conversation, messages, saved = new_conversation(), [], 0
        elif query:
            finished = await _turn(pipeline, conversation, [*messages, Message("user", query)], as_json=as_json)
            if finished is not None:
                messages += [Message("user", query), Message("assistant", finished.turn.answer)]
                saved += finished.turn.saved_tokens or 0
                _show(finished, saved, as_json=as_json)


def _read(prompt: str) -> str | None:
    try:
        return input(prompt).strip()
    except EOFError:
        return None


async def _turn(
    pipeline: "TurnPipeline", conversation: str, messages: "list[Message]", *, as_json: bool
) -> "TurnFinished | None":
    """One turn, its answer printed as it comes; None when it failed, which is said and can be tried again."""
    from chat.errors import ChatError
    from chat.pipeline import TextDelta, TurnFinished, TurnRequest
    from service.keys import LOCAL_OWNER

    try:
        async for event in pipeline.run(TurnRequest(tuple(messages), LOCAL_OWNER, conversation)):
            if isinstance(event, TextDelta) and not as_json:
                print(event.text, end="", flush=True)
            elif isinstance(event, TurnFinished):
                return event
    except ChatError as error:
        stderr.print(f"\n{error}", style="red", markup=False)
    return None


def _show(finished: "TurnFinished", saved: int, *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    turn = finished.turn
    if as_json:
        print(json.dumps({"query": turn.query, "answer": turn.answer, "action": turn.decision.action.value,
                          "reason": turn.decision.reason, "cited": list(turn.cited), "input_tokens": turn.usage.input_tokens,
                          "output_tokens": turn.usage.output_tokens, "saved_tokens": turn.saved_tokens,
                          "degraded": list(turn.degraded), "refusal": None if turn.refusal is None else asdict(turn.refusal)},
                         ensure_ascii=False), flush=True)
        return
    print()
    degraded = f" · degraded: {', '.join(turn.degraded)}" if turn.degraded else ""
    refused = f" · refused: {turn.refusal.where}, {turn.refusal.category} by {turn.refusal.filter}" if turn.refusal else ""
    stderr.print(f"{turn.decision.action.value}: {turn.decision.reason} · {turn.usage.input_tokens} tokens in · "
                 f"saved {saved} in this conversation{degraded}{refused}", style="dim", markup=False, highlight=False)
