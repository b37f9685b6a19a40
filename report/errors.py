"""What can go wrong in a report.

    ReportError           base
    ├── SourceError       turns, verdicts or ratings can't be read: names the file and what is missing
    └── ReportOptionError what was asked for can't be: a filter, a price table, a rate; says what would do
"""


class ReportError(Exception):
    """Base of every error that `report` raises."""


class SourceError(ReportError):
    """The turns of a report can't be read."""


class ReportOptionError(ReportError):
    """A report can't be made as it was asked for."""
