"""What is left of a budget over its period, as positions for inline SVG and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, Sum
from django.db.models.functions import TruncHour

from runs.models import Budget, Period
from runs.models.amounts import steps_of, turns_and_calls, used_tokens, used_usd
from runs.models.budget import period_bounds, period_start
from runs.money import FRACTION
from runs.reading.budgets import NAMES
from runs.reading.forecast import Forecast
from runs.reading.timescale import percent_text
from runs.reading.words import tokens

HEIGHT = 160.0  # of the plot in pixels
HOUR = timedelta(hours=1)
LEFT = 14.0  # percent kept for the labels of the axis
BUCKET = {Period.DAY: timedelta(hours=1), Period.WEEK: timedelta(hours=6), Period.MONTH: timedelta(days=1)}
TICK_HOURS = {Period.DAY: 6, Period.WEEK: 24, Period.MONTH: 168}


@dataclass(frozen=True)
class Spent:
    """What was used in one stretch of the period."""

    since: datetime
    until: datetime
    amount: Decimal


@dataclass(frozen=True)
class Tick:
    """A label below the plot or beside it."""

    at: str
    label: str


@dataclass(frozen=True)
class Row:
    """One stretch in words."""

    label: str
    used: str
    left: str


@dataclass(frozen=True)
class BurnDown:
    """Points are x,y pairs: x from 0 to 1000 over the period, y in pixels from the top."""

    points: str
    area: str
    ideal: str
    forecast: str
    now_x: str
    ticks: tuple[Tick, ...]
    grid: tuple[Tick, ...]
    zero: str
    rows: tuple[Row, ...]
    title: str


def used_by_hour(budget: Budget, *, simulated: bool, now: datetime) -> dict[str, dict[datetime, Decimal]]:
    """What began in each hour of the present period, by limit. Their sums are those of the ledger."""
    starts_on = period_start(budget.period, now)
    since, _ = period_bounds(budget.period, starts_on)
    turns, calls = turns_and_calls(steps_of(budget, simulated=simulated), budget, starts_on)
    by_hour: dict[str, dict[datetime, Decimal]] = {"tool_calls": {}, "tokens": {}, "cost_usd": {}}
    counted = calls.annotate(hour=TruncHour("counted_at", tzinfo=UTC)).values("hour")
    for row in counted.annotate(calls=Count("pk")).values_list("hour", "calls"):
        by_hour["tool_calls"][row[0]] = Decimal(row[1])
    used: Any = turns.filter(ended_at__gte=since).annotate(hour=TruncHour("started_at", tzinfo=UTC))
    sums = used.values("hour").annotate(tokens=Sum(used_tokens()), usd=Sum(used_usd()))
    for hour, count, usd in sums.values_list("hour", "tokens", "usd"):
        by_hour["tokens"][hour] = Decimal(count)
        by_hour["cost_usd"][hour] = Decimal(usd) / FRACTION
    return by_hour


def draw(
    budget: Budget,
    by_hour: dict[datetime, Decimal],
    *,
    limit: Decimal,
    now: datetime,
    expected: Forecast,
    name: str,
    say: Callable[[Decimal], str],
) -> BurnDown:
    """The line of what is left, an even pace beside it, and where the present rate leads."""
    since, until = period_bounds(budget.period, period_start(budget.period, now))
    left, lefts = limit, [(since, limit)]
    stretches = list(_stretches(budget.period, since, now, by_hour))
    for stretch in stretches:
        left -= stretch.amount
        lefts.append((stretch.until, left))
    top, bottom = (limit or Decimal(1)), min(Decimal(0), left)
    place = _Place(since, until, top, bottom)
    line = [place.point(*one) for one in lefts]
    end = []
    if expected.used_up_at is not None:
        end = [place.point(now, left), place.point(expected.used_up_at, Decimal(0))]
    elif expected.at_end is not None:
        end = [place.point(now, left), place.point(until, limit - expected.at_end)]
    zero = place.y(Decimal(0))
    return BurnDown(
        points=" ".join(line),
        area=" ".join([f"0,{zero}", *line, f"{place.x(now)},{zero}"]),
        ideal=f"{place.point(since, limit)} {place.point(until, Decimal(0))}",
        forecast=" ".join(end),
        now_x=_percent(place.share(now)),
        ticks=_ticks(budget.period, since, until, place),
        grid=tuple(Tick(place.y(amount), _compact(amount, name)) for amount in (top, top / 2)),
        zero=zero,
        rows=_rows(budget.period, stretches, limit, say),
        title=f"{name} left of {budget.title}: {say(max(left, Decimal(0)))} of {say(limit)}. "
        f"{expected.sentence}",
    )


class _Place:
    """From moments and amounts to positions."""

    def __init__(self, since: datetime, until: datetime, top: Decimal, bottom: Decimal) -> None:
        self._since, self._length = since, until - since
        self._top, self._range = top, float(top - bottom)

    def share(self, moment: datetime) -> float:
        return min(1.0, max(0.0, (moment - self._since) / self._length))

    def x(self, moment: datetime) -> str:
        return f"{1000 * self.share(moment):.1f}"

    def y(self, amount: Decimal) -> str:
        return f"{HEIGHT * float(self._top - amount) / self._range:.1f}"

    def point(self, moment: datetime, amount: Decimal) -> str:
        return f"{self.x(moment)},{self.y(amount)}"


def _stretches(
    period: str, since: datetime, now: datetime, by_hour: dict[datetime, Decimal]
) -> Iterable[Spent]:
    """The stretches of the period that have begun by now, each with what was used in it."""
    length = BUCKET[Period(period)]
    begun = since
    while begun <= now:
        end = begun + length
        amount = sum((by_hour[hour] for hour in by_hour if begun <= hour < end), Decimal(0))
        yield Spent(begun, min(end, now), amount)
        begun = end


def _ticks(period: str, since: datetime, until: datetime, place: _Place) -> tuple[Tick, ...]:
    hours = TICK_HOURS[Period(period)]
    moments = [since + timedelta(hours=n) for n in range(0, int((until - since) / HOUR), hours)]
    return tuple(Tick(_percent(place.share(moment)), _short(period, moment)) for moment in moments)


def _short(period: str, moment: datetime) -> str:
    match period:
        case Period.DAY:
            return f"{moment:%H:%M}"
        case Period.WEEK:
            return f"{moment:%a}"
    return f"{moment.day} {moment:%b}"


def _percent(share: float) -> str:
    """Across the whole drawing, whose left edge has the labels."""
    return percent_text(LEFT + share * (100 - LEFT))


def _compact(amount: Decimal, name: str) -> str:
    """For the axis: $0.125, $1,250, 24.0k."""
    if name == NAMES["cost_usd"]:
        return f"${amount:,.0f}" if amount >= 100 else f"${round(amount, 4).normalize():f}"
    return tokens(int(amount)) if amount >= 10 else f"{amount.normalize():f}"


def _rows(
    period: str, stretches: Sequence[Spent], limit: Decimal, say: Callable[[Decimal], str]
) -> tuple[Row, ...]:
    rows, left = [], limit
    for stretch in stretches:
        left -= stretch.amount
        begun = stretch.since
        label = f"{begun.day} {begun:%b}" + ("" if period == Period.MONTH else f" {begun:%H:%M}")
        rows.append(Row(label, say(stretch.amount), f"{say(-left)} over" if left < 0 else say(left)))
    return tuple(rows)
