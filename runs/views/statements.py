"""The ledger as files, and the statement of a month."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone

from runs.reading.entries import COLUMNS, BadFilter, EntryFilter, entries, month_entries
from runs.reading.ledger_export import (
    BREAKDOWNS,
    BUCKETS,
    FORMATS,
    bounds_of,
    csv_lines,
    json_lines,
    parse_summary,
    summary,
    summary_columns,
)
from runs.reading.starting import agent_choices
from runs.reading.statement import read_months, read_statement
from runs.reading.statement_digest import bounds
from runs.views.costs import zone_of
from runs.views.errors import allow, error_page
from runs.views.streaming import download

READ = ("GET", "HEAD")
LINES_AT_ONCE = 200


@allow(*READ)
def export(request: HttpRequest) -> HttpResponseBase:
    """Every entry of the ledger that is asked for, one line each; without a format, the form to choose it."""
    sent, now = request.GET.dict(), timezone.now()
    if not sent.get("format"):
        zone = zone_of(request)
        today = now.astimezone(zone).date()
        context = {"today": today, "first": today.replace(day=1), "agents": agent_choices(), "zone": zone.key}
        return render(request, "costs/export.html", context | {"breakdowns": BREAKDOWNS, "buckets": BUCKETS})
    try:
        if month := sent.get("statement", ""):
            first = _month_of(month, now)
            rows = chain.from_iterable(entries(part) for part in month_entries(*bounds(first)))
            return _download(request, sent, f"statement-{first:%Y-%m}", rows, COLUMNS)
        wanted = EntryFilter.parse(sent, now=now)
        return _download(
            request, sent, f"ledger-{now:%Y-%m-%d}", entries(wanted.rows(), wanted.zone), COLUMNS
        )
    except BadFilter as error:
        return error_page(request, 400, sentence=str(error))


@allow(*READ)
def export_summary(request: HttpRequest) -> HttpResponseBase:
    """Sums of the ledger by period and breakdown."""
    sent = request.GET.dict()
    try:
        wanted = EntryFilter.parse(sent, now=timezone.now())
        by, bucket = parse_summary(sent)
        rows = summary(wanted, by, bounds_of(wanted, bucket))
        name = f"costs-by-{'-'.join((*by, bucket))}"
        return _download(request, sent, name, rows, summary_columns(by))
    except BadFilter as error:
        return error_page(request, 400, sentence=str(error))


@allow(*READ)
def statement_list(request: HttpRequest) -> HttpResponse:
    """All months that there is a statement of."""
    now = timezone.now()
    months = read_months(now=now)
    return render(
        request, "costs/statements.html", {"months": months, "this": months[0][0], "tab": "statements"}
    )


@allow(*READ)
def statement(request: HttpRequest, year: int, month: int) -> HttpResponse:
    """One month, made to be printed and filed."""
    now = timezone.now()
    first = _first_day(year, month)
    if first is None or first > now.astimezone(UTC).date():
        raise Http404(f"There is no statement of {year}-{month:02} yet.")
    context = {
        "statement": read_statement(first, now=now),
        "installation": settings.AGENTOPS_NAME,
        "version": settings.VERSION,
        "address": request.build_absolute_uri(),
    }
    return render(request, "costs/statement.html", context)


def _download(
    request: HttpRequest,
    sent: Mapping[str, str],
    name: str,
    rows: Iterable[dict[str, Any]],
    columns: Iterable[str],
) -> HttpResponseBase:
    wanted = sent.get("format", "csv")
    if wanted not in FORMATS:
        raise BadFilter("format has to be csv or jsonl.")
    lines: dict[str, Callable[[], Iterator[str]]] = {
        "csv": lambda: csv_lines(rows, columns),
        "jsonl": lambda: json_lines(rows),
    }
    return download(
        request, lines[wanted](), name=f"{name}.{wanted}", content_type=FORMATS[wanted], at_once=LINES_AT_ONCE
    )


def _month_of(text: str, now: datetime) -> date:
    try:
        first = datetime.strptime(text, "%Y-%m").date()
    except ValueError as error:
        raise BadFilter("statement has to be a month such as 2026-11.") from error
    if first > now.astimezone(UTC).date():
        raise BadFilter(f"There is no statement of {first:%Y-%m} yet.")
    return first


def _first_day(year: int, month: int) -> date | None:
    try:
        return date(year, month, 1)
    except (ValueError, OverflowError):
        return None
