"""Labelled queries: what customers asked, and which FAQs settle it or don't. They train encoders and calibrate thresholds.

Leaves out conversations (`chat/log/sessions.py`) and FAQs (`source.py`).
"""

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kb.errors import SourceError
from kb.source import MAX_REPORTED, json_records
from kb.types import Faq


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query and the FAQs that settle it."""

    query: str
    gold: tuple[str, ...] | None
    """FAQ ids, each of which settles the query; () is out of domain, or needs no FAQ; None: known is only what is `wrong`."""
    wrong: tuple[str, ...] = ()
    """FAQ ids that were taken for an answer and aren't one: hard negatives."""
    language: str | None = None
    conversation: str | None = None
    """The conversation it is from; queries of one depend on each other. None: it stands alone."""
    previous: str | None = None
    """The query before it in the conversation; None: it begins one."""
    known: tuple[str, ...] = ()
    """FAQs that the conversation had settled in the two turns before."""

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise ValueError("query: expected a text, got nothing")
        if both := set(self.gold or ()) & set(self.wrong):
            raise ValueError(f"wrong: expected FAQs that aren't gold, got {sorted(both)[0]!r}, which is both")


def read_queries(path: Path, faq_ids: Iterable[str]) -> tuple[LabelledQuery, ...]:
    """The queries of a JSON lines file with `query`, `gold` (FAQ ids, `[]` is out of domain) and, optionally, `wrong` and `language`.

    A line with `good` in place of `gold` is a judged answer: `query`, `cited` (FAQ ids that the answer rests on) and `good` (true or
    false). What a good answer cites settles the query; what a bad one cites doesn't, and it says nothing of the others, so such a
    line has no gold and counts as a hard negative only. A `null` in `gold` or `good` is unlabelled: left out, but for what is `wrong`.
    Raises: SourceError naming file, line and field of up to ten bad records, ids that `faq_ids` lacks among them.
    """
    known, found, errors = set(faq_ids), list[LabelledQuery](), list[str]()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: can't be read ({error}); expected JSON lines in UTF-8") from error
    for number, record in json_records(lines):
        try:
            if isinstance(record, str):
                raise ValueError(record)
            query = _query(record, known)
        except ValueError as error:
            errors.append(f"{path}:{number}: {error}")
            if len(errors) == MAX_REPORTED:
                break
        else:
            found += [] if query is None else [query]
    if errors:
        raise SourceError("\n".join([*errors, "Nothing was loaded; mend these records and try again."]))
    if not found:
        raise SourceError(f"{path}: expected at least one labelled query, got none")
    return tuple(found)


def write_queries(path: Path, queries: Iterable[LabelledQuery]) -> None:
    """Write queries as JSON lines that `read_queries` gives back; what conversation they are from is left out."""
    path.write_text("".join(json.dumps(_record(query), ensure_ascii=False) + "\n" for query in queries), encoding="utf-8")


def with_queries(faqs: Sequence[Faq], queries: Iterable[LabelledQuery]) -> tuple[Faq, ...]:
    """The FAQs with every query as a paraphrase of those that settle it."""
    asked: dict[str, list[str]] = {}
    for query in queries:
        for faq_id in query.gold or ():
            asked.setdefault(faq_id, []).append(query.query)
    return tuple(replace(faq, paraphrases=tuple(dict.fromkeys((*faq.paraphrases, *asked.get(faq.id, ()))))) for faq in faqs)


def _record(query: LabelledQuery) -> dict[str, object]:
    optional: dict[str, object] = {"wrong": list(query.wrong), "language": query.language}
    gold = None if query.gold is None else list(query.gold)
    record: dict[str, object] = {"query": query.query, "gold": gold}
    return record | {key: value for key, value in optional.items() if value}


def _query(record: Mapping[str, object], known: Container[str]) -> LabelledQuery | None:
    """The record as a query; None when it isn't labelled. Raises: ValueError that begins with the field's name."""
    text, language = record.get("query"), record.get("language")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"query: expected a text, got {text!r}")
    if not isinstance(language, str | None):
        raise ValueError(f"language: expected a text, got {language!r}")
    if "gold" in record:
        wrong = tuple(_ids(record, "wrong", known))
        gold = None if record["gold"] is None else tuple(_ids(record, "gold", known))
        return None if gold is None and not wrong else LabelledQuery(text, gold, wrong, language)
    if "good" not in record:
        raise ValueError("gold: expected this field, or `good` and `cited` of a judged answer, got neither")
    good = record["good"]
    if not isinstance(good, bool | None):
        raise ValueError(f"good: expected true, false or null, got {good!r}")
    if good is None or not (cited := tuple(_ids(record, "cited", known))):
        return None
    return LabelledQuery(text, cited, (), language) if good else LabelledQuery(text, None, cited, language)


def _ids(record: Mapping[str, object], field: str, known: Container[str]) -> Iterator[str]:
    values = record.get(field, [])
    if not isinstance(values, list):
        raise ValueError(f"{field}: expected a list of FAQ ids, got {type(values).__name__}")
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{field}: expected FAQ ids, got {value!r}")
        if value not in known:
            raise ValueError(f"{field}: expected ids of the knowledge base's FAQs, got {value!r}, which it lacks; "
                             "use the FAQ file that these labels are for")
        yield value
