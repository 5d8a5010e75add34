"""Orders of the list of runs, and places in them: pages by key stay right while new runs arrive."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import DateTimeField, F, Q, QuerySet, Value
from django.db.models.expressions import Combinable

from runs.models import Run
from runs.models.run import LENGTH, TOKENS, Seconds

TIME = "time"
SORTS = {TIME: "started", "cost": "cost", "duration": "duration", "tokens": "tokens", "steps": "steps"}
# The key, the run, and in the order by duration the moment up to which open runs were measured.
_PLACE = re.compile(r"(-?\d{1,18}(?:\.\d{1,25})?)-(\d{1,18})(?:-(\d{1,16}))?", re.ASCII)
_MOST_MICROSECONDS = 10**16  # from 1970, either way: a time that datetime and both databases have
_MOST_USD = Decimal(10) ** 10  # what the column can hold
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Sort:
    """By what runs are ordered; the largest and newest first unless it is `ascending`."""

    name: str = TIME
    ascending: bool = False

    @classmethod
    def parse(cls, text: str) -> Sort:
        """cost, or -cost for the other way round; newest first when it is neither."""
        name = text.removeprefix("-")
        return cls(name, text.startswith("-")) if name in SORTS else NEWEST

    def __str__(self) -> str:
        return "" if self == NEWEST else f"{'-' if self.ascending else ''}{self.name}"

    @property
    def is_time(self) -> bool:
        return self.name == TIME

    @property
    def words(self) -> str:
        """newest first, most expensive first"""
        most, least = {
            TIME: ("newest", "oldest"),
            "cost": ("most expensive", "cheapest"),
            "duration": ("longest", "shortest"),
            "tokens": ("most tokens", "fewest tokens"),
            "steps": ("most steps", "fewest steps"),
        }[self.name]
        return f"{least if self.ascending else most} first"

    def key(self, *, ended: bool, now: datetime) -> Combinable:
        """What runs are compared by; those that go on have a duration up to now."""
        if self.name == "duration" and not ended:
            return Seconds(Value(now, output_field=DateTimeField()), F("started_at"))
        keys: dict[str, Combinable] = {
            TIME: F("created_at"), "cost": F("cost_usd"), "duration": LENGTH, "tokens": TOKENS,
            "steps": F("step_count"),
        }  # fmt: skip
        return keys[self.name]


NEWEST = Sort()


@dataclass(frozen=True)
class Place:
    """One run in an order: its key there and its own.

    In the order by duration `at` is the moment up to which the durations of open runs were measured. All
    further pages measure up to the same moment; otherwise open runs would move between two pages.
    """

    key: Any
    pk: int
    at: datetime | None = None

    def __str__(self) -> str:
        key = self.key
        if isinstance(key, datetime):
            key = _microseconds(key)
        elif isinstance(key, float):
            key = Decimal(repr(key))
        text = f"{key:f}-{self.pk}" if isinstance(key, Decimal) else f"{key}-{self.pk}"
        return f"{text}-{_microseconds(self.at)}" if self.at is not None else text

    @classmethod
    def parse(cls, text: str, sort: Sort) -> Place | None:
        """The place in an address, or None when it is none in this order."""
        found = _PLACE.fullmatch(text)
        if found is None:
            return None
        key, pk, at = found.groups()
        if sort.name == "cost":
            return cls(Decimal(key), int(pk)) if abs(Decimal(key)) < _MOST_USD else None
        if sort.name == "duration":
            return cls(float(key), int(pk), _time(int(at)) if at else None)
        if "." in key:
            return None
        if not sort.is_time:
            return cls(int(key), int(pk))
        return cls(_time(int(key)), int(pk)) if abs(int(key)) < _MOST_MICROSECONDS else None


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def in_order(
    runs: QuerySet[Run],
    sort: Sort,
    *,
    ended: bool,
    now: datetime,
    after: Place | None,
    backwards: bool = False,
) -> QuerySet[Run, tuple[Any, int]]:
    """These runs as (key, pk) in this order, or against it, from behind a place on."""
    key = sort.key(ended=ended, now=now)
    ordered = runs.annotate(key=key)
    rising = sort.ascending != backwards
    if after is not None:
        ordered = ordered.filter(_behind(after, rising=rising))
    signs = ("key", "pk") if rising else ("-key", "-pk")
    return ordered.order_by(*signs).values_list("key", "pk")


def _behind(place: Place, *, rising: bool) -> Q:
    """The first condition alone bounds the index; both databases then need not read what comes before."""
    if rising:
        return Q(key__gte=place.key) & (Q(key__gt=place.key) | Q(key=place.key, pk__gt=place.pk))
    return Q(key__lte=place.key) & (Q(key__lt=place.key) | Q(key=place.key, pk__lt=place.pk))
