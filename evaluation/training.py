"""From labelled sessions to a policy folder: settings chosen on dev, states of both arms, training, a certified threshold, a card.

Puts together what may not know each other: replays and judges give the states and verdicts, `reward/` makes rewards of them, `policy/`
learns. Leaves out the command (`service/cli/policy.py`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from chat.plan import PipelineConfig
from chat.prompt import PromptSettings
from evaluation.card import model_card
from evaluation.certify import Certificate
from evaluation.datasets import TRAINING_SPLITS, Session
from evaluation.errors import EvaluationError
from evaluation.frugal import frugal, sweep
from evaluation.gate import figures, measure
from evaluation.graph import state_graph
from evaluation.rollout import World, always, replays, with_setting
from evaluation.thresholds import BUDGET, certified_skips
from evaluation.trainers_judge import Trust, foreseen, trust
from kb.retriever import FaqRetriever
from policy.checkpoint import PolicyRecord, SkipCertificate, load_policy, save_policy
from policy.decide import DecisionConfig, NetworkPolicy
from policy.encoding import StateEncoder
from policy.graph import FETCH, NO_FETCH, Floats, StateGraph
from policy.inputs import Inputs, TextReader, prepare
from policy.network import GateNetwork, NetworkConfig, build_network
from policy.train import Epoch, Rewards, TrainConfig, TrainResult, epoch_objects, train
from reward.agreement import MINIMUM_KAPPA, accept
from reward.judge import Judge
from reward.shaping import BudgetRewards, FixedRewards, budget_rewards, fixed_rewards, preset, unsafe_at_floor

Report = Callable[[Epoch], None]
COLUMN = "column"
"""Preset of rewards that stand in the sessions themselves."""


@dataclass(frozen=True, slots=True)
class GateConfig:
    """What is trained, and how it decides."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    preset: str = "budget"
    budget: float = BUDGET
    """Harmful share of the skips that the threshold is to be certified for, in (0, 1)."""
    prompt: PromptSettings | None = None
    """The gate's prompt setting; None: the frugal one, which dev chooses."""
    static: bool = False
    """Whether the FAQs that the knowledge base's calibration is certain of answer by themselves, before the gate is asked."""


def gate_config(name: str = "budget", budget: float = BUDGET) -> GateConfig:
    """The configuration that goes with a reward preset; `kulkarni2024` is the paper's: text alone, read at [CLS], REINFORCE with gamma
    and entropy 0.1, dropout in the whole network."""
    if name != "kulkarni2024":
        return GateConfig(preset=name, budget=budget)
    network = NetworkConfig(pooling="cls", trainable="lora", evidence=False, previous_queries=2, text_dropout=0.1, text_width=64)
    train = TrainConfig(objective="reinforce", gamma=0.1, entropy_coef=0.1)
    return GateConfig(network, train, DecisionConfig(mc_dropout="all"), name, budget)


@dataclass(frozen=True, slots=True)
class GateData:
    """Sessions by their use, and the world that they are played in."""

    train: tuple[Session, ...]
    dev: tuple[Session, ...]
    calibration: tuple[Session, ...]
    world: World
    """Its prompt setting and static answers are replaced by what is chosen here."""
    retriever: FaqRetriever
    judge: Judge | None = None
    """Whose verdicts train and calibrate; None: the world's, which measures in any case."""
    minimum_kappa: float | None = MINIMUM_KAPPA
    """Agreement with the world's judge that `judge` must have on train and dev; None: it trains whatever it has."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What all seeds share."""

    data: GateData
    frugal: PromptSettings
    prompt: PromptSettings
    graphs: Mapping[str, StateGraph]
    """By split."""
    baseline_tokens: Mapping[str, Floats]
    """Tokens of each state's turn under `frugal`, shape (N,)."""
    trust: Trust | None = None
    """How far the judge is believed; None: the world's own judged, by labels."""
    texts: dict[NetworkConfig, TextReader] = field(default_factory=dict)


