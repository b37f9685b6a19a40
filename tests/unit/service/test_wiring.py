"""Which policy the settings name, and which of a learned one's own settings they leave in force."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from chat.prompt import PromptSettings
from policy.checkpoint import PolicyRecord, save_policy
from policy.decide import DecisionConfig, NetworkPolicy
from policy.errors import CheckpointError
from policy.rules import AlwaysFetch, EvidenceRule, NeverFetch
from service.settings import DEFAULT_POLICY, Settings, read_settings
from service.wiring import build_policy, pipeline_config
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_gate import STATES, tiny_gate

TRAINED = PromptSettings(k=2, history_turns=3, history_faqs="cited", faq_turns=1, repeats=True)
KB = "kb-of-training"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PolicyRecord]:
    """A policy folder that skips everywhere, and its record."""
    folder = tmp_path_factory.mktemp("gate")
    network, _, tokenizer = tiny_gate(make_tiny_encoder(folder / "encoder"))
    record = PolicyRecord(network.config, DecisionConfig(skip_threshold=0.0, uncertainty_penalty=0.0), TRAINED, PromptSettings(k=1), seed=0,
                          preset="budget", static_threshold=0.9, data={"knowledge_base": KB})
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
    assert config.static_threshold == 0.8
    assert pipeline_config(read_settings(), None, KB).static_threshold is None


def test_a_learned_policy_serves_what_it_was_trained_for(gate: tuple[Path, PolicyRecord], caplog: pytest.LogCaptureFixture) -> None:
    config = pipeline_config(read_settings(), gate[1], KB)
    assert (config.prompt, config.static_threshold) == (TRAINED, 0.9)
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


def test_on_another_knowledge_base_nothing_is_calibrated_and_that_is_said(
    gate: tuple[Path, PolicyRecord], caplog: pytest.LogCaptureFixture
) -> None:
    config = pipeline_config(read_settings(), gate[1], "another")
    assert (config.prompt, config.static_threshold) == (TRAINED, None)
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert f"was trained on knowledge base {KB}, and this is another" in warning.getMessage()
    assert "fetchgate evaluate gate" in warning.getMessage()


def test_more_exchanges_with_faqs_than_are_rendered_are_refused() -> None:
    with pytest.raises(ValueError, match="faq_turns: expected 0 to history_turns"):
        pipeline_config(read_settings(history_turns=1, faq_turns=2), None, KB)
