"""Sums of the ledger over stretches of time: from sealed hours and days, and from itself where none are.

Everything is read in one snapshot, so the answer is that of the ledger at one moment, whatever is sealed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from django.db.models import QuerySet

from runs.counting import Counted, count, count_bars, end_of, hour_of, snapshot, start_of
from runs.counting.hours import DAY
from runs.models import ENDED, CostAcross, CostSeal, Dimension, Run, RunTag
from runs.models.cost_sum import MEASURES, VERSION
from runs.reading.cost_pieces import Piece, summed

NOW, BEFORE = 0, 1
RUNS = MEASURES.index("runs")
AMOUNT = MEASURES.index("amount")

LineKey = tuple[int, int, bool, str]  # NOW or BEFORE, dimension, simulated, key
BarKey = tuple[int, bool, str]  # number of the bar, simulated, key


@dataclass
class Sums:
    """Lines hold all measures of the whole period; bars hold those that were asked for."""

    lines: dict[LineKey, list[int]] = field(default_factory=dict)
    bars: dict[BarKey, list[int]] = field(default_factory=dict)
    steps: dict[tuple[bool, int], int] = field(default_factory=dict)  # (simulated, step): amount


def read_sums(
    bounds: Sequence[datetime],
    before: tuple[datetime, datetime],
    dimensions: Collection[Dimension],
    bar_dimension: Dimension,
    bar_measures: Sequence[str],
) -> Sums:
    """All lines of these dimensions, for the period and the one before, and the bars of one dimension."""
    with snapshot():
        return _Reader(bounds, before, dimensions, bar_dimension, bar_measures).read()


class _Reader:
    """One reading of one moment."""

    def __init__(
        self,
        bounds: Sequence[datetime],
        before: tuple[datetime, datetime],
        dimensions: Collection[Dimension],
        bar_dimension: Dimension,
        bar_measures: Sequence[str],
    ) -> None:
        self._bounds, self._before = bounds, before
        self._dimensions = sorted(dimensions)
        self._bar_dimension, self._bar_measures = bar_dimension, bar_measures
        self._places = [MEASURES.index(name) for name in bar_measures]
        self._sums = Sums()
        since, until = hour_of(min(before[0], bounds[0])), end_of(bounds[-1])
        seals = CostSeal.objects.filter(version=VERSION, sealed=True, hour__gte=since - DAY, hour__lt=until)
        self._days = set(seals.filter(hours=DAY).values_list("hour", flat=True))
        self._hours = set(_hours_outside(seals, self._days, since, until))
        self._across: dict[int, set[int]] = {}  # runs that began to cost earlier, by NOW and BEFORE
        self._first_at: dict[int, dict[int, datetime]] = {NOW: {}, BEFORE: {}}

    def read(self) -> Sums:
        """All of it."""
        self._read_lines()
        self._read_bars()
        self._read_steps()
        self._read_ledger()
        return self._sums

    # ------------------------------------------------------------------- sums

    def _read_lines(self) -> None:
        pieces = [
            *self._sealed(NOW, self._bounds[0], self._bounds[-1]),
            *self._sealed(BEFORE, *self._before),
        ]
        for place, dimension, kind, key, *sums in summed(pieces, self._dimensions, MEASURES):
            self._sums.lines[place, dimension, bool(kind), key] = [int(value) for value in sums]
        for place, since in ((NOW, self._bounds[0]), (BEFORE, self._before[0])):
            across: set[int] = set()
            for piece in pieces:
                if piece.place == place:
                    earlier = CostAcross.objects.filter(
                        hour__gte=piece.since, hour__lt=piece.until, first_at__lt=since
                    )
                    across |= set(earlier.values_list("run_id", flat=True))
            self._across[place] = across

    def _read_bars(self) -> None:
        pieces = [
            piece
            for place, since, until in self._slots()
            for piece in self._around_day(place, since, until) or self._sealed(place, since, until)
        ]  # fmt: skip
        pieces += self._divide()
        for place, _, kind, key, *sums in summed(pieces, [self._bar_dimension], self._bar_measures):
            self._add_to_bar(place, bool(kind), key, [int(value) for value in sums])

    def _read_steps(self) -> None:
        pieces = self._sealed(NOW, self._bounds[0], self._bounds[-1])
        for _, _, kind, key, amount in summed(pieces, [Dimension.STEP], ["amount"]):
            self._sums.steps[bool(kind), int(key)] = int(amount)

    # ----------------------------------------------------------------- ledger

    def _read_ledger(self) -> None:
        """What has no seal, counted as the sums are."""
        for stretch in self._holes(self._bounds[0], self._bounds[-1]):
            for place, counted in self._count(stretch):
                self._add(NOW, counted)
                self._add_bar(place, counted)
        for since, until in self._holes(*self._before):
            for counted in count([since, until]):
                self._add(BEFORE, counted)
        for place, since in ((NOW, self._bounds[0]), (BEFORE, self._before[0])):
            first = self._first_at[place]
            runs = self._across[place] | {run for run, at in first.items() if at < since}
            self._add_runs(place, runs)

    def _count(self, stretch: tuple[datetime, datetime]) -> Iterator[tuple[int, Counted]]:
        """The sums of a stretch by the bars that it is in, with the number of each."""
        since, until = stretch
        cuts = [since, *(at for at in self._bounds if since < at < until), until]
        return enumerate(count(cuts), start=self._place(since))

    # -------------------------------------------------- hours that bars divide

    def _divided(self) -> Iterator[tuple[int, list[tuple[datetime, datetime]]]]:
        """Sealed hours within which a bar begins, each cut into parts by the bars.

        Days begin within an hour of UTC where the offset is not one of full hours. Lines have such an hour
        from the sums, as a whole.
        """
        first, last = end_of(self._bounds[0]), hour_of(self._bounds[-1])
        hours: dict[int, list[datetime]] = {}
        for at in self._bounds[1:-1]:
            hour = hour_of(at)
            if start_of(hour) != at and first <= hour < last and self._is_sealed(hour):
                hours.setdefault(hour, []).append(at)
        for hour, cuts in hours.items():
            yield hour, list(pairwise([start_of(hour), *cuts, start_of(hour + 1)]))

    def _divide(self) -> list[Piece]:
        """Each divided hour goes to the bar of its longest part; its other parts are moved from there."""
        pieces: list[Piece] = []
        moved: list[tuple[int, tuple[datetime, datetime]]] = []
        for hour, parts in self._divided():
            longest = max(parts, key=lambda part: part[1] - part[0])
            place = self._place(longest[0])
            pieces.append(Piece(place, 1, hour, hour + 1))
            moved += [(place, part) for part in parts if part != longest]
        counted = count_bars(
            [part for _, part in moved], self._bar_dimension, by_class="input_amount" in self._bar_measures
        )
        for (place, (since, _)), bar in zip(moved, counted, strict=True):
            for (kind, key), sums in bar.items():
                values = [sums.get(name, 0) for name in self._bar_measures]
                self._add_to_bar(self._place(since), kind, key, values)
                self._add_to_bar(place, kind, key, [-value for value in values])
        return pieces

    def _place(self, at: datetime) -> int:
        """The number of the bar that holds this moment."""
        return bisect_right(self._bounds, at) - 1

    def _add(self, place: int, counted: Counted) -> None:
        for (dimension, kind, key), sums in counted.sums.items():
            if dimension == Dimension.STEP:
                if place == NOW:
                    self._sums.steps[kind, int(key)] = sums[AMOUNT]
            elif dimension in self._dimensions:
                self._sums.lines[place, dimension, kind, key] = _added(
                    self._sums.lines.get((place, dimension, kind, key)), sums
                )
        self._first_at[place] |= counted.across

    def _add_bar(self, place: int, counted: Counted) -> None:
        for (dimension, kind, key), sums in counted.sums.items():
            if dimension == self._bar_dimension:
                self._add_to_bar(place, kind, key, [sums[n] for n in self._places])

    def _add_to_bar(self, place: int, simulated: bool, key: str, values: Sequence[int]) -> None:
        bar = place, simulated, key
        self._sums.bars[bar] = _added(self._sums.bars.get(bar), values)

    def _add_runs(self, place: int, runs: set[int]) -> None:
        """Runs that began to cost before the period are runs of it as well."""
        if not runs:
            return
        tags: dict[int, list[str]] = defaultdict(list)
        for run, name in RunTag.objects.filter(run__in=runs).order_by("name").values_list("run_id", "name"):
            tags[run].append(name)
        rows = Run.objects.filter(pk__in=runs).order_by()
        for pk, kind, agent, user, status in rows.values_list(
            "pk", "simulated", "agent", "started_by", "status"
        ):
            for dimension, key in (
                (Dimension.TOTAL, ""),
                (Dimension.AGENT, agent),
                (Dimension.USER, user),
                (Dimension.TAGS, ",".join(tags[pk])),
                (Dimension.OUTCOME, status if status in ENDED else "open"),
            ):
                if dimension in self._dimensions:
                    line = (place, int(dimension), kind, key)
                    sums = self._sums.lines.setdefault(line, [0] * len(MEASURES))
                    sums[RUNS] += 1

    # ----------------------------------------------------------------- pieces

    def _slots(self) -> Iterator[tuple[int, datetime, datetime]]:
        for place, (since, until) in enumerate(zip(self._bounds, self._bounds[1:], strict=False)):
            yield place, since, until

    def _around_day(self, place: int, since: datetime, until: datetime) -> list[Piece]:
        """A sealed day of the reader as the nearest day of UTC, with some hours added and some taken away.

        These are fewer sums than those of all its hours. Empty when it cannot be said so.
        """
        first, last = end_of(since), hour_of(until)
        day = (first + DAY // 2) // DAY * DAY
        if first == day or start_of(first) != since or start_of(last) != until or abs(last - first - DAY) > 1:
            return []
        walked = self._walk(start_of(min(first, day)), start_of(max(last, day + DAY)))
        if day not in self._days or not all(length for length, _ in walked):
            return []
        edges = [
            Piece(place, 1, first, day) if first < day else Piece(place, 1, day, first, -1),
            Piece(place, 1, last, day + DAY, -1) if last < day + DAY else Piece(place, 1, day + DAY, last),
        ]
        return [Piece(place, DAY, day, day + DAY), *(piece for piece in edges if piece.since < piece.until)]

    def _sealed(self, place: int, since: datetime, until: datetime) -> list[Piece]:
        """The sealed days and hours within; those next to each other are one piece."""
        pieces: list[Piece] = []
        for length, hour in self._walk(since, until):
            if not length:
                continue
            last = pieces[-1] if pieces else None
            if last is not None and last.length == length and last.until == hour:
                pieces[-1] = Piece(place, length, last.since, hour + length)
            else:
                pieces.append(Piece(place, length, hour, hour + length))
        return pieces

    def _walk(self, since: datetime, until: datetime) -> Iterator[tuple[int, int]]:
        """Whole hours within as (24, hour) for a sealed day, (1, hour) for a sealed hour, (0, hour)."""
        hour, last = end_of(since), hour_of(until)
        while hour < last:
            day = hour - hour % DAY
            if day in self._days and hour == day and hour + DAY <= last:
                yield DAY, hour
                hour += DAY
            else:
                yield int(self._is_sealed(hour)), hour
                hour += 1

    def _holes(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The stretches within that have to be read from the ledger."""
        at = since
        for length, hour in self._walk(since, until):
            if length:
                if at < start_of(hour):
                    yield at, start_of(hour)
                at = start_of(hour + length)
        if at < until:
            yield at, until

    def _is_sealed(self, hour: int) -> bool:
        return hour in self._hours or hour - hour % DAY in self._days


def _hours_outside(seals: QuerySet[CostSeal], days: set[int], since: int, until: int) -> Iterator[int]:
    """Sealed hours that are in no sealed day: ranges of days without one are few."""
    first = None
    for day in range(since - since % DAY, until + DAY, DAY):
        is_open = day not in days and day < until
        if is_open and first is None:
            first = day
        if not is_open and first is not None:
            hours = seals.filter(hours=1, hour__gte=first, hour__lt=day)
            yield from hours.values_list("hour", flat=True)
            first = None


def _added(have: list[int] | None, more: Sequence[int]) -> list[int]:
    return list(more) if have is None else [a + b for a, b in zip(have, more, strict=True)]