def prepared(data: GateData, config: GateConfig, progress: Callable[[int], None] | None = None, *,
             chosen: PromptSettings | None = None) -> Prepared:
    """Choose the frugal setting on dev unless it is given, and lay out the states of every split. `progress` is told of each
    conversation.

    Raises: JudgeRefusedError when the data's judge agrees too little with the labels of train and dev, or they have none to tell by.
    """
    chosen = chosen or frugal(sweep(data.dev, data.world))
    prompt = config.prompt or chosen
    world = _served(data.world, prompt, config)
    graphs: dict[str, StateGraph] = {}
    tokens: dict[str, Floats] = {}
    for split in TRAINING_SPLITS:
        sessions: tuple[Session, ...] = getattr(data, split)
        graphs[split] = state_graph(replays(sessions, world), progress)
        tokens[split] = _baseline_tokens(graphs[split], sessions, with_setting(data.world, chosen))
    if data.judge is None:
        return Prepared(data, chosen, prompt, graphs, tokens)
    judged = _judged(data, data.judge, world)
    return Prepared(data, chosen, prompt, judged, tokens, _trusted(data, judged, graphs))


def rewards_of(name: str, baseline: Mapping[int, Floats]) -> Rewards:
    """The reward table of a preset. `baseline` holds each graph's baseline tokens by the graph's identity.

    Raises: EvaluationError for a preset whose verdicts no reference judge gives.
    """
    chosen = preset(name)

    def table(graph: StateGraph, multiplier: float) -> Floats:
        rewards = by_quality(graph, multiplier)
        if graph.safe is None:
            return rewards
        return unsafe_at_floor(chosen, rewards, safe_skip=graph.safe[:, NO_FETCH], safe_fetch=graph.safe[:, FETCH])

    def by_quality(graph: StateGraph, multiplier: float) -> Floats:
        skip, fetch = graph.good[:, NO_FETCH], graph.good[:, FETCH]
        if isinstance(chosen, BudgetRewards):
            return budget_rewards(chosen, good_skip=skip, good_fetch=fetch, skip_tokens=graph.tokens[:, NO_FETCH],
                                  fetch_tokens=graph.tokens[:, FETCH], baseline_tokens=baseline[id(graph)], multiplier=multiplier)
        if isinstance(chosen, FixedRewards):
            return fixed_rewards(chosen, good_skip=skip)
        raise EvaluationError(f"preset: expected one that Good and Bad are enough for, got {name!r}, which needs a judge that says whether "
                              "an answer hedges; choose budget, kulkarni2024 or symmetric")

    return table


def column_rewards(sessions: Sequence[Session]) -> Rewards:
    """The rewards that the sessions' own column holds, whatever was taken before. Raises: EvaluationError when there is none."""
    if not any(turn.rewards for session in sessions for turn in session.turns):
        raise EvaluationError(f"preset {COLUMN}: expected turns with `rewards`, got none; add the column or choose another preset")
    missing = (np.nan, np.nan)

    def table(graph: StateGraph, multiplier: float) -> Floats:
        where = zip(graph.conversations, graph.turns, strict=True)
        return np.array([sessions[conversation].turns[turn].rewards or missing for conversation, turn in where], dtype=float)

    return table


def trained(ready: Prepared, config: GateConfig, *, keep: Path | None = None,
            report: Report | None = None) -> tuple[GateNetwork, Any, TextReader, TrainResult]:
    """A network trained on the train split, with its tokenizer."""
    network, tokenizer = build_network(config.network, seed=config.train.seed)
    texts = _text_reader(ready, config.network, tokenizer)
    graphs = ready.graphs
    prepare(network, texts, graphs["train"].states)
    if config.preset == COLUMN:
        rewards = column_rewards(ready.data.train)
    else:
        rewards = rewards_of(config.preset, {id(graphs[split]): tokens for split, tokens in ready.baseline_tokens.items()})
    done = train(network, texts, graphs["train"], graphs["dev"], rewards, config.train, config.decision, keep=keep, report=report)
    return network, tokenizer, texts, done


