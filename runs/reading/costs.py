"""What was spent: sums over the model calls of a period, by time, model, agent and run.

A call without a price is left out of every sum and counted apart; it is never zero. Simulated calls
and real ones are never added together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from heapq import nsmallest
from typing import Any

from django.db.models import Case, Count, F, IntegerField, Q, QuerySet, Sum, Value, When

from runs.models import Run, Step, StepKind

MAX_RUNS = 10
TOKEN_COLUMNS = (
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
)
ALL_TOKENS = sum((F(name) for name in TOKEN_COLUMNS[1:]), F(TOKEN_COLUMNS[0]))
ZERO = Decimal(0)
BEFORE = -1  # the slot of calls in the period of the same length before


@dataclass(frozen=True)
class Period:
    """A stretch of time that ends now. `hours` draws one bar per hour, else one per day (UTC)."""

    name: str
    label: str
    length: timedelta
    hours: bool = False

    def slots(self, now: datetime) -> list[datetime]:
        """Beginnings of the bars, oldest first; the last one holds `now`."""
        step = timedelta(hours=1) if self.hours else timedelta(days=1)
        last = now.replace(minute=0, second=0, microsecond=0)
        if not self.hours:
            last = last.replace(hour=0)
        return [last - step * n for n in reversed(range(self.length // step))]


PERIODS = (
    Period("24h", "24 h", timedelta(hours=24), hours=True),
    Period("7", "7 days", timedelta(days=7)),
    Period("14", "14 days", timedelta(days=14)),
    Period("30", "30 days", timedelta(days=30)),
)
USUAL_PERIOD = PERIODS[2]


def find_period(name: str) -> Period:
    """The period of this name, or the usual one."""
    return next((period for period in PERIODS if period.name == name), USUAL_PERIOD)


@dataclass
class Tally:
    """Sums over some calls. `cost` counts priced calls only."""

    cost: Decimal = ZERO
    calls: int = 0
    unpriced: int = 0
    tokens: int = 0
    unpriced_tokens: int = 0
    sent: int = 0  # input tokens of every class
    cached: int = 0
    runs: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self.cost += row["cost"] or ZERO
        self.calls += row["calls"]
        self.unpriced += row["unpriced"]
        tokens = sum(row[name] or 0 for name in TOKEN_COLUMNS)
        self.tokens += tokens
        self.unpriced_tokens += row["tokens_unpriced"] or 0
        self.sent += tokens - (row["output_tokens"] or 0)
        self.cached += row["cache_read_tokens"] or 0

    @property
    def shown_cost(self) -> Decimal | None:
        """None when nothing of it has a price."""
        return None if self.calls and self.unpriced == self.calls else self.cost

    @property
    def cache_share(self) -> float | None:
        return self.cached / self.sent if self.sent else None

    @property
    def mean_per_run(self) -> Decimal | None:
        return self.cost / self.runs if self.runs and self.unpriced < self.calls else None


@dataclass(frozen=True)
class Line:
    """One line of a breakdown."""

    name: str
    tally: Tally
    share: float | None  # of the priced cost, 0 to 1


@dataclass(frozen=True)
class CostlyRun:
    """A run and what its calls of the period cost."""

    run: Run
    cost: Decimal | None
    tokens: int


@dataclass(frozen=True)
class CostReport:
    """Everything on the cost page."""

    period: Period
    simulated: bool
    both_kinds: bool
    since: datetime
    until: datetime
    total: Tally
    before: Tally  # the period of the same length before
    slots: tuple[datetime, ...]
    models: tuple[str, ...]  # dearest first
    by_slot: dict[tuple[datetime, str], Tally]
    by_agent: tuple[Line, ...]
    by_model: tuple[Line, ...]
    dearest: tuple[CostlyRun, ...]

    @property
    def change(self) -> float | None:
        """Against the period before: 0.12 is 12 % more; None when a percentage would say nothing."""
        if not self.before.cost or self.total.cost > 10 * self.before.cost:
            return None
        return float(self.total.cost / self.before.cost) - 1


def read_costs(period: Period, *, simulated: bool | None, now: datetime) -> CostReport:
    """The report of a period: three queries. `simulated` None shows real calls when there are any."""
    slots = period.slots(now)
    length = now - slots[0]
    calls = Step.objects.filter(
        kind=StepKind.MODEL, ended_at__gte=slots[0] - length, ended_at__lte=now
    ).order_by()
    rows = list(_sums(calls, slots))
    kinds = {row["run__simulated"] for row in rows if row["slot"] != BEFORE}
    wanted = simulated if simulated is not None else kinds == {True}
    sums = _Sums()
    for row in rows:
        if row["run__simulated"] == wanted:
            sums.add(row, slots)
    dearest = _count_runs(calls.filter(ended_at__gte=slots[0], run__simulated=wanted), sums)
    return CostReport(
        period=period,
        simulated=wanted,
        both_kinds=len(kinds) == 2,
        since=slots[0],
        until=now,
        total=sums.total,
        before=sums.before,
        slots=tuple(slots),
        models=tuple(sorted(sums.by_model, key=lambda name: (-sums.by_model[name].cost, name))),
        by_slot=sums.by_slot,
        by_agent=_lines(sums.by_agent, sums.total),
        by_model=_lines(sums.by_model, sums.total),
        dearest=dearest,
    )


class _Sums:
    """The same calls summed up in every way the page shows them."""

    def __init__(self) -> None:
        self.total = Tally()
        self.before = Tally()
        self.by_slot: dict[tuple[datetime, str], Tally] = defaultdict(Tally)
        self.by_agent: dict[str, Tally] = defaultdict(Tally)
        self.by_model: dict[str, Tally] = defaultdict(Tally)

    def add(self, row: dict[str, Any], slots: list[datetime]) -> None:
        """Add one group of calls where it belongs."""
        if row["slot"] == BEFORE:
            self.before.add(row)
            return
        model = row["name"]
        by_slot = self.by_slot[slots[row["slot"]], model]
        for tally in (self.total, by_slot, self.by_agent[row["run__agent"]], self.by_model[model]):
            tally.add(row)


def _sums(calls: QuerySet[Step], slots: list[datetime]) -> QuerySet[Step, Any]:
    """One row per bar, agent, model and kind: what the calls used and cost. Every call is read once.

    The bar is found by comparing: to cut off the time of day, SQLite would call Python for every row.
    """
    newest_first = reversed(list(enumerate(slots)))
    slot = Case(
        When(ended_at__lt=slots[0], then=Value(BEFORE)),
        *(When(ended_at__gte=start, then=Value(n)) for n, start in newest_first),
        output_field=IntegerField(),
    )
    priced = Q(cost_usd__isnull=False)
    used = Q(input_tokens__gt=0) | Q(output_tokens__gt=0) | Q(cache_read_tokens__gt=0)
    return (
        calls.annotate(slot=slot)
        .values("slot", "run__agent", "name", "run__simulated")
        .annotate(
            cost=Sum("cost_usd"),
            calls=Count("pk", filter=priced | used),
            unpriced=Count("pk", filter=~priced & used),
            tokens_unpriced=Sum(ALL_TOKENS, filter=~priced),
            **{name: Sum(name) for name in TOKEN_COLUMNS},
        )
    )


def _count_runs(calls: QuerySet[Step], sums: _Sums) -> tuple[CostlyRun, ...]:
    """Write how many runs each line stands for; returns the most expensive ones.

    A run has one agent and may use several models.
    """
    spent: dict[int, tuple[Decimal, int]] = {}
    groups = calls.values_list("run_id", "run__agent", "name").annotate(
        cost=Sum("cost_usd"), tokens=Sum(ALL_TOKENS)
    )
    for pk, agent, model, cost, tokens in groups:
        if pk not in spent:
            sums.by_agent[agent].runs += 1
            sums.total.runs += 1
        sums.by_model[model].runs += 1
        earlier_cost, earlier_tokens = spent.get(pk, (ZERO, 0))
        spent[pk] = earlier_cost + (cost or ZERO), earlier_tokens + tokens
    dearest = nsmallest(MAX_RUNS, spent, key=lambda pk: (-spent[pk][0], pk))
    runs = Run.objects.defer("config", "final_response").in_bulk([pk for pk in dearest if spent[pk][0]])
    return tuple(CostlyRun(runs[pk], *spent[pk]) for pk in dearest if pk in runs)


def _lines(tallies: dict[str, Tally], total: Tally) -> tuple[Line, ...]:
    lines = [
        Line(name, tally, float(tally.cost / total.cost) if total.cost else None)
        for name, tally in tallies.items()
    ]
    return tuple(sorted(lines, key=lambda line: (-line.tally.cost, line.name)))
