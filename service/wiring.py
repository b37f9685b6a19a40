"""Settings to concrete components: the only place where real ones are put together."""

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from chat.accounting import baselines
from chat.errors import ChatError
from chat.filter_rules import BUNDLED as BUNDLED_RULES
from chat.filter_rules import read_rules
from chat.filters import Filter, PatternFilter
from chat.guard import Guard
from chat.log.audit import record_act
from chat.log.ratings import record_rating
from chat.log.store import SqlConversationLog
from chat.pipeline import TurnPipeline
from chat.plan import PipelineConfig
from chat.ports import LLMClient, Policy, Retriever
from chat.prices import BUNDLED, load_prices
from chat.prompt import INSTRUCTIONS, POST_PROMPT, PromptSettings
from chat.rewrite import Rewriter
from chat.tokens import TiktokenCounter
from kb.calibrate import CALIBRATION
from kb.edits import JOURNAL
from kb.embedder import DEFAULT_MODEL, Embedder, EmbedderConfig, Progress, load_embedder
from kb.folder import MANIFEST, read_manifest
from kb.living import Home, LivingKb
from kb.milvus_kb import MilvusKb
from kb.milvus_rows import MilvusConfig
from kb.rerank import CrossEncoderReranker, RerankedRetriever
from kb.retriever import FaqRetriever
from kb.tuned import untuned
from policy.checkpoint import PolicyRecord, load_policy
from policy.decide import Exploration
from policy.rules import RULES, EvidenceRule
from policy.shipped import policy_folder
from service.components import Components
from service.edits import EditableKb, FaqEdits
from service.feedback import Feedback
from service.identity import TranscriptSigner
from service.keys import parse_keys
from service.reports import Reports
from service.settings import Settings
from service.turns import ChatTurns, Limits

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent.parent / "kb" / "data" / "helpdesk"
SHIPPED_FAQS = SHIPPED / "faqs.jsonl"
SHIPPED_ENCODER = SHIPPED / "encoder"
"""Tuned to the FAQs that ship, and used for these alone."""
SHIPPED_INDEX = SHIPPED / "index"
"""Of these FAQs by that encoder, so that a first start needn't embed them."""
SHIPPED_CALIBRATION = SHIPPED / CALIBRATION


Track = Callable[[str, int], AbstractContextManager[Progress | None]]
"""Opens a progress display for (what is done, how many) and gives the call that advances it."""


def no_bar(doing: str, total: int) -> AbstractContextManager[Progress | None]:
    """Shows nothing."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Chat:
    """A pipeline with what it stands on."""

    pipeline: TurnPipeline
    kb: EditableKb
    log: SqlConversationLog
    budget: float | None = None
    """Share of skips that may do harm, by the policy's certificate; None: it has none."""

    def close(self) -> None:
        """Give log and knowledge base back."""
        self.log.close()
        if isinstance(self.kb, MilvusKb):
            self.kb.close()


def build_chat(settings: Settings, track: Track = no_bar) -> Chat:
    """The turn pipeline that the settings describe. Raises: KbError, ChatError, ValueError that say what to mend."""
    policy, record = build_policy(settings)
    prices = load_prices(settings.prices or BUNDLED)
    embedder, kb = build_kb(settings, track)
    counter = TiktokenCounter()
    llm = build_llm(settings, embedder, counter)
    rewriter = _build_rewriter(settings, llm, counter)
    retriever = reranked(kb, settings, record)
    guard = build_guard(settings)
    log = SqlConversationLog(database(settings))
    pipeline = TurnPipeline(retriever=retriever, policy=policy, llm=llm, log=log, counter=counter, prices=prices,
                            config=pipeline_config(settings, record, kb.version), rewriter=rewriter, guard=guard)
    return Chat(pipeline, kb, log, None if record is None or record.certificate is None else record.certificate.budget)


def build_components(settings: Settings, track: Track = no_bar) -> Components:
    """Everything that the service serves with."""
    keys = parse_keys(settings.api_keys.get_secret_value())
    chat = build_chat(settings, track)
    limits = Limits(settings.max_query_chars, settings.max_concurrent_turns)
    turns = ChatTurns(chat.pipeline, chat.log, TranscriptSigner(_secret(settings)), limits)
    checks = {"knowledge_base": lambda: chat.kb.search("ready?", k=1), "log": lambda: chat.log.conversations(limit=1)}
    followed = _followed(settings)
    reports = Reports(chat.log, lambda: chat.kb.current.faqs, lambda: chat.kb.version, chat.budget)

    def close() -> None:
        reports.close()
        chat.close()

    return Components(turns, chat.kb, FaqEdits(chat.kb, partial(record_act, chat.log)), Feedback(partial(record_rating, chat.log)), keys,
                      checks, close, settings.max_body_bytes, tuple(settings.allowed_hosts), followed, reports)


