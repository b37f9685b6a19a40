"""The help desk's own encoder, index and calibration, which ship: made by `python -m evaluation.helpdesk_encoder`.

The written queries train the encoder, together with the FAQs' paraphrases; no conversation does, since gates learn from the train
conversations what retrieval finds for queries that it doesn't know. The calibration split's queries calibrate it, and its conversations the
queries in mid-conversation. Leaves out measuring (`retrieval.py`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from evaluation.datasets import (
    CALIBRATION_QUERIES,
    HELPDESK_ENCODER,
    HELPDESK_FAQS,
    HELPDESK_INDEX,
    HELPDESK_QUERIES,
    conversation_queries,
    read_helpdesk,
)
from kb.calibrate import BUDGET, CALIBRATION, calibrate, save_calibration, search_all
from kb.embedder import DEFAULT_MODEL, EmbedderConfig, load_embedder
from kb.finetune import finetune, train_config
from kb.pairs import divided
from kb.queries import read_queries
from kb.retriever import FaqRetriever
from kb.source import read_faqs

SEED = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, embed, calibrate, write all three beside the FAQs."""
    parser = argparse.ArgumentParser(description="Make the help desk's encoder, index and calibration anew.")
    parser.add_argument("--out", type=Path, default=HELPDESK_ENCODER,
                        help="folder of the encoder; index and calibration are written beside it")
    parser.add_argument("--calibrate-only", action="store_true", help="leave the encoder as it is")
    parser.add_argument("--budget", type=float, default=BUDGET)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    faqs = read_faqs(HELPDESK_FAQS)
    ids = [faq.id for faq in faqs]
    training, held = read_queries(HELPDESK_QUERIES, ids), read_queries(CALIBRATION_QUERIES, ids)
    examples, dev = divided(faqs, training, seed=options.seed)
    if not options.calibrate_only:
        print(finetune(DEFAULT_MODEL, examples, dev, options.out, train_config("projection", seed=options.seed)))
    config = EmbedderConfig(str(options.out))
    retriever = FaqRetriever.build(load_embedder(config), faqs)
    retriever.save(options.out.with_name(HELPDESK_INDEX.name), model=f"kb/data/helpdesk/{options.out.name}", max_tokens=config.max_tokens)
    conversations = [query for query in conversation_queries(read_helpdesk("calibration"), ids) if query.previous]
    found = calibrate(search_all(retriever, [*held, *conversations]), retriever.version, budget=options.budget, seed=options.seed)
    save_calibration(options.out.with_name(CALIBRATION), found)
    for name, kind in (("first query", found.first), ("mid-conversation", found.later)):
        print(f"{name}: threshold {kind.threshold}, {kind.wrong} wrong of {kind.trials}, bound {kind.upper:.3f}, "
              f"more needed {kind.more_needed}")


if __name__ == "__main__":
    main()
