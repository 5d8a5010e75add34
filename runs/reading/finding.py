"""Finds the runs of a search, page by page, with a bound on how many are looked at.

Which way is chosen by counting first. A search whose words, tags or numbers few runs have reads those runs.
Otherwise the runs are gone through in the order of the list, by windows, until a page is full: what many
runs have is found soon. When it was not found in MOST_WINDOWS, the place is told, and the reader may go on.
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
FEW = 1_000  # runs that are read at once when a condition has so few
PROBED = 60  # runs whose steps are looked up at once
HITS_AT_ONCE = 600  # entries of the index that are read at once
NEWEST_FIRST = frozenset({"status", "agent", "user"})  # their indexes are ordered by time
LAST_RUN = 1 << 40  # no run has so high a key
MOST_OPEN = 5_000  # runs that go on, in an order other than by time

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
        self, conditions: Conditions, sort: Sort, *, now: datetime, windows: int = MOST_WINDOWS
    ) -> None:
        self._conditions, self._sort, self._now = conditions, sort, now
        self._windows = windows
        self._wanted = 0
        self._stopped: Key | None = None
        self._match_done = False  # what is gone through holds the words already

    def find(self, wanted: int, *, after: Place | None = None, backwards: bool = False) -> Found:
        """Up to `wanted` runs behind a place, or nearest before it, in the order of the list."""
        self._stopped, self._wanted = None, wanted
        keys = list(islice(self._keys(after, backwards), wanted))
        stopped = self._stopped if len(keys) < wanted else None
        if backwards:
            keys.reverse()
        return Found(tuple(Place(*key) for key in keys), Place(*stopped) if stopped else None)

    def among(self, pks: Sequence[int]) -> list[int]:
        """Those of these few runs that fit."""
        runs = self._fitting(Run.objects.filter(pk__in=pks))
        return self._with_text(list(runs.values_list("pk", flat=True)), set(), self._conditions.match)

    # ------------------------------------------------------------ ways to go

    def _keys(self, after: Place | None, backwards: bool) -> Iterator[Key]:
        chosen = self._chosen()
        if chosen is not None:
            yield from self._probed(self._listed(chosen, after, backwards))
        elif self._conditions.match and self._is_newest_first(backwards):
            yield from self._along_hits(after)
        else:
            yield from self._probed(self._along_runs(after, backwards))

    def _is_newest_first(self, backwards: bool) -> bool:
        return self._sort.is_time and self._sort.ascending == backwards

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
        if not self._sort.is_time:
            parts = [(runs.filter(ended_at__isnull=not ended), ended) for ended in (True, False)]
        return [key for part, ended in parts for key in self._order(part, ended, after, backwards)]

    def _order(
        self, runs: QuerySet[Run], ended: bool, after: Place | None, backwards: bool
    ) -> QuerySet[Run, Key]:
        return in_order(runs, self._sort, ended=ended, now=self._now, after=after, backwards=backwards)

    def _along_hits(self, after: Place | None) -> Iterator[Key]:
        """Newest first along the index of words: entries of newer runs have higher ids."""
        self._match_done = True
        below = min(after.pk if after else LAST_RUN, LAST_RUN) * fulltext.OF_RUN
        for _ in range(4 * self._windows):
            entries, floor = fulltext.newest(self._conditions.match, below, HITS_AT_ONCE)
            pks = sorted({fulltext.run_of(entry) for entry in entries})
            yield from self._probed(self._listed(pks, after, False))
            if not floor:
                self._stopped = None
                return
            # The rest of a run that was found need not be read; one that was not may go on below.
            last = fulltext.run_of(floor)
            is_found = bool(pks) and pks[0] == last
            below = last * fulltext.OF_RUN if is_found else floor
            self._stopped = (self._created(last), last if is_found else last + 1)

    def _created(self, pk: int) -> datetime:
        at = Run.objects.filter(pk__lte=pk).order_by("-pk").values_list("created_at", flat=True).first()
        return at or self._now

    def _along_runs(self, after: Place | None, backwards: bool) -> Iterator[Key]:
        if self._sort.is_time:
            yield from self._by_windows(Run.objects.all(), after, backwards)
            return
        rising = self._sort.ascending != backwards
        open_runs = Run.objects.filter(ended_at__isnull=True).order_by("-created_at")
        pks = list(open_runs.values_list("pk", flat=True)[:MOST_OPEN])
        fitting = self._fitting(Run.objects.filter(pk__in=pks))
        going_on = list(self._order(fitting, False, after, backwards)) if pks else []
        ended = self._by_windows(Run.objects.filter(ended_at__isnull=False), after, backwards)
        yield from heapq.merge(ended, going_on, reverse=not rising)

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
            window = self._order(within, True, after, backwards)
            fitting = self._fitting(Run.objects.filter(pk__in=window.values("pk")[:size]))
            yield from self._order(fitting, True, after, backwards)
            last = list(window[size - 1 : size])
            if not last:
                self._stopped = None
                return
            after = Place(*last[0])
            self._stopped = last[0]

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
            held = fulltext.hits(match, pks)
            pks = [pk for pk in pks if pk in held]
        for absent in self._conditions.absent:
            if pks:
                without |= fulltext.hits(absent, pks).keys()
        return [pk for pk in pks if pk not in without]
