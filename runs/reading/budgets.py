"""The page of budgets: what is spent of each, what calls hold, who waits for it, and who changed what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User

from runs import agents
from runs.models import AtLimit, Budget, BudgetChange, Run, RunStatus, RunTag, Spending
from runs.models.amounts import amounts_of_steps
from runs.models.budget import AMOUNTS, period_bounds, period_start
from runs.reading import words
from tools.registry import TOOLS

MAX_PAUSED = 20
MAX_CHANGES = 50
MOST_NAMES = 200
NAMES = {"cost_usd": "Cost", "tokens": "Tokens", "tool_calls": "Tool calls"}
LOOKS = 5  # a ledger that changes while it is checked is looked at again


@dataclass(frozen=True)
class Meter:
    """One limit of a budget with what is used and what calls under way hold; shares are of 100."""

    name: str
    column: str  # of the ledger
    used: str
    reserved: str
    limit: str
    left: str
    used_share: float
    reserved_share: float
    is_used_up: bool

    # For the arithmetic of the forecast.
    used_amount: Decimal
    limit_amount: Decimal

    @property
    def percent(self) -> str:
        """How much is used, in words for those who do not see the bar."""
        return words.percent(self.used_amount / self.limit_amount) if self.limit_amount else "100 %"

    @property
    def used_width(self) -> str:
        return f"{self.used_share:.1f}%"

    @property
    def reserved_width(self) -> str:
        return f"{self.reserved_share:.1f}%"


@dataclass(frozen=True)
class BudgetLine:
    """One budget in its present period."""

    budget: Budget
    meters: tuple[Meter, ...]
    ends_at: datetime
    paused: tuple[Run, ...]
    paused_count: int

    @property
    def at_limit(self) -> str:
        return AtLimit(self.budget.at_limit).label

    @property
    def is_used_up(self) -> bool:
        return any(meter.is_used_up for meter in self.meters)


@dataclass(frozen=True)
class ChangeLine:
    """One entry of the history, in words."""

    title: str
    actor: str
    at: datetime
    before: str
    after: str


def read_budgets(*, simulated: bool, now: datetime) -> tuple[BudgetLine, ...]:
    """Every budget with what is spent of it in the period of now."""
    budgets = Budget.objects.select_related("user")
    return tuple(read_line(budget, simulated=simulated, now=now) for budget in budgets)


def read_changes(budget: int | None = None) -> tuple[ChangeLine, ...]:
    """The newest changes of budgets, or of this one."""
    changes = BudgetChange.objects.all() if budget is None else BudgetChange.objects.filter(budget=budget)
    return tuple(
        ChangeLine(change.title, change.actor, change.at, _values(change.before), _values(change.after))
        for change in changes[:MAX_CHANGES]
    )


def subject_names() -> list[str]:
    """Agents, users and tags that a budget can be for, for the completion of a form."""
    users = User.objects.filter(is_active=True).order_by("username").values_list("username", flat=True)
    tags = RunTag.objects.order_by("name").values_list("name", flat=True).distinct()
    return [*agents.installed(), *users[:MOST_NAMES], *tags[:MOST_NAMES]]


def tool_names() -> list[str]:
    """Tools whose calls a budget can limit."""
    return sorted(TOOLS)


def ledger_contradictions() -> list[str]:
    """Every ledger that does not say what the steps of its period say; empty when all do."""
    return [
        sentence
        for ledger in Spending.objects.select_related("budget")
        for sentence in _contradictions(ledger)
    ]


def _contradictions(ledger: Spending) -> list[str]:
    found: list[str] = []
    for _ in range(LOOKS):
        before = ledger.amounts
        steps = amounts_of_steps(ledger.budget, ledger.starts_on, simulated=ledger.simulated)
        kind = "simulated " if ledger.simulated else ""
        found = [
            f"budget {ledger.budget.title}, {kind}{name} since {ledger.starts_on}: "
            f"the ledger says {before[name]}, the steps {steps[name]}"
            for name in AMOUNTS
            if before[name] != steps[name]
        ]
        still = Spending.objects.select_related("budget").filter(pk=ledger.pk).first()
        if still is None:
            return []
        if still.amounts == before:
            break
        ledger = still
    return found


def read_line(budget: Budget, *, simulated: bool, now: datetime) -> BudgetLine:
    """This budget with what is spent of it in the period of now."""
    starts_on = period_start(budget.period, now)
    ledger = Spending.objects.filter(budget=budget, starts_on=starts_on, simulated=simulated).first()
    amounts = ledger.amounts if ledger else amounts_of_steps(budget, starts_on, simulated=simulated)
    held = Run.objects.filter(status=RunStatus.PAUSED, reason__in=budget.reasons)
    paused = tuple(held.only("pk", "request_id", "user_query").order_by("pk")[: MAX_PAUSED + 1])
    return BudgetLine(
        budget=budget,
        meters=tuple(_meters(budget, amounts)),
        ends_at=period_bounds(budget.period, starts_on)[1],
        paused=paused[:MAX_PAUSED],
        paused_count=len(paused) if len(paused) <= MAX_PAUSED else held.count(),
    )


def _meters(budget: Budget, amounts: dict[str, Any]) -> Iterable[Meter]:
    if budget.cost_usd is not None:
        yield _meter("cost_usd", amounts["cost_usd"], amounts["reserved_usd"], budget.cost_usd)
    if budget.tokens is not None:
        yield _meter("tokens", amounts["tokens"], amounts["reserved_tokens"], budget.tokens)
    if budget.tool_calls is not None:
        yield _meter("tool_calls", amounts["tool_calls"], 0, budget.tool_calls)


def _meter(column: str, used: Any, reserved: Any, limit: Any) -> Meter:
    say = said(column)
    used_share = min(100.0, float(used) / float(limit) * 100) if limit else 100.0
    reserved_share = min(100.0 - used_share, float(reserved) / float(limit) * 100) if limit else 0.0
    return Meter(
        name=NAMES[column],
        column=column,
        used=say(used),
        reserved=say(reserved) if reserved else "",
        limit=say(limit),
        left=say(max(limit - used - reserved, limit * 0)),
        used_share=used_share,
        reserved_share=reserved_share,
        is_used_up=used >= limit,
        used_amount=Decimal(used),
        limit_amount=Decimal(limit),
    )


def said(column: str) -> Callable[[Any], str]:
    """How an amount of this column of a ledger is put into words."""
    return _usd if column == "cost_usd" else _count


def _usd(amount: Any) -> str:
    return words.money(Decimal(amount))


def _count(amount: Any) -> str:
    whole = Decimal(amount)
    return f"{whole:,.0f}" if whole == whole.to_integral_value() or whole >= 100 else f"{whole:,.1f}"


def _values(text: str) -> str:
    """The limits of one side of a change as words; empty when there was no budget."""
    if not text:
        return ""
    values = json.loads(text)
    parts = [
        f"${values['cost_usd']}" if values["cost_usd"] is not None else "",
        f"{values['tokens']:,} tokens" if values["tokens"] is not None else "",
        f"{values['tool_calls']:,} tool calls" if values["tool_calls"] is not None else "",
        AtLimit(values["at_limit"]).label.lower().removesuffix(" and ask"),
        f"tell at {percents} %" if (percents := ", ".join(map(str, values.get("thresholds", ())))) else "",
    ]
    return ", ".join(part for part in parts if part)
