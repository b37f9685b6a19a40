"""FAQ files (JSON lines or CSV) to validated `Faq` records.

A file is taken whole or not at all: the first errors are reported together, each with file, line and field. Records without
any text are no errors; they are left out with a warning.
Leaves out sessions (`chat/log/sessions.py`) and other formats (convert them to one of these two).
"""

import csv
import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from kb.errors import SourceError
from kb.types import Faq

logger = logging.getLogger(__name__)

MAX_REPORTED = 10
MAX_CHARACTERS = 100_000
"""Of one text. Longer is no FAQ, but a quote that was left open, or a document that belongs in pieces."""
REQUIRED = ("question", "answer")
PARAPHRASE_SEPARATOR = "|"
_SURROGATE = re.compile("[\ud800-\udfff]")


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
        raise SourceError(f"{path}:{_undecodable_line(path)}: expected UTF-8 text, got byte {error.object[error.start]:#04x}; "
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


def _undecodable_line(path: Path) -> int:
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as error:
        return error.object.count(b"\n", 0, error.start) + 1
    return 1


def _validated(path: Path, records: Iterator[tuple[int, Mapping[str, object] | str]]) -> tuple[Faq, ...]:
    """Every record as an FAQ; `records` gives (line, fields) or (line, what is wrong)."""
    faqs: list[Faq] = []
    first_line: dict[str, int] = {}
    errors: list[str] = []
    blank: list[int] = []
    for line, record in records:
        try:
            if isinstance(record, str):
                raise ValueError(record)
            if _is_blank(record):
                blank.append(line)
                continue
            faq = faq_of(record)
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
    if blank:
        logger.warning("%s: %d records with neither question nor answer are left out, the first on line %d",
                       path, len(blank), blank[0])
    return tuple(faqs)


def _is_blank(record: Mapping[str, object]) -> bool:
    """Whether question and answer are there and hold nothing: an empty row of a spreadsheet, a passage of line breaks."""
    return all(isinstance(text := record.get(field), str) and not text.strip() for field in REQUIRED)


def faq_of(record: Mapping[str, object]) -> Faq:
    """One record as an FAQ. Raises: ValueError that begins with the field's name."""
    for field in REQUIRED:
        if field not in record:
            raise ValueError(f"{field}: expected this field, got only {_excerpt(', '.join(sorted(record)))}")
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
    return "" if value is None else _checked(field, value)


def _checked(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected text, got {type(value).__name__} {_excerpt(value)}")
    if "\x00" in value:
        raise ValueError(f"{field}: expected text, got a NUL byte; is this a binary file?")
    if _SURROGATE.search(value):
        raise ValueError(f"{field}: expected text, got half of a surrogate pair; was an emoji cut in two?")
    if len(value) > MAX_CHARACTERS:
        raise ValueError(f"{field}: expected at most {MAX_CHARACTERS:,} characters, got {len(value):,}; "
                         "split it into several FAQs")
    return value.strip()


def _paraphrases(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(PARAPHRASE_SEPARATOR)
    if not isinstance(value, list | None):
        raise ValueError(f"paraphrases: expected a list of texts, got {type(value).__name__} {_excerpt(value)}")
    texts = (_checked("paraphrases", item) for item in value or ())
    return tuple(dict.fromkeys(text for text in texts if text))


def _excerpt(value: object) -> str:
    """The beginning of a value, on one line."""
    return repr(str(value)[:60])


def _id_from(text: str) -> str:
    """A readable id that stays the same as long as the text does."""
    slug = "-".join(re.findall(r"\w+", text.lower())[:6])[:40]
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def json_records(lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """The objects of JSON lines with their line, or what is wrong there; blank lines are left out."""
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:  # besides bad JSON: a number of too many digits, or too many brackets
            yield line, f"expected one JSON object, got text that doesn't parse ({error})"
            continue
        yield line, record if isinstance(record, dict) else f"expected one JSON object, got {type(record).__name__}"


def _jsonl_records(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    for line, record in json_records(file):
        if not isinstance(record, str) and (record.get("id") is None or not str(record["id"]).strip()):
            yield line, "id: expected this field with a text, got none"
        else:
            yield line, record


def _csv_records(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Rows with the line that they begin on."""
    reader = csv.reader(file, strict=True)
    line = 1
    before = csv.field_size_limit(sys.maxsize)  # put back below; MAX_CHARACTERS names the field
    try:
        header = next(reader, [])
        _check_header(path, header)
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                yield line, f"{header[min(len(cells), len(header) - 1)]}: expected {len(header)} cells, got {len(cells)}; " \
                            "quote cells that hold commas"
            elif cells:
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        yield line, f"expected well-formed CSV, got {error}; is a quote left open?"
    finally:
        csv.field_size_limit(before)


def _check_header(path: Path, header: list[str]) -> None:
    for field in REQUIRED:
        if field not in header:
            raise SourceError(f"{path}:1: {field}: expected this column in the header, got {_excerpt(', '.join(header))}; "
                              "name the columns on line 1, separated by commas")
    for field in header:
        if header.count(field) > 1:
            raise SourceError(f"{path}:1: {field}: expected one column of this name, got {header.count(field)}")
