"""`fetchgate policy`: pre-train an encoder, train a gate, see what policies there are.

Leaves out the work, which is `policy/`'s and `evaluation/`'s; here are options, progress and tables.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from policy.encoder import Kind
from service.cli.console import failures, printable, progress_bar, stderr

if TYPE_CHECKING:
    from chat.ports import Retriever
    from evaluation.training import GateConfig, GateData
    from kb.embedder import Embedder
    from policy.train import Epoch
    from reward.judge import Judge

app = typer.Typer(no_args_is_help=True, help="Learned gates: pre-train, train, list, look at.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[Path | None, typer.Option(help="Folder with train, dev and calibration folders of sessions.jsonl, or with one "
                                                "sessions.jsonl to divide. Default: the help desk that ships.")]
Kb = Annotated[Path | None, typer.Option(help="Index folder made by `fetchgate kb build`. Default: DATA/faqs.jsonl, else the help desk's.")]


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder to write the encoder to.")],
    kind: Annotated[Kind, typer.Option(help="bert: masked words; gpt2: next words.")] = "bert",
    encoder: Annotated[str | None, typer.Option(help="Where to begin: folder or hub id. Default: packaged MiniLM, or a new GPT-2.")] = None,
    data: Data = None,
    kb: Kb = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the texts. Default: 10 for bert, 20 for gpt2.")] = None,
    seed: Annotated[int, typer.Option(help="Of masks, order and new weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Pre-train an encoder on the FAQs and the train sessions' queries; `policy train --encoder` takes the folder."""
    from dataclasses import asdict, replace

    from policy.pretrain import corpus, default_config, pretrain

    with failures("interrupted; nothing was written"):
        texts, dev_texts = _texts(data, kb, corpus)
        config = default_config(kind)
        config = replace(config, encoder=encoder, seed=seed, epochs=config.epochs if epochs is None else epochs)
        with progress_bar("pre-training") as advance:
            done = pretrain(texts, dev_texts, config, out, progress=lambda step: advance(1))
    figures = asdict(done) | {"perplexity_before": done.perplexity_before, "perplexity_after": done.perplexity_after, "folder": str(out)}
    _print(figures, as_json=as_json)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder to write the policy to; with several seeds, one folder seed-N in it for each.")],
    data: Data = None,
    kb: Kb = None,
    encoder: Annotated[str | None, typer.Option(help="BERT or GPT-2: a folder or hub id. Default: the packaged MiniLM.")] = None,
    trainable: Annotated[Literal["head", "top_layers", "lora", "full"] | None, typer.Option(help="What learns beside the heads.")] = None,
    preset: Annotated[Literal["budget", "kulkarni2024", "symmetric", "column"], typer.Option(
        help="How verdicts and tokens become rewards; column: the sessions hold `rewards` themselves.")] = "budget",
    objective: Annotated[Literal["supervised", "best_of_k", "all_action", "reinforce", "ppo"] | None, typer.Option(
        help="What is optimised after the warm start. Default: all_action; of kulkarni2024, reinforce.")] = None,
    budget: Annotated[float, typer.Option(min=0.001, max=0.999, help="Harmful share of the skips that the threshold must keep.")] = 0.10,
    evidence: Annotated[bool, typer.Option(help="Whether the gate sees what retrieval says.")] = True,
    static: Annotated[Literal["calibrated", "off"], typer.Option(help="Whether FAQs answer by themselves before the gate is asked, where "
                                                                     "the knowledge base is calibrated; serve it the same way.")]
    = "calibrated",
    epochs: Annotated[int | None, typer.Option(min=0, help="Epochs after the warm start.")] = None,
    seed: Annotated[int, typer.Option(help="Of heads, rollouts and dropout; the first of several.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Policies to train, with seeds one after the other.")] = 1,
    search: Annotated[int, typer.Option(min=0, help="Configurations to try on dev first, with Optuna.")] = 0,
    gold: Annotated[Literal["any", "all"], typer.Option(help="Whether one gold FAQ is enough for a Good answer.")] = "any",
    reward: Annotated[Literal["reference", "local", "llm"], typer.Option(
        help="Who says what an answer is worth: the labels, the judge that ships, or the LLM of FETCHGATE_JUDGE_….")] = "reference",
    min_kappa: Annotated[float, typer.Option(min=-1.0, max=1.0, help="Agreement with the labels that another judge must have, and with "
                                                                     "people, where `reward agreement --db` measured it.")] = 0.6,
    force_judge: Annotated[bool, typer.Option("--force-judge", help="Train with a judge whatever its agreement.")] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's event files.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a gate on labelled sessions, certify its skip threshold, and write its folder.

    Figures on dev are by the labels, whoever gave the rewards.

    A training that was killed goes on where it stood when the same command is given again.
    """
    with failures("interrupted; the same command goes on from the last whole epoch"):
        from dataclasses import replace

        from evaluation.training import prepared, train_gate

        config = _config(encoder, trainable, preset, objective, budget, evidence, epochs)
        gate_data = _gate_data(data, kb, gold, reward, None if force_judge else min_kappa)
        config = replace(config, static=static == "calibrated")
        sessions = sum(len(getattr(gate_data, split)) for split in ("train", "dev", "calibration"))
        with progress_bar("playing both arms of", sessions) as advance:
            ready = prepared(gate_data, config, advance)
        if search:
            config = _searched(ready, config, search, seed)
        records = []
        for number in range(seed, seed + seeds):
            one = replace(config, train=replace(config.train, seed=number), decision=replace(config.decision, seed=number))
            folder = out if seeds == 1 else out / f"seed-{number}"
            with _reporting(one, tensorboard, number) as report:
                records.append(_summary(folder, train_gate(ready, one, folder, report=report)))
    _print_all(records, as_json=as_json)


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="Folder whose subfolders are looked at.")] = Path("policies"),
    as_json: AsJson = False,
) -> None:
    """The policies in a folder, and the one that ships: version, budget, saving on dev."""
    from policy.checkpoint import RECORD, read_record
    from policy.shipped import SHIPPED

    with failures():
        found = sorted(path.parent for path in folder.rglob(RECORD) if path.parent.name != "encoder") if folder.is_dir() else []
        shipped = [SHIPPED] if (SHIPPED / RECORD).exists() else []
        records = [_summary(path, read_record(path)) for path in [*shipped, *found]]
    _print_all(records, as_json=as_json)


@app.command()
def info(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A policy folder, or `demo`, the one that ships.")],
    as_json: AsJson = False,
) -> None:
    """What a policy folder holds, after checking that it loads."""
    from pydantic import TypeAdapter

    from policy.checkpoint import PolicyRecord, load_policy
    from policy.shipped import policy_folder

    with failures():
        path = policy_folder(folder)
        _, record = load_policy(path)
    if as_json:
        print(TypeAdapter(PolicyRecord).dump_json(record).decode())
    else:
        print(printable((path / "README.md").read_text(encoding="utf-8")))


def _config(encoder: str | None, trainable: Any, preset: str, objective: Any, budget: float, evidence: bool,
            epochs: int | None) -> "GateConfig":
    """The configuration of a preset, with what was asked for."""
    from dataclasses import replace

    from evaluation.training import gate_config

    config = gate_config(preset, budget)
    of_network = {"evidence": evidence, "encoder": encoder, "trainable": trainable}
    of_training = {"objective": objective, "epochs": epochs}
    network = replace(config.network, **{name: value for name, value in of_network.items() if value is not None})
    train = replace(config.train, **{name: value for name, value in of_training.items() if value is not None})
    changed: GateConfig = replace(config, network=network, train=train)
    return changed


def _gate_data(data: Path | None, kb: Path | None, gold: Any, reward: Any, min_kappa: float | None) -> "GateData":
    from evaluation.agreement_run import check_kept
    from evaluation.datasets import HELPDESK, read_splits
    from evaluation.training import GateData
    from evaluation.world import load_knowledge, make_world, read_queries
    from service.settings import read_settings

    splits = read_splits(data or HELPDESK)
    faqs = None if data is None or not (data / "faqs.jsonl").exists() else data / "faqs.jsonl"
    embedder, retriever = load_knowledge(kb, faqs)
    for sessions in splits.values():
        read_queries(embedder, sessions)
    judge = None if reward == "reference" else _judge(reward, embedder, retriever)
    if judge is not None and min_kappa is not None:
        check_kept(read_settings().data_dir, judge.version, min_kappa)
    return GateData(splits["train"], splits["dev"], splits["calibration"], make_world(embedder, retriever, gold=gold), retriever, judge,
                    min_kappa)


def _judge(name: Any, embedder: "Embedder", retriever: "Retriever") -> "Judge":
    """The judge of that name, an LLM as the settings describe it."""
    from evaluation.judges import make_judge

    llm = None
    if name == "llm":
        from chat.tokens import TiktokenCounter
        from service.judges import build_llm_judge
        from service.settings import read_settings

        llm = build_llm_judge(read_settings(), TiktokenCounter())
    return make_judge(name, embedder, llm=llm, retriever=retriever)


def _texts(data: Path | None, kb: Path | None, corpus: Callable[..., list[str]]) -> tuple[list[str], list[str]]:
    """Texts to pre-train on, and dev texts: the FAQs and train queries, and the dev queries."""
    from evaluation.datasets import HELPDESK, HELPDESK_FAQS, read_splits
    from kb.folder import load_index
    from kb.source import read_faqs

    splits = read_splits(data or HELPDESK)
    source = HELPDESK_FAQS if data is None else data / "faqs.jsonl"
    faqs = load_index(kb)[2] if kb is not None else read_faqs(source)
    train, dev = ([[turn.query for turn in session.turns] for session in splits[split]] for split in ("train", "dev"))
    return corpus(faqs, train), corpus((), dev)


def _searched(ready: Any, config: "GateConfig", trials: int, seed: int) -> "GateConfig":
    from evaluation.search import search

    with progress_bar("trying configurations", trials) as advance:
        found = search(ready, config, trials=trials, seed=seed, progress=lambda: advance(1))
    stderr.print(f"best on dev: {found.parameters}, saving {found.dev:.1%}")
    return found.config


@contextmanager
def _reporting(config: "GateConfig", tensorboard: Path | None, seed: int) -> "Iterator[Callable[[Epoch], None]]":
    """A bar over the epochs, and TensorBoard's scalars where they are asked for."""
    from contextlib import ExitStack
    from dataclasses import asdict

    with ExitStack() as stack:
        advance = stack.enter_context(progress_bar(f"training, seed {seed}", config.train.warm_start + config.train.epochs))
        writer = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(tensorboard / f"seed-{seed}"))
            stack.callback(writer.close)

        def report(epoch: "Epoch") -> None:
            advance(1)
            if writer is not None:
                for name, value in asdict(epoch).items():
                    if isinstance(value, float):
                        writer.add_scalar(name, value, epoch.number)

        yield report


def _summary(folder: Path, record: Any) -> dict[str, Any]:
    dev, claim = record.metrics.get("dev", {}), record.certificate
    return {
        "folder": str(folder), "version": record.version, "preset": record.preset, "seed": record.seed,
        "skip_threshold": record.decision.skip_threshold, "budget": claim.budget if claim else None,
        "certified": bool(claim and claim.certified), "upper_harm": claim.upper_conversation if claim else None,
        "dev_saving_vs_frugal": dev.get("saving_vs_frugal", {}).get("value"), "dev_accuracy": dev.get("accuracy"),
    }


def _print_all(records: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(records, ensure_ascii=False))
        return
    for n, record in enumerate(records):
        if n:
            print()
        _print(record, as_json=False)
    if not records:
        stderr.print("no policy there; train one with `fetchgate policy train`", style="dim")


def _print(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(fields, ensure_ascii=False))
        return
    for name, value in fields.items():
        shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        print(f"{name:21} {printable(shown)}")
