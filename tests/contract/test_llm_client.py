"""What every LLMClient keeps: pieces, one end that says why, limits, and that a reader may go away."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from chat.llm.extractive import ExtractiveClient
from chat.llm.local import LocalClient, LocalConfig
from chat.ports import Chunk, LLMClient
from chat.prompt import PAPER, render
from chat.types import Sampling
from kb.types import Faq
from tests.fakes import HashEmbedder, ScriptedLLM, WordCounter
from tests.upstream import make_tiny_llama

FAQS = (Faq("fee-late", "How much is the late fee?",
            "The late fee is 450 rupees. It is charged once. You may ask for one reversal a year."),)
MESSAGES = render(PAPER, (), FAQS, "How much is the late fee?").messages


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama"), [faq.text for faq in FAQS] * 50)


@pytest.fixture(params=["extractive", "local", "scripted"])
def client(request: pytest.FixtureRequest) -> LLMClient:
    if request.param == "extractive":
        return ExtractiveClient(HashEmbedder(), WordCounter())
    if request.param == "local":
        return LocalClient(LocalConfig(str(request.getfixturevalue("model")), max_new_tokens=24))
    return ScriptedLLM(("The late fee is 450 rupees and so on [fee-late].",))


def chunks_of(client: LLMClient, sampling: Sampling, limit: int | None = None) -> Sequence[Chunk]:
    async def collect() -> list[Chunk]:
        found: list[Chunk] = []
        async with aclosing(client.stream(MESSAGES, sampling)) as chunks:
            async for chunk in chunks:
                found.append(chunk)
                if len(found) == limit:
                    break
        return found

    return asyncio.run(collect())


def test_exactly_the_last_chunk_says_why_the_answer_ended_and_what_it_cost(client: LLMClient) -> None:
    chunks = chunks_of(client, Sampling())
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason in ("stop", "length")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.input_tokens > 0
    assert chunks[-1].usage.output_tokens > 0
    assert "".join(chunk.text for chunk in chunks)


def test_an_answer_over_the_limit_is_cut_and_says_so(client: LLMClient) -> None:
    whole, cut = chunks_of(client, Sampling(temperature=0)), chunks_of(client, Sampling(max_tokens=3, temperature=0))
    assert cut[-1].finish_reason == "length"
    assert len("".join(chunk.text for chunk in cut)) < len("".join(chunk.text for chunk in whole))


def test_the_same_prompt_without_chance_gives_the_same_answer(client: LLMClient) -> None:
    first, second = (chunks_of(client, Sampling(max_tokens=8, temperature=0)) for _ in range(2))
    assert "".join(chunk.text for chunk in first) == "".join(chunk.text for chunk in second)


def test_a_reader_that_goes_away_leaves_a_client_that_answers_the_next(client: LLMClient) -> None:
    assert len(chunks_of(client, Sampling(temperature=0), limit=1)) == 1
    assert chunks_of(client, Sampling(temperature=0))[-1].finish_reason is not None


def test_a_model_has_a_name(client: LLMClient) -> None:
    assert client.model
