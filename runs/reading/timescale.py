"""The time axis of a trace: real time, with long idle stretches cut short at a visible break. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from runs.reading.words import clock, epoch_ms, span

LEAST_KEPT = 10.0  # seconds that are drawn of an idle stretch, however long it was
SHORTEST_SPAN = 15.0
MAX_TICKS = 6
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)

Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class Gap:
    """An idle stretch in seconds after the start, and how much of it is drawn."""

    start: float
    end: float
    kept: float

    @property
    def lost(self) -> float:
        return self.end - self.start - self.kept


@dataclass(frozen=True)
class Tick:
    """A grid line: position in percent, and the elapsed time it stands for."""

    x: str
    label: str
    anchor: str


@dataclass(frozen=True)
class Break:
    """A cut in the axis, in percent, and how long it really was."""

    x: str
    width: str
    label: str


@dataclass(frozen=True)
class Scale:
    """Maps moments to positions. `idle_since` is set while nothing runs: the axis grows no further then."""

    start: datetime
    gaps: tuple[Gap, ...]
    kept: float  # seconds drawn of a long idle stretch
    width: float  # seconds from edge to edge, as drawn
    idle_since: float | None
    live: bool
    before: float = 0.0  # seconds of the run before this axis begins

    def drawn(self, moment: datetime) -> float:
        """Seconds on the axis, from the left edge."""
        seconds = max(0.0, (moment - self.start).total_seconds())
        return seconds - self._lost_until(seconds)

    def x(self, moment: datetime) -> float:
        """Percent of the axis, 0 to 100."""
        return min(100.0, 100 * self.drawn(moment) / self.width)

    def bar(self, begin: datetime, end: datetime) -> tuple[str, str]:
        """Position and width in percent; never so narrow that it cannot be seen."""
        left, right = self.x(begin), self.x(end)
        return percent_text(min(left, 99.1)), percent_text(max(0.9, right - left))

    @property
    def ticks(self) -> tuple[Tick, ...]:
        step = _step(self.width)
        last = self.gaps[-1].start - self.lost_seconds if self._ends_idle else self.width
        count = math.floor(last / step + 1e-9)
        return tuple(
            Tick(
                percent_text(100 * n * step / self.width),
                self._label(n * step),
                "start" if n == 0 else "middle",
            )
            for n in range(count + 1)
            if not self._in_break(n * step)
        )

    @property
    def breaks(self) -> tuple[Break, ...]:
        result: list[Break] = []
        lost = 0.0
        for gap in self.gaps:
            left = gap.start - lost
            result.append(
                Break(
                    percent_text(100 * left / self.width),
                    percent_text(100 * gap.kept / self.width),
                    "idle"
                    if self._ends_idle and gap is self.gaps[-1]
                    else f"{span(gap.end - gap.start)} idle",
                )
            )
            lost += gap.lost
        return tuple(result)

    @property
    def start_ms(self) -> int:
        return epoch_ms(self.start)

    @property
    def lost_seconds(self) -> float:
        """Not drawn so far; while idle, of the earlier breaks only, so that it does not change."""
        closed = self.gaps[:-1] if self._ends_idle else self.gaps
        return round(sum(gap.lost for gap in closed), 3)

    @property
    def cap_seconds(self) -> float | None:
        """While idle, how far the axis grows before it stops; None while something runs."""
        if self.idle_since is None:
            return None
        return round(self.idle_since - self.lost_seconds + self.kept, 3)

    @property
    def _ends_idle(self) -> bool:
        return self.idle_since is not None and bool(self.gaps) and self.gaps[-1].start == self.idle_since

    def _lost_until(self, seconds: float) -> float:
        lost = 0.0
        for gap in self.gaps:
            lost += max(0.0, min(seconds, gap.end) - gap.start - gap.kept)
        return lost

    def _in_break(self, drawn: float) -> bool:
        lost = 0.0
        for gap in self.gaps:
            left = gap.start - lost
            if left < drawn < left + gap.kept:
                return True
            lost += gap.lost
        return False

    def _label(self, drawn: float) -> str:
        """The elapsed time at a position: breaks to its left count in full."""
        real, lost = drawn, 0.0
        for gap in self.gaps:
            if gap.start - lost < drawn:
                real += gap.lost
            lost += gap.lost
        return clock(self.before + real)


def build_scale(
    start: datetime, now: datetime, busy: Iterable[Interval], *, live: bool, begin: datetime | None = None
) -> Scale:
    """The axis from `start` to `now` (the end, when it has ended). `busy` is when something ran.

    Its width moves in steps, so that a growing trace is redrawn at a step and not at every second. Labels
    count from `begin`, where the axis shows a part of something longer.
    """
    total = max(0.0, (now - start).total_seconds())
    spans = sorted((_offset(a, start), _offset(b, start)) for a, b in busy)
    idle, reached = _idle(spans)
    idle_since = reached if live and total - reached > 0.05 else None
    if total > reached:
        idle.append((reached, total))
    # In proportion to the work, in steps: a break is seen in a short run and does not fill a long one.
    kept = max(LEAST_KEPT, _step(total - sum(end - begin for begin, end in idle)))
    gaps = tuple(Gap(begin, end, kept) for begin, end in idle if end - begin > kept)
    drawn = total - sum(gap.lost for gap in gaps)
    wanted = max(SHORTEST_SPAN if live else 1.0, drawn * (1.03 if live else 1.0))
    step = _step(wanted)
    width = step * math.ceil(wanted / step - 1e-9)
    return Scale(start, gaps, kept, width, idle_since, live, before=_offset(start, begin or start))


def _idle(spans: Iterable[tuple[float, float]]) -> tuple[list[tuple[float, float]], float]:
    """The stretches between these spans, which are sorted, and where the last one ends."""
    idle, reached = [], 0.0
    for begin, end in spans:
        if begin > reached:
            idle.append((reached, begin))
        reached = max(reached, end)
    return idle, reached


def percent_text(value: float) -> str:
    """12.3 is "12.3%": at most two decimals, as an SVG attribute."""
    return f"{round(value, 2):g}%"


def _offset(moment: datetime, start: datetime) -> float:
    return max(0.0, (moment - start).total_seconds())


def _step(width: float) -> float:
    """The smallest round step that cuts the width into at most MAX_TICKS parts."""
    for step in STEPS:
        if width / step <= MAX_TICKS:
            return float(step)
    return float(STEPS[-1] * math.ceil(width / STEPS[-1] / MAX_TICKS))
