"""Finds the runs of a search, page by page, with a bound on how many are looked at.

The finder counts first. When few runs have a word, a tag or a number of the search, it reads those runs.
Otherwise it walks the runs in the order of the list, in windows, until a page is full: what many runs have
is found soon. After MOST_WINDOWS it stops and reports the place, and the reader may search further.

It never walks the full-text index instead: that index is in the order of keys, and runs that start at the
same time get their times in another order than their keys.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import batched, islice
from typing import Any

from django.db.models import QuerySet

from runs import fulltext
from runs.models import Run
from runs.reading.conditions import NOTHING, Choice, Conditions, annotated
from runs.reading.places import Place, Sort, in_order

WINDOW = 1_500  # runs that are compared at once
FIRST_WINDOW = 60  # the first ones are smaller: what many runs have is found in them
MOST_WINDOWS = 8
MOST_READ_WINDOWS = 2  # where looking up a word means to read all entries of a run
FEW = 1_000  # runs that are read at once when a condition has so few
PROBED = 60  # runs whose steps are looked up at once
NEWEST_FIRST = frozenset({"status", "agent", "user"})  # their indexes are ordered by time

Key = tuple[Any, int]


@dataclass(frozen=True)
class Found:
    """Runs in their order, and where looking ended when it was not at their end."""

    places: tuple[Place, ...]
    stopped_at: Place | None = None

    @property
    def pks(self) -> list[int]:
        return [place.pk for place in self.places]


class Finder:
    """One search at one moment."""

    def __init__(
        self, conditions: Conditions, sort: Sort, *, now: datetime, windows: int | None = None
    ) -> None:
        self._conditions, self._sort, self._now = conditions, sort, now
        reads_all = conditions.has_text and fulltext.reads_whole_runs()
        self._windows = windows or (MOST_READ_WINDOWS if reads_all else MOST_WINDOWS)
        self._wanted = 0
        self._stopped: Key | None = None
        self._match_done = False  # what is gone through holds the words already

    def find(self, wanted: int, *, after: Place | None = None, backwards: bool = False) -> Found:
        """Up to `wanted` runs behind a place, or nearest before it, in the order of the list."""
        self._stopped, self._wanted = None, wanted
        if after is not None and after.at is not None:
            self._now = after.at
        keys = list(islice(_once_each(self._keys(after, backwards)), wanted))
        stopped = self._stopped if len(keys) < wanted else None
        if backwards:
            keys.reverse()
        return Found(tuple(map(self._place, keys)), self._place(stopped) if stopped else None)

    def _place(self, key: Key) -> Place:
        return Place(*key, self._now if self._sort.name == "duration" else None)

    def among(self, pks: Sequence[int]) -> list[int]:
        """Those of these few runs that fit."""
        runs = self._fitting(Run.objects.filter(pk__in=pks))
        return self._with_text(list(runs.values_list("pk", flat=True)), set(), self._conditions.match)

    # ------------------------------------------------------------ ways to go

    def _keys(self, after: Place | None, backwards: bool) -> Iterator[Key]:
        chosen = self._chosen()
        if chosen is not None:
            yield from self._probed(self._listed(chosen, after, backwards))
        else:
            yield from self._probed(self._along_runs(after, backwards))

    def _chosen(self) -> list[int] | None:
        """All runs that can fit, when these are few."""
        conditions = self._conditions
        if conditions.match:
            entries = fulltext.few(conditions.match)
            if entries is not None:
                self._match_done = True
                return sorted({fulltext.run_of(entry) for entry in entries})
        alone = len(conditions.columns) == 1 and not conditions.has_text and self._sort.is_time
        for choice in conditions.choices:
            if alone and choice.field in NEWEST_FIRST:  # its index is the order of the list
                return None
            pks = self._behind(choice)
            if len(pks) <= FEW:
                return pks
        return None

    def _behind(self, choice: Choice) -> list[int]:
        pks: list[int] = []
        orders = [[choice.order] if choice.order else [], []]
        for part, order in zip(choice.parts, orders, strict=False):
            if len(pks) <= FEW:
                runs = annotated(Run.objects.all(), self._now).filter(part).order_by(*order)
                pks += runs.values_list("pk", flat=True)[: FEW + 1]
        return pks

    def _listed(self, pks: Sequence[int], after: Place | None, backwards: bool) -> Iterator[Key]:
        keys: list[Key] = []
        for some in batched(pks, 10_000, strict=False):
            keys += self._ordered(self._fitting(Run.objects.filter(pk__in=some)), after, backwards)
        rising = self._sort.ascending != backwards
        yield from sorted(set(keys), reverse=not rising)

    def _ordered(self, runs: QuerySet[Run], after: Place | None, backwards: bool) -> list[Key]:
        parts = [(runs, True)]
        if not self._sort.is_time:  # open runs first: one that ends in between is then found twice, not never
            parts = [(runs.filter(ended_at__isnull=not ended), ended) for ended in (False, True)]
        return [key for part, ended in parts for key in self._order(part, ended, after, backwards)]

    def _order(
        self, runs: QuerySet[Run], ended: bool, after: Place | None, backwards: bool
    ) -> QuerySet[Run, Key]:
        return in_order(runs, self._sort, ended=ended, now=self._now, after=after, backwards=backwards)

    def _along_runs(self, after: Place | None, backwards: bool) -> Iterator[Key]:
        if self._sort.is_time:
            yield from self._by_windows(Run.objects.all(), after, backwards)
            return
        rising = self._sort.ascending != backwards
        open_runs = self._sorted_apart(Run.objects.filter(ended_at__isnull=True), after, backwards)
        ended = self._by_windows(Run.objects.filter(ended_at__isnull=False), after, backwards)
        for key in heapq.merge(open_runs, ended, reverse=not rising):
            stopped = self._stopped
            if stopped is not None and (key > stopped if rising else key < stopped):
                return  # ended runs were read up to there only: what is behind it belongs to the next page
            yield key

    def _sorted_apart(self, runs: QuerySet[Run], after: Place | None, backwards: bool) -> Iterator[Key]:
        """Open runs that fit, in portions. They are few, and no index has their order."""
        fitting = self._fitting(runs)
        while True:
            keys = list(self._order(fitting, False, after, backwards)[:WINDOW])
            yield from keys
            if len(keys) < WINDOW:
                return
            after = Place(*keys[-1])

    def _by_windows(self, runs: QuerySet[Run], after: Place | None, backwards: bool) -> Iterator[Key]:
        """Window after window in the order of the list, those that fit of each."""
        conditions = self._conditions
        if not (conditions.columns or conditions.has_text):
            yield from self._order(self._fitting(runs), True, after, backwards)[: self._wanted]
            return
        within = self._natural(runs)
        size = FIRST_WINDOW
        for _ in range(self._windows):
            size = min(WINDOW, 4 * size)
            # Read once: runs that arrive between two queries would shift the end of the window.
            keys = list(self._order(within, True, after, backwards)[:size])
            fitting = self._fitting(Run.objects.filter(pk__in=[pk for _, pk in keys]))
            pks = set(fitting.values_list("pk", flat=True))
            yield from (key for key in keys if key[1] in pks)
            if len(keys) < size:
                return
            after = Place(*keys[-1])
        self._stopped = keys[-1]

    def _natural(self, runs: QuerySet[Run]) -> QuerySet[Run]:
        """Bounded by what the index of this order knows itself."""
        if not self._sort.is_time:
            return runs
        bounds = Conditions(since=self._conditions.since, until=self._conditions.until)
        natural = [choice.parts[0] for choice in self._conditions.choices if choice.field in NEWEST_FIRST]
        bounds.columns = natural[:1]
        return bounds.applied(runs)

    # ------------------------------------------------------------------ checks

    def _fitting(self, runs: QuerySet[Run]) -> QuerySet[Run]:
        return self._conditions.applied(annotated(runs, self._now))

    def _probed(self, keys: Iterator[Key]) -> Iterator[Key]:
        """Those whose steps hold what they have to."""
        if not self._conditions.has_text:
            yield from keys
            return
        match = NOTHING if self._match_done else self._conditions.match
        for some in batched(keys, PROBED, strict=False):
            fitting = set(self._with_text([pk for _, pk in some], set(), match))
            yield from (key for key in some if key[1] in fitting)

    def _with_text(self, pks: list[int], without: set[int], match: fulltext.Match) -> list[int]:
        if match and pks:
            held = fulltext.holders(match, pks)
            pks = [pk for pk in pks if pk in held]
        for absent in self._conditions.absent:
            if pks:
                without |= fulltext.holders(absent, pks)
        return [pk for pk in pks if pk not in without]


def _once_each(keys: Iterator[Key]) -> Iterator[Key]:
    """Each run by its first key: one that ends while it is looked for may come twice."""
    seen: set[int] = set()
    for key in keys:
        if key[1] not in seen:
            seen.add(key[1])
            yield key
