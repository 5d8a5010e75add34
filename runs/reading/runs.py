"""The list of runs: what it was asked for, its pages by key, and counts for its filters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Self
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, Subquery
from django.utils import timezone

from runs.models import Run
from runs.reading.conditions import Conditions, conditions_of
from runs.reading.finding import Finder, Found
from runs.reading.language import Query, QueryError, Term, normalised, parse
from runs.reading.places import NEWEST, Place, Sort
from runs.reading.run_rows import RunRow, read_rows

PAGE_SIZE = 50
NEW_CAP = 100
NEW_LOOKED = 1_000
UUID_DIGITS = 32
REQUEST_ID = re.compile(r"[0-9a-f]{8,32}")  # with fewer digits, numbers and words would be ids, too


@dataclass(frozen=True)
class Cursor:
    """A moment in a list, newest first: pages by key stay right while new rows arrive."""

    created_at: datetime
    pk: int

    def __str__(self) -> str:
        return f"{round(self.created_at.timestamp() * 1_000_000)}-{self.pk}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The cursor in an address, or None when it is none."""
        stamp, _, pk = text.partition("-")
        if not (stamp.isdecimal() and pk.isdecimal() and len(stamp) < 18 and len(pk) < 19):
            return None
        return cls(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(stamp)), int(pk))


class Newest(Cursor):
    """The latest start and the highest key of the runs that a list knows; often those of two runs.

    Runs that start at the same time get their times in another order than their keys.
    """

    def newer(self) -> Q:
        """Runs that were not there."""
        return Q(created_at__gt=self.created_at) | Q(pk__gt=self.pk)


@dataclass(frozen=True)
class RunQuery:
    """What the list was asked for."""

    text: str = ""
    sort: Sort = NEWEST
    before: Place | None = None  # the page behind this place, which is the next one
    after: Place | None = None  # the page before it

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> RunQuery:
        """From the parameters of an address; a place or an order that makes no sense is left out."""
        text = " ".join(normalised(parameters.get("q", "")).split())
        for name in ("status", "agent"):  # addresses of earlier versions
            if value := parameters.get(name, "").replace("\x00", "").replace('"', ""):
                text = _with(text, name, value)
        sort = Sort.parse(parameters.get("sort", ""))
        before = Place.parse(parameters.get("before", ""), sort)
        after = None if before else Place.parse(parameters.get("after", ""), sort)
        return cls(text, sort, before, after)

    @cached_property
    def _parsed(self) -> tuple[Query, Conditions, QueryError | None]:
        try:
            query = parse(self.text)
            return query, conditions_of(query, timezone.now()), None
        except QueryError as error:
            return Query(), Conditions(), error

    @property
    def query(self) -> Query:
        """The terms; none when they cannot be understood."""
        return self._parsed[0]

    @property
    def conditions(self) -> Conditions:
        return self._parsed[1]

    @property
    def error(self) -> QueryError | None:
        """What is wrong with the text, in a sentence that says what to do."""
        return self._parsed[2]

    @property
    def is_filtered(self) -> bool:
        return bool(self.text)

    @property
    def address(self) -> str:
        """The query string of this list, without a leading question mark."""
        pairs = {"q": self.text, "sort": self.sort, "before": self.before, "after": self.after}
        return urlencode(
            {name: str(value) for name, value in pairs.items() if value is not None and str(value)}
        )

    def first(self) -> RunQuery:
        """The same list from its beginning."""
        return replace(self, before=None, after=None)

    def asking(self, query: Query) -> RunQuery:
        """Another search in the same order."""
        return RunQuery(str(query), self.sort)

    def sorted_by(self, name: str) -> RunQuery:
        """The same search by another order; by its own the other way round."""
        turned = self.sort.name == name and not self.sort.ascending
        return RunQuery(self.text, Sort(name, turned))

    @property
    def tokens(self) -> list[tuple[Term, str]]:
        """Each term with the address of the list without it."""
        terms = self.query.terms
        return [
            (term, self.asking(Query((*terms[:at], *terms[at + 1 :]))).address)
            for at, term in enumerate(terms)
        ]

    def request_id(self) -> tuple[Q, Query] | None:
        """Runs whose id begins with the only word of this search, and the other terms; None without one."""
        words = [term for term in self.query.terms if not term.field and not term.negated]
        by_id = request_id_begins(words[0].values[0]) if len(words) == 1 else None
        if by_id is None:
            return None
        return by_id, Query(tuple(term for term in self.query.terms if term is not words[0]))


