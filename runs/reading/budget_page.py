"""The page of one budget: what is left and for how long, what calls hold, whom it held back, who was told."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Q

from runs.models import (
    AtLimit,
    Budget,
    BudgetHold,
    BudgetNotice,
    Event,
    Run,
    RunStatus,
    Spending,
    Step,
    StepStatus,
)
from runs.models.amounts import steps_of, turns_and_calls
from runs.models.budget import period_bounds, period_start
from runs.reading.budgets import BudgetLine, Meter, read_line, said
from runs.reading.burn_down import BurnDown, draw, used_by_hour
from runs.reading.forecast import Forecast, forecast

MOST_HELD = 50
MOST_IN_FLIGHT = 50
EARLIER = 12
GOES_ON = ("run.resumed", "run.retried", "run.cancelled", "run.failed", "run.stopped", "run.succeeded")


@dataclass(frozen=True)
class Outlook:
    """One limit with its forecast."""

    meter: Meter
    forecast: Forecast


@dataclass(frozen=True)
class InFlight:
    """A model call under way, and what it may still use."""

    run: Run
    step: Step


@dataclass(frozen=True)
class Held:
    """A run that the budget held back. `until` None: it still waits, or it ended there."""

    run: Run
    since: datetime
    until: datetime | None
    paused: bool
    waits: bool


@dataclass(frozen=True)
class Told:
    """A threshold that was reached."""

    notice: BudgetNotice
    used: str
    of: str


@dataclass(frozen=True)
class Earlier:
    """A period that is over."""

    since: datetime
    amounts: tuple[str, ...]


@dataclass(frozen=True)
class BudgetState:
    """Everything on the page but its charts."""

    line: BudgetLine
    outlooks: tuple[Outlook, ...]
    in_flight: tuple[InFlight, ...]
    held: tuple[Held, ...]
    told: tuple[Told, ...]
    earlier: tuple[Earlier, ...]
    starts_at: datetime

    @property
    def budget(self) -> Budget:
        return self.line.budget

    @property
    def thresholds(self) -> str:
        """When people are told: 50, 80, 100."""
        return ", ".join(str(percent) for percent in self.budget.thresholds)


@dataclass(frozen=True)
class Drawing:
    """The chart of one limit."""

    name: str
    chart: BurnDown


def find_budget(pk: int) -> Budget | None:
    """This budget; None when there is none, or no more."""
    return Budget.objects.select_related("user").filter(pk=pk).first()


def read_state(budget: Budget, *, simulated: bool, now: datetime) -> BudgetState:
    """The page of now."""
    line = read_line(budget, simulated=simulated, now=now)
    since = period_bounds(budget.period, period_start(budget.period, now))[0]
    return BudgetState(
        line=line,
        outlooks=tuple(Outlook(meter, _expected(budget, meter, now)) for meter in line.meters),
        in_flight=_in_flight(budget, simulated, now),
        held=_held(budget, since),
        told=_told(budget, simulated, now),
        earlier=_earlier(budget, line.meters, simulated, now),
        starts_at=since,
    )


def read_drawings(budget: Budget, *, simulated: bool, now: datetime) -> tuple[Drawing, ...]:
    """A chart for each limit. It reads every step of the period, so live pages draw it less often."""
    by_limit = used_by_hour(budget, simulated=simulated, now=now)
    drawings = []
    for meter in read_line(budget, simulated=simulated, now=now).meters:
        chart = draw(
            budget,
            by_limit[meter.column],
            limit=meter.limit_amount,
            now=now,
            expected=_expected(budget, meter, now),
            name=meter.name,
            say=said(meter.column),
        )
        drawings.append(Drawing(meter.name, chart))
    return tuple(drawings)


def _expected(budget: Budget, meter: Meter, now: datetime) -> Forecast:
    since, until = period_bounds(budget.period, period_start(budget.period, now))
    used, limit = meter.used_amount, meter.limit_amount
    return forecast(
        budget.period, since=since, until=until, now=now, used=used, limit=limit, say=said(meter.column)
    )


def _in_flight(budget: Budget, simulated: bool, now: datetime) -> tuple[InFlight, ...]:
    """Model calls under way in this period, the oldest first."""
    steps = steps_of(budget, simulated=simulated)
    turns, _ = turns_and_calls(steps, budget, period_start(budget.period, now))
    running = turns.filter(status=StepStatus.RUNNING).select_related("run").defer("draft")
    return tuple(InFlight(step.run, step) for step in running.order_by("started_at")[:MOST_IN_FLIGHT])


def _held(budget: Budget, since: datetime) -> tuple[Held, ...]:
    """The runs it held back in this period, and those that still wait since one before."""
    waiting = Q(run__status=RunStatus.PAUSED, run__reason__in=budget.reasons)
    holds = list(
        BudgetHold.objects.filter(Q(at__gte=since) | waiting, budget=budget).select_related("run")[:MOST_HELD]
    )
    going_on: dict[int, list[datetime]] = defaultdict(list)
    events = Event.objects.filter(run__in={hold.run_id for hold in holds}, kind__in=GOES_ON)
    for run, at in events.order_by("run", "seq").values_list("run", "at"):
        going_on[run].append(at)
    found, seen = [], set[int]()
    for hold in holds:
        until = next((at for at in going_on[hold.run_id] if at >= hold.at), None)
        waits = until is None and hold.run.status == RunStatus.PAUSED and hold.run_id not in seen
        seen.add(hold.run_id)
        found.append(Held(hold.run, hold.at, until, hold.at_limit == AtLimit.PAUSE, waits))
    return tuple(sorted(found, key=lambda one: not one.waits))


def _told(budget: Budget, simulated: bool, now: datetime) -> tuple[Told, ...]:
    notices = BudgetNotice.objects.filter(
        budget=budget, starts_on=period_start(budget.period, now), simulated=simulated
    ).select_related("run")
    return tuple(
        Told(notice, said(notice.limit)(notice.used), said(notice.limit)(notice.of)) for notice in notices
    )


def _earlier(
    budget: Budget, meters: tuple[Meter, ...], simulated: bool, now: datetime
) -> tuple[Earlier, ...]:
    """What was used in the periods before, the newest first."""
    ledgers: Any = Spending.objects.filter(
        budget=budget, simulated=simulated, starts_on__lt=period_start(budget.period, now)
    ).order_by("-starts_on")[:EARLIER]
    return tuple(
        Earlier(
            period_bounds(budget.period, ledger.starts_on)[0],
            tuple(said(meter.column)(Decimal(getattr(ledger, meter.column))) for meter in meters),
        )
        for ledger in ledgers
    )
