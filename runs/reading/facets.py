"""Filters beside the list of runs, with counts that are bounded however many runs there are.

A count says how many runs a click on it leads to. The values of a field are therefore counted among the
runs that fit all other terms: the terms that ask for a value of this very field are left out, because a
click replaces them. Terms with a minus always count, also those about the field itself: a click keeps them.
So with `-status:failed` the value failed counts 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Case, Count, Exists, OuterRef, When

from runs.models import ENDED, Approval, Run, RunNote, RunTag, Step, StepStatus
from runs.reading.language import Query, Term
from runs.reading.places import NEWEST
from runs.reading.runs import RunQuery, find_runs

CAP = 1_000  # runs that are counted
CAP_WALKED = 200  # where their steps have to be looked up
WINDOWS = 2  # that are looked through for them
MOST_TAGS = 8  # of those that were not asked for
TRAITS: dict[str, dict[str, Callable[[dict[str, Any]], bool]]] = {
    "has": {
        "approval": lambda kind: kind["has_approval"],
        "note": lambda kind: kind["has_note"],
        "unknown": lambda kind: kind["has_unknown"],
    },
    "is": {
        "open": lambda kind: kind["is_open"],
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


@dataclass(frozen=True)
class Sample:
    """The newest runs of a search, and whether looking stopped before all of them were found."""

    pks: Any  # keys, or a query for them
    kinds: list[dict[str, Any]]
    is_part: bool


class Samples:
    """The runs among which each field is counted; the same search is looked for once."""

    def __init__(self, query: RunQuery, now: datetime) -> None:
        self._query, self._now = query, now
        self._taken: dict[Query, Sample] = {}

    def of(self, terms: Query) -> Sample:
        """The newest runs that fit these terms, up to CAP."""
        if terms not in self._taken:
            self._taken[terms] = self._take(terms)
        return self._taken[terms]

    def _take(self, terms: Query) -> Sample:
        asked = self._query.asking(terms)
        if not terms:
            # In the query itself: a thousand keys back and forth take longer than finding them.
            pks: Any = Run.objects.order_by("-created_at", "-pk").values("pk")[: CAP + 1]
            kinds = _kinds(pks)
            return Sample(pks, kinds, sum(kind["n"] for kind in kinds) > CAP)
        most = CAP_WALKED if asked.conditions.has_text else CAP
        found = find_runs(replace(asked, sort=NEWEST), most + 1, now=self._now, windows=WINDOWS)
        pks = found.pks[:most]
        return Sample(pks, _kinds(pks), len(found.pks) > most or found.stopped_at is not None)


def read_facets(query: RunQuery, *, now: datetime) -> Facets:
    """Counts per status, agent, tag and trait, up to CAP each; `+` where there may be more runs.

    A trait that all runs of the search have, or none of them, does not narrow it and is left out.
    """
    if query.error is not None:
        return Facets((), (), (), (), ())
    samples, terms = Samples(query, now), query.query
    tagged = samples.of(terms.without("tag"))
    whole = samples.of(terms)
    return Facets(
        _columns(query, "status", samples, list(STATUSES)),
        _columns(query, "agent", samples, []),
        tuple(_facet(query, "tag", value, n, tagged.is_part) for value, n in _tags(query, tagged)),
        _traits(query, "has", whole),
        _traits(query, "is", whole),
    )


def _columns(query: RunQuery, name: str, samples: Samples, always: list[str]) -> tuple[Facet, ...]:
    """The values of a column: those of the sample, those that were asked for, and those shown `always`."""
    rest = query.query.without(name)
    sample = samples.of(rest)
    asked = [value for value in query.query.of(name) if not value.endswith("*")]
    counts = dict.fromkeys([*always, *sorted(asked)], 0)
    for kind in sample.kinds:
        counts[kind[name]] = counts.get(kind[name], 0) + kind["n"]
    if not rest:
        counts |= _counted(name, list(counts))
        return tuple(_facet(query, name, value, n, n > CAP) for value, n in counts.items())
    return tuple(_facet(query, name, value, n, sample.is_part) for value, n in counts.items())


def _tags(query: RunQuery, sample: Sample) -> list[tuple[str, int]]:
    """The most frequent tags, and those that were asked for."""
    tags = RunTag.objects.filter(run__in=sample.pks).order_by().values_list("name").annotate(n=Count("pk"))
    counts = dict(tags.order_by("-n", "name"))
    asked = [value.lower() for value in query.query.of("tag")]
    return [(name, counts.get(name, 0)) for name in dict.fromkeys([*asked, *list(counts)[:MOST_TAGS]])]


def _kinds(pks: Any) -> list[dict[str, Any]]:
    """How many of these runs, as `n`, there are of each status, agent and set of traits: one query."""
    runs = Run.objects.filter(pk__in=pks).order_by().values("status", "agent", "simulated")
    unknown = Step.objects.filter(status=StepStatus.UNKNOWN)
    traits = {
        "has_approval": Exists(Approval.objects.filter(run=OuterRef("pk"))),
        # All of them at once: they are few, and steps of a run are many.
        "has_note": Case(When(pk__in=RunNote.objects.order_by().values("run"), then=True), default=False),
        "has_unknown": Case(When(pk__in=unknown.values("run"), then=True), default=False),
        "is_open": Case(When(ended_at__isnull=True, then=True), default=False),
        "is_fork": Case(When(parent_run__isnull=False, then=True), default=False),
    }
    counted: Any = runs.annotate(**traits).annotate(n=Count("pk"))
    return list(counted)


def _traits(query: RunQuery, name: str, sample: Sample) -> tuple[Facet, ...]:
    """What some of these runs have or are and others are not. One more of them narrows the search further."""
    kinds = sample.kinds
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
            facets.append(Facet(value, min(count, CAP), bool(asking), address, sample.is_part))
    return tuple(facets)


def _counted(column: str, values: list[str]) -> dict[str, int]:
    """All runs with each value, up to one more than CAP: read from the index alone."""
    if not values:
        return {}
    some = f"SELECT 1 FROM runs_run WHERE {column} = %s LIMIT {CAP + 1}"  # noqa: S608
    one = f"SELECT %s, (SELECT count(*) FROM ({some}) AS rows)"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join([one] * len(values)), [v for value in values for v in (value, value)]
        )
        return dict(cursor.fetchall())


def _facet(query: RunQuery, name: str, value: str, count: int, is_more: bool) -> Facet:
    """A click on the chosen value takes the filter away again."""
    asked = query.query.of(name)
    if name == "tag":
        chosen = value in {one.lower() for one in asked}
    else:
        chosen = any(value.startswith(one[:-1]) if one.endswith("*") else value == one for one in asked)
    changed = query.query.without(name) if chosen else query.query.with_value(name, value)
    return Facet(value, min(count, CAP), chosen, query.asking(changed).address, is_more)
