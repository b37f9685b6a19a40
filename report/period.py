"""Dates that people write, as instants: a day is a whole day in UTC, and the last one of a period is in it.

Leaves out what is reported on (`sums.py`).
"""

from datetime import UTC, date, datetime, time, timedelta

from report.errors import ReportOptionError

BETWEEN = ".."


def since_of(text: str) -> datetime:
    """The first instant of a day, or the time that is written. Raises: ReportOptionError."""
    return _instant(text, "from", timedelta())


def until_of(text: str) -> datetime:
    """The first instant after a day, or the time that is written, which is not in the period. Raises: ReportOptionError."""
    return _instant(text, "to", timedelta(days=1))


def period_of(text: str) -> tuple[datetime | None, datetime | None]:
    """`2026-10-01..2026-10-31`, either end left out: since and until. Raises: ReportOptionError."""
    first, between, last = text.partition(BETWEEN)
    if not between or not (first or last):
        raise ReportOptionError(f"expected a period like 2026-10-01{BETWEEN}2026-10-31, got {text[:80]!r}")
    return since_of(first) if first else None, until_of(last) if last else None


def _instant(text: str, name: str, day: timedelta) -> datetime:
    try:
        if len(text) == len("2026-10-01"):
            return datetime.combine(date.fromisoformat(text), time(), UTC) + day
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise ReportOptionError(f"{name}: expected a day like 2026-10-01 or a time like 2026-10-01T08:00:00Z, got {text[:80]!r}") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
