"""The history of approvals: a page, its export, and how reviewing goes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import batched

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone

from runs.access import may_decide
from runs.reading.history import STATES, HistoryQuery, read_all, read_choices, read_history
from runs.reading.history_export import csv_lines, json_lines
from runs.reading.queue import decided_counts
from runs.reading.reviewing import PERIODS, find_period, read_reviewing
from runs.views.errors import allow
from runs.views.streaming import streamed
from runs.views.viewer import viewer_of

READ = ("GET", "HEAD")
DAY = timedelta(days=1)
FORMATS = {
    "csv": ("text/csv; charset=utf-8", csv_lines),
    "jsonl": ("application/jsonl", json_lines),
}
LINES_AT_ONCE = 100


@allow(*READ)
def history(request: HttpRequest) -> HttpResponse:
    """What was decided, filtered, newest or oldest first."""
    query = HistoryQuery.parse(request.GET.dict())
    now = timezone.now()
    context = {
        "query": query,
        "page": read_history(query, viewer=viewer_of(request), now=now),
        "choices": read_choices(query),
        "states": STATES,
        "counts": decided_counts(now - DAY),
    }
    return render(request, "approvals/history.html", context)


@allow(*READ)
def decided(request: HttpRequest) -> HttpResponse:
    """The address that the history had before."""
    return redirect("approvals-history", permanent=True)


@allow(*READ)
def export(request: HttpRequest, kind: str) -> HttpResponseBase:
    """Everything that the filters leave, as a file that is sent while it is read."""
    query = HistoryQuery.parse(request.GET.dict())
    now = timezone.now()
    content_type, lines_of = FORMATS[kind]
    lines = lines_of(read_all(query, viewer=viewer_of(request), now=now))
    response = StreamingHttpResponse(streamed(request, _portions(lines)), content_type=content_type)
    name = f"approvals-{now:%Y-%m-%d}.{kind}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@allow(*READ)
def reviewing(request: HttpRequest) -> HttpResponse:
    """How reviewing goes, for people who decide."""
    if not may_decide(request.user):
        raise PermissionDenied("This page is for people who decide on approvals.")
    now = timezone.now()
    context = {
        "report": read_reviewing(find_period(request.GET.get("days", "")), now=now),
        "periods": PERIODS,
        "counts": decided_counts(now - DAY),
    }
    return render(request, "approvals/reviewing.html", context)


def _portions(lines: Iterator[str]) -> Iterator[str]:
    for portion in batched(lines, LINES_AT_ONCE, strict=False):
        yield "".join(portion)
