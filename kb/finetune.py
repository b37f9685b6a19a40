"""An encoder tuned to its own FAQs: contrastive training on paraphrases and labelled queries.

InfoNCE (van den Oord et al. 2018, eq. 4) with in-batch and mined hard negatives, and a triplet loss to compare with, on the
sentence-transformers trainer. What is trained: a matrix on top of the frozen encoder (minutes on a CPU, small enough to ship), LoRA,
the top layers, or everything. Queries whose answers were judged are pairs too: what a good answer cited is a positive, what a bad one
cited a hard negative (Reward-RAG, Nguyen et al. 2024). Leaves out how examples are drawn (`pairs.py`) and thresholds (`calibrate.py`).
"""

import contextlib
import hashlib
import json
import logging
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import Tensor, nn

from kb.embedder import Embedder, EmbedderConfig, Vectors, load_embedder, load_torch, model_folder
from kb.errors import EmbedderError
from kb.pairs import SOME_FAQ, Examples, draw_pairs
from kb.tuned import Loss, Method, save_projection

logger = logging.getLogger(__name__)

LEARNING_RATES: dict[Method, float] = {"projection": 1e-3, "lora": 5e-4, "top-layers": 1e-4, "full": 5e-5}
DEV_METRIC = "dev_recall_at_1"
TRIPLET_MARGIN = 0.2
"""In cosine distance; the triplet loss's only setting."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How an encoder is tuned."""

    method: Method = "projection"
    loss: Loss = "infonce"
    epochs: int = 20
    """Times that each text is an anchor, at most; with other positives and negatives each time."""
    batch_size: int = 256
    """Pairs a step; every other FAQ in the batch is a negative. With LoRA and more, 32 to 64 fit a CPU."""
    learning_rate: float | None = None
    """None: the method's own (`LEARNING_RATES`)."""
    temperature: float = 0.1
    """Divides the cosines."""
    decay: float = 0.01
    """Of the projection: weight of its squared distance to the identity, which keeps what the encoder knew."""
    hard_negatives: int = 10
    """Nearest passages of other FAQs, of which one is drawn for each pair; 0: in-batch negatives alone."""
    top_layers: int = 2
    lora_rank: int = 16
    patience: int = 5
    """Evaluations on dev without a better recall@1 until training stops."""
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method: expected one of {', '.join(get_args(Method))}, got {self.method!r}")
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss: expected one of {', '.join(get_args(Loss))}, got {self.loss!r}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected above 0, got {self.learning_rate}")
        if self.epochs < 1 or self.batch_size < 2 or self.patience < 1:
            raise ValueError("epochs, batch_size, patience: expected at least 1, 2 and 1, got "
                             f"{self.epochs}, {self.batch_size} and {self.patience}")
        if self.top_layers < 1 or self.lora_rank < 1:
            raise ValueError(f"top_layers, lora_rank: expected at least 1, got {self.top_layers} and {self.lora_rank}")
        if not self.temperature > 0 or self.decay < 0 or self.hard_negatives < 0:
            raise ValueError("temperature, decay, hard_negatives: expected above 0, and from 0, got "
                             f"{self.temperature}, {self.decay} and {self.hard_negatives}")


