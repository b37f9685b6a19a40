"""FAQ files (JSON lines or CSV) to validated `Faq` records.

A file is taken whole or not at all: the first errors are reported together, each with file, line and field.
Leaves out sessions (`chat/log/sessions.py`) and other formats (convert them to one of these two).
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from kb.errors import SourceError
from kb.types import Faq

MAX_REPORTED = 10
REQUIRED = ("question", "answer")
PARAPHRASE_SEPARATOR = "|"


def read_faqs(path: Path) -> tuple[Faq, ...]:
    """The FAQs of a `.jsonl` or `.csv` file, in file order.

    JSON lines: one object a line with `id`, `question`, `answer` and, optionally, `category`, `paraphrases` (a list) and
    `source_url`. CSV: a header with at least `question` and `answer`; `paraphrases` are separated by `|`; a row
    without `id` gets one made from its question, stable as long as the question is. Other fields are ignored.

    Raises: SourceError naming file, line and field of up to ten bad records.
    """
    readers = {".jsonl": _jsonl_records, ".ndjson": _jsonl_records, ".csv": _csv_records}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SourceError(f"{path}: expected a .jsonl or .csv file, got {path.suffix or 'no ending'!r}; convert or rename it")
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front of their CSV
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _validated(path, reader(path, file))
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#x} at offset {error.start}; "
                          "save the file as UTF-8") from error
    except OSError as error:
        raise SourceError(f"{path}: can't be read ({error.strerror}); check the path and its permissions") from error


def write_faqs(path: Path, faqs: tuple[Faq, ...]) -> None:
    """Write FAQs as JSON lines that `read_faqs` gives back unchanged."""
    with path.open("w", encoding="utf-8") as file:
        for faq in faqs:
            record = {"id": faq.id, "question": faq.question, "answer": faq.answer, "category": faq.category,
                      "paraphrases": list(faq.paraphrases), "source_url": faq.source_url}
            file.write(json.dumps({k: v for k, v in record.items() if v not in (None, [])}, ensure_ascii=False) + "\n")


def _validated(path: Path, records: Iterator[tuple[int, Mapping[str, object] | str]]) -> tuple[Faq, ...]:
    """Every record as an FAQ; `records` gives (line, fields) or (line, what is wrong)."""
    faqs: list[Faq] = []
    first_line: dict[str, int] = {}
    errors: list[str] = []
    for line, record in records:
        try:
            if isinstance(record, str):
                raise ValueError(record)
            faq = _faq(record)
            if faq.id in first_line:
                raise ValueError(f"id: {faq.id!r} stands on line {first_line[faq.id]} already; ids must be unique")
        except ValueError as error:
            errors.append(f"{path}:{line}: {error}")
            if len(errors) == MAX_REPORTED:
                errors.append("… (more not checked)")
                break
        else:
            first_line[faq.id] = line
            faqs.append(faq)
    if errors:
        raise SourceError("\n".join([*errors, "Nothing was loaded; mend these records and try again."]))
    if not faqs:
        raise SourceError(f"{path}: expected at least one FAQ, got none")
    return tuple(faqs)


def _faq(record: Mapping[str, object]) -> Faq:
    """One record as an FAQ. Raises: ValueError that begins with the field's name."""
    for field in REQUIRED:
        if field not in record:
            raise ValueError(f"{field}: expected this field, got only {', '.join(sorted(record)) or 'nothing'}")
    question, answer = _text(record, "question"), _text(record, "answer")
    return Faq(
        id=_text(record, "id") or _id_from(question or answer),
        question=question,
        answer=answer,
        category=_text(record, "category") or None,
        paraphrases=_paraphrases(record.get("paraphrases")),
        source_url=_text(record, "source_url") or None,
    )


def _text(record: Mapping[str, object], field: str) -> str:
    value = record.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected text, got {type(value).__name__} {str(value)[:40]!r}")
    if "\x00" in value:
        raise ValueError(f"{field}: expected text, got a NUL byte; is this a binary file?")
    return value.strip()


def _paraphrases(value: object) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = value.split(PARAPHRASE_SEPARATOR)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"paraphrases: expected a list of texts, got {str(value)[:60]!r}")
    return tuple(dict.fromkeys(item.strip() for item in value if item.strip()))


def _id_from(text: str) -> str:
    """A readable id that stays the same as long as the text does."""
    slug = "-".join(re.findall(r"\w+", text.lower())[:6])[:40]
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _jsonl_records(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            yield line, f"expected one JSON object, got text that doesn't parse ({error})"
            continue
        if not isinstance(record, dict):
            yield line, f"expected one JSON object, got {type(record).__name__}"
        elif not record.get("id"):
            yield line, "id: expected this field with a text, got none"
        else:
            yield line, record


def _csv_records(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    reader = csv.DictReader(file, strict=True)
    try:
        header = reader.fieldnames or []
        missing = [field for field in REQUIRED if field not in header]
        if missing:
            raise SourceError(f"{path}:1: {missing[0]}: expected this column in the header, got {', '.join(header) or 'nothing'}")
        for row in reader:
            if None in row or None in row.values():
                yield reader.line_num, f"expected {len(header)} cells, got another number; quote cells that hold commas"
            else:
                yield reader.line_num, row
    except csv.Error as error:
        yield reader.line_num, f"expected well-formed CSV, got {error}"
