"""A run: one task given to an agent, from question to final response."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, FloatField, Func, Q
from django.db.models.sql.compiler import SQLCompiler
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property


class RunStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    WAITING = "waiting", "Waiting"
    PAUSED = "paused", "Paused"
    SUCCEEDED = "succeeded", "Succeeded"
    STOPPED = "stopped", "Stopped"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


ENDED = frozenset({RunStatus.SUCCEEDED, RunStatus.STOPPED, RunStatus.FAILED, RunStatus.CANCELLED})


class Seconds(Func):
    """Seconds from one time to another, zero where one is missing: letter by letter as its index has it."""

    output_field = FloatField()

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        template = "COALESCE((julianday(%(expressions)s)) * 86400.0, 0.0)"
        return self.as_sql(compiler, connection, template=template, arg_joiner=") - julianday(", **extra)

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        template = "COALESCE(EXTRACT(EPOCH FROM (%(expressions)s))::double precision, 0.0)"
        return self.as_sql(compiler, connection, template=template, arg_joiner=" - ", **extra)


TOKENS = (
    F("input_tokens") + F("cache_write_5m_tokens") + F("cache_write_1h_tokens") + F("cache_read_tokens")
    + F("output_tokens")
)  # fmt: skip
LENGTH = Seconds(F("ended_at"), F("started_at"))

CONTINUED = "continued"  # the reason of a run that handed over to another one


class Run(models.Model):
    request_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    agent = models.CharField(max_length=64)
    model = models.CharField(max_length=64)
    user_query = models.TextField()
    status = models.CharField(max_length=12, choices=RunStatus, default=RunStatus.QUEUED)
    # Why it has this status: a code for queries, and a sentence a person can act on.
    reason = models.CharField(max_length=64, blank=True, default="")
    explanation = models.TextField(blank=True, default="")
    # Frozen at start, exact JSON text: model, max_tokens, system, tools, thinking, limits, environment.
    config = models.TextField()
    # Limits that a person changed since, as JSON; the frozen text stays, requests are made of it.
    limits = models.TextField(blank=True, default="")
    # The first message of the conversation, exact JSON text; a fork has that of the run it came from.
    opening = models.TextField(blank=True, default="")
    simulated = models.BooleanField(default=False)
    source = models.CharField(max_length=12, default="native")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="runs"
    )
    started_by = models.CharField(max_length=150)  # who, in words, also when it was no user
    parent_run = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="forks"
    )
    # So many first steps are copies of the parent's: they cost nothing here.
    copied_steps = models.PositiveIntegerField(default=0)
    # So many tool calls were made in the runs it continues: its evidence ids count on.
    earlier_calls = models.PositiveIntegerField(default=0)
    final_response = models.TextField(blank=True, default="")

    # Totals, kept in the transaction that changes them.
    step_count = models.PositiveIntegerField(default=0)
    model_calls = models.PositiveIntegerField(default=0)
    tool_calls = models.PositiveIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_5m_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_1h_tokens = models.PositiveBigIntegerField(default=0)
    cache_read_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_usd = models.DecimalField(max_digits=20, decimal_places=10, default=Decimal(0))
    unpriced_calls = models.PositiveIntegerField(default=0)

    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    waiting_since = models.DateTimeField(null=True, blank=True)
    waited_seconds = models.FloatField(default=0)  # for people
    # Time under a driver, which is what the limit on time counts.
    driving_since = models.DateTimeField(null=True, blank=True)
    driven_seconds = models.FloatField(default=0)
    retry_at = models.DateTimeField(null=True, blank=True)
    # What a person asked the driver for; it is done before the next move.
    asked_for = models.CharField(max_length=12, blank=True, default="")
    asked_by = models.CharField(max_length=150, blank=True, default="")
    # Findings of people about unknown outcomes that the conversation does not hold yet.
    untold = models.PositiveIntegerField(default=0)
    # Edits of people that wait for their dry run.
    unchecked_edits = models.PositiveIntegerField(default=0)

    # The lease: whoever holds it drives the run. Every write of a driver checks the fence.
    lease_owner = models.CharField(max_length=100, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    fence = models.PositiveIntegerField(default=0)
    # Workers that died with it, one after another, without recording anything that was done.
    takeovers = models.PositiveIntegerField(default=0)

    last_event = models.PositiveIntegerField(default=0)
    last_event_hash = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(cost_usd__gte=0), name="run_cost_not_negative"),
            models.CheckConstraint(condition=Q(status__in=RunStatus.values), name="run_status_known"),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="run_newest"),  # the list
            models.Index(fields=["status", "-created_at", "-id"], name="run_status_newest"),  # its filter
            models.Index(  # the workers: what can be claimed
                fields=["created_at"],
                condition=Q(status__in=[RunStatus.QUEUED, RunStatus.RUNNING]),
                name="run_claimable",
            ),
            models.Index(fields=["agent", "-created_at", "-id"], name="run_agent_newest"),  # filters
            models.Index(fields=["started_by", "-created_at", "-id"], name="run_user_newest"),
            # Orders of the list, and bounds on numbers. A run enters them once, at its end: what changes
            # with every step would be written with every step. Those that go on are few and sorted apart.
            models.Index(
                F("cost_usd").desc(),
                F("id").desc(),
                condition=Q(ended_at__isnull=False),
                name="run_costliest",
            ),
            models.Index(  # outliers of the cost report
                F("agent"),
                F("cost_usd").desc(),
                F("id").desc(),
                condition=Q(ended_at__isnull=False),
                name="run_agent_costliest",
            ),
            models.Index(
                TOKENS.desc(), F("id").desc(), condition=Q(ended_at__isnull=False), name="run_most_tokens"
            ),
            models.Index(
                LENGTH.desc(), F("id").desc(), condition=Q(ended_at__isnull=False), name="run_longest"
            ),
            models.Index(
                F("step_count").desc(),
                F("id").desc(),
                condition=Q(ended_at__isnull=False),
                name="run_most_steps",
            ),
            models.Index(fields=["-created_at"], condition=Q(ended_at__isnull=True), name="run_open"),
            models.Index(  # has:unpriced, to which the page of prices links
                fields=["-created_at", "-id"], condition=Q(unpriced_calls__gt=0), name="run_unpriced"
            ),
        ]
        permissions = [("decide", "Can approve and reject tool calls"), ("start", "Can start runs")]

    def __str__(self) -> str:
        return f"run {self.pk}: {self.user_query[:60]}"

    def get_absolute_url(self) -> str:
        return reverse("run", args=[self.request_id])

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED

    @property
    def continues(self) -> bool:
        """Whether it goes on with the summary of its parent; a fork has copies of its steps instead."""
        return self.parent_run_id is not None and not self.copied_steps

    @property
    def handed_over(self) -> bool:
        """Whether another run goes on with its work."""
        return self.status == RunStatus.STOPPED and self.reason == CONTINUED

    @property
    def shown_cost(self) -> Decimal | None:
        """USD of all calls that have a price; None when something was used and nothing of it has one."""
        return None if self.unpriced_calls and not self.cost_usd else self.cost_usd

    def is_driven(self, now: datetime) -> bool:
        """Whether a worker makes its moves now."""
        return self.lease_until is not None and self.lease_until > now

    @property
    def frozen(self) -> dict[str, Any]:
        """The frozen configuration as a dictionary; requests are built from it, never from memory.

        Its limits are those that hold now: a person may have raised them.
        """
        if self.limits:
            limits = self._configuration["limits"] | json.loads(self.limits)
            return self._configuration | {"limits": limits}
        return self._configuration

    @cached_property
    def _configuration(self) -> dict[str, Any]:
        """As it was frozen; decoded once, because the text never changes."""
        loaded: dict[str, Any] = json.loads(self.config)
        return loaded

    @property
    def total_tokens(self) -> int:
        return (
            self.input_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
            + self.cache_read_tokens
            + self.output_tokens
        )

    @property
    def cache_hit_share(self) -> float | None:
        """Share of all input tokens that came from the cache, 0 to 1; None before any input."""
        sent = self.total_tokens - self.output_tokens
        return self.cache_read_tokens / sent if sent else None

    def elapsed(self, now: datetime | None = None) -> timedelta:
        """From the start to the end, or to now; zero while queued."""
        if self.started_at is None:
            return timedelta(0)
        return (self.ended_at or now or timezone.now()) - self.started_at

    def active_seconds(self, now: datetime) -> float:
        """Seconds somebody drove the run: neither the queue nor people nor dead workers count."""
        running = (now - self.driving_since).total_seconds() if self.driving_since else 0.0
        return self.driven_seconds + max(0.0, running)
