"""The filter's false alarms in docs/results.md, as Markdown: `python -m evaluation.filter_tables --data FOLDER`.

Counts which of many harmless texts the pattern filter refuses: what ships, and the sets of a folder of public data in the plain format.
No randomness. Leaves out recall, which `tests/unit/chat/test_filters.py` counts on texts that were written for it, and filters by a model.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time

from chat.filters import PatternFilter
from chat.prompt import INSTRUCTIONS, POST_PROMPT
from chat.types import Refusal, Where
from evaluation.datasets import CALIBRATION_QUERIES, HELPDESK, HELPDESK_FAQS, HELPDESK_QUERIES, read_sessions
from evaluation.errors import DatasetError
from evaluation.human_ratings import read_judgements
from kb.source import read_faqs
from reward.kappa import exact_share
from reward.preferences import read_preferences

SPLITS = ("train", "calibration", "dev", "test")
SHOWN = 200
"""Characters of a refused text that are printed."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of one source, on the side of the conversation on which they would stand."""

    name: str
    where: Where
    texts: tuple[str, ...]
    conversations: tuple[str, ...] = ()
    """Of each text; (): every text is its own."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A text that was refused."""

    text: str
    conversation: str
    refusal: Refusal


def shipped() -> Iterator[Texts]:
    """The help desk's FAQs, conversations and queries."""
    faqs = read_faqs(HELPDESK_FAQS)
    yield Texts("help desk FAQs: questions and paraphrases", "input",
                tuple(text for faq in faqs for text in (faq.question, *faq.paraphrases)))
    yield Texts("help desk FAQs: answers", "output", tuple(faq.answer for faq in faqs))
    yield from _asked("help desk sessions, all splits", [HELPDESK / split / "sessions.jsonl" for split in SPLITS])
    files = (HELPDESK_QUERIES, CALIBRATION_QUERIES)
    yield Texts("help desk queries", "input", tuple(query for file in files for query in _queries(file)))


def public(folder: Path) -> Iterator[Texts]:
    """The sets of a folder, each by the files that it has."""
    for one in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (one / "queries.jsonl").exists():
            yield Texts(f"`{one.name}`", "input", _queries(one / "queries.jsonl"))
        if (one / "sessions.jsonl").exists():
            yield from _asked(f"`{one.name}`", [one / "sessions.jsonl"])
        if (one / "judgements.jsonl").exists():
            yield Texts(f"`{one.name}` rated answers", "output", tuple(rated.answer for rated in read_judgements(one / "judgements.jsonl")))
        if (one / "preferences.jsonl").exists():
            pairs = read_preferences(one / "preferences.jsonl")
            yield Texts(f"`{one.name}` prompts, counted once", "input", tuple(dict.fromkeys(pair.prompt for pair in pairs)))
            yield Texts(f"`{one.name}` answers, counted once", "output",
                        tuple(dict.fromkeys(text for pair in pairs for text in (pair.chosen, pair.rejected))))
        if (one / "faqs.jsonl").exists():
            yield Texts(f"`{one.name}` FAQs or passages", "output", tuple(faq.answer for faq in read_faqs(one / "faqs.jsonl")))


def alarms(found: PatternFilter, source: Texts) -> tuple[Alarm, ...]:
    """What of these texts is refused."""
    where = source.conversations or tuple(str(n) for n in range(len(source.texts)))
    return tuple(Alarm(text, conversation, refusal) for text, conversation in zip(source.texts, where, strict=True)
                 if (refusal := found.check(text, where=source.where)) is not None)


def table(sources: Iterator[Texts], *, show: bool) -> Iterator[str]:
    """A row a source; intervals are exact, by text and, where there are any, by conversation."""
    judged = PatternFilter(kept_secret=(INSTRUCTIONS, POST_PROMPT))
    yield f"Filter `{judged.version}`."
    yield ""
    yield "| texts | side | n | refused | share, 95 % by text | conversations, share with one | µs a text |"
    yield "|---|---|--:|--:|---|---|--:|"
    for source in sources:
        began = process_time()
        refused = alarms(judged, source)
        each = 1e6 * (process_time() - began) / max(1, len(source.texts))
        side = "query" if source.where == "input" else "answer"
        yield (f"| {source.name} | {side} | {len(source.texts):,} | {len(refused)} | {_share(len(refused), len(source.texts))} | "
               f"{_by_conversation(source, refused)} | {each:.0f} |")
        if show:
            for one in refused:
                print(f"{source.name}: {one.refusal.category}: {' '.join(one.text[:SHOWN].split())}", file=sys.stderr)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("python -m evaluation.filter_tables", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of public sets; default: only what ships")
    parser.add_argument("--show", action="store_true", help="print what is refused on standard error")
    options = parser.parse_args(arguments)

    def sources() -> Iterator[Texts]:
        yield from shipped()
        if options.data is not None:
            yield from public(options.data)

    for line in table(sources(), show=options.show):
        print(line, flush=True)


def _asked(name: str, files: Sequence[Path]) -> Iterator[Texts]:
    """Queries of conversations, and their answers where they hold any."""
    turns = [(f"{file.parent.name}/{session.id}", turn) for file in files for session in read_sessions(file) for turn in session.turns]
    yield Texts(f"{name}: queries", "input", tuple(turn.query for _, turn in turns), tuple(session for session, _ in turns))
    answered = [(session, turn.answer) for session, turn in turns if turn.answer]
    if answered:
        yield Texts(f"{name}: answers", "output", tuple(answer for _, answer in answered), tuple(session for session, _ in answered))


def _queries(file: Path) -> tuple[str, ...]:
    """The queries of a file, whatever FAQs their gold ids name."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        record = json.loads(line)
        if not isinstance(record, dict) or not isinstance(query := record.get("query"), str):
            raise DatasetError(f"{file}:{number}: query: expected text, got {line[:60]!r}")
        found.append(query)
    return tuple(found)


def _by_conversation(source: Texts, refused: Sequence[Alarm]) -> str:
    return _share(len({one.conversation for one in refused}), len(set(source.conversations))) if source.conversations else "-"


def _share(part: int, whole: int) -> str:
    found = exact_share(part, whole)
    return f"{100 * found.value:.2f} % of {whole:,} ({100 * found.low:.2f} to {100 * found.high:.2f})"


if __name__ == "__main__":
    main(sys.argv[1:])
