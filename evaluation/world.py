"""The world that conversations are replayed in, made from names: knowledge base, reader, judge."""

from collections.abc import Sequence
from pathlib import Path

from chat.plan import PipelineConfig
from chat.tokens import TiktokenCounter
from evaluation.datasets import HELPDESK_FAQS, Session
from evaluation.embedding import RememberingEmbedder
from evaluation.rollout import World
from kb.embedder import Embedder, EmbedderConfig, SentenceEmbedder
from kb.folder import read_manifest
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from reward.judge import Gold, ReferenceJudge
from reward.readers import DistractedReader, ExtractiveReader, IdealReader, Reader, ReaderName

COUNTED_TEXTS = 1 << 16
"""Messages whose token counts are remembered: those of all arms of a few thousand turns."""


def load_knowledge(kb: Path | None, faqs: Path | None = None) -> tuple[RememberingEmbedder, FaqRetriever]:
    """An index folder, or an FAQ file that is indexed now; the help desk that ships when neither is given."""
    if kb is not None:
        manifest = read_manifest(kb)
        embedder = RememberingEmbedder(SentenceEmbedder(EmbedderConfig(manifest.model, manifest.max_tokens)))
        return embedder, FaqRetriever.load(kb, embedder)
    embedder = RememberingEmbedder(SentenceEmbedder(EmbedderConfig()))
    return embedder, FaqRetriever.build(embedder, read_faqs(faqs or HELPDESK_FAQS))


def make_world(embedder: Embedder, retriever: FaqRetriever, *, reader: ReaderName = "ideal", gold: Gold = "any", seed: int = 0) -> World:
    """A world with the reference judge. The seed is of the distracted reader's chance."""
    counter = TiktokenCounter(remembered=COUNTED_TEXTS)
    return World(retriever, counter, make_reader(reader, embedder, counter, seed), ReferenceJudge(gold), PipelineConfig(baselines={}))


def make_reader(name: ReaderName, embedder: Embedder, counter: TiktokenCounter, seed: int = 0) -> Reader:
    """The reader of that name."""
    if name == "ideal":
        return IdealReader()
    if name == "distracted":
        return DistractedReader(seed=seed)
    from chat.llm.extractive import ExtractiveClient

    return ExtractiveReader(ExtractiveClient(embedder, counter).answer)


def read_queries(embedder: Embedder, sessions: Sequence[Session]) -> None:
    """Embed every query in batches, so that a replay finds it remembered."""
    embedder.embed([turn.query for session in sessions for turn in session.turns])
