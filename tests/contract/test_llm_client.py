"""What every LLMClient must do: the server's client, the local model, the extractive answerer and the scripted fake alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from chat.llm.extractive import ExtractiveClient
from chat.llm.openai import OpenAIClient, OpenAIConfig
from chat.ports import Chunk, LLMClient
from chat.prompt import PAPER, render
from chat.types import Message, Sampling
from kb.types import Faq
from tests.fakes import HashEmbedder, ScriptedLLM, WordCounter
from tests.unit.chat.llm.raw_server import Request, raw_server
from tests.upstream import make_tiny_llama

FAQ = Faq("fee-late", "How much is the late fee?", "The late fee is ₹450 a month on every card. It can be waived once a year.")
PROMPT = render(PAPER, (), [FAQ], "How much is the late fee?").messages
ANSWER = "The late fee is ₹450 a month. [fee-late]"
LINES = [f"The late fee of card {n} is ₹{n * 50} a month." for n in range(1, 60)]

pytestmark = pytest.mark.asyncio


async def serve(request: Request) -> None:
    """A server's answer, word by word, that honours `max_tokens` as if a word were a token."""
    words = ANSWER.split(" ")[: request.body.get("max_tokens", 99)]
    await request.begin_stream()
    for n, word in enumerate(words):
        await request.token(word if n == 0 else f" {word}")
    await request.token(None, "stop" if len(words) == len(ANSWER.split(" ")) else "length",
                        usage={"prompt_tokens": 40, "completion_tokens": len(words)})
    await request.event("[DONE]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"), LINES)


@pytest_asyncio.fixture(params=["openai", "local", "extractive", "scripted"])
async def llm(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[LLMClient]:
    if request.param == "openai":
        async with raw_server(serve) as server:
            remote = OpenAIClient(OpenAIConfig("m", server.base_url, max_retries=0))
            yield remote
            await remote.aclose()
    elif request.param == "local":
        from chat.llm.local import LocalClient, LocalConfig

        local = LocalClient(LocalConfig(str(folder), max_new_tokens=12))
        yield local
        local.close()
    elif request.param == "extractive":
        yield ExtractiveClient(HashEmbedder(), WordCounter())
    else:
        yield ScriptedLLM([ANSWER])


async def chunks(llm: LLMClient, sampling: Sampling = Sampling(), messages: tuple[Message, ...] = PROMPT) -> list[Chunk]:  # noqa: B008
    return [chunk async for chunk in llm.stream(messages, sampling)]


def text(answer: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in answer)


async def test_it_names_its_model(llm: LLMClient) -> None:
    assert llm.model.strip()


async def test_the_answer_comes_in_pieces_and_only_the_last_says_why_it_ended(llm: LLMClient) -> None:
    *said, last = await chunks(llm)
    assert len(said) > 2
    assert all(chunk.text and chunk.finish_reason is None and chunk.usage is None for chunk in said)
    assert last.finish_reason in ("stop", "length")


async def test_the_usage_counts_both_sides(llm: LLMClient) -> None:
    usage = (await chunks(llm))[-1].usage
    assert usage is not None
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0
    assert usage.cached_input_tokens is None or 0 <= usage.cached_input_tokens <= usage.input_tokens
    assert usage.source in ("server", "model", "local")


async def test_max_tokens_is_the_most_that_is_said_and_shows_as_length(llm: LLMClient) -> None:
    whole = text(await chunks(llm))
    answer = await chunks(llm, Sampling(max_tokens=3))
    assert whole.startswith(text(answer))
    assert len(text(answer)) < len(whole)
    assert answer[-1].finish_reason == "length"
    assert answer[-1].usage is not None
    assert 0 < answer[-1].usage.output_tokens <= 3


async def test_the_same_question_gets_the_same_answer_and_keeps_nothing_of_the_one_before(llm: LLMClient) -> None:
    first = await chunks(llm)
    await chunks(llm, messages=(Message("user", "Something else entirely?"),))
    assert text(await chunks(llm)) == text(first)


async def test_a_reader_may_go_away_and_the_next_one_is_served(llm: LLMClient) -> None:
    whole = text(await chunks(llm))
    async with aclosing(llm.stream(PROMPT, Sampling())) as stream:
        begun = await anext(stream)
    assert whole.startswith(begun.text)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert text(await asyncio.wait_for(chunks(llm), 30)) == whole


async def test_a_stream_that_nobody_reads_does_nothing(llm: LLMClient) -> None:
    await llm.stream(PROMPT, Sampling()).aclose()
    assert text(await chunks(llm))


async def test_many_readers_at_once_get_whole_answers(llm: LLMClient) -> None:
    alone = text(await chunks(llm))
    answers = await asyncio.gather(*(chunks(llm) for _ in range(5)))
    assert [text(answer) for answer in answers] == [alone] * 5


async def test_a_cancelled_reader_is_cancelled(llm: LLMClient) -> None:
    async def read_slowly() -> None:
        async for _ in llm.stream(PROMPT, Sampling()):
            await asyncio.Event().wait()

    reading = asyncio.create_task(read_slowly())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert text(await asyncio.wait_for(chunks(llm), 30))
