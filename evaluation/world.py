"""The world that conversations are replayed in, made from names: knowledge base, reader, judge."""

from collections.abc import Sequence
from pathlib import Path

from chat.plan import PipelineConfig
from chat.tokens import TiktokenCounter
from evaluation.datasets import HELPDESK_ENCODER, HELPDESK_FAQS, HELPDESK_INDEX, Session
from evaluation.embedding import RememberingEmbedder
from evaluation.rollout import World
from kb.calibrate import CALIBRATION, read_calibration
from kb.embedder import Embedder, EmbedderConfig, load_embedder
from kb.retriever import FaqRetriever, open_folder
from kb.source import read_faqs
from kb.tuned import untuned
from reward.judge import Gold, Judge, ReferenceJudge
from reward.readers import DistractedReader, ExtractiveReader, IdealReader, Reader, ReaderName

COUNTED_TEXTS = 1 << 16
"""Messages whose token counts are remembered: those of all arms of a few thousand turns."""


def load_knowledge(kb: Path | None, faqs: Path | None = None) -> tuple[Embedder, FaqRetriever]:
    """An index folder, or an FAQ file that is indexed now; the help desk that ships, with its own encoder, when neither is given."""
    if kb is not None:
        return open_folder(kb, RememberingEmbedder)
    if faqs is None or faqs.resolve() == HELPDESK_FAQS.resolve():
        embedder = RememberingEmbedder(load_embedder(EmbedderConfig(str(HELPDESK_ENCODER))))
        retriever = FaqRetriever.load(HELPDESK_INDEX, embedder)
        retriever.adopt(read_calibration(HELPDESK_FAQS.with_name(CALIBRATION)))
        return embedder, retriever
    embedder = RememberingEmbedder(load_embedder(EmbedderConfig()))
    return embedder, FaqRetriever.build(embedder, read_faqs(faqs))


def make_world(embedder: Embedder, retriever: FaqRetriever, *, reader: ReaderName = "ideal", gold: Gold = "any", seed: int = 0,
               judge: Judge | None = None) -> World:
    """A world with the reference judge, or another. The seed is of the distracted reader's chance."""
    counter = TiktokenCounter(remembered=COUNTED_TEXTS)
    return World(retriever, counter, make_reader(reader, embedder, counter, seed), judge or ReferenceJudge(gold),
                 PipelineConfig(baselines={}))


def make_reader(name: ReaderName, embedder: Embedder, counter: TiktokenCounter, seed: int = 0) -> Reader:
    """The reader of that name."""
    if name == "ideal":
        return IdealReader()
    if name == "distracted":
        return DistractedReader(seed=seed)
    from chat.llm.extractive import ExtractiveClient

    return ExtractiveReader(ExtractiveClient(untuned(embedder), counter).answer)


def read_queries(embedder: Embedder, sessions: Sequence[Session]) -> None:
    """Embed every query in batches, so that a replay finds it remembered."""
    embedder.embed([turn.query for session in sessions for turn in session.turns])
