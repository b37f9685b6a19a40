"""`fetchgate kb`: make a knowledge base of an FAQ file, keep it in step, search it, describe it.

Leaves out the work, which is `kb/`'s; here are options, tables and JSON.
"""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kb.calibrate import BUDGET
from kb.embedder import DEFAULT_MAX_TOKENS, DEFAULT_MODEL, EmbedderConfig, Runtime
from kb.index import Kind
from kb.retriever import LEXICAL_WEIGHT
from kb.tuned import Loss, Method
from service.cli.console import failures, printable, progress_bar, stderr

if TYPE_CHECKING:
    from kb.edits import Near
    from kb.folder import Manifest
    from kb.queries import LabelledQuery
    from kb.types import Faq, Hit

app = typer.Typer(no_args_is_help=True, help="The knowledge base: build, watch, search, info.")

Folder = Annotated[Path, typer.Option("--kb", metavar="DIR", help="Index folder made by `fetchgate kb build`.")]
MOST_COMPARED = 5000
"""FAQs that a build compares with all others, to warn of near duplicates."""
MOST_COMPARED_IN_MILVUS = 1000
"""A request for every few of them."""
MOST_WARNINGS = 20

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def build(
    faqs: Annotated[Path, typer.Option(metavar="FILE", help="FAQ file, .jsonl or .csv.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Index folder to write; one that is there is replaced at the end.")
    ] = None,
    milvus: Annotated[
        str | None, typer.Option(metavar="URI", help="Load into this Milvus instead, `http://host:19530`; its token is the setting's.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Collection there; other FAQs in it are deleted. Default: the setting's.")
    ] = None,
    embedder: Annotated[
        str, typer.Option(metavar="NAME_OR_FOLDER", help="Encoder: the packaged one, a folder, or a hub id.")
    ] = DEFAULT_MODEL,
    max_tokens: Annotated[
        int, typer.Option(min=3, help="Tokens read of a passage; half is about twice as fast where passages are long.")
    ] = DEFAULT_MAX_TOKENS,
    queries: Annotated[Path | None, typer.Option(metavar="FILE", help="Labelled queries (JSON lines) to index as paraphrases of the FAQs "
                                                                     "that settle them; they can't calibrate it then.")] = None,
    lexical_weight: Annotated[
        float, typer.Option(min=0, max=0.99, help="Weight of a query's words beside its vector; 0, and in Milvus: vectors alone.")
    ] = LEXICAL_WEIGHT,
    runtime: Annotated[
        Runtime, typer.Option(help="onnx gives torch's vectors in less time; onnx-int8 slightly other ones in half of it.")
    ] = "torch",
    index: Annotated[
        Kind, typer.Option(help="flat is exact; hnsw and ivf are faster on many FAQs; auto chooses by their number.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Embed an FAQ file and write the index folder, or load it into Milvus: one of --out and --milvus is needed."""
    import time

    from kb.edits import near_duplicates, one_editor
    from kb.embedder import load_embedder
    from kb.index import passages
    from kb.queries import read_queries, with_queries
    from kb.retriever import FaqRetriever
    from kb.source import read_faqs

    if milvus is not None and out is None:
        _build_milvus(faqs, milvus, collection, EmbedderConfig(_resolved(embedder), max_tokens, runtime=runtime), as_json=as_json)
        return
    if out is None or milvus is not None:
        raise typer.BadParameter("expected either --out DIR or --milvus URI")
    with failures(f"interrupted; {out} is as it was"):
        began = time.monotonic()
        records = read_faqs(faqs)
        if queries is not None:
            records = with_queries(records, read_queries(queries, [faq.id for faq in records]))
        model = _resolved(embedder)
        encoder = load_embedder(EmbedderConfig(model, max_tokens, runtime=runtime))
        with progress_bar("embedding passages", sum(len(passages(faq)) for faq in records)) as advance:
            retriever = FaqRetriever.build(encoder, records, kind=index, lexical_weight=lexical_weight, progress=advance)
        with one_editor(out) if out.is_dir() else nullcontext():
            manifest = retriever.save(out, model=model, max_tokens=max_tokens, runtime=runtime)
        _warn(records, near_duplicates(retriever, [faq.id for faq in records[:MOST_COMPARED]]))
    _print_fields(_counts(manifest) | {"seconds": round(time.monotonic() - began, 2)}, as_json=as_json)


@app.command()
def watch(
    faqs: Annotated[Path, typer.Argument(metavar="FILE", help="FAQ file, .jsonl or .csv.")],
    kb: Folder,
    as_json: AsJson = False,
) -> None:
    """Keep an index folder in step with an FAQ file, until Ctrl-C: only what changed is embedded, and the folder is swapped whole.

    A file that can't be read is reported and leaves the folder as it was. FAQs that were edited over HTTP stay as they were edited.
    """
    import threading

    from kb.calibrate import CALIBRATION
    from kb.edits import JOURNAL, Difference
    from kb.embedder import load_embedder
    from kb.folder import read_manifest
    from kb.living import Home, LivingKb
    from kb.watch import changes

    def say(change: Difference) -> None:
        counts = {"added": len(change.added), "replaced": len(change.replaced), "removed": len(change.removed)}
        fields = {"version": living.version, "faqs": len(living.faqs)} | counts
        print(json.dumps(fields) if as_json else "  ".join(f"{name} {value}" for name, value in fields.items()), flush=True)

    with failures(f"interrupted; {kb} is whole"):
        manifest = read_manifest(kb)
        living = LivingKb(load_embedder(manifest.encoder), Home(kb, manifest.encoder, kb / JOURNAL, kb / CALIBRATION, faqs))
        say(living.opened)
        for change in changes(living, faqs.absolute().parent, threading.Event()):
            if isinstance(change, Exception):
                stderr.print(f"error: {printable(str(change))}", style="red")
            else:
                say(change)


@app.command()
def train(
    faqs: Annotated[Path, typer.Option(metavar="FILE", help="FAQ file, .jsonl or .csv.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Encoder folder to write, for `kb build --embedder`; replaced at the end.")],
    queries: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Labelled or judged queries (JSON lines); may be given several "
                                                                           "times. Default: the FAQs' paraphrases alone.")] = None,
    dev: Annotated[Path | None, typer.Option(metavar="FILE", help="Labelled queries that stop the training. Default: a tenth of the "
                                                                 "queries, else of the paraphrases.")] = None,
    embedder: Annotated[str, typer.Option(metavar="NAME_OR_FOLDER", help="Encoder to begin with.")] = DEFAULT_MODEL,
    method: Annotated[Method, typer.Option(help="What is trained: a matrix on the frozen encoder, or LoRA, its top layers, all of it.")]
    = "projection",
    loss: Annotated[Loss, typer.Option(help="infonce, or triplet to compare with.")] = "infonce",
    epochs: Annotated[int | None, typer.Option(min=1, help="Times that each text is an anchor, at most. Default: 20; 3 for the others.")]
    = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Pairs a step. Default: 256; 32 for the others.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="Default: the method's own.")] = None,
    seed: Annotated[int, typer.Option(help="Of pairs, order and dev share.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Tune an encoder to its FAQs by contrastive training. A run that was killed goes on where it stood."""
    import shutil
    from dataclasses import asdict

    from kb.finetune import finetune, train_config
    from kb.pairs import divided
    from kb.queries import read_queries
    from kb.source import read_faqs

    with failures(f"interrupted; {out} is as it was, and the same command goes on"):
        records = read_faqs(faqs)
        ids = [faq.id for faq in records]
        labelled = [query for path in queries or () for query in read_queries(path, ids)]
        config = train_config(method, loss=loss, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
        examples, held = divided(records, labelled, read_queries(dev, ids) if dev else None, seed=seed)
        work = out.with_name(f".{out.name}.training")
        done = finetune(embedder, examples, held, out, config, work=work)
        shutil.rmtree(work, ignore_errors=True)
    _print_fields(asdict(done) | {"folder": str(out)}, as_json=as_json)


@app.command()
def calibrate(
    kb: Folder,
    queries: Annotated[list[Path], typer.Option(metavar="FILE", help="Labelled queries (JSON lines) that the encoder wasn't trained on, "
                                                                    "some out of domain; may be given several times.")],
    sessions: Annotated[Path | None, typer.Option(metavar="FILE", help="Labelled conversations, for queries in mid-conversation.")] = None,
    budget: Annotated[float, typer.Option(min=0.001, max=0.5, help="Wrong share of the static answers, at 95 % confidence.")] = BUDGET,
    seed: Annotated[int, typer.Option(help="Of the share that certifies.")] = 0,
    as_json: AsJson = False,
) -> None:
    """From labelled queries, when an FAQ may answer by itself; written beside the index, with the curve, and void once the FAQs change."""
    from kb.calibrate import CALIBRATION, calibrate, save_calibration, search_all
    from kb.queries import read_queries
    from kb.retriever import open_folder

    with failures(f"interrupted; {kb} is as it was"):
        _, retriever = open_folder(kb)
        ids = [faq.id for faq in retriever.faqs]
        labelled = [query for path in queries for query in read_queries(path, ids)]
        labelled += _of_conversations(sessions, ids) if sessions else []
        with progress_bar("searching", len(labelled)) as advance:
            found = calibrate(search_all(retriever, labelled, advance), retriever.version, budget=budget, seed=seed)
        save_calibration(kb / CALIBRATION, found)
    kinds = {"first": found.first, "mid_conversation": found.later}
    fields: dict[str, Any] = {"version": found.version, "budget": budget, "fitted_on": found.fitted, "certified_on": found.certified_on}
    for name, kind in kinds.items():
        fields |= {f"{name}_threshold": kind.threshold, f"{name}_trials": kind.trials, f"{name}_wrong": kind.wrong,
                   f"{name}_upper": round(kind.upper, 4), f"{name}_more_needed": kind.more_needed}
    _print_fields(fields, as_json=as_json)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What a customer would ask.")],
    kb: Folder,
    k: Annotated[int, typer.Option("-k", min=1, help="FAQs at most.")] = 3,
    min_similarity: Annotated[float, typer.Option(min=-1, max=1, help="Similarity that an FAQ must reach.")] = -1.0,
    as_json: AsJson = False,
) -> None:
    """The FAQs nearest to a query, best first."""
    from kb.retriever import open_folder

    with failures():
        hits = open_folder(kb)[1].search(query, k=k, min_similarity=min_similarity)
    if as_json:
        print(json.dumps([_hit(hit) for hit in hits], ensure_ascii=False, indent=2))
        return
    for hit in hits:
        text = hit.faq.question or hit.faq.answer[:100]
        sure = f"  {hit.confidence:.0%} sure" if hit.confidence is not None else ""
        print(f"{hit.similarity:.3f}{sure}  {hit.faq.id}  {printable(' '.join(text.split()))}")
    if not hits:
        stderr.print("no FAQ is that similar", style="dim")


@app.command()
def info(kb: Folder, as_json: AsJson = False) -> None:
    """What an index folder holds, after checking that it is whole."""
    from kb.calibrate import CALIBRATION, read_calibration
    from kb.folder import load_index

    with failures():
        manifest, _, faqs = load_index(kb)
        calibration = read_calibration(kb / CALIBRATION)
        size = sum((kb / name).stat().st_size for name in manifest.files.values())
    fields = _counts(manifest) | {
        "encoder": manifest.model_id, "model": manifest.model, "max_tokens": manifest.max_tokens, "dimension": manifest.dimension,
        "runtime": manifest.runtime, "lexical_weight": manifest.lexical_weight,
        "calibrated": calibration is not None and calibration.version == manifest.content_hash,
        "bytes": size, "categories": dict(Counter(faq.category or "(none)" for faq in faqs).most_common()),
    }
    _print_fields(fields, as_json=as_json)


def _build_milvus(faqs: Path, uri: str, collection: str | None, config: EmbedderConfig, *, as_json: bool) -> None:
    """Load an FAQ file into a collection; only what is new or changed is embedded."""
    import time

    from kb.embedder import load_embedder
    from kb.index import passages
    from kb.milvus_kb import MilvusKb
    from kb.source import read_faqs
    from service.settings import read_settings
    from service.wiring import milvus_config

    with failures("interrupted; the collection may hold a part of the changes, and the same command goes on"):
        began = time.monotonic()
        records = read_faqs(faqs)
        place = milvus_config(read_settings(), uri, collection)
        encoder = load_embedder(config)
        with progress_bar("embedding passages", sum(len(passages(faq)) for faq in records)) as advance:
            kb = MilvusKb.build(place, encoder, records, progress=advance)
        _warn(records, kb.near_duplicates([faq.id for faq in records[:MOST_COMPARED_IN_MILVUS]]))
        fields = {"version": kb.version, "faqs": len(records), "collection": place.collection}
        kb.close()
    _print_fields(fields | {"seconds": round(time.monotonic() - began, 2)}, as_json=as_json)


def _resolved(embedder: str) -> str:
    """An encoder's folder with its whole path; any other name as it is."""
    return str(Path(embedder).resolve()) if Path(embedder).is_dir() else embedder


def _warn(faqs: Sequence["Faq"], near_duplicates: Sequence["Near"]) -> None:
    """Of FAQs that will do little good."""
    for near in near_duplicates[:MOST_WARNINGS]:
        stderr.print(f"warning: {near.faq_id} is nearly the same as {near.other_id} (similarity {near.similarity:.2f}): "
                     "whichever is found, the other one would do; merge them", style="yellow")
    if answerless := sum(not faq.answer for faq in faqs):
        stderr.print(f"warning: {answerless} FAQs have no answer: they are found, but answer nothing", style="yellow")


def _of_conversations(path: Path, faq_ids: list[str]) -> list["LabelledQuery"]:
    """The labelled turns of conversations as queries."""
    from evaluation.datasets import conversation_queries, read_sessions

    return list(conversation_queries(read_sessions(path), faq_ids))


def _counts(manifest: "Manifest") -> dict[str, Any]:
    return {"version": manifest.content_hash, "faqs": manifest.faqs, "vectors": manifest.vectors, "index": manifest.built_kind}


def _hit(hit: "Hit") -> dict[str, Any]:
    return {"id": hit.faq.id, "similarity": round(hit.similarity, 6), "confidence": hit.confidence, "alone": hit.alone,
            "question": hit.faq.question, "answer": hit.faq.answer, "category": hit.faq.category, "source_url": hit.faq.source_url}


def _print_fields(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(fields, ensure_ascii=False))
        return
    for name, value in fields.items():
        shown = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else str(value)
        print(f"{name:11} {printable(shown)}")
