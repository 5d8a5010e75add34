"""Worker processes, as they said of themselves. What they drive is in the leases of the runs."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models


class WorkerProcess(models.Model):
    name = models.CharField(max_length=100, unique=True)  # the same as in the leases of its runs
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    version = models.CharField(max_length=32, blank=True, default="")
    concurrency = models.PositiveIntegerField(default=1)
    driving = models.PositiveIntegerField(default=0)  # runs, when it was last seen
    health = models.JSONField(default=dict)  # of the backends of its tools, see tools.boundary.health
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True, blank=True)  # it left in good order

    class Meta:
        ordering = ["started_at", "id"]

    def __str__(self) -> str:
        return f"worker {self.name}"

    def is_lost(self, now: datetime) -> bool:
        """Silent for so long that others take its runs over: it died, or it cannot reach the database."""
        return self.stopped_at is None and self.seen_at <= silent_since(now)

    def is_alive(self, now: datetime) -> bool:
        """Neither lost nor stopped."""
        return self.stopped_at is None and not self.is_lost(now)


def silent_since(now: datetime) -> datetime:
    """Whoever was last seen before this moment is lost."""
    return now - timedelta(seconds=settings.AGENTOPS_LEASE_SECONDS)