def build_retriever(settings: Settings, track: Track = no_bar) -> tuple[Embedder, FaqRetriever]:
    """The knowledge base of an index folder or FAQ file as it is now, for those who only search it."""
    embedder, kb = _local_kb(settings, track)
    return embedder, kb.current


def build_kb(settings: Settings, track: Track = no_bar) -> tuple[Embedder, EditableKb]:
    """The knowledge base: in Milvus, an index folder, or one made from an FAQ file and kept beside the log; with the edits made over HTTP.

    Raises: KbError.
    """
    if not settings.milvus_uri:
        return _local_kb(settings, track)
    if ignored := [name for name in ("kb", "faqs") if getattr(settings, name) is not None]:
        logger.warning("FAQs are served from %s, which milvus_uri names; %s is passed over", settings.milvus_uri, " and ".join(ignored))
    embedder = load_embedder(EmbedderConfig(settings.embedder or DEFAULT_MODEL, runtime=settings.runtime))
    return embedder, MilvusKb(milvus_config(settings), embedder)


def milvus_config(settings: Settings, uri: str | None = None, collection: str | None = None) -> MilvusConfig:
    """Where the knowledge base is in Milvus; another place than the settings' where it is given. Raises: ValueError."""
    return MilvusConfig(settings.milvus_uri if uri is None else uri, settings.milvus_collection if collection is None else collection,
                        token=settings.milvus_token.get_secret_value(), timeout=settings.milvus_timeout)


def _local_kb(settings: Settings, track: Track) -> tuple[Embedder, LivingKb]:
    if settings.kb is not None:
        manifest = read_manifest(settings.kb)
        embedder = load_embedder(manifest.encoder)
        return embedder, LivingKb(embedder, Home(settings.kb, manifest.encoder, settings.kb / JOURNAL, settings.kb / CALIBRATION))
    shipped = settings.faqs is None and settings.embedder is None
    model = str(SHIPPED_ENCODER) if shipped else settings.embedder or DEFAULT_MODEL
    config = EmbedderConfig(model, runtime=settings.runtime)
    embedder = load_embedder(config)
    # not resolved: to its owner, a link that is turned elsewhere is the same file
    source = Path(os.path.abspath(settings.faqs or SHIPPED_FAQS))
    kept = settings.data_dir / "kb"
    folder = kept / _short_hash(f"{source}\0{config.model}")
    home = Home(folder, config,
                # by the file alone: edits outlive a change of encoder
                kept / f"{_short_hash(str(source))}.{JOURNAL}",
                SHIPPED_CALIBRATION if shipped else folder / CALIBRATION, source,
                SHIPPED_INDEX if shipped and settings.runtime == "torch" else None)
    return embedder, LivingKb(embedder, home, partial(track, "embedding passages"))


def build_policy(settings: Settings) -> tuple[Policy, PolicyRecord | None]:
    """The policy of that name or folder, and its record where it was learned. Raises: CheckpointError."""
    if settings.policy == "evidence" and settings.evidence_threshold is not None:
        return EvidenceRule(settings.evidence_threshold), None
    if settings.policy in RULES:
        return RULES[settings.policy](), None
    folder = policy_folder(settings.policy, *RULES)
    return load_policy(folder, Exploration(settings.explore_to_fetch, settings.explore_to_skip))


def build_guard(settings: Settings) -> Guard | None:
    """What refuses harmful queries and answers; None: nothing does. Raises: FilterError, ValueError."""
    if settings.filter == "off":
        logger.warning("no filter: harmful queries are answered and harmful answers sent; set FETCHGATE_FILTER=patterns to refuse them")
        return None
    patterns = PatternFilter(read_rules(settings.filter_words or BUNDLED_RULES), kept_secret=(INSTRUCTIONS, POST_PROMPT))
    guard = Guard(patterns, _filter_model(settings), on_failure=settings.filter_failure, contact=settings.filter_contact)
    logger.info("filter %s", guard.version)
    return guard


