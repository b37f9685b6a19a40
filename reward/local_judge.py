"""The judge that needs no LLM, key or network: a small model of ours on the packaged encoder, which reads answer, FAQs and query.

An answer that claims something is Good when no claim contradicts the FAQs shown, they have all of it (`support.py`), and they settle the
query (`settling.py`); one that claims nothing, because it refuses or only makes conversation, is Good when nothing that is shown, or that
the knowledge base finds, settles the query. The answer's own words about itself count as claims, so that praise makes it no better.
Where the probability of Good is in the band that was chosen on dev, or the answer can't be read (too long, another language), the verdict
is missing.
Leaves out fitting (`local_training.py`). What it was measured on is in docs/results.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from chat.ports import Retriever
from kb.embedder import Embedder
from kb.tuned import untuned
from reward import support
from reward.errors import JudgeError
from reward.examining import Examined, Examiner
from reward.judge import Case, Verdict
from reward.local_model import FEATURE_VERSION, Model, encoder_of, load_model, part, probability_of_good, supported_probability

SHIPPED = Path(__file__).parent / "data" / "local_judge"
BATCH = 256
"""Cases whose texts are embedded together."""
FAULTS: Mapping[str, str] = MappingProxyType({
    "amount_missing": "an amount that they don't have", "amount_elsewhere": "an amount of another sentence",
    "unit_changed": "an amount in another unit", "amount_moved": "an amount of something else", "amount_owner": "another product's amount",
    "denial": "a \"not\" more or less", "negators": "a \"not\" more or less", "polarity": "a \"not\" more or less",
    "opposite": "an opposite word", "small_words": "another condition", "name_missing": "a name that they don't have",
    "name_elsewhere": "a name of another sentence", "name_swapped": "a name in another's place",
    "word_swapped": "a word in another's place",
    "amount_order": "amounts in another order", "condition_dropped": "a condition is left out", "cut_short": "a sentence is cut short",
    "off_the_point": "they say something nearer to the query", "yes_no": "yes in the place of no, or no of yes",
    "words_share": "words that they don't have", "words_elsewhere": "words of other sentences", "distance": "another meaning",
    "apart": "it stands apart from the rest", "apart_words": "it stands apart from the rest", "order": "words put together anew",
    "pairs": "words put together anew",
})
"""What people are told of the figure that weighs most."""


class LocalJudge:
    """Judges by reading. Safe for many threads; the FAQs' vectors are remembered by content, customers' words are not."""

    def __init__(self, model: Model, embedder: Embedder, retriever: Retriever | None = None) -> None:
        """With a retriever, what the knowledge base finds for the query is looked at too: without one, nobody can tell whether an "I
        don't know" to a prompt without FAQs was right."""
        self._model = model
        self._examiner = Examiner(embedder, retriever)
        found = "" if retriever is None else f"+{retriever.version}"
        self._version = f"local:{model.version}/{FEATURE_VERSION}/{embedder.model_id}{found}"

    @property
    def version(self) -> str:
        """Weights, version of the figures, encoder, and the knowledge base where it looks into one."""
        return self._version

    def judge(self, cases: Sequence[Case]) -> tuple[Verdict | None, ...]:
        """A verdict a case, with the probability of Good and the FAQ sentences that it rests on; None where it can't tell."""
        found: list[Verdict | None] = []
        for first in range(0, len(cases), BATCH):
            batch = cases[first : first + BATCH]
            found += [self._verdict(case, one) for case, one in zip(batch, self._examiner.examine(batch), strict=True)]
        return tuple(found)

    def _verdict(self, case: Case, one: Examined) -> Verdict | None:
        if not case.answer.strip():
            return Verdict(False, "the answer is empty", probability=0.0)
        probability = None if one.unread else probability_of_good(self._model, one, searched=self._examiner.searches)
        low, high = self._model.band
        if probability is None or low < probability < high:
            return None
        good = probability >= high
        reason = _reason(self._model, one, good=good)
        return Verdict(good, reason, hedged=one.said.hedged, probability=round(probability, 3), quotes=_quotes(case, one))


def load_local_judge(embedder: Embedder, folder: Path | None = None, *, retriever: Retriever | None = None) -> LocalJudge:
    """The judge of a folder, or the one that ships. A tuned encoder's own base is used.

    Raises: JudgeError when the folder is damaged, or was fitted on another encoder or by another version of the figures.
    """
    base = untuned(embedder)
    model = load_model(folder or SHIPPED)
    if encoder_of(base.model_id) != model.encoder:
        raise JudgeError(f"local judge: expected the encoder {model.encoder} that it was fitted on, got {encoder_of(base.model_id)}; "
                          "use the packaged encoder, or fit a judge with `python -m evaluation.local_judge`")
    return LocalJudge(model, base, retriever)


def _reason(model: Model, one: Examined, *, good: bool) -> str:
    if not one.asserts:
        kind = "says that it doesn't know" if one.said.refuses else "claims nothing"
        return f"{kind}, and {'no FAQ settles the query' if good else 'an FAQ settles the query'}"
    if good:
        return "each claim is in the FAQs shown, and they settle the query"
    weights = part(model.arrays, "support")["weights"]
    if supported_probability(part(model.arrays, "support"), one.support) < 0.5:
        fault = support.FEATURES[int(np.argmin(one.support * weights))].removeprefix("loose_").removeprefix("mean_")
        return f"a claim isn't in the FAQs shown ({FAULTS[fault]})"
    return "the FAQs that it rests on don't settle the query"


def _quotes(case: Case, one: Examined) -> tuple[str, ...]:
    """The FAQ sentences that the claims were laid beside, each once, at most five."""
    found: dict[str, None] = {}
    faqs = tuple(dict.fromkeys(case.faqs))
    for claim in one.claims:
        if claim.faq is not None:
            said = support.evidence(faqs[claim.faq]).sentences
            found.update((said[n], None) for n in claim.sentences if said[n])
    return tuple(found)[:5]
