"""Budgets that runs share, what was spent of each in each period, and who changed them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import BigIntegerField, Case, F, Q, Sum, Value, When
from django.db.models.functions import Cast, Coalesce, Greatest, Round
from django.utils import timezone

from runs.models.step import Step, StepKind, StepStatus
from runs.money import FRACTION

REASON = "budget_"  # a run that a budget holds back has this and the budget's number as its reason
UNPRICED = "_unpriced"


class Scope(models.TextChoices):
    AGENT = "agent", "One agent"
    INSTALLATION = "installation", "Installation"


class Period(models.TextChoices):
    DAY = "day", "Day"
    MONTH = "month", "Month"


class AtLimit(models.TextChoices):
    WRAP_UP = "wrap_up", "Wrap up"
    PAUSE = "pause", "Pause and ask"


class Budget(models.Model):
    scope = models.CharField(max_length=12, choices=Scope)
    agent = models.CharField(max_length=64, blank=True, default="")
    period = models.CharField(max_length=5, choices=Period)
    # With a tool, only calls of this tool count, and only their number is limited.
    tool = models.CharField(max_length=128, blank=True, default="")
    tokens = models.PositiveBigIntegerField(null=True, blank=True)
    cost_usd = models.DecimalField(max_digits=20, decimal_places=10, null=True, blank=True)
    tool_calls = models.PositiveBigIntegerField(null=True, blank=True)
    at_limit = models.CharField(max_length=8, choices=AtLimit, default=AtLimit.WRAP_UP)
    set_by = models.CharField(max_length=150)
    set_at = models.DateTimeField(default=timezone.now)
    revision = models.PositiveIntegerField(default=1)  # a run pauses for what it has read, or looks again

    class Meta:
        ordering = ["scope", "agent", "period", "tool"]
        constraints = [
            models.UniqueConstraint(fields=["scope", "agent", "period", "tool"], name="budget_once"),
            models.CheckConstraint(
                condition=Q(scope=Scope.AGENT, agent__gt="") | Q(scope=Scope.INSTALLATION, agent=""),
                name="budget_scope_known",
            ),
            models.CheckConstraint(condition=Q(period__in=Period.values), name="budget_period_known"),
            models.CheckConstraint(condition=Q(at_limit__in=AtLimit.values), name="budget_at_limit_known"),
            models.CheckConstraint(
                condition=Q(tokens__isnull=False) | Q(cost_usd__isnull=False) | Q(tool_calls__isnull=False),
                name="budget_limits_something",
            ),
            models.CheckConstraint(
                condition=Q(tool="") | Q(tokens__isnull=True, cost_usd__isnull=True),
                name="budget_of_a_tool_counts_calls",
            ),
        ]
        permissions = [("budget", "Can set budgets")]

    def __str__(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        """What it limits in a few words: incident per day, search_logs, installation per month."""
        whose = self.agent if self.scope == Scope.AGENT else "installation"
        what = f"{self.tool} of {whose}" if self.tool else whose
        return f"{what} per {self.period}"

    @property
    def reason(self) -> str:
        """The reason of a run that this budget holds back."""
        return f"{REASON}{self.pk}"

    @property
    def reasons(self) -> list[str]:
        """All reasons that name this budget."""
        return [self.reason, self.reason + UNPRICED]

    @property
    def values(self) -> dict[str, Any]:
        """What can be changed, ready for JSON; the amount as text, so that it stays exact."""
        usd = None if self.cost_usd is None else f"{self.cost_usd.normalize():f}"
        return {
            "tokens": self.tokens,
            "cost_usd": usd,
            "tool_calls": self.tool_calls,
            "at_limit": str(self.at_limit),
        }


class Spending(models.Model):
    """The ledger of one budget in one period. It is opened from the steps of the period, then kept."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="spendings", db_index=False)
    starts_on = models.DateField()
    simulated = models.BooleanField()  # what the simulator costs uses up nothing of the real budget
    tokens = models.PositiveBigIntegerField(default=0)
    cost_usd = models.DecimalField(max_digits=20, decimal_places=10, default=Decimal(0))
    tool_calls = models.PositiveBigIntegerField(default=0)
    # What model calls that are under way may still use.
    reserved_tokens = models.PositiveBigIntegerField(default=0)
    reserved_usd = models.DecimalField(max_digits=20, decimal_places=10, default=Decimal(0))

    class Meta:
        ordering = ["budget_id"]  # whoever locks several does it in this order
        constraints = [
            models.UniqueConstraint(fields=["budget", "starts_on", "simulated"], name="spending_once"),
            models.CheckConstraint(
                condition=Q(
                    tokens__gte=0,
                    cost_usd__gte=0,
                    tool_calls__gte=0,
                    reserved_tokens__gte=0,
                    reserved_usd__gte=0,
                ),
                name="spending_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"spending of budget {self.budget_id} since {self.starts_on}"

    @property
    def amounts(self) -> dict[str, Any]:
        """What it says, by column."""
        return {name: getattr(self, name) for name in AMOUNTS}


AMOUNTS = ("tokens", "cost_usd", "tool_calls", "reserved_tokens", "reserved_usd")


class BudgetChange(models.Model):
    """Who changed which budget, what it said before and after. Rows are only added; `before` empty: new."""

    budget = models.PositiveBigIntegerField()  # its number, also when it is gone
    title = models.CharField(max_length=300)
    before = models.TextField(blank=True, default="")  # JSON of Budget.values
    after = models.TextField(blank=True, default="")
    actor = models.CharField(max_length=150)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.title} by {self.actor}"


def period_start(period: str, moment: datetime) -> date:
    """The first day of the UTC day or month that holds this moment."""
    day = moment.astimezone(UTC).date()
    return day if period == Period.DAY else day.replace(day=1)


def period_bounds(period: str, starts_on: date) -> tuple[datetime, datetime]:
    """The period from its first moment to the first one after it."""
    last = starts_on if period == Period.DAY else (starts_on + timedelta(days=31)).replace(day=1)
    after = starts_on + timedelta(days=1) if period == Period.DAY else last
    return datetime.combine(starts_on, time(), UTC), datetime.combine(after, time(), UTC)


def budget_of(reason: str) -> Budget | None:
    """The budget that this reason of a run names, if it is one and still exists."""
    number = reason.removeprefix(REASON).partition("_")[0]
    if not reason.startswith(REASON) or not number.isdecimal():
        return None
    return Budget.objects.filter(pk=int(number)).first()


def applying(agent: str) -> Q:
    """The budgets that a run of this agent shares."""
    return Q(scope=Scope.INSTALLATION) | Q(scope=Scope.AGENT, agent=agent)


def counted(step: Step) -> tuple[int, Decimal]:
    """Tokens and USD that an ended attempt uses up: all it reserved, where its usage is only estimated."""
    tokens, usd = step.total_tokens, step.cost_usd or Decimal(0)
    if not step.usage_estimated:
        return tokens, usd
    return max(tokens, step.reserved_tokens), max(usd, step.reserved_usd or Decimal(0))


def amounts_of_steps(budget: Budget, starts_on: date, *, simulated: bool) -> dict[str, Any]:
    """What the steps of this period say: the columns of its ledger. Exact."""
    since, until = period_bounds(budget.period, starts_on)
    steps = Step.objects.filter(run__simulated=simulated)
    if budget.scope == Scope.AGENT:
        steps = steps.filter(run__agent=budget.agent)
    calls = steps.filter(kind=StepKind.TOOL, counted_at__gte=since, counted_at__lt=until)
    if budget.tool:
        return dict.fromkeys(AMOUNTS, 0) | {"tool_calls": calls.filter(name=budget.tool).count()}
    turns = steps.filter(kind=StepKind.MODEL, started_at__gte=since, started_at__lt=until).order_by()
    actual = (
        F("input_tokens")
        + F("cache_write_5m_tokens")
        + F("cache_write_1h_tokens")
        + F("cache_read_tokens")
        + F("output_tokens")
    )
    reserved_usd = _whole(F("reserved_usd"))
    # What started in the period ended in it or later, or runs: one index knows the ends, one what runs.
    used = turns.filter(ended_at__gte=since).aggregate(
        tokens=Sum(_used(actual, F("reserved_tokens"))),
        cost_usd=Sum(_used(_whole(F("cost_usd")), reserved_usd)),
    )
    held = turns.filter(status=StepStatus.RUNNING).aggregate(
        reserved_tokens=Sum("reserved_tokens"), reserved_usd=Sum(reserved_usd)
    )
    sums: dict[str, Any] = {name: value or 0 for name, value in (used | held).items()}
    for name in ("cost_usd", "reserved_usd"):
        sums[name] = Decimal(sums[name]) / FRACTION
    return sums | {"tool_calls": calls.count()}


def _whole(amount: Any) -> Any:
    """An amount as a whole number of its smallest fraction: whole numbers add up exactly everywhere."""
    return Cast(Round(Coalesce(amount, Value(Decimal(0))) * Value(Decimal(FRACTION))), BigIntegerField())


def _used(actual: Any, reserved: Any) -> Any:
    estimated = When(usage_estimated=True, then=Greatest(actual, reserved))
    return Case(estimated, default=actual, output_field=BigIntegerField())
