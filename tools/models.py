"""Tables of the tools: the simulated worlds, what was done in them, and the tickets that were filed."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone


class World(models.Model):
    """One simulated estate. Its clock: alert time + real time since it was opened + what was skipped."""

    key = models.CharField(max_length=128, unique=True)
    scenario = models.CharField(max_length=64)
    seed = models.BigIntegerField()
    alert_at = models.DateTimeField()
    opened_at = models.DateTimeField(default=timezone.now)  # real time
    skipped_seconds = models.FloatField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(skipped_seconds__gte=0), name="world_time_goes_forward")
        ]

    def __str__(self) -> str:
        return f"world {self.key}"


class WorldAction(models.Model):
    """A remediation that happened in a world. The key makes it happen once, however often it is asked for."""

    world = models.ForeignKey(World, on_delete=models.CASCADE, related_name="actions")
    idempotency_key = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=40)
    service = models.CharField(max_length=64)
    details = models.JSONField(default=dict)
    at = models.FloatField()  # seconds after the alert, in the world's time
    # The answer that was given, as JSON text, so that a repeated call gets the same one.
    answer = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.kind} of {self.service} in {self.world_id}"


class Severity(models.TextChoices):
    SEV1 = "sev1", "Sev 1"
    SEV2 = "sev2", "Sev 2"
    SEV3 = "sev3", "Sev 3"
    SEV4 = "sev4", "Sev 4"


class Ticket(models.Model):
    """An incident ticket. One per world: a second call brings the same ticket up to date."""

    reference = models.CharField(max_length=40, unique=True)
    title = models.CharField(max_length=120)
    severity = models.CharField(max_length=4, choices=Severity)
    summary = models.TextField(blank=True, default="")
    suspected_root_cause = models.TextField(blank=True, default="")
    evidence_ids = models.JSONField(default=list)
    services = models.JSONField(default=list)
    world = models.CharField(max_length=128, blank=True, default="")
    request_id = models.CharField(max_length=128, blank=True, default="")
    dedup_key = models.CharField(max_length=200, unique=True)
    paged_at = models.DateTimeField(null=True, blank=True)
    last_idempotency_key = models.CharField(max_length=200, blank=True, default="")
    last_answer = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(severity__in=Severity.values), name="ticket_severity_known"
            )
        ]
        indexes = [models.Index(fields=["-created_at"], name="ticket_newest")]  # the page of tickets

    def __str__(self) -> str:
        return f"{self.reference} {self.title}"

    def as_data(self) -> dict[str, Any]:
        """The ticket as the tool reports it."""
        return {"ticket_id": self.reference, "url": f"/tickets/#{self.reference}"}