def train_config(method: Method, *, epochs: int | None = None, batch_size: int | None = None, loss: Loss = "infonce",
                 learning_rate: float | None = None, seed: int = 0) -> TrainConfig:
    """The configuration that suits a method on a CPU, but for what is given."""
    few, small = (20, 256) if method == "projection" else (3, 32)
    return TrainConfig(method=method, loss=loss, epochs=few if epochs is None else epochs,
                       batch_size=small if batch_size is None else batch_size, learning_rate=learning_rate, seed=seed)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What came of a training."""

    recall_before: float
    """Recall@1 on the dev queries of the encoder as it was; nan without dev queries."""
    recall: float
    """Of the encoder that was kept: the best of those evaluated."""
    steps: int
    pairs: int


def finetune(model: str, examples: Examples, dev: Examples, folder: Path, config: TrainConfig, *, work: Path | None = None,
             embedder: Embedder | None = None) -> Tuning:
    """Tune the encoder of that name and write it to a folder, which is replaced at the end.

    `dev` stops training and chooses the step; without dev queries it is the last one. `work` keeps checkpoints: a run that was killed
    goes on there when it is called again with the same arguments. `embedder` is the encoder of that name where it is loaded already.
    Raises: EmbedderError when there is nothing to learn from, the loss isn't finite, the folder isn't one to replace, or `work` is of
    another run.
    """
    from sentence_transformers import SentenceTransformerTrainer

    _check_replaceable(folder, model)
    torch.manual_seed(config.seed)
    base = embedder or load_embedder(EmbedderConfig(model, config.max_tokens))
    texts = examples.all_texts(dev)
    vectors = dict(zip(texts, base.embed(texts), strict=True))
    pairs = draw_pairs(examples, vectors, rounds=config.epochs, hard=config.hard_negatives, rng=np.random.default_rng(config.seed))
    network = _network(model, vectors, base, config)
    loss = ContrastiveLoss(network, config)
    evaluator = DevRecall(examples, dev)
    before = evaluator.recall(network)
    with tempfile.TemporaryDirectory() as scratch:
        kept = work or Path(scratch)
        _claim(kept, {"model": base.model_id, "pairs": _hash(pairs), **asdict(config)})
        trainer = SentenceTransformerTrainer(
            network, _arguments(kept, config, len(pairs), evaluates=bool(dev.queries)), pairs, loss=loss,
            evaluator=evaluator if dev.queries else None, callbacks=_callbacks(config) if dev.queries else [])
        with contextlib.redirect_stdout(sys.stderr):  # where the trainer prints its losses; standard output is for data
            steps = trainer.train(resume_from_checkpoint=_last_checkpoint(kept)).global_step
        if best := trainer.state.best_model_checkpoint:
            trainer._load_from_checkpoint(best)  # the trainer tries too, and goes on with the last step where that fails
        recall = evaluator.recall(network)
        if recall < before:
            logger.warning("training lowered recall@1 on dev (%.3f, was %.3f); the encoder is written all the same", recall, before)
        _write(folder, network, model, base, config, {"recall_before": before, "recall": recall, "steps": steps, "pairs": len(pairs)})
    return Tuning(before, recall, steps, len(pairs))


class ContrastiveLoss(nn.Module):
    """InfoNCE or triplet loss over (anchor, positive, negative) texts with the FAQ of each."""

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, features: Sequence[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Labels, shape (B, 2): the FAQ of anchor and positive, and that of the negative (`pairs.py`)."""
        anchors, positives, negatives = (nn.functional.normalize(self.network(f)["sentence_embedding"], dim=-1) for f in features)
        if self.config.loss == "triplet":
            loss = triplet_loss(anchors, positives, negatives, margin=TRIPLET_MARGIN)
        else:
            loss = infonce_loss(anchors, torch.cat([positives, negatives]), labels, temperature=self.config.temperature)
        if self.config.method == "projection":
            matrix = self.network[1].linear.weight  # type: ignore[index]
            loss = loss + self.config.decay * (matrix - torch.eye(len(matrix), device=matrix.device)).square().sum()
        if not torch.isfinite(loss):
            raise EmbedderError("loss: expected a finite one, got NaN or infinity; lower the learning rate")
        return loss