def train_gate(ready: Prepared, config: GateConfig, out: Path, *, report: Report | None = None) -> PolicyRecord:
    """Train a gate, certify its threshold on the calibration split, and write its folder.

    A training that was killed goes on where it stood. The folder that was there is replaced only by a whole new one.
    """
    network, tokenizer, texts, done = trained(ready, config, keep=out.with_name(f".{out.name}.training"), report=report)
    calibration = ready.graphs["calibration"]
    # the very scores that will be served: dropout in the whole network is not what `Inputs` estimates cheaply
    served = NetworkPolicy(network, texts.encoder, config.decision, "unnamed")
    scores = (served.scores(calibration.states) if config.decision.mc_dropout == "all"
              else Inputs(network, texts, calibration.states).scores(network, config.decision))
    overlooked = ready.trust.false_good_rate if ready.trust else 0.0
    found = certified_skips(calibration, scores, budget=config.budget, false_good_rate=overlooked, unjudged_is_harm=ready.trust is not None)
    # the scores that serving computes differ from these in the last bits, as batches are padded: a hair's room
    threshold = found.tested[-1][0] if found.threshold is None and found.tested else found.threshold
    decision = replace(config.decision, skip_threshold=1.01 if threshold is None else float(threshold) - 1e-6)
    record = PolicyRecord(
        config.network, decision, ready.prompt, ready.frugal, config.train.seed, config.preset, config.static,
        _claim(found), _hashes(ready.data), {"config": asdict(config.train), "best": done.best, "epochs": epoch_objects(done.epochs)},
    )
    written = save_policy(out, network, tokenizer, record, "")
    policy, _ = load_policy(out)
    world = _served(ready.data.world, ready.prompt, config)
    measured = {"dev": figures(measure(ready.data.dev, world, [policy], ready.frugal))}
    final = replace(record, metrics=measured)
    return save_policy(out, network, tokenizer, final, model_card(replace(written, metrics=measured)))


def _served(world: World, prompt: PromptSettings, config: GateConfig) -> World:
    """The world as the gate will be served."""
    return replace(world, config=PipelineConfig(prompt=prompt, baselines={}, calibrated_static=config.static))


def _text_reader(ready: Prepared, network: NetworkConfig, tokenizer: Any) -> TextReader:
    """The reading of texts that all networks share whose encoders read alike."""
    alike = NetworkConfig(encoder=network.encoder, pooling=network.pooling, trainable=network.trainable, top_layers=network.top_layers,
                          previous_queries=network.previous_queries, max_tokens=network.max_tokens)
    return ready.texts.setdefault(alike, TextReader(StateEncoder(tokenizer, network.max_tokens, network.previous_queries)))


def _baseline_tokens(graph: StateGraph, sessions: Sequence[Session], world: World) -> Floats:
    by_turn = [[arm.tokens for arm in always(replay)] for replay in replays(sessions, world)]
    return np.array([by_turn[conversation][turn] for conversation, turn in zip(graph.conversations, graph.turns, strict=True)], dtype=float)


def _claim(found: Certificate) -> SkipCertificate | None:
    if not found.tested:
        return None
    bound = found.bound or found.tested[-1][1]
    return SkipCertificate(found.budget, found.threshold is not None, bound.upper_conversation, bound.upper_turn, bound.skips,
                           bound.conversations, found.more_needed)


def _hashes(data: GateData) -> dict[str, str]:
    """What it was trained on."""
    found = {split: hashlib.sha256(repr(getattr(data, split)).encode()).hexdigest() for split in TRAINING_SPLITS}
    return found | {"knowledge_base": data.retriever.version, "judge": (data.judge or data.world.judge).version}


def _judged(data: GateData, judge: Judge, world: World) -> dict[str, StateGraph]:
    """The states of every split with the judge's verdicts in place of the labels'."""
    known = foreseen(judge, [session for split in TRAINING_SPLITS for session in getattr(data, split)], world)
    return {split: state_graph(replays(getattr(data, split), replace(world, judge=known))) for split in TRAINING_SPLITS}


def _trusted(data: GateData, judged: Mapping[str, StateGraph], labelled: Mapping[str, StateGraph]) -> Trust:
    """What the judge is worth on train and dev, of which calibration must know nothing."""
    assert data.judge is not None, "asked about a judge of one's own only"
    worth = [trust(judged[split], labelled[split], data.judge.version, data.world.judge.version) for split in ("train", "dev")]
    if data.minimum_kappa is not None:
        for found in worth:
            accept(found.agreement, data.minimum_kappa)
    return max(worth, key=lambda found: found.false_good_rate)
