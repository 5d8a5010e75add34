"""Filters beside the list, with counts that are bounded however many runs there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Count

from runs.models import Run, RunTag
from runs.reading.finding import Finder
from runs.reading.places import NEWEST
from runs.reading.runs import RunQuery

CAP = 1_000  # runs that are counted
CAP_WALKED = 200  # where their steps have to be looked up
MOST_TAGS = 8
STATUSES = ("waiting", "running", "queued", "paused", "succeeded", "stopped", "failed", "cancelled")


@dataclass(frozen=True)
class Facet:
    """One value of a filter, how many runs have it, and the list that a click leads to."""

    value: str
    count: int
    chosen: bool
    address: str
    is_more: bool = False  # there may be more than were counted

    @property
    def shown(self) -> str:
        return f"{self.count:,}+" if self.is_more else f"{self.count:,}"


@dataclass(frozen=True)
class Facets:
    """Counts of the runs that fit the rest of the search."""

    statuses: tuple[Facet, ...]
    agents: tuple[Facet, ...]
    tags: tuple[Facet, ...]


def read_facets(query: RunQuery, *, now: datetime) -> Facets:
    """Counts per status, agent and tag: of all runs up to CAP each, of a search among its newest runs."""
    rest = query.query.without("status").without("agent").without("tag")
    if query.error is not None:
        return Facets((), (), ())
    asked = query.asking(rest)
    pks: Any
    if not rest:
        # In the query itself: a thousand keys back and forth take longer than finding them.
        newest = Run.objects.order_by("-created_at", "-pk")
        pks, capped = newest.values("pk")[:CAP], False
    else:
        most = CAP_WALKED if asked.conditions.has_text else CAP
        pks = Finder(asked.conditions, NEWEST, now=now, windows=1).find(most).pks
        capped = len(pks) >= most
    rows = list(
        Run.objects.filter(pk__in=pks).order_by().values_list("status", "agent").annotate(n=Count("pk"))
    )
    by_status = {**dict.fromkeys(STATUSES, 0), **_sums(rows, 0, 1, query.query.of("agent"))}
    by_agent = {**dict.fromkeys(query.query.of("agent"), 0), **_sums(rows, 1, 0, query.query.of("status"))}
    if not rest and not query.query.terms:
        by_status |= _counted("status", list(by_status))
        by_agent |= _counted("agent", list(by_agent))
    tags = RunTag.objects.filter(run__in=pks).order_by().values_list("name").annotate(n=Count("pk"))
    by_tag = {**dict.fromkeys(query.query.of("tag"), 0), **dict(tags.order_by("-n", "name")[:MOST_TAGS])}
    return Facets(
        tuple(_facet(query, "status", value, by_status[value], capped) for value in STATUSES),
        tuple(_facet(query, "agent", value, by_agent[value], capped) for value in sorted(by_agent)),
        tuple(_facet(query, "tag", value, count, capped) for value, count in by_tag.items()),
    )


def _sums(
    rows: list[tuple[str, str, int]], column: int, other: int, wanted: tuple[str, ...]
) -> dict[str, int]:
    """Per value of one column, of rows whose other column is wanted."""
    sums: dict[str, int] = {}
    for row in rows:
        if not wanted or row[other] in wanted:
            sums[str(row[column])] = sums.get(str(row[column]), 0) + row[2]
    return sums


def _counted(column: str, values: list[str]) -> dict[str, int]:
    """All runs with each value, up to CAP: read from the index alone."""
    if not values:
        return {}
    one = (
        f"SELECT %s, (SELECT count(*) FROM (SELECT 1 FROM runs_run WHERE {column} = %s LIMIT {CAP}) AS rows)"  # noqa: S608
    )
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join([one] * len(values)), [v for value in values for v in (value, value)]
        )
        return dict(cursor.fetchall())


def _facet(query: RunQuery, name: str, value: str, count: int, capped: bool) -> Facet:
    """A click on the chosen value takes the filter away again."""
    chosen = value in query.query.of(name)
    changed = query.query.without(name) if chosen else query.query.with_value(name, value)
    return Facet(value, count, chosen, query.asking(changed).address, (capped and count > 0) or count >= CAP)