def infonce_loss(anchors: Tensor, candidates: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Mean of `-log(exp(a p / t) / sum over p and the negatives of exp(a c / t))`, a scalar to minimise.

    Shapes: anchors (B, D), candidates (2B, D): the positives, then the negatives; labels (B, 2). Candidates of the anchor's own FAQ are no
    negatives, whichever pair they came with, nor are those of SOME_FAQ that came with another. Source: van den Oord et al. 2018, eq. 4;
    the masking is of supervised contrastive learning (Khosla et al. 2020).
    """
    logits = anchors @ candidates.T / temperature
    owners, came_with = labels.T.reshape(1, -1), torch.eye(len(anchors), dtype=torch.bool, device=logits.device).repeat(1, 2)
    positive = came_with & (torch.arange(owners.numel(), device=logits.device) < len(anchors))
    left_out = (labels[:, :1] == owners) & ~positive | (owners == SOME_FAQ) & ~came_with
    return nn.functional.cross_entropy(logits.masked_fill(left_out, -torch.inf), torch.arange(len(anchors), device=logits.device))


def triplet_loss(anchors: Tensor, positives: Tensor, negatives: Tensor, *, margin: float) -> Tensor:
    """Mean of `max(0, a n - a p + margin)`, shapes (B, D) of unit vectors (Schroff et al. 2015, eq. 3, in cosine distance)."""
    return ((anchors * negatives).sum(1) - (anchors * positives).sum(1) + margin).clamp(min=0).mean()


class DevRecall(BaseEvaluator):
    """Recall@1 on dev queries over the training FAQs' passages, for the trainer."""

    def __init__(self, examples: Examples, dev: Examples) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.primary_metric, self.greater_is_better = DEV_METRIC, True
        self._passages = examples.passages
        self._queries: dict[str, set[int]] = defaultdict(set)
        for text, number in dev.queries:
            self._queries[text].add(number)

    def __call__(self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1, **_: object) -> dict[str, float]:
        return {DEV_METRIC: self.recall(model)}

    def recall(self, model: Any) -> float:
        """Share of the dev queries whose nearest passage is of an FAQ that settles them; nan without dev queries."""
        if not self._queries:
            return float("nan")
        texts = [*(text for text, _ in self._passages), *self._queries]
        vectors = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        passages, queries = vectors[: len(self._passages)], vectors[len(self._passages) :]
        nearest = (queries @ passages.T).argmax(axis=1)
        return float(np.mean([self._passages[n][1] in numbers for n, numbers in zip(nearest, self._queries.values(), strict=True)]))


def _network(model: str, vectors: dict[str, Vectors], base: Embedder, config: TrainConfig) -> Any:
    """What is trained, as a SentenceTransformer whose other weights are frozen."""
    if config.method == "projection":
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Dense

        from kb.remembered import Remembered

        matrix = Dense(base.dimension, base.dimension, bias=False, activation_function=nn.Identity())
        with torch.no_grad():
            matrix.linear.weight.copy_(torch.eye(base.dimension))
        return SentenceTransformer(modules=[Remembered(vectors), matrix], device="cpu")
    network = load_torch(model_folder(model), "cpu")
    network.max_seq_length = min(config.max_tokens, network.max_seq_length or config.max_tokens)
    if config.method == "lora":
        from peft import LoraConfig, TaskType

        network.add_adapter(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=config.lora_rank, lora_alpha=2 * config.lora_rank,
                                       target_modules=["query", "key", "value", "dense"]))
    if config.method == "top-layers":
        layers = network[0].auto_model.encoder.layer
        network.requires_grad_(False)
        for layer in layers[-config.top_layers :]:
            layer.requires_grad_(True)
    return network


