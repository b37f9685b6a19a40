"""Cross-validated tables on FAQs that can be read at a glance: what is found, and that nothing learns from what it is measured on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evaluation.batch_search import cosines, overlaps, ranked
from evaluation.errors import EvaluationError
from evaluation.retrieval_tables import BASE, METHODS, Tuner, crossvalidated, folds, table
from kb.embedder import EmbedderConfig, load_embedder
from kb.errors import EmbedderError
from kb.finetune import TrainConfig
from kb.queries import LabelledQuery, with_queries
from kb.retriever import LEXICAL_WEIGHT, FaqRetriever
from kb.types import Faq
from tests.fakes import HashEmbedder
from tests.tiny_encoder import make_tiny_encoder

FAQS = (
    Faq("pay", "How do I pay my bill?", "By card or bank transfer.", paraphrases=("paying a bill", "settle the invoice", "bill by card")),
    Faq("refund", "How do I get a refund?", "Ask within 30 days.", paraphrases=("money back", "return the goods", "refund please")),
    Faq("hours", "When are you open?", "Nine to five on weekdays.", paraphrases=("opening hours", "closing time", "open on sunday")),
)
QUERIES = tuple(LabelledQuery(f"{words} {n}", gold) for n in range(5) for words, gold in (
    ("zork the plugh", ("pay",)), ("money back now", ("refund",)), ("are you open", ("hours",)), ("weather on mars", ())))


def tuner(folder: Path, faqs: Sequence[Faq] = FAQS) -> Tuner:
    return Tuner("hash", HashEmbedder(), faqs, folder)


def test_a_matrix_of_similarities_is_what_a_retriever_finds() -> None:
    texts = [query.query for query in QUERIES] + ["!?", "refund"]
    retriever = FaqRetriever.build(HashEmbedder(), FAQS)
    matrix = (1 - LEXICAL_WEIGHT) * cosines(HashEmbedder(), FAQS, texts) + LEXICAL_WEIGHT * overlaps(FAQS, texts)
    for row, text, ids in zip(matrix, texts, ranked(matrix, [faq.id for faq in FAQS], 3), strict=True):
        hits = retriever.search(text, k=3)
        assert ids == [hit.faq.id for hit in hits]
        assert sorted(row)[::-1] == pytest.approx([hit.similarity for hit in hits], abs=1e-5)


def test_ties_are_ranked_by_id_and_what_is_minus_infinity_is_not_found() -> None:
    assert ranked(np.array([[0.5, 0.5, -np.inf], [0.1, 0.2, 0.3]], dtype=np.float32), ["b", "a", "c"], 2) == [["a", "b"], ["c", "a"]]


def test_folds_are_seeded_even_and_keep_one_text_together() -> None:
    queries = (*QUERIES, *QUERIES[:4])
    fold = folds(queries, 5, seed=0)
    assert (fold[:4] == fold[-4:]).all()
    assert set(np.bincount(fold[: len(QUERIES)])) == {4}
    assert (fold == folds(queries, 5, seed=0)).all()
    assert (fold != folds(queries, 5, seed=1)).any()
    with pytest.raises(EvaluationError, match="expected 2 to 20.*got 21"):
        folds(queries, 21, seed=0)


def test_queries_in_the_index_are_found_by_others_like_them(tmp_path: Path) -> None:
    fold = folds(QUERIES, 5, seed=0)
    public, indexed = (crossvalidated(METHODS[name], FAQS, QUERIES, fold, tuner(tmp_path)) for name in (BASE, "indexed"))
    zork = np.array(["zork" in query.query for query in QUERIES])
    assert (indexed.places[zork] == 1).all()
    assert indexed.scores[zork].min() > public.scores[zork].max()


def test_a_query_is_never_in_the_index_that_it_is_measured_on(tmp_path: Path) -> None:
    """Its cosine to itself would be 1. A fold that overlaps with its training, planted here, shows."""
    alone = tuple(LabelledQuery(text, ("pay",)) for text in ("zork", "quux", "frobnicate", "plugh", "xyzzy"))
    found = crossvalidated(METHODS["indexed"], FAQS, alone, folds(alone, 5, seed=0), tuner(tmp_path))
    assert found.scores.max() < 0.999
    leaking = cosines(HashEmbedder(), with_queries(FAQS, alone), [query.query for query in alone])
    assert leaking.max(axis=1).min() > 0.999


def test_an_encoder_is_trained_on_the_other_folds_alone(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    class Watching(Tuner):
        def encoder(self, method: object, train: Sequence[LabelledQuery]) -> HashEmbedder:
            seen.append(tuple(query.query for query in train))
            return HashEmbedder()

    fold = folds(QUERIES, 4, seed=0)
    crossvalidated(METHODS["projection"], FAQS, QUERIES, fold, Watching("hash", HashEmbedder(), FAQS, tmp_path))
    assert len(seen) == 4
    for number, train in enumerate(seen):
        assert set(train) == {query.query for query, one in zip(QUERIES, fold, strict=True) if one != number}


def test_a_projection_is_trained_once_for_all_methods_that_share_it(tmp_path: Path) -> None:
    model = make_tiny_encoder(tmp_path / "tiny")
    tuning = Tuner(str(model), load_embedder(EmbedderConfig(str(model))), FAQS, tmp_path, max_pairs=40)
    first = tuning.encoder(METHODS["projection"], QUERIES)
    assert tuning.encoder(METHODS["projection-words"], QUERIES) is first
    assert tuning.encoder(METHODS["projection"], QUERIES[4:]) is not first
    of_paraphrases = tuning.encoder(METHODS["paraphrases"], QUERIES)
    assert tuning.encoder(METHODS["paraphrases"], QUERIES[4:]) is of_paraphrases
    assert first.embed(["a bill"]).shape == (1, first.dimension)
    assert {path.name for path in tmp_path.glob("encoder-*")} == {"encoder-0", "encoder-1", "encoder-2"}


def test_faqs_without_anything_to_learn_from_are_refused(tmp_path: Path) -> None:
    bare = tuple(Faq(faq.id, faq.question, "") for faq in FAQS)
    with pytest.raises(EmbedderError, match="paraphrases"):
        tuner(tmp_path, bare).encoder(METHODS["paraphrases"], ())


def test_an_faq_without_the_words_is_not_found_by_words(tmp_path: Path) -> None:
    queries = (LabelledQuery("nothing alike", ("pay",)), LabelledQuery("refund", ("refund",)))
    found = crossvalidated(METHODS["bm25"], FAQS, queries, folds(queries, 2, seed=0), tuner(tmp_path))
    assert found.places.tolist() == [0, 1]
    assert found.scores[0] == 0


def test_a_table_has_a_row_for_each_method_and_differences_to_the_public_encoder(tmp_path: Path) -> None:
    fold = folds(QUERIES, 5, seed=0)
    found = {name: crossvalidated(METHODS[name], FAQS, QUERIES, fold, tuner(tmp_path)) for name in ("bm25", BASE, "indexed")}
    lines = table("all queries", found, np.ones(len(QUERIES), dtype=bool)).splitlines()
    assert lines[0] == "### all queries: 15 queries, 5 out of domain"
    cells = {row[1].strip(): [one.strip() for one in row[2:-1]] for row in (line.split("|") for line in lines[4:])}
    assert [*cells] == [METHODS[name].told for name in found]
    assert cells[METHODS[BASE].told][-2:] == ["", ""]
    assert cells[METHODS["indexed"].told][0].startswith("100.0 (100.0 to 100.0")
    assert all(len(row) == 7 for row in cells.values())


def test_methods_that_train_name_what_trains_them() -> None:
    assert METHODS["triplet"].train == TrainConfig(loss="triplet")
    assert METHODS["lora"].train is not None
    assert METHODS["lora"].train.method == "lora"
    assert METHODS[BASE].train is None
