"""Sums of the ledger over stretches of time: from sealed hours and days, and from itself where none are.

Everything is read in one snapshot, so the answer is that of the ledger at one moment, whatever is sealed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import QuerySet

from runs.counting import Counted, count, end_of, hour_of, snapshot, start_of
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


Hole = tuple[int, datetime, datetime]


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
        for place, _, kind, key, *sums in summed(pieces, [self._bar_dimension], self._bar_measures):
            self._sums.bars[place, bool(kind), key] = [int(value) for value in sums]

    def _read_steps(self) -> None:
        pieces = self._sealed(NOW, self._bounds[0], self._bounds[-1])
        for _, _, kind, key, amount in summed(pieces, [Dimension.STEP], ["amount"]):
            self._sums.steps[bool(kind), int(key)] = int(amount)

    # ----------------------------------------------------------------- ledger

    def _read_ledger(self) -> None:
        """What has no seal, counted as the sums are; neighbouring stretches together."""
        holes = [hole for place, since, until in self._slots() for hole in self._holes(place, since, until)]
        for block in _blocks(holes):
            for (place, _, _), counted in zip(block, _count(block), strict=True):
                self._add(NOW, counted)
                self._add_bar(place, counted)
        for block in _blocks(list(self._holes(BEFORE, *self._before))):
            for counted in _count(block):
                self._add(BEFORE, counted)
        for place, since in ((NOW, self._bounds[0]), (BEFORE, self._before[0])):
            first = self._first_at[place]
            runs = self._across[place] | {run for run, at in first.items() if at < since}
            self._add_runs(place, runs)

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
                values = [sums[n] for n in self._places]
                self._sums.bars[place, kind, key] = _added(self._sums.bars.get((place, kind, key)), values)

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
                yield (1 if day in self._days or hour in self._hours else 0), hour
                hour += 1

    def _holes(
        self, place: int, since: datetime, until: datetime
    ) -> Iterator[tuple[int, datetime, datetime]]:
        """The stretches within that have to be read from the ledger."""
        at = since
        for length, hour in self._walk(since, until):
            if length:
                if at < start_of(hour):
                    yield place, at, start_of(hour)
                at = start_of(hour + length)
        if at < until:
            yield place, at, until


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


def _blocks(holes: Sequence[Hole]) -> list[list[Hole]]:
    """Neighbouring stretches, together."""
    blocks: list[list[Hole]] = []
    for hole in holes:
        if blocks and blocks[-1][-1][2] == hole[1]:
            blocks[-1].append(hole)
        else:
            blocks.append([hole])
    return blocks


def _count(block: Sequence[Hole]) -> list[Counted]:
    return count([block[0][1], *(until for _, _, until in block)])


def _added(have: list[int] | None, more: Sequence[int]) -> list[int]:
    return list(more) if have is None else [a + b for a, b in zip(have, more, strict=True)]
