"""The report of the running service: the log's tables, kept up to date, and the figures on them, kept until the log changes.

The tables are read when somebody first asks, and what came since at each further request. One report is computed at a time: it takes
the processors that turns are answered with. Leaves out figures (`report/`) and who may see them (`routes/report.py`).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from chat.log.store import SqlConversationLog
from chat.tokens import TiktokenCounter
from evaluation.stats import RESAMPLES
from kb.types import Faq
from report.drilldown import Show, TurnDetail, TurnPage, turn_detail, turn_page
from report.figures import SavingsReport
from report.prefix import prefix_tokens
from report.savings import savings_report
from report.source import TurnTable, open_log
from report.sums import ReportOptions
from service.errors import ApiError

PATIENCE = 20.0
"""Seconds that a request waits for another one's report, before it is told to try again."""
RETRY_AFTER = 5


@dataclass
class Reports:
    """Makes reports on a log, for one caller after the other."""

    log: SqlConversationLog
    faqs: Callable[[], Sequence[Faq]] = tuple
    """The knowledge base's, for topics and for the cost of a prompt that holds all of them."""
    version: Callable[[], str] = str
    """The knowledge base's; when it is another one, topics are looked up anew."""
    budget: float | None = None
    """Share of skips that may do harm, by the policy that serves; None: it has none."""
    resamples: int = RESAMPLES
    """Times that conversations are drawn again for the intervals."""
    patience: float = PATIENCE
    keep: int = 16
    """Reports that are kept, the latest asked for."""
    _table: TurnTable | None = None
    _version: str = ""
    _prefix_tokens: int | None = None
    _kept: OrderedDict[str, SavingsReport] = field(default_factory=OrderedDict)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def savings(self, options: ReportOptions) -> SavingsReport:
        """The report on the log as it is now. Raises: ApiError, ReportError, LogError."""
        with self._current() as table:
            asked = replace(options, resamples=self.resamples, budget=self.budget, prefix_tokens=self._prefix_tokens)
            key = repr(asked)
            found = self._kept.get(key) or savings_report(table, asked, datetime.now(UTC))
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > self.keep:
                self._kept.popitem(last=False)
            return found

    def turns(self, options: ReportOptions, show: Show, before: int | None, limit: int) -> TurnPage:
        """A page of the turns behind a report. Raises: ApiError, ReportError, LogError."""
        with self._current() as table:
            return turn_page(table, options, show=show, before=before, limit=limit)

    def turn(self, turn_id: str, *, owner: str | None, inside: bool) -> TurnDetail | None:
        """One turn; None when there is none, or none of that owner (None: of anyone). Raises: ApiError, ReportError, LogError."""
        with self._current() as table:
            return turn_detail(table, self.log, turn_id, owner=owner, inside=inside)

    def close(self) -> None:
        """Let go of the tables; the log stays open."""
        with self._one:
            self._let_go()

    @contextmanager
    def _current(self) -> Iterator[TurnTable]:
        """The tables with what came since; nobody else has them meanwhile."""
        if not self._one.acquire(timeout=self.patience):
            raise ApiError(503, "Another report is being computed; try again.", "busy", retry_after=RETRY_AFTER)
        try:
            if self._table is None or self.version() != self._version:
                self._table = self._opened()
            elif self._table.refresh():
                self._kept.clear()
            yield self._table
        finally:
            self._one.release()

    def _opened(self) -> TurnTable:
        """The tables, read anew with the knowledge base as it is."""
        self._let_go()
        self._version, faqs = self.version(), self.faqs()
        self._prefix_tokens = prefix_tokens(faqs, TiktokenCounter()) if faqs else None
        return open_log(self.log, {faq.id: faq.category for faq in faqs if faq.category})

    def _let_go(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None
        self._kept.clear()
