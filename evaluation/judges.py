"""A judge by its name, for commands that let one choose: `reference` (labels), `local` (the model that ships) or `llm`.

Leaves out building an LLM judge, which takes a key, prices and a budget (`service`): it is handed over ready-made.
"""

from pathlib import Path
from typing import Literal, get_args

from chat.ports import Retriever
from evaluation.errors import EvaluationError
from kb.embedder import Embedder
from reward.judge import Gold, Judge, ReferenceJudge

JudgeName = Literal["reference", "local", "llm"]
JUDGES: tuple[JudgeName, ...] = get_args(JudgeName)


def make_judge(name: JudgeName, embedder: Embedder | None, *, gold: Gold = "any", llm: Judge | None = None, folder: Path | None = None,
               retriever: Retriever | None = None) -> Judge:
    """The judge of that name.

    embedder: the knowledge base's, for the local judge; the others need none. gold: for the reference judge. folder: a local judge of
    one's own; None is the one that ships. retriever: where the local judge looks whether an FAQ that wasn't shown would have answered;
    None: it doesn't. Raises: EvaluationError for another name, or a judge without what it needs; RewardError when the local judge can't
    be loaded.
    """
    if name == "reference":
        return ReferenceJudge(gold)
    if name == "local":
        from reward.local_judge import load_local_judge

        if embedder is None:
            raise EvaluationError("judge local: expected the encoder of a knowledge base, got none; load one first")
        return load_local_judge(embedder, folder, retriever=retriever)
    if name == "llm":
        if llm is None:
            raise EvaluationError("judge llm: expected a server and a model to ask, got none; set them in the settings, or choose "
                                  "--judge local, which needs neither key nor network")
        return llm
    raise EvaluationError(f"judge: expected one of {', '.join(JUDGES)}, got {name!r}")
