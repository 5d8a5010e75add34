"""Budgets that runs share, what was spent of each in each period, and who changed them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from runs.models.run import Run
from runs.models.search import RunTag

REASON = "budget_"  # a run that a budget holds back has this and the budget's number as its reason
UNPRICED = "_unpriced"


class Scope(models.TextChoices):
    AGENT = "agent", "One agent"
    USER = "user", "One user"
    TAG = "tag", "One tag"
    INSTALLATION = "installation", "Installation"


class Period(models.TextChoices):
    DAY = "day", "Day"
    WEEK = "week", "Week"
    MONTH = "month", "Month"


class AtLimit(models.TextChoices):
    WRAP_UP = "wrap_up", "Wrap up"
    PAUSE = "pause", "Pause and ask"
    NOTIFY = "notify", "Only notify"


def usual_thresholds() -> list[int]:
    """Percent of a budget at which people are told, unless they choose others."""
    return [50, 80, 100]


class Budget(models.Model):
    scope = models.CharField(max_length=12, choices=Scope)
    agent = models.CharField(max_length=64, blank=True, default="")
    # Whose runs: the account that started them, which stays the same when it is renamed.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="budgets"
    )
    tag = models.CharField(max_length=40, blank=True, default="")
    period = models.CharField(max_length=5, choices=Period)
    # With a tool, only calls of this tool count, and only their number is limited.
    tool = models.CharField(max_length=128, blank=True, default="")
    tokens = models.PositiveBigIntegerField(null=True, blank=True)
    cost_usd = models.DecimalField(max_digits=20, decimal_places=10, null=True, blank=True)
    tool_calls = models.PositiveBigIntegerField(null=True, blank=True)
    at_limit = models.CharField(max_length=8, choices=AtLimit, default=AtLimit.WRAP_UP)
    thresholds = models.JSONField(default=usual_thresholds)  # percent, rising: people are told once at each
    set_by = models.CharField(max_length=150)
    set_at = models.DateTimeField(default=timezone.now)
    revision = models.PositiveIntegerField(default=1)  # a run pauses for what it has read, or looks again

    class Meta:
        ordering = ["scope", "agent", "user", "tag", "period", "tool"]
        constraints = [
            models.UniqueConstraint(
                fields=["scope", "agent", "tag", "period", "tool"],
                condition=Q(user__isnull=True),
                name="budget_once",
            ),
            models.UniqueConstraint(
                fields=["user", "period", "tool"],
                condition=Q(user__isnull=False),
                name="budget_of_a_user_once",
            ),
            models.CheckConstraint(
                condition=Q(scope=Scope.AGENT, agent__gt="", user__isnull=True, tag="")
                | Q(scope=Scope.USER, agent="", user__isnull=False, tag="")
                | Q(scope=Scope.TAG, agent="", user__isnull=True, tag__gt="")
                | Q(scope=Scope.INSTALLATION, agent="", user__isnull=True, tag=""),
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
        what = f"{self.tool} of {self.whose}" if self.tool else self.whose
        return f"{what} per {self.period}"

    @property
    def subject(self) -> str:
        """The name of the agent, user or tag; empty for the installation."""
        user = self.user.get_username() if self.user is not None else ""
        return self.agent or user or self.tag

    @property
    def whose(self) -> str:
        """Who shares it: incident, user olga, tag checkout, installation."""
        kind = {Scope.USER: "user ", Scope.TAG: "tag "}.get(Scope(self.scope), "")
        return f"{kind}{self.subject}" if self.subject else "installation"

    @property
    def is_soft(self) -> bool:
        """Whether it only notifies: no call is ever refused because of it."""
        return self.at_limit == AtLimit.NOTIFY

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
            "thresholds": list(self.thresholds),
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
    noticed = models.PositiveIntegerField(default=0)  # the highest threshold that people were told of

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


class BudgetNotice(models.Model):
    """A threshold that a budget reached, and who was told: once per period, threshold and version of it."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="notices", db_index=False)
    revision = models.PositiveIntegerField()
    starts_on = models.DateField()
    simulated = models.BooleanField()
    threshold = models.PositiveIntegerField()  # percent
    limit = models.CharField(max_length=10)  # cost_usd, tokens or tool_calls: the one that is nearest
    used = models.DecimalField(max_digits=30, decimal_places=10)
    of = models.DecimalField(max_digits=30, decimal_places=10)
    was_full = models.BooleanField(default=False)  # a call of the run had no room, whatever was used
    run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="+")  # that crossed it
    at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["budget", "starts_on", "simulated", "threshold", "revision"],
                name="budget_notice_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.threshold} % of budget {self.budget_id} since {self.starts_on}"


class BudgetHold(models.Model):
    """A run that a budget held back, and when: rows are only added."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="holds")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="holds")
    at_limit = models.CharField(max_length=8, choices=AtLimit)  # what it did: wrap up, or pause
    at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"run {self.run_id} held by budget {self.budget_id}"


def period_start(period: str, moment: datetime) -> date:
    """The first day of the UTC day, ISO week or month that holds this moment."""
    day = moment.astimezone(UTC).date()
    match period:
        case Period.WEEK:
            return day - timedelta(days=day.weekday())
        case Period.MONTH:
            return day.replace(day=1)
    return day


def period_bounds(period: str, starts_on: date) -> tuple[datetime, datetime]:
    """The period from its first moment to the first one after it."""
    days = {Period.DAY: 1, Period.WEEK: 7, Period.MONTH: 31}[Period(period)]
    after = starts_on + timedelta(days=days)
    if period == Period.MONTH:
        after = after.replace(day=1)
    return datetime.combine(starts_on, time(), UTC), datetime.combine(after, time(), UTC)


def budget_of(reason: str) -> Budget | None:
    """The budget that this reason of a run names, if it is one and still exists."""
    number = reason.removeprefix(REASON).partition("_")[0]
    if not reason.startswith(REASON) or not number.isdecimal():
        return None
    return Budget.objects.select_related("user").filter(pk=int(number)).first()


def applying(run: Run) -> Q:
    """The budgets that this run shares."""
    tags = RunTag.objects.filter(run=run.pk).order_by().values("name")
    shared = (
        Q(scope=Scope.INSTALLATION) | Q(scope=Scope.AGENT, agent=run.agent) | Q(scope=Scope.TAG, tag__in=tags)
    )
    if run.created_by_id is not None:
        shared |= Q(scope=Scope.USER, user=run.created_by_id)
    return shared
