"""How values spread, as bars for inline SVG with the same numbers as a table. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runs.reading.timescale import percent_text

HEIGHT = 96.0
STEPS = (1.0, 2.0, 5.0)
MOST_BARS = 16
FEWEST_ROOMS = 8  # one bar alone is no wall


@dataclass(frozen=True)
class Bin:
    """One bar: the values from `label` to the next one."""

    label: str
    full_label: str
    count: int
    x: str
    middle: str
    width: str
    y: str
    height: str


@dataclass(frozen=True)
class Histogram:
    """The bars, and the values below which half and nineteen of twenty lie."""

    title: str
    bins: tuple[Bin, ...]
    count: int
    median: str
    p95: str
    largest: str


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the sorted values lies; they must not be empty."""
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1 if share > 0 else 0)]


def draw_histogram(title: str, values: Sequence[float], words: Callable[[float], str]) -> Histogram | None:
    """The spread of these values on a scale of 1, 2, 5, 10 …; None without any. `words` says one in words."""
    if not values:
        return None
    ordered = sorted(values)
    edges = _edges(ordered)
    counts = [0] * len(edges)
    place = 0
    for value in ordered:
        while place + 1 < len(edges) and value >= edges[place + 1]:
            place += 1
        counts[place] += 1
    top = max(counts)
    median, p95 = words(percentile(ordered, 0.5)), words(percentile(ordered, 0.95))
    width = 100 / max(len(edges), FEWEST_ROOMS)
    bins = tuple(
        Bin(
            label=words(edge),
            full_label=f"{words(edge)} to {words(edges[n + 1])}"
            if n + 1 < len(edges)
            else f"from {words(edge)}",
            count=counts[n],
            x=percent_text(n * width + width * 0.1),
            middle=percent_text(n * width + width / 2),
            width=percent_text(width * 0.8),
            y=f"{HEIGHT - HEIGHT * counts[n] / top:.1f}",
            height=f"{HEIGHT * counts[n] / top:.1f}",
        )
        for n, edge in enumerate(edges)
    )
    return Histogram(
        title=f"{title}: half below {median}, 95 % below {p95}",
        bins=bins,
        count=len(ordered),
        median=median,
        p95=p95,
        largest=words(ordered[-1]),
    )


def _edges(ordered: Sequence[float]) -> list[float]:
    """Lower edges of the bars: 0, then round numbers up to the largest value."""
    largest = ordered[-1]
    if largest <= 0:
        return [0.0]
    smallest = max(next((value for value in ordered if value > 0), largest), largest / 10**5)
    edges: list[float] = []
    exponent = math.floor(math.log10(smallest))
    while True:
        for step in STEPS:
            edge = step * 10.0**exponent
            if edge > largest:
                return [0.0, *[one for one in edges if one * 2.6 >= smallest][-MOST_BARS + 1 :]]
            edges.append(edge)
        exponent += 1
