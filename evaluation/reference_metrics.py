"""Reference-based metrics of answers: BLEU, ROUGE-L and BERTScore. For evaluation only: they never become a reward.

Each compares words (or their vectors) with a reference and knows nothing of facts: one changed number hardly moves any of them. So
their correlation with people is measured beside them (`agreement_tables.py`, `ranks.py`). All are in [0, 1] and of one answer;
BLEU's own authors meant it for a corpus (Papineni et al. 2002), so a sentence's is smoothed as sacrebleu does by default.
Sources: Papineni et al. 2002 (BLEU), Lin 2004 (ROUGE-L), Zhang et al. 2020 (BERTScore, equations 1 to 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kb.embedder import DEFAULT_MODEL, encodable, model_folder

TokenVectors = NDArray[np.float32]
"""Unit vectors of a text's tokens, shape (tokens, dimension)."""
MetricName = Literal["bleu", "rouge_l", "bert_score"]
MAX_TOKENS = 512
"""What the packaged encoder has positions for; longer texts are cut."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of the answer the reference has (precision), of the reference the answer has (recall), and both (F1)."""

    precision: float
    recall: float
    f1: float


def bleu(answer: str, references: Sequence[str]) -> float:
    """Sentence BLEU with exponential smoothing, in [0, 1]; 0 without references."""
    from sacrebleu.metrics.bleu import BLEU

    return 0.0 if not references else float(BLEU(effective_order=True).sentence_score(answer, list(references)).score) / 100.0


def rouge_l(answer: str, reference: str) -> Overlap:
    """The longest common subsequence of words, lower-cased and unstemmed, as a share of each side."""
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    found = RougeScorer(["rougeL"]).score(reference, answer)["rougeL"]
    return Overlap(float(found.precision), float(found.recall), float(found.fmeasure))


def bert_score(answer: TokenVectors, reference: TokenVectors) -> Overlap:
    """Each token goes to the token of the other side that is most like it; mean cosines, without rescaling or idf weights.

    recall = mean over reference tokens of max over answer tokens of x . y (equation 1), precision the other way round (2),
    f1 = 2 P R / (P + R) (3). Nothing on either side is 0.
    """
    if not len(answer) or not len(reference):
        return Overlap(0.0, 0.0, 0.0)
    similar = answer @ reference.T
    precision, recall = float(similar.max(axis=1).mean()), float(similar.max(axis=0).mean())
    both = precision + recall
    return Overlap(precision, recall, 2 * precision * recall / both if both > 0 else 0.0)


class TokenEncoder:
    """The local encoder's last layer, token by token."""

    def __init__(self, model: str = DEFAULT_MODEL, *, batch_size: int = 16) -> None:
        """The packaged encoder, or a folder's or hub id's of another. Raises: EmbedderError when it is missing."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        folder: Path = model_folder(model)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(folder, trust_remote_code=False, local_files_only=True).eval()
        self._batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> tuple[TokenVectors, ...]:
        """Unit vectors of each text's tokens, without the marks around it; shape (0, dimension) of a blank text."""
        import torch

        found: list[TokenVectors] = [np.empty((0, 0), dtype=np.float32)] * len(texts)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            batch = self._tokenizer([encodable(texts[place]) for place in places], padding=True, truncation=True, max_length=MAX_TOKENS,
                                    return_special_tokens_mask=True, return_tensors="pt")
            marks = batch.pop("special_tokens_mask").bool()
            with torch.inference_mode():
                vectors = torch.nn.functional.normalize(self._model(**batch).last_hidden_state, dim=-1)
            for place, rows, left_out in zip(places, vectors, marks, strict=True):
                found[place] = rows[~left_out].numpy()
        return tuple(found)
