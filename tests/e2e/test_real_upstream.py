"""Against a real OpenAI-compatible server: what it answers, what it counts, and that our accounting agrees with it."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from chat.errors import LLMError
from chat.llm.openai import OpenAIClient, OpenAIConfig
from chat.pipeline import TurnFinished, TurnPipeline, TurnRequest
from chat.plan import PipelineConfig
from chat.ports import Chunk
from chat.prompt import PromptSettings, render_always_fetch
from chat.types import Action, Message, PastTurn, Sampling, Turn
from kb.source import read_faqs
from reward.asking import ServerConfig
from reward.judge import Case
from reward.llm_judge import LLMJudge, LLMJudgeConfig
from reward.rubric import render_case
from service.wiring import SHIPPED_FAQS
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedPolicy
from tests.real_service import real_service
from tests.upstream import make_tiny_llama, serving

FAQS = read_faqs(SHIPPED_FAQS)
MESSAGES = [Message("system", "Be kind."), Message("user", "How much is the late fee?")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("model"), [faq.text for faq in FAQS])


@pytest.fixture(scope="module")
def upstream(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(model, tmp_path_factory.mktemp("upstream") / "log") as url:
        yield url


class OwnTokenizer:
    """A TokenCounter with the server's own tokenizer and chat template."""

    def __init__(self, model: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(model)

    def count(self, messages: Sequence[Message]) -> int:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        return len(self._tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"])

    def count_text(self, text: str) -> int:
        return len(self._tokenizer(text)["input_ids"])


def answer(client: OpenAIClient, messages: Sequence[Message], sampling: Sampling) -> list[Chunk]:
    async def collect() -> list[Chunk]:
        try:
            async with aclosing(client.stream(messages, sampling)) as chunks:
                return [chunk async for chunk in chunks]
        finally:
            await client.aclose()

    return asyncio.run(collect())


def test_an_answer_streams_and_its_usage_is_what_the_tokenizer_counts(upstream: str, model: Path) -> None:
    chunks = answer(OpenAIClient(OpenAIConfig(str(model), upstream)), MESSAGES, Sampling(max_tokens=8, temperature=0))
    assert len(chunks) > 2, "the answer must come in pieces"
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == "length"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.source) == (OwnTokenizer(model).count(MESSAGES), 8, "server")


def test_a_model_that_the_server_has_not_is_an_error_that_no_retry_mends(upstream: str) -> None:
    with pytest.raises(LLMError) as refusal:
        answer(OpenAIClient(OpenAIConfig("no/such-model", upstream)), MESSAGES, Sampling(max_tokens=2))
    assert not refusal.value.retryable


def test_a_server_that_is_not_there_is_an_error_that_a_retry_may_mend() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(LLMError) as refusal:
        answer(OpenAIClient(OpenAIConfig("m", url, max_retries=0)), MESSAGES, Sampling())
    assert refusal.value.retryable


def test_the_counterfactual_is_what_the_server_would_have_counted(upstream: str, model: Path) -> None:
    """Three turns, the second without fetching; then the server itself is sent each always-fetch prompt."""
    counter, client = OwnTokenizer(model), OpenAIClient(OpenAIConfig(str(model), upstream))
    retriever, settings = FakeRetriever(FAQS), PromptSettings()
    pipeline = TurnPipeline(retriever=retriever, policy=ScriptedPolicy((Action.FETCH, Action.NO_FETCH, Action.FETCH)), llm=client,
                            log=InMemoryLog(), counter=counter, prices={}, config=PipelineConfig(prompt=settings))

    async def converse() -> list[tuple[Turn, int | None]]:
        messages: list[Message] = []
        past: list[PastTurn] = []
        found: list[tuple[Turn, int | None]] = []
        for query in ("late payment fee", "is it the same on all cards", "annual fee"):
            messages.append(Message("user", query))
            async for event in pipeline.run(TurnRequest(tuple(messages), "o", "c", Sampling(max_tokens=4, temperature=0))):
                if isinstance(event, TurnFinished):
                    turn = event.turn
            before = past[-1].query if past else None
            hits = [hit.faq for hit in retriever.search(query, k=3, min_similarity=0.0, previous=before)]
            always = render_always_fetch(settings, past, hits, query)
            counted = [chunk.usage async for chunk in client.stream(always.messages, Sampling(max_tokens=1, temperature=0)) if chunk.usage]
            found.append((turn, counted[-1].input_tokens))
            messages.append(Message("assistant", turn.answer))
            past.append(PastTurn(query, turn.answer, turn.decision.action, tuple(hits), (), turn.cited))
        await client.aclose()
        return found

    turns = asyncio.run(converse())
    for turn, server_would_count in turns:
        logged = next(other for other in turn.counterfactuals if other.baseline == "always_fetch")
        assert logged.input_tokens == server_would_count
        assert turn.usage.source == "server"
    assert turns[0][0].saved_tokens == 0
    assert (turns[1][0].saved_tokens or 0) > 0


def test_a_judge_that_babbles_gives_no_verdict_and_is_counted_all_the_same(upstream: str, model: Path) -> None:
    cases = [Case("How much is the late fee?", (), FAQS[:2], f"It is {n} [late-fee].", ("late-fee",)) for n in range(3)]
    config = LLMJudgeConfig(ServerConfig(str(model), upstream, max_tokens=24), concurrency=2)
    judge = LLMJudge(config, prices={}, counter=OwnTokenizer(model))
    words = asyncio.run(judge.asked(cases))
    assert [(word.kind, word.verdict) for word in words] == [("missing", None)] * 3
    assert [word.usage.input_tokens if word.usage else None for word in words] == [
        OwnTokenizer(model).count(render_case(case)) for case in cases]
    assert judge.judge(cases) == (None, None, None)


def test_the_whole_service_over_a_real_server_passes_its_usage_on(
    upstream: str, model: Path, tmp_path: Path, helpdesk_index: Path
) -> None:
    settings = {"FETCHGATE_LLM_BASE_URL": upstream}
    with (
        real_service(tmp_path, "--kb", str(helpdesk_index), "--llm", "openai", "--model", str(model), env=settings) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="x") as sdk,
    ):
        ask: dict[str, Any] = {"model": "fetchgate", "max_tokens": 5,
                               "messages": [{"role": "user", "content": "How much is the late payment fee?"}]}
        whole = sdk.chat.completions.create(**ask)
        stream = list(sdk.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert whole.usage.completion_tokens == 5
    assert whole.choices[0].finish_reason == "length"
    assert whole.model_extra["fetchgate"]["usage"]["counted_by"] == "server"
    assert stream[-1].usage.prompt_tokens == whole.usage.prompt_tokens > 100, "three FAQs stand in the prompt"


def test_a_service_whose_upstream_is_gone_answers_503_with_a_time_to_come_back(tmp_path: Path, helpdesk_index: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    options = ("--kb", str(helpdesk_index), "--llm", "openai", "--model", "m")
    with real_service(tmp_path, *options, env={"FETCHGATE_LLM_BASE_URL": gone}) as url:
        response = httpx.post(f"{url}/v1/chat/completions", timeout=60,
                              json={"model": "fetchgate", "messages": [{"role": "user", "content": "late fee?"}]})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "llm_unavailable"