def _filter_model(settings: Settings) -> Filter | None:
    """The model that stands behind the patterns; each kind is imported only when asked for."""
    if settings.filter == "model":
        from chat.filter_models import ClassifierConfig, ClassifierFilter

        return ClassifierFilter(ClassifierConfig(Path(_needed(settings.filter_model, "filter_model"))))
    if settings.filter == "moderations":
        from chat.filter_models import ModerationConfig, ModerationFilter

        config = ModerationConfig(base_url=settings.filter_base_url or None, api_key=settings.filter_api_key.get_secret_value())
        return ModerationFilter(replace(config, model=settings.filter_model) if settings.filter_model else config)
    return None


def pipeline_config(settings: Settings, record: PolicyRecord | None, kb_version: str) -> PipelineConfig:
    """How turns are served: as the policy was trained and calibrated, but for what was set. Raises: ValueError."""
    prompt, calibrated = _prompt_settings(settings, record), settings.static_answers == "calibrated"
    if record is not None and (trained_on := record.data.get("knowledge_base")) != kb_version:
        logger.warning("policy %s was trained on knowledge base %s, and this is %s: what it saves and breaks here isn't known; see "
                       "`fetchgate evaluate gate` first", record.version, trained_on or "unknown", kb_version)
    elif record is not None and (prompt, calibrated) != (record.prompt, record.static):
        logger.warning("policy %s was trained for %s with static answers %s, and the settings say %s with static answers %s: its "
                       "certificate isn't about that", record.version, record.prompt, _on(record.static), prompt, _on(calibrated))
    return PipelineConfig(prompt=prompt, baselines=baselines(prompt, None if record is None else record.frugal),
                          min_similarity=settings.min_similarity, static_threshold=settings.static_threshold,
                          fallback_threshold=settings.fallback_threshold, calibrated_static=calibrated,
                          search_previous=settings.search_previous, holdback=settings.holdback)


def _on(static: bool) -> str:
    return "on" if static else "off"


def database(settings: Settings) -> str:
    """The log's URL or path; the data folder's by default, made if need be."""
    if settings.database:
        return settings.database
    _make_data_dir(settings.data_dir)
    return str(settings.data_dir / "log.db")


def build_llm(settings: Settings, embedder: Embedder, counter: TiktokenCounter) -> LLMClient:
    """The LLM client; each kind is imported only when asked for."""
    match settings.llm:
        case "extractive":
            from chat.llm.extractive import ExtractiveClient

            return ExtractiveClient(untuned(embedder), counter)
        case "local":
            from chat.llm.local import LocalClient, LocalConfig

            return LocalClient(LocalConfig(_needed(settings.llm_model, "llm_model")))
        case "openai":
            from chat.llm.openai import OpenAIClient, OpenAIConfig

            config = OpenAIConfig(model=_needed(settings.llm_model, "llm_model"), base_url=settings.llm_base_url or None,
                                  api_key=settings.llm_api_key.get_secret_value(), total_timeout=settings.llm_timeout)
            return OpenAIClient(config)


def _build_rewriter(settings: Settings, llm: LLMClient, counter: TiktokenCounter) -> Rewriter | None:
    """What rewrites follow-ups; None: nothing does. Raises: ValueError where there is no LLM."""
    if settings.rewrite == "off":
        return None
    if settings.llm == "extractive":
        raise ValueError("rewrite: expected llm openai or local to rewrite with, got extractive; set FETCHGATE_LLM, or rewrite to off")
    return Rewriter(llm, counter, settings.rewrite_timeout)


def reranked(kb: EditableKb, settings: Settings, record: PolicyRecord | None) -> Retriever:
    """The knowledge base as turns search it."""
    if not settings.reranker:
        return kb
    if record is not None:
        logger.warning("policy %s was trained on searches without a reranker: its certificate isn't about those of %s", record.version,
                       settings.reranker)
    return RerankedRetriever(kb, CrossEncoderReranker(settings.reranker))


def _followed(settings: Settings) -> Path | None:
    """The file that says when others changed the knowledge base; None: nothing is followed."""
    if settings.milvus_uri:
        return None
    return settings.kb / MANIFEST if settings.kb else (settings.faqs or SHIPPED_FAQS) if settings.watch else None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _needed(value: str, name: str) -> str:
    if not value:
        raise ValueError(f"{name}: expected a model's name or folder, got nothing; set FETCHGATE_{name.upper()}")
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
