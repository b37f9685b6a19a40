"""Judges, and what writes the answers that they are shown, made from settings: `wiring.py` for `log label` and other commands.

Leaves out choosing between judges (`evaluation/judges.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chat.ports import TokenCounter
from chat.prices import BUNDLED, load_prices
from chat.tokens import TiktokenCounter
from evaluation.logged_arms import Answering
from kb.embedder import Embedder
from kb.milvus_kb import MilvusKb
from reward.asking import ServerConfig
from reward.judgements import JudgementCache
from reward.llm_judge import LLMJudge, LLMJudgeConfig
from service.settings import Settings
from service.wiring import Track, build_kb, build_llm, build_policy, no_bar, pipeline_config, reranked

CACHE = "judgements.db"
"""In the data folder: what LLM judges said, by content."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """What labelling stands on."""

    answering: Answering
    embedder: Embedder
    """The knowledge base's."""
    close: Callable[[], None]
    """Gives the knowledge base back."""


def build_labelling(settings: Settings, track: Track = no_bar) -> Labelling:
    """Knowledge base, LLM and prompt setting as they serve. Raises: KbError, ChatError, PolicyError, ValueError that say what to mend."""
    _, record = build_policy(settings)
    embedder, kb = build_kb(settings, track)
    counter = TiktokenCounter()
    llm, config = build_llm(settings, embedder, counter), pipeline_config(settings, record, kb.version)
    answering = Answering(reranked(kb, settings, None), llm, counter, config)
    return Labelling(answering, embedder, kb.close if isinstance(kb, MilvusKb) else _nothing)


def build_llm_judge(
    settings: Settings, counter: TokenCounter, *, votes: int = 1, concurrency: int = 8, budget: float | None = None
) -> LLMJudge:
    """The LLM judge that the settings describe, with its cache in the data folder. Raises: JudgeError, ChatError that say what to mend."""
    server = ServerConfig(settings.judge_model, settings.judge_base_url or None, settings.judge_api_key.get_secret_value())
    config = LLMJudgeConfig(server, votes, concurrency, budget)
    prices = load_prices(settings.prices or BUNDLED)
    return LLMJudge(config, prices=prices, counter=counter, cache=JudgementCache(settings.data_dir / CACHE))


def erase_judgements(settings: Settings, queries: Sequence[str]) -> int:
    """How many cached judgements of answers to these queries were erased; 0 where there is no cache. Raises: JudgeError."""
    path = settings.data_dir / CACHE
    return JudgementCache(path).erase(queries) if path.exists() else 0


def _nothing() -> None:
    """What a knowledge base on this machine needs at the end."""
