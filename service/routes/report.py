"""The savings report: `GET /v1/report/savings`, whole or as a file, and under `/v1/report/turns` the turns that it is made of.

A key with the scope `admin` sees every owner's turns, another with `report` its own alone; without keys, whoever is on this machine
sees all. Texts are redacted, and similarities and probabilities are for administrators.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import TypeAdapter

from report.drilldown import MAX_PAGE, Show, TurnDetail, TurnPage
from report.export import content, to_json
from report.period import since_of, until_of
from report.render import part
from report.sums import ReportOptions
from service.access import AnyKey, Components_, requires
from service.errors import ApiError
from service.keys import Caller, Scope
from service.reports import Reports

router = APIRouter(prefix="/v1/report", dependencies=[Depends(requires(Scope.REPORT))])

Format = Literal["json", "html", "file", "csv", "parquet"]
FILES: Mapping[Format, tuple[str, str]] = MappingProxyType({
    "file": (".html", "text/html; charset=utf-8"), "csv": (".csv", "text/csv; charset=utf-8"),
    "parquet": (".parquet", "application/vnd.apache.parquet")})
"""Formats that are saved: the file's ending and its type."""
MAX_MONTH = 10**12

DAY = "A day, which is a whole one in UTC, or a time with its zone."
Since = Annotated[str | None, Query(max_length=40, alias="from", description=DAY)]
Until = Annotated[str | None, Query(max_length=40, alias="to", description=DAY)]
Named = Annotated[str | None, Query(max_length=200)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The turns that a request is about."""

    options: ReportOptions
    everything: bool
    """Whether the caller may see all owners' turns, and the policy's inside."""


def wanted(
    caller: AnyKey, since: Since = None, until: Until = None, policy: Named = None, owner: Named = None, category: Named = None,
    currency: Annotated[str | None, Query(max_length=10)] = None,
    month: Annotated[int | None, Query(ge=1, le=MAX_MONTH, description="Turns a month of the forecast.")] = None,
) -> Wanted:
    """What a request asks for, as far as the caller may. Raises: ApiError, ReportError."""
    options = ReportOptions(since=since_of(since) if since else None, until=until_of(until) if until else None, policy=policy or None,
                            owner=_owner(caller, owner or None), category=category or None, currency=currency or None,
                            turns_a_month=month)
    return Wanted(options, _everything(caller))


def reports(components: Components_) -> Reports:
    """What makes reports. Raises: ApiError 503."""
    if components.reports is None:
        raise ApiError(503, "This service keeps no log that a report could be made of.", "no_log")
    return components.reports


Wanted_ = Annotated[Wanted, Depends(wanted)]
Reports_ = Annotated[Reports, Depends(reports)]


@router.get("/savings", response_model=None)
def savings(asked: Wanted_, made: Reports_, format: Format = "json") -> Response:
    """What was saved, how surely, and whether answers got worse: JSON as in docs/report.schema.json, or the same as HTML or a table."""
    report = made.savings(asked.options)
    if format == "json":
        return Response(to_json(report), media_type="application/json")
    if format == "html":
        return Response(part(report), media_type="text/html; charset=utf-8")
    suffix, kind = FILES[format]
    return Response(content(report, suffix), media_type=kind, headers={"content-disposition": f'attachment; filename="savings{suffix}"'})


@router.get("/turns")
def turns(asked: Wanted_, made: Reports_, show: Show = "all", before: Annotated[int | None, Query(ge=0)] = None,
          limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50) -> dict[str, Any]:
    """A page of turns, the latest first; `next` is `before` of the next page."""
    return _json(made.turns(asked.options, show, before, limit))


@router.get("/turns/{turn_id:path}")
def turn(turn_id: str, caller: AnyKey, made: Reports_) -> dict[str, Any]:
    """All that is known of one turn."""
    everything = _everything(caller)
    found = made.turn(turn_id, owner=None if everything else caller.owner, inside=everything)
    if found is None:
        raise ApiError(404, "id: expected the id of a turn that this key may see, got another", "turn_not_found", "id")
    return _json(found)


def _everything(caller: Caller) -> bool:
    return Scope.ADMIN in caller.scopes


def _owner(caller: Caller, named: str | None) -> str | None:
    if _everything(caller):
        return named
    if named not in (None, caller.owner):
        raise ApiError(403, f"owner: expected {caller.owner}, whose key this is, got another; a key with the scope admin sees all",
                       "missing_scope", "owner")
    return caller.owner


def _json(value: TurnPage | TurnDetail) -> dict[str, Any]:
    found = TypeAdapter(type(value)).dump_python(value, mode="json")
    assert isinstance(found, dict), "they are dataclasses"
    return found
