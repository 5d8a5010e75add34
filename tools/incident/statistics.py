"""What a series does: flat, rising, a step, a spike, and since when. Plain least squares, no libraries."""

from __future__ import annotations

import itertools
import statistics as basic
from dataclasses import dataclass
from typing import Literal

Trend = Literal["flat", "rising", "falling", "step_up", "step_down", "spike", "oscillating"]

FLAT_SHARE = 0.08  # a series that moves less than this share of its level is flat
EXPLAINED = 0.7  # share of the variance that a shape must explain to be named
MARGIN = 0.03  # how much better a later, more complex shape must be
FEWEST = 6
SETTLED_SHARE = 0.25


@dataclass(frozen=True)
class Shape:
    """The trend of a series. `changed_at` is the time of the step, or of the moment a rise or fall began."""

    trend: Trend
    slope_per_minute: float
    changed_at: float | None
    before: float | None = None  # mean before the change


class _Sums:
    """Prefix sums, so that the fit of any stretch costs the same."""

    def __init__(self, values: list[float]) -> None:
        self.n = len(values)
        self.y, self.xy, self.yy = [0.0], [0.0], [0.0]
        for x, y in enumerate(values):
            self.y.append(self.y[-1] + y)
            self.xy.append(self.xy[-1] + x * y)
            self.yy.append(self.yy[-1] + y * y)

    def spread(self, start: int, end: int) -> float:
        """Squared distance from the mean of values[start:end]."""
        count = end - start
        total = self.y[end] - self.y[start]
        return max(0.0, self.yy[end] - self.yy[start] - total * total / count) if count else 0.0

    def hinge(self, knee: int) -> tuple[float, float, float]:
        """(squared error, level, slope) of a line that is level until `knee` and straight after it."""
        n, m = self.n, self.n - knee
        s1 = m * (m - 1) / 2
        s2 = (m - 1) * m * (2 * m - 1) / 6
        y = self.y[n]
        hy = (self.xy[n] - self.xy[knee]) - knee * (self.y[n] - self.y[knee])
        determinant = n * s2 - s1 * s1
        if determinant <= 0:
            return self.spread(0, n), y / n, 0.0
        slope = (n * hy - s1 * y) / determinant
        level = (y - slope * s1) / n
        return max(0.0, self.yy[n] - level * y - slope * hy), level, slope


def shape(samples: list[tuple[float, float]], floor: float = 0.0) -> Shape:
    """The shape of (seconds, value) samples in time order; moves smaller than `floor` do not count."""
    values = [value for _, value in samples]
    if len(values) < FEWEST:
        return Shape("flat", 0.0, None)
    sums = _Sums(values)
    minutes = max(1e-9, (samples[-1][0] - samples[0][0]) / 60 / (len(values) - 1))
    slope = sums.hinge(0)[2] / minutes
    smallest = max(floor, FLAT_SHARE * abs(basic.median(values)))
    spike = _spike(values, smallest)
    if spike is not None:
        return Shape("spike", slope, samples[spike][0], basic.median(values))
    smooth = _smoothed(values)
    if max(smooth) - min(smooth) <= smallest:
        return Shape("flat", slope, None)
    return _turned(samples, smallest, minutes) or _named(samples, sums, smooth, minutes)


def _named(samples: list[tuple[float, float]], sums: _Sums, smooth: list[float], minutes: float) -> Shape:
    """The best of a straight line, a step, and a line that is level at first."""
    count = len(samples)
    total = sums.spread(0, count)
    straight, _, slope = sums.hinge(0)
    split = min(range(2, count - 1), key=lambda at: sums.spread(0, at) + sums.spread(at, count))
    step = sums.spread(0, split) + sums.spread(split, count)
    knee = min(range(1, count - 2), key=lambda at: sums.hinge(at)[0])
    bent, level, bent_slope = sums.hinge(knee)
    best = min(straight - MARGIN * total, step, bent)
    if 1 - min(best, straight) / total < EXPLAINED:
        return Shape("oscillating" if _turns(smooth) >= 2 else "flat", slope / minutes, None)
    if step <= best and _sharp(samples, split):
        before, after = sums.y[split] / split, (sums.y[count] - sums.y[split]) / (count - split)
        return Shape("step_up" if after > before else "step_down", 0.0, samples[split][0], before)
    if bent <= best and knee > 2:
        return Shape("rising" if bent_slope > 0 else "falling", bent_slope / minutes, samples[knee][0], level)
    return Shape("rising" if slope > 0 else "falling", slope / minutes, None)


def _sharp(samples: list[tuple[float, float]], split: int) -> bool:
    """Whether most of the change happens around the split, and not little by little."""
    values = [value for _, value in samples]
    jump = basic.fmean(values[split : split + 3]) - basic.fmean(values[max(0, split - 3) : split])
    return abs(jump) >= 0.5 * abs(basic.fmean(values[split:]) - basic.fmean(values[:split]))


def _turned(samples: list[tuple[float, float]], smallest: float, minutes: float) -> Shape | None:
    """A series that rose over a long time and has just come down again, as after a remedy. None otherwise."""
    values = [value for _, value in samples]
    low, high = min(values), max(values)
    if high - low <= 3 * smallest or max(values[-2:]) > low + 0.4 * (high - low):
        return None
    peak = max(index for index, value in enumerate(values) if value >= high - 0.2 * (high - low))
    rose_slowly = values[0] < low + 0.4 * (high - low) and peak > len(values) // 2
    climb = sum(low + 0.4 * (high - low) < value for value in values[:peak]) > SETTLED_SHARE * peak
    if not (rose_slowly and climb):
        return None
    taken = (
        next(index for index in range(peak, len(values)) if values[index] <= low + 0.4 * (high - low)) - peak
    )
    slope = (values[peak + taken] - values[peak]) / (taken * minutes)
    trend: Trend = "step_down" if taken <= 2 else "falling"
    return Shape(trend, 0.0 if taken <= 2 else slope, samples[peak + 1][0], values[peak])


def _smoothed(values: list[float]) -> list[float]:
    """Means of as many neighbours as leave about thirty values: noise disappears, habits stay."""
    width = max(1, len(values) // 30)
    return [basic.fmean(values[at : at + width]) for at in range(0, len(values) - width + 1, width)]


def _turns(values: list[float]) -> int:
    """How often the series crosses its middle."""
    middle, band = (max(values) + min(values)) / 2, 0.15 * (max(values) - min(values))
    sides = [1 if value > middle else -1 for value in values if abs(value - middle) > band]
    return sum(one != other for one, other in itertools.pairwise(sides))


def _spike(values: list[float], floor: float) -> int | None:
    """Where a short excursion begins that is over again, or None."""
    middle = basic.median(values)
    deviation = basic.median(abs(value - middle) for value in values)
    limit = max(6 * deviation, 3 * floor)
    outside = [index for index, value in enumerate(values) if abs(value - middle) > limit]
    if not outside or len(outside) > SETTLED_SHARE * len(values):
        return None
    in_one_piece = outside[-1] - outside[0] + 1 <= 1.5 * len(outside) + 2
    edge = max(2, len(values) // 20)
    between = edge <= outside[0] and outside[-1] < len(values) - edge
    return outside[0] if in_one_piece and between else None


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]
