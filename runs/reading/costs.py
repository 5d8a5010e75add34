"""What was spent: sums over the model calls of a period, by time, model, agent and run.

A call without a price is left out of every sum and counted apart; it is never zero. Simulated calls
and real ones are never added together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncHour

from runs.models import Run, Step, StepKind

MAX_RUNS = 10
TOKEN_COLUMNS = (
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
)
ZERO = Decimal(0)


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
    """The report of a period: seven queries. `simulated` None shows real calls when there are any."""
    slots = period.slots(now)
    since = slots[0]
    all_calls = Step.objects.filter(kind=StepKind.MODEL, ended_at__isnull=False)
    kinds = set(
        all_calls.filter(ended_at__gte=since).order_by().values_list("run__simulated", flat=True).distinct()
    )
    wanted = simulated if simulated is not None else kinds == {True}
    calls = all_calls.filter(run__simulated=wanted)
    inside = calls.filter(ended_at__gte=since, ended_at__lte=now)
    total, by_slot, by_agent, by_model = _tallies(inside, period)
    _count_runs(inside, total, by_agent, by_model)
    before = Tally()
    length = now - since
    for row in _sums(
        calls.filter(ended_at__gte=since - length, ended_at__lt=since).order_by().values("kind")
    ):
        before.add(row)
    models = sorted(by_model, key=lambda name: (-by_model[name].cost, name))
    return CostReport(
        period=period,
        simulated=wanted,
        both_kinds=len(kinds) == 2,
        since=since,
        until=now,
        total=total,
        before=before,
        slots=tuple(slots),
        models=tuple(models),
        by_slot=by_slot,
        by_agent=_lines(by_agent, total),
        by_model=_lines(by_model, total),
        dearest=_dearest(inside),
    )


def _sums(calls: QuerySet[Step, Any]) -> QuerySet[Step, Any]:
    priced = Q(cost_usd__isnull=False)
    used = Q(input_tokens__gt=0) | Q(output_tokens__gt=0) | Q(cache_read_tokens__gt=0)
    everything = sum((F(name) for name in TOKEN_COLUMNS[1:]), F(TOKEN_COLUMNS[0]))
    return calls.annotate(
        cost=Sum("cost_usd"),
        calls=Count("pk", filter=priced | used),
        unpriced=Count("pk", filter=~priced & used),
        tokens_unpriced=Sum(everything, filter=~priced),
        **{name: Sum(name) for name in TOKEN_COLUMNS},
    )


def _tallies(
    calls: QuerySet[Step], period: Period
) -> tuple[Tally, dict[tuple[datetime, str], Tally], dict[str, Tally], dict[str, Tally]]:
    """One grouped query, summed up four ways."""
    slot = TruncHour("ended_at") if period.hours else TruncDay("ended_at")
    total = Tally()
    by_slot: dict[tuple[datetime, str], Tally] = defaultdict(Tally)
    by_agent: dict[str, Tally] = defaultdict(Tally)
    by_model: dict[str, Tally] = defaultdict(Tally)
    for row in _sums(calls.order_by().annotate(slot=slot).values("slot", "name", "run__agent")):
        for tally in (
            total,
            by_slot[row["slot"], row["name"]],
            by_agent[row["run__agent"]],
            by_model[row["name"]],
        ):
            tally.add(row)
    return total, by_slot, by_agent, by_model


def _count_runs(
    calls: QuerySet[Step], total: Tally, by_agent: dict[str, Tally], by_model: dict[str, Tally]
) -> None:
    """How many runs each line stands for. A run has one agent and may use several models."""
    runs = Count("run", distinct=True)
    for agent, count in calls.order_by().values_list("run__agent").annotate(n=runs):
        by_agent[agent].runs = count
        total.runs += count
    for model, count in calls.order_by().values_list("name").annotate(n=runs):
        by_model[model].runs = count


def _lines(tallies: dict[str, Tally], total: Tally) -> tuple[Line, ...]:
    lines = [
        Line(name, tally, float(tally.cost / total.cost) if total.cost else None)
        for name, tally in tallies.items()
    ]
    return tuple(sorted(lines, key=lambda line: (-line.tally.cost, line.name)))


def _dearest(calls: QuerySet[Step]) -> tuple[CostlyRun, ...]:
    everything = sum((F(name) for name in TOKEN_COLUMNS[1:]), F(TOKEN_COLUMNS[0]))
    sums = list(
        calls.filter(cost_usd__gt=0)
        .order_by()
        .values_list("run_id")
        .annotate(cost=Sum("cost_usd"), tokens=Sum(everything))
        .order_by("-cost", "run_id")[:MAX_RUNS]
    )
    runs = Run.objects.defer("config", "final_response").in_bulk([pk for pk, _, _ in sums])
    return tuple(CostlyRun(runs[pk], cost, tokens) for pk, cost, tokens in sums if pk in runs)
