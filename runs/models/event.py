"""Events: one state change each, who did it and when. Audit trail, live cursor and time line in one."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from runs.models.run import Run


class Event(models.Model):
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events", db_index=False)
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=64)
    actor = models.CharField(max_length=150)
    data = models.TextField(default="{}")  # canonical JSON, hashed as it stands
    at = models.DateTimeField(default=timezone.now)
    previous_hash = models.CharField(max_length=64, blank=True, default="")
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["seq"]
        constraints = [models.UniqueConstraint(fields=["run", "seq"], name="event_seq_once_per_run")]
        indexes = [
            # START counts the uses of a grant in the record
            models.Index(fields=["kind"], condition=Q(kind="grant.used"), name="event_grant_used")
        ]

    def __str__(self) -> str:
        return f"event {self.seq} {self.kind}"

    @property
    def fields(self) -> dict[str, Any]:
        """The data of this event."""
        loaded: dict[str, Any] = json.loads(self.data)
        return loaded


def event_hash(
    *, previous_hash: str, request_id: str, seq: int, kind: str, actor: str, data: str, at: datetime
) -> str:
    """SHA-256 over a JSON list of all fields, so that no two different events share their bytes."""
    parts = ["event-v1", previous_hash, request_id, seq, kind, actor, data, at.isoformat()]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()
