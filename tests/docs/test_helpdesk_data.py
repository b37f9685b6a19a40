"""The help desk's data is what its README and manifest say: frozen, labelled by the rules, apart by use, and varied."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from evaluation.datasets import (
    CALIBRATION_QUERIES,
    HELPDESK,
    HELPDESK_ENCODER,
    HELPDESK_FAQS,
    HELPDESK_INDEX,
    HELPDESK_QUERIES,
    LabelledTurn,
    Session,
    Split,
    read_helpdesk,
)
from evaluation.diversity import Diversity, diversity, language_share, sample, session_lengths, words
from kb.embedder import EmbedderConfig, load_embedder
from kb.index import passages
from kb.queries import LabelledQuery, read_queries
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from tests.conftest import ROOT

SPLITS: tuple[Split, ...] = get_args(Split)
NEEDS_NO_FAQ = {"smalltalk", "ood", "unanswerable"}
SAID_BY_ANYONE = {("forgot", "pin"), ("namaste", "ji"), ("who", "won", "the", "match", "yesterday")}
"""Queries that also occur in conversations; the README names them."""
QUERY_FILES = (HELPDESK_QUERIES, CALIBRATION_QUERIES)
KINDS = ("faq", "followup", "same_faq", "return", "smalltalk", "ood", "unanswerable")
MANIFEST = json.loads((HELPDESK / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def splits() -> dict[Split, tuple[Session, ...]]:
    return {split: read_helpdesk(split) for split in SPLITS}


@pytest.fixture(scope="module")
def queries() -> dict[Path, tuple[LabelledQuery, ...]]:
    """The queries of each file; reading refuses gold ids that aren't FAQs."""
    return {path: read_queries(path, [faq.id for faq in read_faqs(HELPDESK_FAQS)]) for path in QUERY_FILES}


@pytest.fixture(scope="module")
def sessions(splits: dict[Split, tuple[Session, ...]]) -> list[Session]:
    return [session for split in SPLITS for session in splits[split]]


def turns_of(sessions: Any) -> list[LabelledTurn]:
    return [turn for session in sessions for turn in session.turns]


def broken_rules(session: Session) -> Iterator[str]:
    """What the README's table of kinds forbids and this session has."""
    golds: list[set[str]] = []
    for number, turn in enumerate(session.turns):
        gold, recent, before = set(turn.gold or ()), set[str]().union(*golds[-2:]), set[str]().union(*golds)
        kept = {
            "faq": bool(gold) and not gold & before,
            "followup": bool(gold) and gold <= recent,
            "same_faq": bool(gold & recent),
            "return": bool(gold) and gold <= before and not gold & recent,
        }.get(turn.kind, turn.kind in NEEDS_NO_FAQ and not gold)
        if turn.gold is None or not kept:
            yield f"{session.id} turn {number} is no {turn.kind}: {turn.query}"
        if turn.language not in (None, "hinglish"):
            yield f"{session.id} turn {number}: language {turn.language}"
        golds.append(gold)


def repeated(splits: dict[Split, tuple[Session, ...]]) -> set[tuple[str, ...]]:
    """Queries that occur in two splits, in whatever case and punctuation."""
    counts = Counter(query for part in splits.values() for query in {words(turn.query) for turn in turns_of(part)})
    return {query for query, count in counts.items() if count > 1}


def query_counts(queries: tuple[LabelledQuery, ...]) -> tuple[int, ...]:
    """Queries: all, English with gold, Hinglish with gold, English out of domain, Hinglish out of domain."""
    kinds = Counter((query.language, bool(query.gold)) for query in queries)
    return (len(queries), *(kinds[language, answered] for answered in (True, False) for language in (None, "hinglish")))


def varied_enough(found: Diversity) -> bool:
    """Floors a little below what was measured, and out of reach of public sets and of templates."""
    return (found.distinct[1] >= 0.60 and found.distinct[2] >= 0.88 and found.nearest <= 0.47 and found.near_twins <= 0.01
            and found.shared_openings <= 0.18)


@pytest.mark.parametrize("name", MANIFEST["files"])
def test_a_frozen_file_has_the_hash_of_the_manifest(name: str) -> None:
    assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == MANIFEST["files"][name]["sha256"]