def _arguments(work: Path, config: TrainConfig, pairs: int, *, evaluates: bool) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    steps = max(1, -(-pairs // config.batch_size))
    often = max(1, steps // 10)
    return SentenceTransformerTrainingArguments(
        output_dir=str(work), num_train_epochs=1, per_device_train_batch_size=config.batch_size, seed=config.seed,
        learning_rate=config.learning_rate or LEARNING_RATES[config.method], lr_scheduler_type="cosine", warmup_steps=min(50, steps // 10),
        weight_decay=0.0, eval_strategy="steps" if evaluates else "no", eval_steps=often, save_strategy="steps", save_steps=often,
        save_total_limit=2, load_best_model_at_end=evaluates, metric_for_best_model=f"eval_{DEV_METRIC}" if evaluates else None,
        greater_is_better=True, restore_callback_states_from_checkpoint=True,  # the patience that a killed run had left
        logging_steps=often, report_to=[], dataloader_pin_memory=False,
    )


def _callbacks(config: TrainConfig) -> list[Any]:
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(early_stopping_patience=config.patience)]


def _claim(work: Path, run: dict[str, object]) -> None:
    """Mark the folder as this run's. Raises: EmbedderError when it holds the checkpoints of another."""
    work.mkdir(parents=True, exist_ok=True)
    mark, text = work / "run.json", json.dumps(run, indent=2) + "\n"
    if _last_checkpoint(work) is not None and (not mark.is_file() or mark.read_text(encoding="utf-8") != text):
        raise EmbedderError(f"{work}: expected the checkpoints of these FAQs, queries and settings, got those of others; "
                            "remove the folder, or choose another")
    mark.write_text(text, encoding="utf-8")


def _hash(pairs: Any) -> str:
    return hashlib.sha256(json.dumps([pairs[name][:] for name in pairs.column_names]).encode()).hexdigest()


def _last_checkpoint(work: Path) -> str | None:
    """The last checkpoint that was written to its end."""
    whole = [folder for folder in work.glob("checkpoint-*") if _is_whole(folder)]
    return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))) if whole else None


def _is_whole(checkpoint: Path) -> bool:
    """Whether the trainer's state, which is written last, is there to its closing bracket."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _check_replaceable(folder: Path, model: str) -> None:
    """Raises: EmbedderError when the folder may not be replaced by an encoder."""
    ours = any((folder / name).exists() for name in ("tuning.json", "modules.json"))
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise EmbedderError(f"{folder}: expected no such folder, or an encoder that may be replaced, got other files; choose another")
    if Path(model).expanduser().resolve() == folder.resolve():
        raise EmbedderError(f"{folder}: expected another folder than the encoder's that is tuned, which is needed later; choose another")


def _whole(network: Any, model: str) -> Any:
    """The encoder with its adapters' weights added to its own."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in network.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge()
    whole = load_torch(model_folder(model), "cpu")
    whole.max_seq_length = network.max_seq_length
    weights = {name.replace(".base_layer.", "."): weight for name, weight in network.state_dict().items() if ".lora_" not in name}
    whole.load_state_dict(weights)
    return whole


def _write(folder: Path, network: Any, model: str, base: Embedder, config: TrainConfig, figures: dict[str, float]) -> None:
    """Write the encoder beside the folder and then put it in its place."""
    if not all(torch.isfinite(weight).all() for weight in network.parameters()):
        raise EmbedderError("weights: expected finite ones, got NaN or infinity; lower the learning rate")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if config.method == "projection":
            save_projection(fresh, network[1].linear.weight.detach().cpu().numpy(), model=model, base_id=base.model_id)
        else:
            whole = _whole(network, model) if config.method == "lora" else network
            whole.save_pretrained(str(fresh), create_model_card=False)
        (fresh / "README.md").write_text(_card(folder.name, model, config, figures), encoding="utf-8")
        (fresh / "training.json").write_text(json.dumps({"config": asdict(config), **figures}, indent=2) + "\n", encoding="utf-8")
        fresh.chmod(0o755)
        old = fresh.with_name(f"{fresh.name}-old")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _card(name: str, model: str, config: TrainConfig, figures: dict[str, float]) -> str:
    return (f"# {name}\n\nAn encoder for FAQ retrieval: `{model}`, tuned by `fetchgate kb train` ({config.method}, {config.loss}, "
            f"seed {config.seed}) on {figures['pairs']} pairs.\n\nRecall@1 on its dev queries, vectors alone: {figures['recall']:.3f}, and "
            f"{figures['recall_before']:.3f} before training. For queries of yours, see `fetchgate evaluate retrieval`.\n")
