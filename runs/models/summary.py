"""Who is told what was spent, how often, and until when they were told."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q

from runs.models.notification import NotificationChannel


class Every(models.TextChoices):
    WEEK = "week", "Every week"
    MONTH = "month", "Every month"


class CostSummary(models.Model):
    """The subscription of a person or of a channel; one row each."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="cost_summary"
    )
    channel = models.OneToOneField(
        NotificationChannel, null=True, blank=True, on_delete=models.CASCADE, related_name="cost_summary"
    )
    address = models.EmailField(blank=True, default="")  # of a person; a channel knows its own
    every = models.CharField(max_length=5, choices=Every)
    # The end of the last period that was told. Moved on, under a lock of this row, in the transaction that
    # writes the message: that makes it one message per period, whoever else tries.
    told_until = models.DateTimeField()
    asked_at = models.DateTimeField(null=True, blank=True)  # the last "send me one now"
    changed_by = models.CharField(max_length=150)
    changed_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(every__in=Every.values), name="summary_every_known"),
            models.CheckConstraint(
                condition=Q(user__isnull=False, channel__isnull=True, address__gt="")
                | Q(user__isnull=True, channel__isnull=False, address=""),
                name="summary_of_one_subscriber",
            ),
        ]

    def __str__(self) -> str:
        return f"summary every {self.every} for {self.name}"

    @property
    def name(self) -> str:
        """Who is told."""
        if self.channel is not None:
            return self.channel.name
        return self.user.get_username() if self.user is not None else ""

    @property
    def target(self) -> str:
        """Where it goes, without what could be a secret of an address."""
        return self.channel.target if self.channel is not None else self.address


def period_of(every: str, moment: datetime) -> tuple[datetime, datetime]:
    """The week from Monday or the month (UTC) that holds this moment: its beginning and its end."""
    day = moment.astimezone(UTC).date()
    if every == Every.WEEK:
        first = day - timedelta(days=day.weekday())
        after = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        after = (first + timedelta(days=31)).replace(day=1)
    return datetime.combine(first, time(), UTC), datetime.combine(after, time(), UTC)
