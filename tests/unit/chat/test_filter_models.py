"""Filters by a model: a real classifier, trained here in a moment, and a real server on loopback that moderates."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chat.errors import FilterError
from chat.filter_models import OVERLAP, PIECE, ClassifierConfig, ClassifierFilter, ModerationConfig, ModerationFilter, category
from chat.types import Refusal
from tests.tiny_encoder import make_tiny_cross_encoder
from tests.unit.chat.llm.raw_server import Request, raw_server

# A classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes: texts of z are a threat, those of a are safe."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = make_tiny_cross_encoder(tmp_path_factory.mktemp("filter") / "zs", outputs=2)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model.config.id2label, model.config.label2id = {0: "safe", 1: "threat"}, {"safe": 0, "threat": 1}
    texts = ["a a a", "a", "aaa a a a a a", "z z z", "z", "zz z z z z z zz"]
    batch, labels = tokenizer(texts, padding=True, return_tensors="pt"), torch.tensor([0, 0, 0, 1, 1, 1])
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimiser.step()
    model.save_pretrained(folder)
    return folder


def test_a_classifier_refuses_the_harmful_class_and_passes_the_safe_one(classifier: Path) -> None:
    loaded = ClassifierFilter(ClassifierConfig(classifier))
    assert loaded.check("z z z", where="output") == Refusal("output", "threats", "classifier-zs")
    assert loaded.check("a a a", where="input") is None
    assert loaded.check("  ", where="input") is None


def test_a_harmful_end_of_a_long_text_is_seen(classifier: Path) -> None:
    loaded = ClassifierFilter(ClassifierConfig(classifier))
    assert loaded.check("a " * 300 + "z " * 60, where="output") is not None
    assert loaded.check("a " * 300, where="output") is None


def test_a_folder_without_safetensors_or_without_named_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="expected a folder with model.safetensors"):
        ClassifierFilter(ClassifierConfig(tmp_path))
    with pytest.raises(FilterError, match="expected classes with names"):
        ClassifierFilter(ClassifierConfig(make_tiny_cross_encoder(tmp_path / "unnamed", outputs=2)))


def test_a_folder_whose_config_is_no_classifiers_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_cross_encoder(tmp_path / "broken", outputs=2)
    (folder / "config.json").write_text("{}")
    with pytest.raises(FilterError, match="can't be loaded as a text classifier"):
        ClassifierFilter(ClassifierConfig(folder))


@pytest.mark.parametrize(("theirs", "ours"), [
    ("self-harm/intent", "self_harm"), ("sexual/minors", "sexual_minors"), ("sexual", "sexual"), ("violence/graphic", "threats"),
    ("harassment/threatening", "threats"), ("hate", "harassment"), ("illicit/violent", "fraud"), ("severe_toxic", "harassment"),
    ("spam", "spam"),
])
def test_others_names_of_classes_become_ours_where_we_have_one(theirs: str, ours: str) -> None:
    assert category(theirs) == ours


# A server that moderates


def result(**scores: float) -> dict[str, object]:
    return {"flagged": any(score > 0.5 for score in scores.values()), "categories": {name: score > 0.5 for name, score in scores.items()},
            "category_scores": scores}


def moderating(*results: dict[str, object]) -> Callable[[Request], Awaitable[None]]:
    async def answer(request: Request) -> None:
        given = results or (result(violence=0.1),) * len(request.body["input"])
        await request.refuse(200, {"id": "m", "model": "omni", "results": list(given)})

    return answer


async def check(text: str, answer: Callable[[Request], Awaitable[None]]) -> tuple[Refusal | None, list[Request]]:
    async with raw_server(answer) as server:
        moderation = ModerationFilter(ModerationConfig("omni", server.base_url, "key-1", timeout=2.0, max_retries=0))
        try:
            return await asyncio.to_thread(moderation.check, text, where="input"), server.requests
        finally:
            moderation.close()


@pytest.mark.asyncio
async def test_what_the_server_flags_is_refused_as_its_worst_category() -> None:
    refusal, requests = await check("hi", moderating(result(**{"harassment": 0.6, "self-harm": 0.9, "hate": 0.1})))
    assert refusal == Refusal("input", "self_harm", "moderations-omni")
    [request] = requests
    assert (request.path, request.body["model"], request.body["input"]) == ("/v1/moderations", "omni", ["hi"])
    assert request.headers["authorization"] == "Bearer key-1"


@pytest.mark.asyncio
async def test_what_the_server_does_not_flag_passes() -> None:
    assert (await check("hi", moderating()))[0] is None


@pytest.mark.asyncio
async def test_a_long_text_goes_in_pieces_that_overlap_and_the_worst_counts() -> None:
    text = "".join(chr(97 + n % 26) for n in range(2 * PIECE))
    refusal, requests = await check(text, moderating(result(hate=0.1), result(hate=0.1), result(hate=0.9)))
    assert refusal == Refusal("input", "harassment", "moderations-omni")
    first, second, third = requests[0].body["input"]
    assert (first[-OVERLAP:], second[-OVERLAP:]) == (second[:OVERLAP], third[:OVERLAP])
    assert first + second[OVERLAP:] + third[OVERLAP:] == text


@pytest.mark.asyncio
@pytest.mark.parametrize("body", ["not json", '{"results": 4}', '{"results": []}', '{"results": [{"flagged": true}]}'])
async def test_a_server_that_answers_something_else_is_a_filter_that_cannot_tell(body: str) -> None:
    async def answer(request: Request) -> None:
        await request.refuse(200, body)

    with pytest.raises(FilterError, match="moderations-omni"):
        await check("hi", answer)


@pytest.mark.asyncio
async def test_a_server_that_refuses_or_is_not_there_is_a_filter_that_cannot_tell() -> None:
    async def answer(request: Request) -> None:
        await request.refuse(500, {"error": {"message": "down"}})

    with pytest.raises(FilterError, match="can't be asked"):
        await check("hi", answer)
    gone = ModerationFilter(ModerationConfig("omni", "http://127.0.0.1:9/v1", timeout=1.0, max_retries=0))
    with pytest.raises(FilterError, match="FETCHGATE_FILTER_BASE_URL"):
        gone.check("hi", where="output")
    gone.close()