def _with(text: str, name: str, value: str) -> str:
    """The search with one more term, unless that makes no sense."""
    try:
        return f"{text} {parse('').with_value(name, value)}".strip() if parse(f'{name}:"{value}"') else text
    except QueryError:
        return text


def request_id_begins(text: str) -> Q | None:
    """Runs whose request id begins with this text, dashes or not; None when it cannot be a request id.

    A range, because databases keep an id as text or as a number of their own and compare both alike.
    """
    digits = text.replace("-", "").lower()
    if not REQUEST_ID.fullmatch(digits):
        return None
    return Q(
        request_id__gte=UUID(digits.ljust(UUID_DIGITS, "0")),
        request_id__lte=UUID(digits.ljust(UUID_DIGITS, "f")),
    )


@dataclass(frozen=True)
class RunPage:
    """One page of the list."""

    rows: tuple[RunRow, ...]
    next: RunQuery | None = None
    previous: RunQuery | None = None
    further: RunQuery | None = None  # where looking ended without a full page
    looked_to: Place | None = field(default=None, compare=False)

    @property
    def pks(self) -> list[int]:
        return [row.pk for row in self.rows]


def read_page(query: RunQuery, *, now: datetime) -> RunPage:
    """One page of runs: a handful of queries, however many runs there are."""
    if query.error is not None:
        return RunPage(())
    backwards = query.after is not None
    found = find_runs(query, PAGE_SIZE + 1, now=now)
    places = found.places[-PAGE_SIZE:] if backwards else found.places[:PAGE_SIZE]
    more = len(found.places) > PAGE_SIZE
    rows = {row.pk: row for row in read_rows([place.pk for place in places], now=now)}
    first, stopped = query.first(), found.stopped_at
    further = replace(first, after=stopped) if backwards else replace(first, before=stopped)
    return RunPage(
        rows=tuple(rows[place.pk] for place in places if place.pk in rows),
        next=replace(first, before=places[-1]) if places and (more or backwards) else None,
        previous=replace(first, after=places[0])
        if places and (query.before or (backwards and more))
        else None,
        further=further if stopped else None,
        looked_to=stopped,
    )


def find_runs(query: RunQuery, most: int, *, now: datetime, windows: int | None = None) -> Found:
    """Up to `most` runs of a search from its place on, in its order: by words, or by a request id.

    `windows` bounds how many runs are looked at; the usual bound is for one page.
    """
    backwards = query.after is not None
    by_id = query.request_id()
    if by_id is not None:
        named, rest = by_id
        places = [
            Place(*key)
            for key in Run.objects.filter(named)
            .order_by("-created_at", "-pk")
            .values_list("created_at", "pk")[:PAGE_SIZE]
        ]
        if places:
            conditions = query.asking(rest).conditions
            fitting = set(Finder(conditions, NEWEST, now=now).among([place.pk for place in places]))
            return Found(tuple(place for place in places if place.pk in fitting)[:most])
    finder = Finder(query.conditions, query.sort, now=now, windows=windows)
    return finder.find(most, after=query.before or query.after, backwards=backwards)


def count_newer(query: RunQuery, than: Newest | None) -> int:
    """How many runs that fit the query came after these, up to NEW_CAP; of the NEW_LOOKED newest ones."""
    runs = Run.objects.filter(than.newer()) if than is not None else Run.objects.all()
    pks = list(runs.order_by("-created_at", "-pk").values_list("pk", flat=True)[:NEW_LOOKED])
    if not query.conditions.is_empty and pks:
        pks = Finder(query.conditions, query.sort, now=timezone.now()).among(pks)
    return min(len(pks), NEW_CAP)


def newest_runs() -> Newest | None:
    """Up to where runs are known to whoever reads the list now; None when there are none."""
    last = Subquery(Run.objects.order_by("-pk").values("pk")[:1])
    newest = Run.objects.order_by("-created_at", "-pk").values_list("created_at", last).first()
    return Newest(*newest) if newest else None
