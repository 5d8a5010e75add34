"""Stacked bars as positions for inline SVG: percent across, pixels down. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from runs.reading.costs import CostReport, Tally
from runs.reading.timescale import percent_text
from runs.reading.words import money

HEIGHT = 272.0  # of the plot, without the labels below it
LEFT = 8.0  # percent kept for the labels of the axis
MAX_SERIES = 3  # more models than this share the last colour
UNPRICED_HEIGHT = 9.2
GAP = 0.8
ROUND = (Decimal(1), Decimal(2), Decimal(5), Decimal(10))
NICE = Decimal("1.08")  # room above the highest bar for its label


@dataclass(frozen=True)
class Part:
    """One rectangle of a bar."""

    series: str  # c1, c2, c3, or c4 for calls without a price
    y: str
    height: str


@dataclass(frozen=True)
class Column:
    """One day or hour."""

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


@dataclass(frozen=True)
class Chart:
    """The chart, its legend, and the same numbers as a table."""

    columns: tuple[Column, ...]
    grid: tuple[GridLine, ...]
    legend: tuple[Series, ...]
    models: tuple[str, ...]
    table: tuple[TableRow, ...]
    title: str
    has_unpriced: bool


def draw(report: CostReport) -> Chart:
    """The bars of a report."""
    sums = {slot: _slot(report, slot) for slot in report.slots}
    top = max((sum(costs, Decimal(0)) for costs, _ in sums.values()), default=Decimal(0))
    step = _grid_step(top)
    full = max(top * NICE, step)
    columns = _columns(report, sums, full, top)
    lines = [n * step for n in range(1, int(full / step) + 1)]
    shown = report.models[:MAX_SERIES]
    legend = [Series(f"c{n}", name) for n, name in enumerate(shown, start=1)]
    if len(report.models) > MAX_SERIES:
        legend[-1] = Series("c3", f"{len(report.models) - MAX_SERIES + 1} other models")
    return Chart(
        columns=columns,
        grid=tuple(_grid_line(amount, full, step) for amount in lines),
        legend=tuple(legend),
        models=report.models,
        table=tuple(_table_row(report, slot) for slot in report.slots),
        title=_title(report, columns),
        has_unpriced=report.total.unpriced > 0,
    )


def _slot(report: CostReport, slot: datetime) -> tuple[list[Decimal], int]:
    """Cost per series, and calls without a price."""
    costs = [Decimal(0)] * MAX_SERIES
    unpriced = 0
    for n, model in enumerate(report.models):
        tally = report.by_slot.get((slot, model))
        if tally is not None:
            costs[min(n, MAX_SERIES - 1)] += tally.cost
            unpriced += tally.unpriced
    return costs, unpriced


def _columns(
    report: CostReport, sums: dict[datetime, tuple[list[Decimal], int]], full: Decimal, top: Decimal
) -> tuple[Column, ...]:
    room = (100 - LEFT) / len(report.slots)
    width = room * 0.68
    columns = []
    for n, slot in enumerate(report.slots):
        costs, unpriced = sums[slot]
        x = LEFT + n * room + (room - width) / 2
        parts, y = _parts(costs, unpriced, full)
        total = sum(costs, Decimal(0))
        columns.append(
            Column(
                x=percent_text(x),
                width=percent_text(width),
                middle=percent_text(x + width / 2),
                label=_label(slot, report, n),
                full_label=_full_label(slot, report),
                amount=money(total) + (f" and {unpriced} calls without a price" if unpriced else ""),
                peak=money(total),
                label_class=_label_class(n, len(report.slots)),
                parts=parts,
                top=f"{y - 5:.1f}",
                is_highest=total == top and total > 0,
            )
        )
    return tuple(columns)


def _parts(costs: Sequence[Decimal], unpriced: int, full: Decimal) -> tuple[tuple[Part, ...], float]:
    """The rectangles from the bottom up, and where they end."""
    parts, y = [], HEIGHT
    for n, cost in enumerate(costs, start=1):
        height = float(cost / full) * HEIGHT
        if height <= 0:
            continue
        drawn = max(0.6, height - GAP)
        parts.append(Part(f"c{n}", f"{y - GAP - drawn:.2f}", f"{drawn:.2f}"))
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


def _label(slot: datetime, report: CostReport, n: int) -> str:
    if report.period.hours:
        return f"{slot:%H}"
    return f"{slot.day} {slot:%b}" if n == 0 or slot.day == 1 else str(slot.day)


def _full_label(slot: datetime, report: CostReport) -> str:
    return f"{slot.day} {slot:%b}" + (f" {slot:%H}:00" if report.period.hours else "")


def _label_class(n: int, count: int) -> str:
    """Which labels a narrow screen may leave out."""
    return "odd-day" if n % (2 if count <= 14 else 3) else ""


def _table_row(report: CostReport, slot: datetime) -> TableRow:
    tallies = [report.by_slot.get((slot, model)) or Tally() for model in report.models]
    total = Tally(
        cost=sum((tally.cost for tally in tallies), Decimal(0)),
        calls=sum(tally.calls for tally in tallies),
        unpriced=sum(tally.unpriced for tally in tallies),
    )
    return TableRow(_full_label(slot, report), tuple(_amount(tally) for tally in tallies), _amount(total))


def _amount(tally: Tally) -> str:
    """A dash where nothing was called: that is neither free nor unpriced."""
    return money(tally.shown_cost) if tally.calls else "–"


def _title(report: CostReport, columns: Sequence[Column]) -> str:
    unit = "hour" if report.period.hours else "day"
    highest = next((column for column in columns if column.is_highest), None)
    title = f"Cost per {unit} by model, {columns[0].full_label} to {columns[-1].full_label}"
    return f"{title}; highest {highest.full_label}, {highest.amount}" if highest else title
