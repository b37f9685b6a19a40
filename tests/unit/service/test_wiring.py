"""Which policy the settings name, and which of a learned one's own settings they leave in force."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from chat.errors import FilterError
from chat.filters import PatternFilter
from chat.pipeline import TurnFinished, TurnRequest
from chat.prompt import PromptSettings
from chat.types import Message, Refusal, Turn
from kb.source import write_faqs
from policy.checkpoint import PolicyRecord, save_policy
from policy.decide import DecisionConfig, NetworkPolicy
from policy.errors import CheckpointError
from policy.rules import AlwaysFetch, EvidenceRule, NeverFetch
from service.settings import DEFAULT_POLICY, Settings, read_settings
from service.wiring import Chat, build_chat, build_guard, build_policy, milvus_config, pipeline_config
from tests.conversation import FAQS
from tests.tiny_encoder import make_tiny_cross_encoder, make_tiny_encoder
from tests.tiny_gate import STATES, tiny_gate
from tests.unit.chat.llm.raw_server import Request, raw_server

TRAINED = PromptSettings(k=2, history_turns=3, history_faqs="cited", faq_turns=1, repeats=True)
KB = "kb-of-training"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PolicyRecord]:
    """A policy folder that skips everywhere, and its record."""
    folder = tmp_path_factory.mktemp("gate")
    network, _, tokenizer = tiny_gate(make_tiny_encoder(folder / "encoder"))
    record = PolicyRecord(network.config, DecisionConfig(skip_threshold=0.0, uncertainty_penalty=0.0), TRAINED, PromptSettings(k=1), seed=0,
                          preset="budget", static=True, data={"knowledge_base": KB})
    return folder / "gate", save_policy(folder / "gate", network, tokenizer, record, "# A card\n")


@pytest.mark.parametrize(("name", "policy"), [("always", AlwaysFetch()), ("never", NeverFetch()), ("evidence", EvidenceRule())])
def test_a_rule_is_had_by_its_name_and_has_no_record(name: str, policy: object) -> None:
    assert build_policy(read_settings(policy=name)) == (policy, None)


def test_zero_is_a_threshold_of_the_evidence_rule() -> None:
    assert build_policy(read_settings(policy="evidence", evidence_threshold=0.0)) == (EvidenceRule(0.0), None)


def test_the_default_policy_is_one_that_can_be_built() -> None:
    assert read_settings().policy == DEFAULT_POLICY
    assert build_policy(read_settings())[0].version


def test_a_folder_is_loaded_with_its_record_and_the_exploration_that_was_set(gate: tuple[Path, PolicyRecord]) -> None:
    """200 draws at 0.5: all alike with a chance of 1e-60."""
    folder, written = gate
    policy, record = build_policy(read_settings(policy=str(folder)))
    assert isinstance(policy, NetworkPolicy)
    assert (policy.version, record) == (written.version, written)
    assert {policy.decide(STATES[0]).behavior_prob for _ in range(20)} == {1.0}
    curious, _ = build_policy(read_settings(policy=str(folder), explore_to_fetch=0.5, explore_to_skip=0.25))
    assert {curious.decide(STATES[0]).behavior_prob for _ in range(5)} == {0.5}
    assert len({curious.decide(STATES[0]).action for _ in range(200)}) == 2


@pytest.mark.parametrize("name", ["explore_to_fetch", "explore_to_skip"])
@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_leaves_the_policy_no_chance_is_refused(name: str, rate: float) -> None:
    with pytest.raises(ValueError, match=f"FETCHGATE_{name.upper()}"):
        read_settings(**{name: rate})


def test_a_name_that_is_no_policy_is_refused_with_those_that_are() -> None:
    with pytest.raises(CheckpointError, match="policy: expected always, never, evidence, demo or a policy folder, got 'psychic'"):
        build_policy(read_settings(policy="psychic"))


def test_without_a_learned_policy_the_settings_are_served() -> None:
    config = pipeline_config(read_settings(k=4, faq_turns=1, static_threshold=0.8), None, KB)
    assert config.prompt == PromptSettings(k=4, history_turns=2, history_faqs="all", faq_turns=1, repeats=False)
    assert (config.static_threshold, config.calibrated_static) == (0.8, True)
    assert pipeline_config(read_settings(), None, KB).static_threshold is None


def test_a_learned_policy_serves_what_it_was_trained_for(gate: tuple[Path, PolicyRecord], caplog: pytest.LogCaptureFixture) -> None:
    config = pipeline_config(read_settings(), gate[1], KB)
    assert (config.prompt, config.calibrated_static) == (TRAINED, True)
    assert caplog.records == []


def test_what_is_set_goes_before_what_was_trained_even_where_it_is_the_default(
    gate: tuple[Path, PolicyRecord], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FETCHGATE_K", str(Settings.model_fields["k"].default))
    monkeypatch.setenv("FETCHGATE_REPEATS", "false")
    config = pipeline_config(read_settings(), gate[1], KB)
    assert config.prompt == replace(TRAINED, k=3, repeats=False)
    assert "its certificate isn't about that" in caplog.text


@pytest.mark.parametrize(("value", "threshold"), [("off", None), ("0.5", 0.5)])
def test_the_static_threshold_that_is_set_goes_before_the_calibrated_one(
    value: str, threshold: float | None, gate: tuple[Path, PolicyRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FETCHGATE_STATIC_THRESHOLD", value)
    assert pipeline_config(read_settings(), gate[1], KB).static_threshold == threshold
    assert pipeline_config(read_settings(), gate[1], "another").static_threshold == threshold


def test_static_answers_that_are_turned_off_are_not_what_the_certificate_is_about(
    gate: tuple[Path, PolicyRecord], caplog: pytest.LogCaptureFixture
) -> None:
    assert not pipeline_config(read_settings(static_answers="off"), gate[1], KB).calibrated_static
    assert "with static answers on, and the settings say" in caplog.text


def test_another_knowledge_base_than_the_one_of_the_training_is_said(
    gate: tuple[Path, PolicyRecord], caplog: pytest.LogCaptureFixture
) -> None:
    config = pipeline_config(read_settings(), gate[1], "another")
    assert (config.prompt, config.static_threshold) == (TRAINED, None)
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert f"was trained on knowledge base {KB}, and this is another" in warning.getMessage()
    assert "fetchgate evaluate gate" in warning.getMessage()


@pytest.fixture
def small(tmp_path: Path) -> Settings:
    """Settings of a service that is built in a moment."""
    write_faqs(tmp_path / "faqs.jsonl", FAQS)
    return read_settings(faqs=tmp_path / "faqs.jsonl", embedder=str(make_tiny_encoder(tmp_path / "encoder")), data_dir=tmp_path,
                         policy="always", min_similarity=-1.0)


async def ask(chat: Chat, *said: str) -> Turn:
    messages = tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(said))
    *_, last = [event async for event in chat.pipeline.run(TurnRequest(messages, "local", "c1"))]
    assert isinstance(last, TurnFinished)
    return last.turn


@pytest.mark.asyncio
async def test_a_reranker_that_is_set_orders_what_is_fetched(small: Settings, tmp_path: Path) -> None:
    reranker = str(make_tiny_cross_encoder(tmp_path / "cross"))
    plain, reranked = build_chat(small), build_chat(small.model_copy(update={"reranker": reranker}))
    hits = {(await ask(chat, "Where can I park?")).hits for chat in (plain, reranked)}
    assert len(hits) == 2
    assert len({frozenset(one) for one in hits}) == 1, "the same FAQs and similarities in another order"
    plain.close()
    reranked.close()


def test_a_learned_policy_was_trained_without_a_reranker(
    gate: tuple[Path, PolicyRecord], small: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reranker = str(make_tiny_cross_encoder(tmp_path / "cross"))
    build_chat(small.model_copy(update={"policy": str(gate[0]), "reranker": reranker})).close()
    assert "was trained on searches without a reranker" in caplog.text


@pytest.mark.asyncio
async def test_the_llm_that_is_set_rewrites_follow_ups_where_that_is_set(small: Settings) -> None:
    async def answer(request: Request) -> None:
        await request.begin_stream()
        await request.token("Where can I park on Sundays?")
        await request.token(None, "stop")
        await request.event("[DONE]")

    async with raw_server(answer) as server:
        openai = {"llm": "openai", "llm_model": "m", "llm_base_url": server.base_url}
        for rewrite, requests in (("off", 1), ("llm", 2)):
            server.requests.clear()
            chat = build_chat(small.model_copy(update={**openai, "rewrite": rewrite}))
            turn = await ask(chat, "Where can I park?", "Behind the house.", "And on Sundays?")
            assert (len(server.requests), turn.query, "rewrite" in turn.latency_ms) == (requests, "And on Sundays?", requests == 2)
            chat.close()


def test_rewriting_without_an_llm_is_refused(small: Settings) -> None:
    with pytest.raises(ValueError, match="rewrite: expected llm openai or local to rewrite with, got extractive; set FETCHGATE_LLM"):
        build_chat(small.model_copy(update={"rewrite": "llm"}))


def test_where_milvus_is_comes_from_the_settings_or_from_who_asks() -> None:
    settings = read_settings(milvus_uri="http://there:19530", milvus_token="root:secret", milvus_timeout=2.0)
    config = milvus_config(settings)
    assert (config.uri, config.collection, config.token, config.timeout) == ("http://there:19530", "fetchgate", "root:secret", 2.0)
    assert "root:" not in f"{settings!r} {config!r}"
    other = milvus_config(settings, "http://here:19530", "desk")
    assert (other.uri, other.collection) == ("http://here:19530", "desk")
    for uri, collection, says in (("", None, "uri: expected where Milvus is"), (None, "", "collection: expected at most 255 letters")):
        with pytest.raises(ValueError, match=says):
            milvus_config(settings, uri, collection)


def test_more_exchanges_with_faqs_than_are_rendered_are_refused() -> None:
    with pytest.raises(ValueError, match="faq_turns: expected 0 to history_turns"):
        pipeline_config(read_settings(history_turns=1, faq_turns=2), None, KB)


# What refuses


def test_patterns_refuse_unless_they_are_turned_off_and_then_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="service.wiring"):
        guard = build_guard(read_settings())
    assert guard is not None
    assert guard.version == PatternFilter().version
    assert f"filter {guard.version}" in caplog.text
    assert build_guard(read_settings(filter="off")) is None
    assert "harmful queries are answered" in caplog.text


def test_an_owners_words_and_contact_are_those_of_the_guard(tmp_path: Path) -> None:
    words = tmp_path / "words.json"
    words.write_text('{"texts": {"default": "No. {contact}"}, "rules": [{"category": "x", "where": "input", "patterns": ["dragon"]}]}')
    guard = build_guard(read_settings(filter_words=words, filter_contact="Ask Ann."))
    assert guard is not None
    assert guard.reply(Refusal("input", "x", "v")) == "No. Ask Ann."
    with pytest.raises(FilterError, match="check the path"):
        build_guard(read_settings(filter_words=tmp_path / "none.json"))


def test_a_model_stands_behind_the_patterns_and_must_be_named(tmp_path: Path) -> None:
    guard = build_guard(read_settings(filter="moderations", filter_base_url="http://127.0.0.1:9/v1"))
    assert guard is not None
    assert guard.version == f"{PatternFilter().version}+moderations-omni-moderation-latest"
    with pytest.raises(ValueError, match="FETCHGATE_FILTER_MODEL"):
        build_guard(read_settings(filter="model"))
    with pytest.raises(FilterError, match="expected a folder with model.safetensors"):
        build_guard(read_settings(filter="model", filter_model=str(tmp_path)))


@pytest.mark.asyncio
async def test_the_chat_that_is_built_refuses_by_default(small: Settings) -> None:
    chat = build_chat(small)
    try:
        turn = await ask(chat, "how can I clone a credit card")
    finally:
        chat.close()
    assert turn.refusal is not None
    assert (turn.refusal.where, turn.refusal.category) == ("input", "fraud")


def test_turns_are_compared_with_the_frugal_setting_of_their_policy_and_with_simpler_ways_to_save(gate: tuple[Path, PolicyRecord]) -> None:
    alone, learned = (pipeline_config(read_settings(holdback=0.2), record, KB) for record in (None, gate[1]))
    assert list(alone.baselines) == ["paper", "repeats", "one_faq", "no_history_faqs", "no_faqs"]
    assert list(learned.baselines) == ["paper", "frugal", "repeats", "one_faq", "no_history_faqs", "no_faqs"]
    assert learned.baselines["frugal"] == gate[1].frugal
    assert (alone.holdback, learned.holdback) == (0.2, 0.2)
