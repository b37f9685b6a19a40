"""The `fetchgate` command: noun, then verb. Each noun is a module of this folder; imports that take time are inside commands."""

import typer

from service.cli import agreement, bench, chat, evaluate, feedback, kb, keys, log, policy, report, reward, serve

app = typer.Typer(name="fetchgate", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="A FAQ chatbot that fetches context only when fetching helps, and says what that saved.")
app.command("serve")(serve.serve)
app.command("chat")(chat.chat)
app.add_typer(kb.app, name="kb")
app.add_typer(log.app, name="log")
app.add_typer(feedback.app, name="feedback")
app.add_typer(policy.app, name="policy")
app.add_typer(reward.app, name="reward")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(report.app, name="report")
app.add_typer(keys.app, name="keys")
app.add_typer(bench.app, name="bench")
reward.app.command("agreement")(agreement.agreement)


def main() -> None:
    """Entry point of the console script."""
    app()
