"""The local model, with a tiny one of random weights: real tokens, real generation, words without meaning."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
import torch

from chat.errors import LLMError
from chat.llm.generation import GumbelNoise, Speaker
from chat.llm.local import LocalClient, LocalConfig
from chat.llm.stopping import StopStrings
from chat.ports import Chunk
from chat.types import Message, Sampling
from tests.upstream import make_tiny_llama

CONTEXT = 1024
HELLO = (Message("system", "Answer."), Message("user", "How much is the late fee?"))
LINES = [f"The late fee of card {n} is ₹{n * 50} a month, and {n} points are lost when it isn't paid." for n in range(1, 80)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"), LINES, context=CONTEXT)


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LocalClient]:
    client = LocalClient(LocalConfig(str(folder), max_new_tokens=24))
    yield client
    client.close()


async def answer(llm: LocalClient, sampling: Sampling = Sampling(), *messages: Message) -> tuple[str, Chunk]:  # noqa: B008
    """The text and the last chunk."""
    *said, last = [chunk async for chunk in llm.stream(messages or HELLO, sampling)]
    assert all(chunk.text and chunk.finish_reason is None for chunk in said)
    return "".join(chunk.text for chunk in said), last


@pytest.mark.asyncio
async def test_greedy_text_is_the_models_own_streamed_in_pieces(llm: LocalClient, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    chat = [{"role": message.role, "content": message.content} for message in HELLO]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    ids = prompt
    for _ in range(24):  # one argmax after another, with nothing of `generate`
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    expected = ids[0, prompt.shape[1] :]
    assert tokenizer.eos_token_id not in expected.tolist(), "an early end would hide what comes after"

    pieces = [chunk async for chunk in llm.stream(HELLO, Sampling())]
    assert "".join(chunk.text for chunk in pieces) == tokenizer.decode(expected, skip_special_tokens=True)
    assert len(pieces) > 8
    usage = pieces[-1].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.source) == (prompt.shape[1], 24, "model")
    assert pieces[-1].finish_reason == "length"


@pytest.mark.asyncio
async def test_a_seed_fixes_a_sampled_text_whatever_else_draws(llm: LocalClient) -> None:
    drawing = threading.Event()

    def draw() -> None:
        while not drawing.is_set():
            torch.rand(10)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        first, again, other = [await answer(llm, Sampling(temperature=1.0, seed=seed)) for seed in (3, 3, 4)]
    finally:
        drawing.set()
        thread.join()
    assert first == again
    assert first[0] != other[0]


@pytest.mark.asyncio
async def test_generating_leaves_the_processs_random_state_alone(llm: LocalClient) -> None:
    before = torch.random.get_rng_state()
    await answer(llm, Sampling(temperature=1.0, seed=3))
    await answer(llm, Sampling(temperature=1.0))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.asyncio
async def test_temperature_zero_and_a_tiny_top_p_are_greedy(folder: Path, llm: LocalClient) -> None:
    sampling = LocalClient(LocalConfig(str(folder), max_new_tokens=24, strategy="sample", temperature=2.0))
    greedy = await answer(llm)
    assert await answer(sampling, Sampling(temperature=0.0)) == greedy
    assert await answer(sampling, Sampling(temperature=1.0, top_p=1e-6)) == greedy
    assert await answer(sampling, Sampling(seed=1)) != greedy
    sampling.close()


@pytest.mark.asyncio
async def test_two_unseeded_samples_differ(llm: LocalClient) -> None:
    # 24 tokens, each from hundreds of nearly equal ones: equal by chance less than once in 10^40 runs
    assert await answer(llm, Sampling(temperature=1.0)) != await answer(llm, Sampling(temperature=1.0))


def test_a_letter_of_several_tokens_is_said_when_it_is_whole() -> None:
    said: list[str] = []
    speaker = Speaker(lambda tokens: bytes(tokens).decode(errors="replace"), StopStrings([]), said.append)
    for token in ([1, 2, 3], *([byte] for byte in "₹5\nđ".encode()), [0xE2]):  # the prompt, then one byte at a time
        speaker.put(torch.tensor(token))
    assert said == ["₹", "5", "\n", "đ"]
    speaker.end()
    assert said[4:] == ["\N{REPLACEMENT CHARACTER}"], "what never became whole is said at the end"


def test_gumbel_noise_draws_from_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])
    draws = 40_000
    noisy = GumbelNoise(torch.Generator().manual_seed(5))(torch.empty(0), logits.expand(draws, -1))
    shares = torch.bincount(noisy.argmax(-1), minlength=5) / draws
    # seeded, so it fails always or never; 0.012 is five standard deviations of the largest share
    assert torch.allclose(shares, torch.softmax(logits, -1), atol=0.012)
    assert shares[4] == 0


@pytest.mark.asyncio
async def test_beam_search_gives_its_text_in_one_piece(folder: Path) -> None:
    beams = LocalClient(LocalConfig(str(folder), max_new_tokens=8, strategy="beam", num_beams=3))
    pieces = [chunk async for chunk in beams.stream(HELLO, Sampling())]
    assert len(pieces) == 2
    assert pieces[1].usage is not None
    assert pieces[1].usage.output_tokens == 8
    stop = pieces[0].text[3:6]
    assert (await answer(beams, Sampling(stop=(stop,))))[0] == pieces[0].text.partition(stop)[0]
    beams.close()


@pytest.mark.asyncio
async def test_max_tokens_ends_the_answer(llm: LocalClient) -> None:
    for limit in (1, 5):
        _, last = await answer(llm, Sampling(max_tokens=limit))
        assert last.usage is not None
        assert (last.finish_reason, last.usage.output_tokens) == ("length", limit)


@pytest.mark.asyncio
async def test_a_stop_string_ends_the_text_before_it_and_the_generation_with_it(llm: LocalClient) -> None:
    whole, _ = await answer(llm)
    stop = whole[len(whole) // 2 :][:4]
    text, last = await answer(llm, Sampling(stop=("never said", stop), max_tokens=2000))
    assert text == whole.partition(stop)[0]
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.output_tokens < 24


@pytest.mark.asyncio
async def test_an_end_token_ends_the_answer_and_is_not_shown(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    chat = [{"role": message.role, "content": message.content} for message in HELLO]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    model.generation_config.eos_token_id = [int(model(prompt).logits[0, -1].argmax()), tokenizer.eos_token_id]
    model.save_pretrained(tmp_path)
    ends = LocalClient(LocalConfig(str(tmp_path)))
    text, last = await answer(ends, Sampling(max_tokens=50))
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.output_tokens == 1
    assert len(text) < 20
    ends.close()


@pytest.mark.asyncio
async def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(llm: LocalClient) -> None:
    with pytest.raises(LLMError, match=rf"fewer than {CONTEXT} tokens, its context, got \d{{4,}}") as caught:
        await answer(llm, Sampling(), Message("user", "late fee " * CONTEXT))
    assert not caught.value.retryable
    assert (await answer(llm))[1].finish_reason == "length", "the next request is served"


@pytest.mark.asyncio
async def test_an_answer_ends_where_the_context_does(llm: LocalClient) -> None:
    _, last = await answer(llm, Sampling(max_tokens=CONTEXT), Message("user", " late" * (CONTEXT - 60)))
    assert last.usage is not None
    assert last.usage.input_tokens + last.usage.output_tokens == CONTEXT
    assert last.finish_reason == "length"


@pytest.mark.asyncio
async def test_a_reader_who_goes_away_ends_the_generation(llm: LocalClient) -> None:
    began = monotonic()
    await answer(llm, Sampling(max_tokens=300))
    whole = monotonic() - began
    stream = llm.stream(HELLO, Sampling(max_tokens=900))
    assert (await anext(stream)).text
    await stream.aclose()
    began = monotonic()
    await answer(llm, Sampling(max_tokens=1))
    assert monotonic() - began < whole, "it waited for the 900 tokens that nobody wants"


@pytest.mark.asyncio
async def test_requests_wait_in_line_and_one_that_gives_up_leaves_it(llm: LocalClient) -> None:
    long = llm.stream(HELLO, Sampling(max_tokens=CONTEXT - 100))
    await anext(long)
    waiting, leaving = (asyncio.create_task(answer(llm, Sampling(max_tokens=n))) for n in (2, 3))
    await asyncio.sleep(0)
    leaving.cancel()
    assert not waiting.done()
    await long.aclose()
    assert (await asyncio.wait_for(waiting, 10))[1].finish_reason == "length"
    with pytest.raises(asyncio.CancelledError):
        await leaving


@pytest.mark.asyncio
async def test_answers_at_once_are_those_given_one_by_one(llm: LocalClient) -> None:
    seeds = range(4)
    one_by_one = [await answer(llm, Sampling(temperature=1.0, seed=seed, max_tokens=8)) for seed in seeds]
    at_once = await asyncio.gather(*(answer(llm, Sampling(temperature=1.0, seed=seed, max_tokens=8)) for seed in seeds))
    assert at_once == one_by_one


@pytest.mark.asyncio
async def test_a_model_without_a_chat_template_gets_a_plain_transcript(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    make_tiny_llama(tmp_path, LINES)
    (tmp_path / "chat_template.jinja").unlink()
    plain = LocalClient(LocalConfig(str(tmp_path), max_new_tokens=2))
    _, last = await answer(plain)
    prompt = "system: Answer.\nuser: How much is the late fee?\nassistant:"
    assert last.usage is not None
    assert last.usage.input_tokens == len(AutoTokenizer.from_pretrained(tmp_path)(prompt)["input_ids"])
    plain.close()


@pytest.mark.asyncio
async def test_a_chat_template_that_refuses_the_prompt_is_quoted(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system message, please') }}", encoding="utf-8")
    picky = LocalClient(LocalConfig(str(tmp_path)))
    with pytest.raises(LLMError, match="no system message, please") as caught:
        await answer(picky)
    assert not caught.value.retryable
    picky.close()


def test_a_model_that_is_not_there_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for missing in (str(tmp_path / "nowhere"), "nobody/no-such-model", str(tmp_path)):
        with pytest.raises(LLMError, match=r"expected a causal language model.+model\.safetensors") as caught:
            LocalClient(LocalConfig(missing))
        assert not caught.value.retryable
        assert str(caught.value).startswith(missing)


def test_weights_that_are_damaged_or_pickled_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(LLMError):
        LocalClient(LocalConfig(str(tmp_path)))
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(LLMError):
        LocalClient(LocalConfig(str(tmp_path)))


def test_code_that_comes_with_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf-8")
    config = (tmp_path / "config.json").read_text(encoding="utf-8")
    auto_map = '"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "unheard_of"'
    (tmp_path / "config.json").write_text(config.replace('"model_type": "llama"', auto_map), encoding="utf-8")
    with pytest.raises(LLMError):
        LocalClient(LocalConfig(str(tmp_path)))
    assert not ran.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(LLMError, match="for the device cuda"):
        LocalClient(LocalConfig(str(folder), device="cuda"))


@pytest.mark.parametrize(("field", "value"), [
    ("max_new_tokens", 0), ("num_beams", 1), ("temperature", 0.0), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.5),
])
def test_a_setting_that_makes_no_sense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        LocalConfig("m", **{field: value})  # type: ignore[arg-type]