def test_the_manifest_names_every_file_and_counts_what_is_in_it(
    splits: dict[Split, tuple[Session, ...]], queries: dict[Path, tuple[LabelledQuery, ...]]
) -> None:
    files = MANIFEST["files"]
    there = {file.relative_to(ROOT).as_posix() for file in (*HELPDESK.rglob("*.jsonl"), HELPDESK_FAQS)}
    assert set(files) == there
    faqs, counts = read_faqs(HELPDESK_FAQS), files["kb/data/helpdesk/faqs.jsonl"]
    assert (counts["faqs"], counts["paraphrases"]) == (len(faqs), sum(len(faq.paraphrases) for faq in faqs))
    for path, found in queries.items():
        counts = files[path.relative_to(ROOT).as_posix()]
        total, _, hinglish, strange, hinglish_strange = query_counts(found)
        assert (counts["queries"], counts["hinglish"], counts["out_of_domain"], counts["hinglish_out_of_domain"]) == (
            total, hinglish + hinglish_strange, strange + hinglish_strange, hinglish_strange)
    for split, part in splits.items():
        counted = files[f"evaluation/data/helpdesk/{split}/sessions.jsonl"]
        assert (counted["sessions"], counted["turns"]) == (len(part), len(turns_of(part)))


def test_every_faq_has_an_answer_a_category_and_other_ways_to_ask_it() -> None:
    faqs = read_faqs(HELPDESK_FAQS)
    assert len(faqs) >= 80
    assert all(faq.question and faq.answer and faq.category and len(faq.paraphrases) == 8 for faq in faqs)
    texts = [words(text) for faq in faqs for text in (faq.question, *faq.paraphrases)]
    assert len(texts) == len(set(texts))


def test_there_is_enough_to_train_and_to_measure(splits: dict[Split, tuple[Session, ...]], sessions: list[Session]) -> None:
    assert len(sessions) >= 160
    assert len(turns_of(sessions)) >= 2000
    assert len(splits["test"]) >= 45
    assert len(splits["calibration"]) >= 45
    assert session_lengths(sessions)[0] <= 5 <= 20 <= session_lengths(sessions)[-1]


def test_no_conversation_is_in_two_splits_or_named_after_its_place(sessions: list[Session]) -> None:
    assert sorted(session.id for session in sessions) == [f"hd-{number:03d}" for number in range(1, len(sessions) + 1)]


def test_every_gold_id_is_an_faq_and_nearly_every_faq_is_asked_for(sessions: list[Session]) -> None:
    ids = {faq.id for faq in read_faqs(HELPDESK_FAQS)}
    gold = {faq_id for turn in turns_of(sessions) for faq_id in turn.gold or ()}
    assert gold <= ids
    assert len(gold) >= 0.95 * len(ids)


def test_every_label_keeps_the_rules_of_its_kind(sessions: list[Session]) -> None:
    assert [broken for session in sessions for broken in broken_rules(session)] == []


@pytest.mark.parametrize(("kind", "gold"), [
    ("faq", ("a",)), ("faq", ()), ("followup", ("b",)), ("followup", ()), ("same_faq", ("b",)), ("return", ("a",)),
    ("return", ("b",)), ("smalltalk", ("a",)), ("ood", ("a",)), ("unanswerable", ("a",)), ("gossip", ()), ("faq", None),
])
def test_a_label_that_breaks_its_rule_is_noticed(kind: str, gold: tuple[str, ...] | None) -> None:
    said = (LabelledTurn("one", None, ("a",), "faq", None), LabelledTurn("two", None, gold, kind, None))
    assert len(list(broken_rules(Session("s", said)))) == 1


def test_no_query_occurs_in_two_splits(splits: dict[Split, tuple[Session, ...]]) -> None:
    assert repeated(splits) == set()


def test_a_query_that_leaks_into_another_split_is_noticed(splits: dict[Split, tuple[Session, ...]]) -> None:
    leaked = LabelledTurn(splits["test"][0].turns[0].query.upper() + "!!", None, (), "ood", None)
    assert len(repeated({**splits, "train": (Session("x", (leaked,)),)})) == 1


def test_no_query_is_an_faqs_own_wording(sessions: list[Session]) -> None:
    wordings = {words(text) for faq in read_faqs(HELPDESK_FAQS) for text in (faq.question, *faq.paraphrases)}
    assert [turn.query for turn in turns_of(sessions) if words(turn.query) in wordings] == []


def test_every_query_says_whether_and_by_which_faqs_it_is_settled(queries: dict[Path, tuple[LabelledQuery, ...]]) -> None:
    for found in queries.values():
        assert all(query.gold is not None and len(query.gold) == len(set(query.gold)) and not query.wrong for query in found)
        assert {query.language for query in found} == {None, "hinglish"}


@pytest.mark.parametrize("path", QUERY_FILES, ids=lambda path: path.parent.name)
def test_every_faq_is_asked_for_in_both_query_files(queries: dict[Path, tuple[LabelledQuery, ...]], path: Path) -> None:
    asked = Counter(faq_id for query in queries[path] for faq_id in query.gold or ())
    assert set(asked) == {faq.id for faq in read_faqs(HELPDESK_FAQS)}
    assert min(asked.values()) >= 7


