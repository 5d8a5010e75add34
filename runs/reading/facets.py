"""Filters beside the list, with counts that are bounded however many runs there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Case, Count, Exists, OuterRef, When

from runs.models import ENDED, Approval, Run, RunNote, RunTag, Step, StepStatus
from runs.reading.finding import Finder
from runs.reading.language import Query, Term
from runs.reading.places import NEWEST
from runs.reading.runs import RunQuery

CAP = 1_000  # runs that are counted
CAP_WALKED = 200  # where their steps have to be looked up
MOST_TAGS = 8
TRAITS: dict[str, dict[str, Callable[[dict[str, Any]], bool]]] = {
    "has": {
        "approval": lambda kind: kind["has_approval"],
        "note": lambda kind: kind["has_note"],
        "unknown": lambda kind: kind["has_unknown"],
    },
    "is": {
        "open": lambda kind: kind["status"] not in ENDED,
        "ended": lambda kind: kind["status"] in ENDED,
        "simulated": lambda kind: kind["simulated"],
        "live": lambda kind: not kind["simulated"],
        "fork": lambda kind: kind["is_fork"],
    },
}
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
    has: tuple[Facet, ...]
    is_: tuple[Facet, ...]

    @property
    def traits(self) -> tuple[tuple[str, tuple[Facet, ...]], ...]:
        """What runs have and are, with the heading of each."""
        return tuple((name, facets) for name, facets in (("Has", self.has), ("Is", self.is_)) if facets)


def read_facets(query: RunQuery, *, now: datetime) -> Facets:
    """Counts per status, agent and tag: of all runs up to CAP each, of a search among its newest runs.

    What runs have and are is counted among the newest ones; a value that all of them or none of them have
    is no help and left out.
    """
    rest = query.query.without("status").without("agent").without("tag")
    if query.error is not None:
        return Facets((), (), (), (), ())
    asked = query.asking(rest)
    pks: Any
    if not rest:
        # In the query itself: a thousand keys back and forth take longer than finding them.
        newest = Run.objects.order_by("-created_at", "-pk")
        pks, most, capped = newest.values("pk")[:CAP], CAP, False
    else:
        most = CAP_WALKED if asked.conditions.has_text else CAP
        pks = Finder(asked.conditions, NEWEST, now=now, windows=1).find(most).pks
        capped = len(pks) >= most
    kinds = _kinds(pks)
    statuses, agents = query.query.of("status"), query.query.of("agent")
    by_status = {**dict.fromkeys(STATUSES, 0), **_sums(kinds, "status", ("agent", agents))}
    by_agent = {**dict.fromkeys(agents, 0), **_sums(kinds, "agent", ("status", statuses))}
    if not rest and not query.query.terms:
        by_status |= _counted("status", list(by_status))
        by_agent |= _counted("agent", list(by_agent))
    tags = RunTag.objects.filter(run__in=pks).order_by().values_list("name").annotate(n=Count("pk"))
    by_tag = {**dict.fromkeys(query.query.of("tag"), 0), **dict(tags.order_by("-n", "name")[:MOST_TAGS])}
    shown = [one for one in kinds if _is_of(one, "status", statuses) and _is_of(one, "agent", agents)]
    is_more = sum(one["n"] for one in kinds) >= most
    return Facets(
        tuple(_facet(query, "status", value, by_status[value], capped) for value in STATUSES),
        tuple(_facet(query, "agent", value, by_agent[value], capped) for value in sorted(by_agent)),
        tuple(_facet(query, "tag", value, count, capped) for value, count in by_tag.items()),
        _traits(query, "has", shown, is_more),
        _traits(query, "is", shown, is_more),
    )


def _kinds(pks: Any) -> list[dict[str, Any]]:
    """How many of these runs, as `n`, there are of each status, agent and set of traits: one query."""
    runs = Run.objects.filter(pk__in=pks).order_by().values("status", "agent", "simulated")
    unknown = Step.objects.filter(status=StepStatus.UNKNOWN)
    traits = {
        "has_approval": Exists(Approval.objects.filter(run=OuterRef("pk"))),
        # All of them at once: they are few, and steps of a run are many.
        "has_note": Case(When(pk__in=RunNote.objects.order_by().values("run"), then=True), default=False),
        "has_unknown": Case(When(pk__in=unknown.values("run"), then=True), default=False),
        "is_fork": Case(When(parent_run__isnull=False, then=True), default=False),
    }
    counted: Any = runs.annotate(**traits).annotate(n=Count("pk"))
    return list(counted)


def _is_of(kind: dict[str, Any], column: str, wanted: tuple[str, ...]) -> bool:
    return not wanted or kind[column] in wanted


def _sums(kinds: list[dict[str, Any]], column: str, other: tuple[str, tuple[str, ...]]) -> dict[str, int]:
    """Per value of one column, of runs whose other column is wanted."""
    sums: dict[str, int] = {}
    for kind in kinds:
        if _is_of(kind, *other):
            sums[kind[column]] = sums.get(kind[column], 0) + kind["n"]
    return sums


def _traits(query: RunQuery, name: str, kinds: list[dict[str, Any]], is_more: bool) -> tuple[Facet, ...]:
    """What some of these runs have or are and others are not. One more of them narrows the search further."""
    total = sum(kind["n"] for kind in kinds)
    facets = []
    for value, fits in TRAITS[name].items():
        count = sum(kind["n"] for kind in kinds if fits(kind))
        terms = query.query.terms
        asking = [term for term in terms if term.field == name and not term.negated and value in term.values]
        if asking or 0 < count < total:
            others = tuple(term for term in terms if term not in asking)
            changed = Query(others if asking else (*others, Term(name, (value,))))
            address = query.asking(changed).address
            facets.append(Facet(value, count, bool(asking), address, is_more and count > 0))
    return tuple(facets)


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
