"""`fetchgate kb`: make a knowledge base of an FAQ file, search it, describe it.

Leaves out the work, which is `kb/`'s; here are options, tables and JSON.
"""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kb.embedder import DEFAULT_MAX_TOKENS, DEFAULT_MODEL, EmbedderConfig
from kb.index import Kind
from service.cli.console import failures, printable, progress_bar, stderr

if TYPE_CHECKING:
    from kb.folder import Manifest
    from kb.types import Hit

app = typer.Typer(no_args_is_help=True, help="The knowledge base: build, search, info.")

Folder = Annotated[Path, typer.Option("--kb", metavar="DIR", help="Index folder made by `fetchgate kb build`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def build(
    faqs: Annotated[Path, typer.Option(metavar="FILE", help="FAQ file, .jsonl or .csv.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Index folder to write; one that is there is replaced at the end.")],
    embedder: Annotated[
        str, typer.Option(metavar="NAME_OR_FOLDER", help="Encoder: the packaged one, a folder, or a hub id.")
    ] = DEFAULT_MODEL,
    max_tokens: Annotated[
        int, typer.Option(min=3, help="Tokens read of a passage; half is about twice as fast where passages are long.")
    ] = DEFAULT_MAX_TOKENS,
    index: Annotated[
        Kind, typer.Option(help="flat is exact; hnsw and ivf are faster on many FAQs; auto chooses by their number.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Embed an FAQ file and write the index folder."""
    import time

    from kb.embedder import SentenceEmbedder
    from kb.index import passages
    from kb.retriever import FaqRetriever
    from kb.source import read_faqs

    with failures(f"interrupted; {out} is as it was"):
        began = time.monotonic()
        records = read_faqs(faqs)
        model = str(Path(embedder).resolve()) if Path(embedder).is_dir() else embedder
        encoder = SentenceEmbedder(EmbedderConfig(model, max_tokens))
        with progress_bar("embedding passages", sum(len(passages(faq)) for faq in records)) as advance:
            retriever = FaqRetriever.build(encoder, records, kind=index, progress=advance)
        manifest = retriever.save(out, model=model, max_tokens=max_tokens)
    _print_fields(_counts(manifest) | {"seconds": round(time.monotonic() - began, 2)}, as_json=as_json)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What a customer would ask.")],
    kb: Folder,
    k: Annotated[int, typer.Option("-k", min=1, help="FAQs at most.")] = 3,
    min_similarity: Annotated[float, typer.Option(min=-1, max=1, help="Cosine that an FAQ must reach.")] = -1.0,
    as_json: AsJson = False,
) -> None:
    """The FAQs nearest to a query, best first."""
    from kb.embedder import SentenceEmbedder
    from kb.folder import read_manifest
    from kb.retriever import FaqRetriever

    with failures():
        manifest = read_manifest(kb)
        encoder = SentenceEmbedder(EmbedderConfig(manifest.model, manifest.max_tokens))
        hits = FaqRetriever.load(kb, encoder).search(query, k=k, min_similarity=min_similarity)
    if as_json:
        print(json.dumps([_hit(hit) for hit in hits], ensure_ascii=False, indent=2))
        return
    for hit in hits:
        text = hit.faq.question or hit.faq.answer[:100]
        print(f"{hit.similarity:.3f}  {hit.faq.id}  {printable(' '.join(text.split()))}")
    if not hits:
        stderr.print("no FAQ is that similar", style="dim")


@app.command()
def info(kb: Folder, as_json: AsJson = False) -> None:
    """What an index folder holds, after checking that it is whole."""
    from kb.folder import load_index

    with failures():
        manifest, _, faqs = load_index(kb)
        size = sum((kb / name).stat().st_size for name in manifest.files.values())
    fields = _counts(manifest) | {
        "encoder": manifest.model_id, "model": manifest.model, "max_tokens": manifest.max_tokens, "dimension": manifest.dimension,
        "bytes": size, "categories": dict(Counter(faq.category or "(none)" for faq in faqs).most_common()),
    }
    _print_fields(fields, as_json=as_json)


def _counts(manifest: "Manifest") -> dict[str, Any]:
    return {"version": manifest.content_hash, "faqs": manifest.faqs, "vectors": manifest.vectors, "index": manifest.built_kind}


def _hit(hit: "Hit") -> dict[str, Any]:
    return {"id": hit.faq.id, "similarity": round(hit.similarity, 6), "question": hit.faq.question, "answer": hit.faq.answer,
            "category": hit.faq.category, "source_url": hit.faq.source_url}


def _print_fields(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(fields, ensure_ascii=False))
        return
    for name, value in fields.items():
        shown = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else str(value)
        print(f"{name:11} {printable(shown)}")
