"""Filters by a model: a text classifier in this process, or the `/moderations` of an OpenAI-compatible server.

Both stand behind the patterns, never in their place (`guard.py`), and both raise FilterError where they can't tell. A long text is cut
into pieces that overlap, and the worst piece counts. Leaves out training a classifier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chat.errors import FilterError
from chat.types import Refusal, Where

HARMLESS = frozenset("safe neutral ok none normal clean benign harmless non_toxic not_toxic nontoxic not_harmful not_hate".split())
"""Names of classes that refuse nothing."""
OURS = (("sexual_minors", "sexual_minors"), ("csam", "sexual_minors"), ("self_harm", "self_harm"), ("suicide", "self_harm"),
        ("illicit", "fraud"), ("fraud", "fraud"), ("violence", "threats"), ("threat", "threats"), ("harassment_threatening", "threats"),
        ("hate_threatening", "threats"), ("sexual", "sexual"), ("obscene", "sexual"), ("hate", "harassment"), ("harassment", "harassment"),
        ("insult", "harassment"), ("toxic", "harassment"), ("severe_toxic", "harassment"), ("identity", "harassment"))
"""Beginnings of others' names for classes, and our categories."""
PIECE, OVERLAP = 20_000, 200
"""Characters of a text that a server gets at once, and of the piece before that are in the next one again."""


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """Which classifier, and how sure it must be."""

    folder: Path
    """As transformers saves one, weights as safetensors; code that comes with a model is never run."""
    threshold: float = 0.5
    """Probability of a harmful class from which a text is refused."""
    max_tokens: int = 512
    """Of one piece."""
    overlap: int = 64
    batch: int = 16

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"threshold: expected 0 < p <= 1, got {self.threshold}")


class ClassifierFilter:
    """Refuses what a transformers text classifier finds harmful."""

    def __init__(self, config: ClassifierConfig) -> None:
        """Load the model. Raises: FilterError."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._config = config
        if not (config.folder / "model.safetensors").is_file():
            raise FilterError(f"{config.folder}: expected a folder with model.safetensors, got none; save the classifier there with "
                              "save_pretrained")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(config.folder, local_files_only=True, trust_remote_code=False)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(
                config.folder, local_files_only=True, trust_remote_code=False, use_safetensors=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise FilterError(f"{config.folder}: can't be loaded as a text classifier ({error})") from error
        named = self._model.config.id2label
        self._labels = [_plain(str(named[n])) for n in range(len(named))]
        if any(label.startswith("label_") for label in self._labels) or set(self._labels) <= HARMLESS:
            raise FilterError(f"{config.folder}: expected classes with names in config.json's id2label, some of them harmful, got "
                              f"{', '.join(self._labels)}; name them, the harmless ones as safe")

    @property
    def version(self) -> str:
        return f"classifier-{self._config.folder.name}"

    def check(self, text: str, *, where: Where) -> Refusal | None:
        """Why the text is refused; None: no harmful class reaches the threshold. Raises: FilterError."""
        if not text.strip():
            return None
        try:
            worst = self._worst(text)
        except (RuntimeError, ValueError, IndexError) as error:
            raise FilterError(f"{self.version} failed on a text of {len(text)} characters: {error}") from error
        harmful = {label: share for label, share in zip(self._labels, worst, strict=True) if label not in HARMLESS}
        label, share = max(harmful.items(), key=lambda item: item[1])
        return Refusal(where, category(label), self.version) if share >= self._config.threshold else None

    def _worst(self, text: str) -> list[float]:
        """For each class its highest probability over the pieces of the text."""
        import torch

        config = self._config
        most = min(config.max_tokens, getattr(self._model.config, "max_position_embeddings", config.max_tokens))
        pieces = self._tokenizer(text, truncation=True, max_length=most, stride=min(config.overlap, most // 4),
                                 return_overflowing_tokens=True)["input_ids"]
        several = self._model.config.problem_type == "multi_label_classification"
        found = []
        for start in range(0, len(pieces), config.batch):
            inputs = self._tokenizer.pad({"input_ids": pieces[start : start + config.batch]}, return_tensors="pt")
            with torch.inference_mode():
                logits = self._model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            found.append(logits.sigmoid() if several else logits.softmax(-1))
        return [float(share) for share in torch.cat(found).amax(0)]


@dataclass(frozen=True, slots=True)
class ModerationConfig:
    """Which server and model."""

    model: str = "omni-moderation-latest"
    base_url: str | None = None
    """Where the API is, its version included. None: OpenAI's."""
    api_key: str = field(default="", repr=False)
    timeout: float = 5.0
    """Seconds for one request."""
    max_retries: int = 1


class ModerationFilter:
    """Refuses what an OpenAI-compatible server flags. Give it back with `close`."""

    def __init__(self, config: ModerationConfig) -> None:
        import openai

        self._config = config
        self._sdk = openai.OpenAI(api_key=config.api_key or "none", base_url=config.base_url or "https://api.openai.com/v1",
                                  timeout=config.timeout, max_retries=config.max_retries)
        # the SDK would read these from the environment, which is read in service/settings.py alone
        self._sdk.organization = self._sdk.project = None

    @property
    def version(self) -> str:
        return f"moderations-{self._config.model}"

    def check(self, text: str, *, where: Where) -> Refusal | None:
        """Why the text is refused; None: the server flags no piece of it. Raises: FilterError."""
        import openai

        if not text.strip():
            return None
        pieces = [text[start : start + PIECE] for start in range(0, max(1, len(text) - OVERLAP), PIECE - OVERLAP)]
        try:
            results = self._sdk.moderations.create(model=self._config.model, input=pieces).results
            flagged = [_worst_of(result.categories.to_dict(), result.category_scores.to_dict()) for result in results if result.flagged]
            if len(results) != len(pieces):
                raise FilterError(f"{self.version}: expected {len(pieces)} results, got {len(results)}")
        except openai.OpenAIError as error:
            raise FilterError(f"{self.version} can't be asked ({error}); see FETCHGATE_FILTER_BASE_URL and the server's own log") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise FilterError(f"{self.version}: expected results as OpenAI's /moderations gives them, got others ({error})") from error
        return Refusal(where, category(max(flagged, key=lambda one: one[1])[0]), self.version) if flagged else None

    def close(self) -> None:
        """Close the connections."""
        self._sdk.close()


def category(label: str) -> str:
    """Our category for another's name of a class; its own name where we have none."""
    plain = _plain(label)
    return next((ours for theirs, ours in OURS if plain.startswith(theirs) or plain == ours), plain)


def _plain(label: str) -> str:
    return "_".join(label.casefold().replace("/", " ").replace("-", " ").replace("_", " ").split())


def _worst_of(flags: Mapping[str, Any], scores: Mapping[str, Any]) -> tuple[str, float]:
    """The flagged class with the highest score; `other` where a text is flagged for none."""
    named: Sequence[tuple[str, float]] = [(name, float(scores.get(name) or 0.0)) for name, flag in flags.items() if flag]
    return max(named, key=lambda one: one[1], default=("other", 0.0))
