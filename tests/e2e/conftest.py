"""A running service over fakes: real HTTP on loopback, real routes, scripted parts behind the ports."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import uvicorn

from chat.errors import LogError
from chat.guard import Guard
from chat.log.audit import AdminAct
from chat.log.ratings import Rating, record_rating
from chat.log.store import SqlConversationLog
from chat.pipeline import TurnPipeline
from chat.plan import PipelineConfig
from chat.types import Action, Price
from kb.calibrate import CALIBRATION
from kb.embedder import EmbedderConfig, load_embedder
from kb.living import Home, LivingKb
from kb.retriever import FaqRetriever
from kb.source import write_faqs
from kb.types import Faq
from service.app import create_app
from service.components import Components
from service.edits import FaqEdits
from service.feedback import Feedback
from service.identity import TranscriptSigner
from service.keys import HashedKey
from service.reports import Reports
from service.server import AnnouncingServer
from service.turns import ChatTurns, Limits
from service.wiring import SHIPPED_ENCODER, SHIPPED_INDEX
from tests.fakes import HashEmbedder, InMemoryLog, ScriptedLLM, ScriptedPolicy, WordCounter

FAQS = (
    Faq("fee-late", "How much is the late fee?", "The late fee is ₹450. It can be waived once a year.", "fees", source_url="https://bank.example/fees"),
    Faq("card-lost", "What if I lose my card?", "Block it in the app at once.", "cards"),
    Faq("lounge", "Which lounges are free?", "Four visits a year are free.", "travel"),
)


@pytest.fixture(scope="session")
def helpdesk_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped help desk as an index folder, for all services that tests start as processes."""
    config = EmbedderConfig(str(SHIPPED_ENCODER))
    folder = tmp_path_factory.mktemp("helpdesk") / "index"
    FaqRetriever.load(SHIPPED_INDEX, load_embedder(config)).save(folder, model=config.model, max_tokens=config.max_tokens)
    return folder


@dataclass
class Service:
    """A service on loopback and the fakes behind it."""

    url: str
    llm: ScriptedLLM
    log: InMemoryLog
    policy: ScriptedPolicy
    kb: LivingKb
    server: uvicorn.Server
    acts: list[AdminAct]
    home: Home

    @property
    def folder(self) -> Path:
        """Holds the FAQ file, its index and the journal of edits."""
        return self.home.journal.parent


@dataclass
class Parts:
    """What a test may choose about its service."""

    answers: tuple[str, ...] = ("It is ₹450 [fee-late].",)
    actions: tuple[Action, ...] = (Action.FETCH,)
    keys: tuple[HashedKey, ...] = ()
    config: PipelineConfig = field(default_factory=PipelineConfig)
    limits: Limits = field(default_factory=lambda: Limits(max_query_chars=1000, max_concurrent_turns=8))
    max_body_bytes: int = 2**20
    llm: ScriptedLLM | None = None
    acts: list[AdminAct] = field(default_factory=list)
    home: Home | None = None
    """Of a service that ran before; None: a new one."""
    database: SqlConversationLog | None = None
    """The log to keep turns and ratings in; None: turns are kept in memory, and ratings nowhere."""
    guard: Guard | None = None
    """None: nothing is refused."""


def refuse_rating(rating: Rating) -> bool:
    """What takes ratings where there is no database for them."""
    raise LogError("expected a database for ratings, got a log in memory; start the service with one")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services; all are stopped when the test ends."""
    with services(tmp_path) as start_service:
        yield start_service


@contextmanager
def services(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services whose knowledge bases are in a folder; all are stopped at the end."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start_service(parts: Parts | None = None, **changes: object) -> Service:
        chosen = replace(parts or Parts(), **changes)  # type: ignore[arg-type]
        home = chosen.home
        if home is None:
            folder = tmp_path / f"kb-{len(running)}"
            home = Home(folder, EmbedderConfig("hash", 3), tmp_path / f"edits-{len(running)}.json", folder / CALIBRATION,
                        tmp_path / f"faqs-{len(running)}.jsonl")
            write_faqs(tmp_path / f"faqs-{len(running)}.jsonl", FAQS)
        kb = LivingKb(HashEmbedder(), home)
        llm = chosen.llm or ScriptedLLM(chosen.answers)
        log, policy = InMemoryLog(), ScriptedPolicy(chosen.actions)
        kept = chosen.database or log
        pipeline = TurnPipeline(retriever=kb, policy=policy, llm=llm, log=kept, counter=WordCounter(),
                                prices={"scripted": Price(1, None, 2, "USD", "test")}, config=chosen.config, guard=chosen.guard)
        turns = ChatTurns(pipeline, kept, TranscriptSigner(b"secret"), chosen.limits)

        def check_log() -> None:
            if log.error is not None:
                raise log.error

        feedback = Feedback(partial(record_rating, chosen.database) if chosen.database else refuse_rating)
        reports = Reports(chosen.database, lambda: FAQS, budget=0.05, resamples=200) if chosen.database else None
        close = reports.close if reports else lambda: None
        components = Components(turns, kb, FaqEdits(kb, chosen.acts.append), feedback, chosen.keys, {"log": check_log}, close,
                                chosen.max_body_bytes, ("*",), reports=reports)
        ready = threading.Event()
        address: list[str] = []

        def announce(url: str) -> None:
            address.append(url)
            ready.set()

        config = uvicorn.Config(create_app(components), "127.0.0.1", 0, log_config=None, timeout_graceful_shutdown=5)
        server = AnnouncingServer(config, announce)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        assert ready.wait(20), "the service did not start"
        running.append((server, thread))
        return Service(address[0].rstrip("/"), llm, log, policy, kb, server, chosen.acts, home)

    try:
        yield start_service
    finally:
        for server, _ in running:
            server.should_exit = True
        deadline = time.monotonic() + 10
        for _, thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))
