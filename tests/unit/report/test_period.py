"""Periods that people write: whole days in UTC, the last one in it."""

from datetime import UTC, datetime

import pytest

from report.errors import ReportOptionError
from report.period import period_of, since_of, until_of


def test_the_last_day_is_in_the_period() -> None:
    assert period_of("2026-10-01..2026-10-31") == (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def test_either_end_may_be_left_out() -> None:
    assert period_of("2026-10-01..") == (datetime(2026, 10, 1, tzinfo=UTC), None)
    assert period_of("..2026-10-01") == (None, datetime(2026, 10, 2, tzinfo=UTC))


def test_a_time_is_taken_as_it_is() -> None:
    assert until_of("2026-10-01T08:00:00+02:00") == datetime(2026, 10, 1, 6, tzinfo=UTC)
    assert since_of("2026-10-01T08:00") == datetime(2026, 10, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "..", "2026-10-01", "october..november", "2026-02-30..", "9999-12-31..9999-12-31"])
def test_anything_else_says_what_was_expected(text: str) -> None:
    with pytest.raises(ReportOptionError, match="expected a"):
        period_of(text)
