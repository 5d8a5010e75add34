"""How an agent does: success, cost, time, why its runs end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from runs.agents import Agent, installed
from runs.models import Run, RunStatus
from runs.reading.histogram import Histogram, draw_histogram, percentile
from runs.reading.periods import Period
from runs.reading.words import duration, money

MOST_RUNS = 3_000  # looked at, newest first
COLUMNS = (
    "agent", "status", "reason", "cost_usd", "unpriced_calls", "model_calls", "simulated", "started_at",
    "ended_at", "waited_seconds", "step_count", "tool_calls",
)  # fmt: skip


@dataclass
class AgentTally:
    """Runs of one agent in a period."""

    name: str
    agent: Agent | None
    runs: int = 0
    simulated: int = 0
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    costs: list[float] = field(default_factory=list)  # of ended runs whose calls all have a price
    seconds: list[float] = field(default_factory=list)  # of ended runs, without waiting for people
    waited: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)

    @property
    def ended(self) -> int:
        return sum(self.ends.values())

    @property
    def succeeded(self) -> int:
        return sum(count for (status, _), count in self.ends.items() if status == RunStatus.SUCCEEDED)

    @property
    def success_share(self) -> float | None:
        return self.succeeded / self.ended if self.ended else None

    @property
    def all_simulated(self) -> bool:
        return self.runs > 0 and self.simulated == self.runs

    @property
    def median_cost(self) -> str:
        return _middle(self.costs, _money)

    @property
    def p95_cost(self) -> str:
        return _middle(self.costs, _money, 0.95)

    @property
    def median_time(self) -> str:
        return _middle(self.seconds, duration)

    @property
    def p95_time(self) -> str:
        return _middle(self.seconds, duration, 0.95)

    @property
    def median_waited(self) -> str:
        return _middle(self.waited, duration)

    @property
    def median_steps(self) -> str:
        return _middle(self.steps, lambda count: f"{count:.0f}")


@dataclass(frozen=True)
class End:
    """Why runs ended, and how many of them did so."""

    status: str
    reason: str
    count: int
    share: float


@dataclass(frozen=True)
class AgentPage:
    """One agent in full."""

    tally: AgentTally
    period: Period
    ends: tuple[End, ...]
    cost: Histogram | None
    time: Histogram | None
    limits: tuple[tuple[str, Any], ...]
    is_cut: bool


def read_agents(period: Period, *, now: datetime) -> tuple[list[AgentTally], bool]:
    """Every agent of this installation, and those that ran and are gone; whether runs were left out.

    One query, of the newest runs of the period.
    """
    tallies = {name: AgentTally(name, agent) for name, agent in installed().items()}
    rows = list(_runs(period, now).values_list(*COLUMNS)[: MOST_RUNS + 1])
    for row in rows[:MOST_RUNS]:
        _count(tallies.setdefault(row[0], AgentTally(row[0], None)), *row[1:])
    return list(tallies.values()), len(rows) > MOST_RUNS


def read_agent(name: str, period: Period, *, now: datetime) -> AgentPage | None:
    """One agent, or None when there is none of this name and it has no run in the period: one query."""
    agent = installed().get(name)
    tally = AgentTally(name, agent)
    rows = list(_runs(period, now).filter(agent=name).values_list(*COLUMNS)[: MOST_RUNS + 1])
    for row in rows[:MOST_RUNS]:
        _count(tally, *row[1:])
    if agent is None and not rows:
        return None
    return AgentPage(
        tally=tally,
        period=period,
        ends=tuple(
            End(status, reason, count, count / tally.ended)
            for (status, reason), count in tally.ends.most_common()
        ),
        cost=draw_histogram("Cost of a run", tally.costs, _money),
        time=draw_histogram("Time of a run without waiting for people", tally.seconds, duration),
        limits=tuple(agent.limits.as_data().items()) if agent else (),
        is_cut=len(rows) > MOST_RUNS,
    )


def _runs(period: Period, now: datetime) -> Any:
    return Run.objects.filter(created_at__gte=now - period.length).order_by("-created_at", "-pk")


def _count(
    tally: AgentTally,
    status: str,
    reason: str,
    cost: Decimal,
    unpriced: int,
    model_calls: int,
    simulated: bool,
    started: datetime | None,
    ended: datetime | None,
    waited: float,
    steps: int,
    tool_calls: int,
) -> None:
    tally.runs += 1
    tally.simulated += simulated
    if ended is None:
        return
    tally.ends[status, reason] += 1
    tally.steps.append(float(steps))
    if model_calls and not unpriced:
        tally.costs.append(float(cost))
    if started is not None:
        tally.seconds.append(max(0.0, (ended - started).total_seconds() - waited))
        tally.waited.append(waited)


def _middle(values: list[float], words: Any, share: float = 0.5) -> str:
    return words(percentile(sorted(values), share)) if values else "–"


def _money(amount: float) -> str:
    return money(Decimal(str(round(amount, 6))))
