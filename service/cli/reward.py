"""`fetchgate reward`: the judges and models that say what an answer is worth.

`agreement` is `agreement.py`'s. Leaves out judging the log (`label.py`), people's feedback (`feedback.py`), and the work of training,
which is `evaluation/preference_run.py`'s; here are options and lines.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.console import failures, printable, progress_bar

if TYPE_CHECKING:
    from evaluation.preference_run import Item
    from kb.embedder import Embedder

app = typer.Typer(no_args_is_help=True, help="Judges and reward models: how far they agree with people, and training.")


@app.callback()
def reward() -> None:
    """Judges and reward models: how far they agree with people, and training."""


@app.command()
def train(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write the reward model to.")],
    data: Annotated[Path | None, typer.Option(metavar="FILE|DIR", help="Pairs (preferences.jsonl), answers called good or bad "
                                                                       "(judged.jsonl), or a folder with them. Default: pairs made of "
                                                                       "the help desk that ships.")] = None,
    db: Annotated[str | None, typer.Option(metavar="URL_OR_PATH", help="A log in place of --data: its rankings that count and, for "
                                                                       "logistic and kto, its Good and Bad ratings.")] = None,
    faqs: Annotated[Path | None, typer.Option(help="FAQ file that --db takes texts from. Default: the one that ships.")] = None,
    objective: Annotated[Literal["bradley_terry", "logistic", "kto"], typer.Option(
        help="bradley_terry learns from pairs; logistic and kto from answers that are good or bad, of a pair the chosen and the "
             "rejected.")] = "bradley_terry",
    margin: Annotated[bool, typer.Option("--margin/--no-margin", help="Whether the loss asks for the pairs' margins.")] = False,
    conversations: Annotated[int | None, typer.Option(min=1, help="For a quick look: make pairs of only the first so "
                                                                  "many train sessions that ship, and of the FAQs that they need.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order, and which groups are held out.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a reward model on preferences, and measure it on about a fifth of the groups, which it doesn't learn from.

    Intervals are 95 %, by group. Figures are defined in docs/metrics.md.
    """
    if data is not None and db is not None:
        raise typer.BadParameter("expected --data or --db, got both")
    if margin and objective != "bradley_terry":
        raise typer.BadParameter(f"expected objective bradley_terry, whose loss has margins, got {objective}", param_hint="--margin")
    with failures("interrupted; nothing was written"):
        from evaluation.preference_run import train_reward
        from reward.train import TrainConfig

        config = TrainConfig(objective=objective, margin_scale=float(margin), seed=seed)
        embedder, items, source = _data(data, db, faqs, conversations, seed, pairs_alone=objective == "bradley_terry")
        with progress_bar("reading texts") as advance:
            figures = train_reward(items, embedder, config, out, source=source, progress=advance)
    if as_json:
        print(json.dumps(figures, ensure_ascii=False, allow_nan=False))
    else:
        _print(figures)


def _data(data: Path | None, db: str | None, faqs: Path | None, conversations: int | None, seed: int, *,
          pairs_alone: bool) -> "tuple[Embedder, tuple[Item, ...], str]":
    """The packaged encoder, what to learn from, and where it came from."""
    from kb.embedder import EmbedderConfig, load_embedder
    from kb.tuned import untuned

    if db is not None:
        return load_embedder(EmbedderConfig()), _of_log(db, faqs, pairs_alone=pairs_alone), "log"
    if data is not None:
        from evaluation.preference_run import read_items

        return load_embedder(EmbedderConfig()), read_items(data), data.name
    from evaluation.datasets import read_helpdesk
    from evaluation.preference_data import helpdesk_knowledge, helpdesk_preferences

    sessions = read_helpdesk("train")[:conversations]
    embedder, retriever = helpdesk_knowledge(None if conversations is None else sessions)
    return untuned(embedder), helpdesk_preferences(sessions, retriever, seed=seed), "help desk"


def _of_log(db: str, faqs: Path | None, *, pairs_alone: bool) -> "tuple[Item, ...]":
    from chat.log.store import SqlConversationLog
    from evaluation.preference_data import log_judged, log_preferences
    from kb.source import read_faqs
    from reward.errors import PreferenceError
    from service.wiring import SHIPPED_FAQS

    known = {faq.id: faq.text for faq in read_faqs(faqs or SHIPPED_FAQS)}
    with SqlConversationLog(db, create=False) as log:
        pairs = log_preferences(log, known.get)
        found: tuple[Item, ...] = pairs if pairs_alone else (*pairs, *log_judged(log, known.get))
    if not found:
        wanted = "rankings" if pairs_alone else "rankings or ratings"
        raise PreferenceError(f"{db}: expected {wanted} that count, got none; see `fetchgate feedback review`")
    return found


def _print(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if name == "bins":
            for one in value:
                print(f"  {one['pairs']:>6} pairs of confidence {one['confidence']:.2f}: right {one['accuracy']:.2f}")
            continue
        print(f"{name:28} {printable(_shown(value))}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        warning = "; too small to trust" if value["too_small"] else ""
        return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f}{warning})"
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
