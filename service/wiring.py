"""Settings to concrete components: the only place where real ones are put together."""

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path

from chat.errors import ChatError
from chat.log.store import SqlConversationLog
from chat.pipeline import TurnPipeline
from chat.plan import PipelineConfig
from chat.ports import LLMClient, Policy
from chat.prices import BUNDLED, load_prices
from chat.prompt import PromptSettings
from chat.tokens import TiktokenCounter
from kb.embedder import Embedder, EmbedderConfig, Progress, SentenceEmbedder
from kb.errors import IndexFolderError
from kb.folder import read_manifest
from kb.index import passages
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from policy.checkpoint import PolicyRecord, load_policy
from policy.decide import Exploration
from policy.rules import RULES, EvidenceRule
from policy.shipped import policy_folder
from service.components import Components
from service.identity import TranscriptSigner
from service.keys import parse_keys
from service.settings import Settings
from service.turns import ChatTurns, Limits

logger = logging.getLogger(__name__)

SHIPPED_FAQS = Path(__file__).parent.parent / "kb" / "data" / "helpdesk" / "faqs.jsonl"


Track = Callable[[str, int], AbstractContextManager[Progress | None]]
"""Opens a progress display for (what is done, how many) and gives the call that advances it."""


def no_bar(doing: str, total: int) -> AbstractContextManager[Progress | None]:
    """Shows nothing."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Chat:
    """A pipeline with what it stands on."""

    pipeline: TurnPipeline
    retriever: FaqRetriever
    log: SqlConversationLog


def build_chat(settings: Settings, track: Track = no_bar) -> Chat:
    """The turn pipeline that the settings describe. Raises: KbError, ChatError, ValueError that say what to mend."""
    policy, record = build_policy(settings)
    prices = load_prices(settings.prices or BUNDLED)
    embedder, retriever = build_retriever(settings, track)
    counter = TiktokenCounter()
    llm = _build_llm(settings, embedder, counter)
    log = SqlConversationLog(database(settings))
    pipeline = TurnPipeline(retriever=retriever, policy=policy, llm=llm, log=log, counter=counter, prices=prices,
                            config=pipeline_config(settings, record, retriever.version))
    return Chat(pipeline, retriever, log)


def build_components(settings: Settings, track: Track = no_bar) -> Components:
    """Everything that the service serves with."""
    keys = parse_keys(settings.api_keys.get_secret_value())
    chat = build_chat(settings, track)
    limits = Limits(settings.max_query_chars, settings.max_concurrent_turns)
    turns = ChatTurns(chat.pipeline, chat.log, TranscriptSigner(_secret(settings)), limits)
    checks = {"knowledge_base": lambda: chat.retriever.search("ready?", k=1), "log": lambda: chat.log.conversations(limit=1)}
    return Components(turns, chat.retriever, keys, checks, chat.log.close, settings.max_body_bytes, tuple(settings.allowed_hosts))


def build_retriever(settings: Settings, track: Track = no_bar) -> tuple[Embedder, FaqRetriever]:
    """The knowledge base: an index folder, or one made from an FAQ file and kept until file or encoder change."""
    if settings.kb is not None:
        manifest = read_manifest(settings.kb)
        embedder = SentenceEmbedder(EmbedderConfig(manifest.model, manifest.max_tokens))
        return embedder, FaqRetriever.load(settings.kb, embedder)
    config = EmbedderConfig(settings.embedder)
    embedder = SentenceEmbedder(config)
    source = settings.faqs or SHIPPED_FAQS
    faqs = read_faqs(source)
    folder = settings.data_dir / "kb" / hashlib.sha256(f"{source.resolve()}\0{config.model}".encode()).hexdigest()[:12]
    if (folder / "manifest.json").exists():
        try:
            kept = FaqRetriever.load(folder, embedder)
            if kept.faqs == faqs:
                return embedder, kept
        except IndexFolderError as error:
            logger.warning("the kept index is of no use and is made anew: %s", error)
    with track("embedding passages", sum(len(passages(faq)) for faq in faqs)) as progress:
        made = FaqRetriever.build(embedder, faqs, progress=progress)
    made.save(folder, model=config.model, max_tokens=config.max_tokens)
    return embedder, made


def build_policy(settings: Settings) -> tuple[Policy, PolicyRecord | None]:
    """The policy of that name or folder, and its record where it was learned. Raises: CheckpointError."""
    if settings.policy == "evidence" and settings.evidence_threshold is not None:
        return EvidenceRule(settings.evidence_threshold), None
    if settings.policy in RULES:
        return RULES[settings.policy](), None
    folder = policy_folder(settings.policy, *RULES)
    return load_policy(folder, Exploration(settings.explore_to_fetch, settings.explore_to_skip))


def pipeline_config(settings: Settings, record: PolicyRecord | None, kb_version: str) -> PipelineConfig:
    """How turns are served: as the policy was trained and calibrated, but for what was set. Raises: ValueError."""
    prompt = _prompt_settings(settings, record)
    static = settings.static_threshold
    if record is not None and (trained_on := record.data.get("knowledge_base")) != kb_version:
        logger.warning("policy %s was trained on knowledge base %s, and this is %s: what it saves and breaks here isn't known, and no FAQ "
                       "answers by itself unless FETCHGATE_STATIC_THRESHOLD is set; see `fetchgate evaluate gate` first",
                       record.version, trained_on or "unknown", kb_version)
    elif record is not None and "static_threshold" not in settings.model_fields_set:
        static = record.static_threshold
    if record is not None and prompt != record.prompt:
        logger.warning("policy %s was trained for %s, and the settings say %s: its certificate isn't about that", record.version,
                       record.prompt, prompt)
    return PipelineConfig(prompt=prompt, min_similarity=settings.min_similarity, static_threshold=static,
                          fallback_threshold=settings.fallback_threshold)


def database(settings: Settings) -> str:
    """The log's URL or path; the data folder's by default, made if need be."""
    if settings.database:
        return settings.database
    _make_data_dir(settings.data_dir)
    return str(settings.data_dir / "log.db")


def _build_llm(settings: Settings, embedder: Embedder, counter: TiktokenCounter) -> LLMClient:
    """The LLM client; each kind is imported only when asked for."""
    match settings.llm:
        case "extractive":
            from chat.llm.extractive import ExtractiveClient

            return ExtractiveClient(embedder, counter)
        case "local":
            from chat.llm.local import LocalClient, LocalConfig

            return LocalClient(LocalConfig(_needed(settings.llm_model, "llm_model")))
        case "openai":
            from chat.llm.openai import OpenAIClient, OpenAIConfig

            config = OpenAIConfig(model=_needed(settings.llm_model, "llm_model"), base_url=settings.llm_base_url or None,
                                  api_key=settings.llm_api_key.get_secret_value(), total_timeout=settings.llm_timeout)
            return OpenAIClient(config)


def _needed(value: str, name: str) -> str:
    if not value:
        raise ValueError(f"{name}: expected a model's name for this kind of LLM, got nothing; set FETCHGATE_{name.upper()}")
    return value


def _prompt_settings(settings: Settings, record: PolicyRecord | None) -> PromptSettings:
    names = [field.name for field in fields(PromptSettings)]
    if record is None:
        return PromptSettings(**{name: getattr(settings, name) for name in names})
    return replace(record.prompt, **{name: getattr(settings, name) for name in names if name in settings.model_fields_set})


def _secret(settings: Settings) -> bytes:
    """The signing secret: the one that is set, else one made once and kept, readable by its owner only."""
    if given := settings.secret.get_secret_value():
        return given.encode()
    _make_data_dir(settings.data_dir)
    path = settings.data_dir / "secret"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    except OSError as error:
        raise ChatError(f"{path}: can't be written ({error.strerror}); set FETCHGATE_SECRET or another data folder") from error
    with os.fdopen(descriptor, "wb") as file:
        made = secrets.token_bytes(32)
        file.write(made)
    return made


def _make_data_dir(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ChatError(f"{folder}: can't be made ({error.strerror}); set FETCHGATE_DATA_DIR to a folder that can be written") from error
