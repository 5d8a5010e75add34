"""Stacked bars as positions for inline SVG: percent across, pixels down. Pure.

Each series has a pattern besides its colour, so that bars can be read without colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from runs.reading.costs import Bar, CostReport
from runs.reading.timescale import percent_text
from runs.reading.words import counted, money

HEIGHT = 272.0  # of the plot, without the labels below it
LEFT = 8.0  # percent kept for the labels of the axis
MAX_SERIES = 5  # the sixth is all others
OTHERS = "others"
UNPRICED_HEIGHT = 9.2
GAP = 0.8
ROUND = (Decimal(1), Decimal(2), Decimal(5), Decimal(10))
NICE = Decimal("1.08")  # room above the highest bar for its label
MOST_LABELS = 16
IN_TABLE = 12  # series that have a column of their own


@dataclass(frozen=True)
class Part:
    """One rectangle of a bar."""

    series: str  # s1 to s6, or c4 for calls without a price
    y: str
    height: str


@dataclass(frozen=True)
class Column:
    """One bar."""

    x: str
    width: str
    middle: str
    label: str
    full_label: str
    amount: str
    peak: str
    label_class: str
    parts: tuple[Part, ...]
    top: str
    is_highest: bool
    query: str


@dataclass(frozen=True)
class Series:
    """One entry of the legend."""

    series: str
    name: str


@dataclass(frozen=True)
class GridLine:
    """One amount on the axis."""

    y: str
    label_y: str
    label: str


@dataclass(frozen=True)
class TableRow:
    """One bar in words, for the table below the chart."""

    label: str
    amounts: tuple[str, ...]
    total: str
    query: str


@dataclass(frozen=True)
class Chart:
    """The chart, its legend, and the same numbers as a table."""

    columns: tuple[Column, ...]
    grid: tuple[GridLine, ...]
    legend: tuple[Series, ...]
    names: tuple[str, ...]
    table: tuple[TableRow, ...]
    title: str
    has_unpriced: bool


def draw(report: CostReport) -> Chart:
    """The bars of a report."""
    top = max((bar.cost for bar in report.bars), default=Decimal(0))
    step = _grid_step(top)
    full = max(top * NICE, step)
    columns = _columns(report, full, top)
    lines = [n * step for n in range(1, int(full / step) + 1)]
    legend = [Series(f"s{n}", name) for n, name in enumerate(report.series[:MAX_SERIES], start=1)]
    if len(report.series) > MAX_SERIES:
        legend.append(Series("s6", f"{len(report.series) - MAX_SERIES} {OTHERS}"))
    names = report.series[:IN_TABLE]
    rows = zip(report.bars, columns, strict=True)
    return Chart(
        columns=columns,
        grid=tuple(_grid_line(amount, full, step) for amount in lines),
        legend=tuple(legend),
        names=(*names, OTHERS) if len(report.series) > IN_TABLE else names,
        table=tuple(_table_row(report, bar, names, column.full_label) for bar, column in rows),
        title=_title(report, columns),
        has_unpriced=report.total.unpriced > 0,
    )


def _by_series(report: CostReport, bar: Bar) -> list[Decimal]:
    costs = [bar.costs.get(name, Decimal(0)) for name in report.series[:MAX_SERIES]]
    return [*costs, bar.cost - sum(costs, Decimal(0))]


def _columns(report: CostReport, full: Decimal, top: Decimal) -> tuple[Column, ...]:
    room = (100 - LEFT) / len(report.bars)
    width = room * (0.68 if len(report.bars) <= 40 else 0.8)
    every = -(-len(report.bars) // MOST_LABELS)
    columns = []
    labels = full_labels(report)
    for n, bar in enumerate(report.bars):
        x = LEFT + n * room + (room - width) / 2
        parts, y = _parts(_by_series(report, bar), bar.unpriced, full)
        columns.append(
            Column(
                x=percent_text(x),
                width=percent_text(width),
                middle=percent_text(x + width / 2),
                label="" if n % every else _label(report, n, labels),
                full_label=labels[n],
                amount=_amount(bar),
                peak=money(bar.cost),
                label_class="odd-day" if (n // every) % 3 else "",
                parts=parts,
                top=f"{y - 5:.1f}",
                is_highest=bar.cost == top and bar.cost > 0,
                query=bar.query,
            )
        )
    return tuple(columns)


def _amount(bar: Bar) -> str:
    if not bar.unpriced:
        return money(bar.cost)
    calls = f"{counted(bar.unpriced, 'call')} without a price"
    return f"{money(bar.cost)} and {calls}" if bar.costs else calls


def _parts(costs: Sequence[Decimal], unpriced: int, full: Decimal) -> tuple[tuple[Part, ...], float]:
    """The rectangles from the bottom up, and where they end."""
    parts, y = [], HEIGHT
    for n, cost in enumerate(costs, start=1):
        height = float(cost / full) * HEIGHT
        if height <= 0:
            continue
        drawn = max(0.6, height - GAP)
        parts.append(Part(f"s{n}", f"{y - GAP - drawn:.2f}", f"{drawn:.2f}"))
        y -= height
    if unpriced:
        parts.append(Part("c4", f"{y - GAP - UNPRICED_HEIGHT:.2f}", f"{UNPRICED_HEIGHT}"))
        y -= UNPRICED_HEIGHT + GAP
    return tuple(parts), y


def _grid_step(top: Decimal) -> Decimal:
    """A round amount that gives two to five lines."""
    if top <= 0:
        return Decimal(1)
    scale = Decimal(10) ** (top.adjusted() - 1)
    for factor in (*ROUND, Decimal(20), Decimal(50)):
        if top / (factor * scale) <= 5:
            return factor * scale
    return scale * 100


def _grid_line(amount: Decimal, full: Decimal, step: Decimal) -> GridLine:
    y = HEIGHT - float(amount / full) * HEIGHT
    places = 0 if step >= 1 else max(2, -step.adjusted())
    return GridLine(f"{y:.1f}", f"{y - 4:.1f}", f"${amount:,.{places}f}")


def _local(report: CostReport, n: int) -> datetime:
    return report.period.local(report.period.bounds[n])


def _label(report: CostReport, n: int, full: Sequence[str]) -> str:
    at = _local(report, n)
    if report.period.unit == "hour":
        hour = f"{at:%H:%M}" if at.minute else f"{at:%H}"
        return f"{hour} {offset(at)}" if full[n].endswith(offset(at)) else hour
    if report.period.unit == "month":
        return f"{at:%b %Y}"
    return f"{at.day} {at:%b}" if n == 0 or at.day <= 7 or len(report.bars) > MOST_LABELS else str(at.day)


def full_labels(report: CostReport) -> list[str]:
    """The beginning of each bar on the clock of the reader.

    Hours that the clock shows twice have their offset from UTC, days of several years have the year.
    """
    unit = report.period.unit
    moments = [report.period.local(at) for at in report.period.bounds[:-1]]
    year = " %Y" if moments[0].year != moments[-1].year else ""
    form = {"month": "%B %Y", "hour": f"%b{year} %H:%M"}.get(unit, f"%b{year}")
    labels = [f"{at:{form}}" if unit == "month" else f"{at.day} {at:{form}}" for at in moments]
    often = Counter(labels)
    return [
        f"{label} {offset(at)}" if often[label] > 1 else label
        for label, at in zip(labels, moments, strict=True)
    ]


def offset(at: datetime) -> str:
    """How far this clock is from UTC: +2, -3:30."""
    minutes = round((at.utcoffset() or timedelta()) / timedelta(minutes=1))
    hours, rest = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02}" if rest else "")


def _table_row(report: CostReport, bar: Bar, names: Sequence[str], label: str) -> TableRow:
    """A dash where nothing was charged: that is neither free nor unpriced."""
    costs = [bar.costs.get(name) for name in names]
    shown = ["–" if cost is None else money(cost) for cost in costs]
    if len(report.series) > len(names):
        shown.append(money(bar.cost - sum((cost or Decimal(0) for cost in costs), Decimal(0))))
    total = money(bar.cost) if bar.costs else "unpriced" if bar.unpriced else "–"
    return TableRow(label, tuple(shown), total, bar.query)


def _title(report: CostReport, columns: Sequence[Column]) -> str:
    highest = next((column for column in columns if column.is_highest), None)
    by = report.breakdown.label.lower()
    title = f"Cost per {report.period.unit} by {by}, {columns[0].full_label} to {columns[-1].full_label}"
    return f"{title}; highest {highest.full_label}, {highest.amount}" if highest else title
