"""`evaluate gate`: a policy by name or folder, on sessions, as one JSON object."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from chat.plan import PipelineConfig
from chat.ports import Policy
from chat.prompt import PromptSettings
from evaluation.datasets import HELPDESK, Session, read_helpdesk, read_sessions
from evaluation.errors import DatasetError, EvaluationError
from evaluation.frugal import frugal, sweep
from evaluation.gate import figures, measure, oracles
from evaluation.rollout import World
from evaluation.world import load_knowledge, make_world, read_queries
from policy.checkpoint import RECORD, PolicyRecord, load_policy
from policy.rules import RULES
from policy.shipped import policy_folder
from reward.judge import Gold
from reward.readers import ReaderName


@dataclass(frozen=True, slots=True)
class GateRun:
    """What to evaluate, on what."""

    data: Path
    policy: str
    """always, never, evidence, demo, a policy folder, or a folder of seed-N policy folders."""
    kb: Path | None = None
    """Index folder; None: `faqs.jsonl` in the data folder, else the help desk's."""
    static: Literal["off", "calibrated"] = "off"
    reader: ReaderName = "ideal"
    gold: Gold = "any"
    seeds: int = 1


def evaluate_gate(run: GateRun) -> dict[str, Any]:
    """Every figure of the run. Raises: EvaluationError, KbError, PolicyError."""
    sessions = read_sessions(run.data / "sessions.jsonl")
    faqs = run.data / "faqs.jsonl" if (run.data / "faqs.jsonl").exists() else None
    if run.kb is None and faqs is None and not run.data.resolve().is_relative_to(HELPDESK.resolve()):
        raise DatasetError(f"{run.data}: expected faqs.jsonl beside sessions.jsonl, got none; give the knowledge base with --kb")
    policies, record = load_policies(run.policy, run.seeds)
    embedder, retriever = load_knowledge(run.kb, faqs)
    read_queries(embedder, sessions)
    world = make_world(embedder, retriever, reader=run.reader, gold=run.gold)
    against, chosen_on = _frugal(record, sessions, world, retriever.version)
    if run.static == "calibrated" and retriever.calibration is None:
        raise EvaluationError("static: expected a calibrated knowledge base, got one that isn't; run `fetchgate kb calibrate` on its index "
                              "folder and give that with --kb, or leave --static off")
    prompt = against if record is None else record.prompt
    played = replace(world, config=PipelineConfig(prompt=prompt, baselines={}, calibrated_static=run.static == "calibrated"))
    measured = measure(sessions, played, policies, against)
    found = figures(measured)
    slices = found.pop("slices")
    return {
        "dataset": run.data.resolve().name, "policy": run.policy, "reader": run.reader, "gold": run.gold, "seeds": len(policies),
        "policy_versions": [policy.version for policy in policies], "setting": _shown(prompt), "frugal": _shown(against),
        "frugal_chosen_on": chosen_on, "static": run.static, **found, **oracles(sessions, played, measured.frugal), "slices": slices,
    }


def load_policies(name: str, seeds: int = 1) -> tuple[list[Policy], PolicyRecord | None]:
    """The policy of a name or folder, or several seeds of it, and the record of the first one; None for a rule.

    Raises: CheckpointError; EvaluationError when fewer seeds are there than asked for.
    """
    if name in RULES:
        return [RULES[name]()], None
    folder = policy_folder(name, *RULES)
    folders = [folder] if (folder / RECORD).exists() else sorted(folder.glob(f"seed-*/{RECORD}"), key=_seed)
    folders = [one.parent if one.name == RECORD else one for one in folders][:seeds]
    if len(folders) < seeds:
        raise EvaluationError(f"{name}: expected {seeds} trained seeds in folders seed-N, got {len(folders)}; train them with "
                              f"`fetchgate policy train --seeds {seeds} --out {name}`, or ask for fewer")
    loaded = [load_policy(one) for one in folders]
    return [policy for policy, _ in loaded], loaded[0][1]


def _seed(record: Path) -> int:
    number = record.parent.name.removeprefix("seed-")
    return int(number) if number.isdigit() else -1


def _frugal(record: PolicyRecord | None, sessions: Sequence[Session], world: World, kb_version: str) -> tuple[PromptSettings, str]:
    """The frugal setting, and what chose it: dev where the policy or the help desk has one, else these very sessions, which favours it."""
    if record is not None and record.data.get("knowledge_base") == kb_version:
        return record.frugal, "dev"
    try:
        return frugal(sweep(read_helpdesk("dev"), world)), "dev"
    except DatasetError:  # another knowledge base: the help desk's labels aren't about it
        return frugal(sweep(sessions, world)), "these sessions"


def _shown(setting: PromptSettings) -> dict[str, Any]:
    turns = setting.history_turns if setting.faq_turns is None else setting.faq_turns
    return {"k": setting.k, "history_faqs": setting.history_faqs, "faq_turns": turns, "repeats": setting.repeats}
