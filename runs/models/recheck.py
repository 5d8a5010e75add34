"""Later looks at a change whose effect was seen: does it still hold, or did what it cured come back?"""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from runs.models.run import Run
from runs.models.step import Step


class RecheckState(models.TextChoices):
    DUE = "due", "Planned"
    HOLDS = "holds", "Still holds"
    RELAPSED = "relapsed", "It came back"
    UNCLEAR = "unclear", "Could not be seen"
    DROPPED = "dropped", "Not needed"


class Recheck(models.Model):
    """One look, planned with the result of the call. Workers make it, also when the run is over."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="rechecks")
    step = models.ForeignKey(Step, on_delete=models.CASCADE, related_name="rechecks")
    due_at = models.DateTimeField()
    state = models.CharField(max_length=8, choices=RecheckState, default=RecheckState.DUE)
    claimed_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    observed = models.TextField(blank=True, default="")  # one sentence of the tool
    checked_at = models.DateTimeField(null=True, blank=True)
    # Of a relapse: who took care of it, and the run that was asked to.
    answered_by = models.CharField(max_length=150, blank=True, default="")
    answered_at = models.DateTimeField(null=True, blank=True)
    follow_up = models.ForeignKey(Run, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=RecheckState.values), name="recheck_state_known"),
            models.UniqueConstraint(fields=["step", "due_at"], name="recheck_once_per_time"),
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=Q(state="due"), name="recheck_due"),  # the workers
            models.Index(  # the queue: what came back and nobody took care of
                fields=["checked_at"],
                condition=Q(state="relapsed", answered_at__isnull=True),
                name="recheck_unanswered",
            ),
        ]

    def __str__(self) -> str:
        return f"recheck of step {self.step_id} at {self.due_at}: {self.state}"
