"""What can be set from outside, read once at start: environment variables `FETCHGATE_…` or a `.env` file, or CLI options.

Functions take the values they need, never `Settings`; only `wiring.py` and the CLI read it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chat.guard import OnFailure
from chat.prompt import HistoryFaqs
from kb.embedder import Runtime

LLMKind = Literal["extractive", "openai", "local"]
Rewriting = Literal["off", "llm"]
FilterKind = Literal["patterns", "off", "model", "moderations"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT_POLICY = "demo"
LEARNED = "A learned policy brings its own, unless this is set."


class Settings(BaseSettings):
    """All settings; each field's description is its help text in docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix="FETCHGATE_", env_file=".env", extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; without API keys only loopback is allowed.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(["*"], description="Host headers that are served, separated by commas.")
    api_keys: SecretStr = Field(SecretStr(""), description="Hashed API keys as `fetchgate keys create` prints them, separated by commas.")
    secret: SecretStr = Field(SecretStr(""), description="Signs conversation transcripts; made and kept beside the log when empty.")

    faqs: Path | None = Field(None, description="FAQ file (.jsonl or .csv) to serve; indexed at start. Default: the help desk that ships.")
    kb: Path | None = Field(None, description="Index folder made by `fetchgate kb build`; takes precedence over an FAQ file.")
    milvus_uri: str = Field("", description="A Milvus server that holds the FAQs, as `http://host:19530`, or a file `….db` of milvus-lite; "
                            "takes precedence over an index folder and an FAQ file. Fill it with `fetchgate kb build --milvus`.")
    milvus_token: SecretStr = Field(SecretStr(""), description="`user:password` or an API key for Milvus, if it wants one.")
    milvus_collection: str = Field("fetchgate", description="The knowledge base's collection there.")
    milvus_timeout: float = Field(5.0, gt=0, description="Seconds that one request to Milvus may take in a turn.")
    watch: bool = Field(False, description="Take in changes of the FAQ file while serving; an index folder's always are.")
    embedder: str | None = Field(None, description="Encoder for an FAQ file or Milvus: a name, a folder (`fetchgate kb train` makes one) "
                                 "or a hub id. Default: the packaged one, and for the help desk that ships the one tuned to it.")
    runtime: Runtime = Field("torch", description="What runs the encoder of an FAQ file or Milvus: torch; onnx, the same vectors in less "
                             "time once it is exported; onnx-int8, faster still, with slightly other vectors.")
    data_dir: Path = Field(Path("var"), description="Where the log, the made index and the secret are kept.")
    database: str = Field("", description="Conversation log: a file or an SQLAlchemy URL; default `log.db` in the data folder.")

    policy: str = Field(DEFAULT_POLICY, description="always, never, evidence, demo (the learned gate that ships) or a policy folder.")
    explore_to_fetch: float = Field(0.0, ge=0, lt=1, description="Rate at which a learned policy fetches where it would skip.")
    explore_to_skip: float = Field(0.0, ge=0, lt=1, description="Rate at which a learned policy skips where it would fetch.")
    llm: LLMKind = Field("extractive", description="extractive needs no LLM; openai: any compatible server; local: transformers.")
    llm_model: str = Field("", description="Model name at the server, or the folder or hub id of a local model.")
    llm_base_url: str = Field("", description="Base URL of an OpenAI-compatible server; empty is the SDK's default.")
    llm_api_key: SecretStr = Field(SecretStr(""), description="API key for that server.")
    llm_timeout: float = Field(120.0, gt=0, description="Seconds for a whole answer.")
    prices: Path | None = Field(None, description="Price table (JSON) instead of the bundled one.")

    judge_model: str = Field("", description="Model that judges answers where the judge is `llm`, as its server names it.")
    judge_base_url: str = Field("", description="Base URL of the judge's OpenAI-compatible server; empty is the SDK's default.")
    judge_api_key: SecretStr = Field(SecretStr(""), description="API key for that server.")

    filter: FilterKind = Field("patterns", description="What refuses harmful queries and answers: patterns, rules of words; model, a text "
                               "classifier besides; moderations, a server's `/moderations` besides; off, nothing.")
    filter_words: Path | None = Field(None, description="File of rules instead of the bundled one, `chat/data/filters.json`.")
    filter_model: str = Field("", description="Folder of the classifier (safetensors), or the moderation model's name at the server.")
    filter_base_url: str = Field("", description="Base URL of the server that moderates; empty is the SDK's default.")
    filter_api_key: SecretStr = Field(SecretStr(""), description="API key for that server.")
    filter_failure: OnFailure = Field("open", description="When the model can't be asked: open, what no pattern refuses passes and the "
                                      "turn is marked `filter_unavailable`; closed, it is refused.")
    filter_contact: str = Field("", description="Whom to turn to in a crisis, as a sentence of the answer to such a query.")

    reranker: str = Field("", description="Cross-encoder that orders the first 20 hits of a search anew: a folder or hub id of one for "
                          "sentence-transformers. Empty: none.")
    rewrite: Rewriting = Field("off", description="llm: the LLM rewrites a follow-up to stand alone before it is searched for; its tokens "
                               "count as the turn's.")
    rewrite_timeout: float = Field(10.0, gt=0, description="Seconds for that; the query is searched for as it is then.")
    k: int = Field(3, ge=1, le=20, description=f"FAQs that a fetch adds to the prompt. {LEARNED}")
    history_turns: int = Field(2, ge=0, le=20, description=f"Past exchanges in the prompt. {LEARNED}")
    history_faqs: HistoryFaqs = Field("all", description=f"Which FAQs stay with a past turn: all, cited or none. {LEARNED}")
    faq_turns: int | None = Field(None, ge=0, le=20, description=f"Last exchanges that keep their FAQs; not set: all. {LEARNED}")
    repeats: bool = Field(False, description=f"Show a fetched FAQ again when it is in the prompt already. {LEARNED}")
    min_similarity: float = Field(0.0, ge=-1, le=1, description="Similarity that an FAQ must reach to be fetched.")
    search_previous: bool = Field(True, description="Search for a query in mid-conversation together with the one before, too.")
    static_answers: Literal["calibrated", "off"] = Field("calibrated", description="Whether an FAQ answers by itself, without the "
                                                         "LLM, where `fetchgate kb calibrate` found it certain enough.")
    static_threshold: float | None = Field(None, ge=-1, le=1, description="Similarity from which an FAQ answers by itself whatever was "
                                           "calibrated, or `off`; no error budget stands behind it.")
    fallback_threshold: float | None = Field(None, ge=-1, le=1, description="Similarity from which an FAQ stands in when the LLM fails.")
    evidence_threshold: float | None = Field(None, ge=-1, le=1, description="Similarity below which the evidence policy skips.")

    holdback: float = Field(0.05, ge=0, le=1, description="Share of conversations in which every turn fetches, by a hash of their id: what "
                            "the others save, and whether their answers are as good, is measured against these. 0: none.")

    max_body_bytes: int = Field(16 * 2**20, ge=1024, description="Largest request body.")
    max_query_chars: int = Field(32_000, ge=1, description="Longest last message.")
    max_concurrent_turns: int = Field(64, ge=1, description="Turns answered at once; more are told to try again.")
    shutdown_grace: int = Field(30, ge=0, description="Seconds that open streams get to finish after SIGTERM.")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("static_threshold", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return None if value == "off" else value

    @property
    def loopback_only(self) -> bool:
        return not self.api_keys.get_secret_value()


def read_settings(**options: object) -> Settings:
    """Settings from the environment, overridden by the options that were given (None: not given).

    Raises: ValueError that names each setting that can't be used, and how it is set.
    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {str(e['input'])[:60]!r}; set FETCHGATE_{str(e['loc'][0]).upper()} "
                 "or the option" for e in error.errors()]
        raise ValueError("\n".join(lines)) from error