def test_no_query_is_written_twice_or_in_an_faqs_own_words(queries: dict[Path, tuple[LabelledQuery, ...]]) -> None:
    said = [words(text) for faq in read_faqs(HELPDESK_FAQS) for text in (faq.question, *faq.paraphrases)]
    counts = Counter([*said, *(words(query.query) for found in queries.values() for query in found)])
    assert [text for text, count in counts.items() if count > 1] == []


def test_few_queries_occur_in_conversations_and_the_readme_names_them(
    queries: dict[Path, tuple[LabelledQuery, ...]], sessions: list[Session]
) -> None:
    said = {words(turn.query) for turn in turns_of(sessions)}
    assert {words(query.query) for found in queries.values() for query in found} & said == SAID_BY_ANYONE
    page = (HELPDESK / "README.md").read_text(encoding="utf-8")
    assert [text for text in SAID_BY_ANYONE if f'"{" ".join(text)}"' not in page] == []


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_holds_every_kind_and_hinglish(splits: dict[Split, tuple[Session, ...]], split: Split) -> None:
    part = splits[split]
    assert {turn.kind for turn in turns_of(part)} == set(KINDS)
    assert language_share(part, "hinglish") >= 0.10


def test_the_queries_are_varied(sessions: list[Session]) -> None:
    assert varied_enough(diversity([turn.query for turn in turns_of(sessions)]))


def test_a_set_that_was_filled_into_templates_is_not_varied(sessions: list[Session]) -> None:
    openings = ("what is", "how do i find out about", "can you tell me about", "please help me with", "hi, i want to know about")
    cards = ("Classic", "Gold", "Voyager", "Campus", "Pearl")
    topics = [faq.paraphrases[0] for faq in read_faqs(HELPDESK_FAQS)]
    filled = [f"{opening} {topic} on my {card} card?" for topic in topics for opening in openings for card in cards]
    assert len(filled) == len(set(filled))
    found = diversity(sample(filled, len(turns_of(sessions)), seed=0))
    assert not varied_enough(found)
    assert found.distinct[1] < 0.60
    assert found.nearest > 0.47
    assert found.shared_openings > 0.18


def test_the_readme_counts_what_is_there(splits: dict[Split, tuple[Session, ...]], sessions: list[Session]) -> None:
    page = (HELPDESK / "README.md").read_text(encoding="utf-8")
    for name, part in (*splits.items(), ("all", sessions)):
        kinds = Counter(turn.kind for turn in turns_of(part))
        hinglish = sum(turn.language == "hinglish" for turn in turns_of(part))
        counts = (len(part), len(turns_of(part)), *(kinds[kind] for kind in KINDS), hinglish)
        assert f"| {name} | {' | '.join(map(str, counts))} |" in page
    found = diversity([turn.query for turn in turns_of(sessions)])
    shares = " | ".join(f"{share:.3f}" for share in (*found.distinct, found.nearest))
    assert f"| helpdesk | {found.queries} | {shares} | {found.near_twins:.1%} | {found.shared_openings:.1%} |" in page


def test_the_readme_counts_the_queries_that_are_there(queries: dict[Path, tuple[LabelledQuery, ...]]) -> None:
    page = (HELPDESK / "README.md").read_text(encoding="utf-8")
    for path, found in queries.items():
        assert f"| `{path.relative_to(HELPDESK).as_posix()}` | {' | '.join(map(str, query_counts(found)))} |" in page
    total = sum(len(found) for found in queries.values())
    assert f"{total:,} first\nmessages" in page


def test_the_manifest_lies_beside_the_splits() -> None:
    assert {path.name for path in Path(HELPDESK).iterdir()} == {"README.md", "manifest.json", "queries.jsonl", *SPLITS}


def test_the_index_that_ships_is_of_the_faqs_and_the_encoder_that_ship() -> None:
    """It is made anew by `python -m evaluation.helpdesk_encoder --calibrate-only`."""
    embedder = load_embedder(EmbedderConfig(str(HELPDESK_ENCODER)))
    shipped = FaqRetriever.load(HELPDESK_INDEX, embedder)  # which refuses another encoder's
    assert shipped.faqs == read_faqs(HELPDESK_FAQS)
    for faq in shipped.faqs[::12]:
        texts = passages(faq)
        for vector in embedder.embed(texts[:3]):
            [nearest] = shipped.index.search(vector, k=1)
            assert nearest.similarity == pytest.approx(1.0, abs=1e-4), faq.id
