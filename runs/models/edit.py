"""A person's wish to change the arguments of a call that waits, and what came of it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from runs.models.approval import Approval
from runs.models.run import Run


class EditState(models.TextChoices):
    ASKED = "asked", "Being checked"
    OPENED = "opened", "Put before people"
    DENIED = "denied", "Not possible"
    VOID = "void", "Too late"


class Edit(models.Model):
    """Other arguments for a pending approval. The dry run and policy come first, then the next revision."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="edits")
    approval = models.ForeignKey(Approval, on_delete=models.CASCADE, related_name="edits")
    arguments = models.TextField()  # canonical
    reason = models.TextField(blank=True, default="")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="edits")
    at = models.DateTimeField(default=timezone.now)
    state = models.CharField(max_length=8, choices=EditState, default=EditState.ASKED)
    answer = models.TextField(blank=True, default="")  # one sentence for the person who asked
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["approval"], condition=Q(state="asked"), name="edit_one_open_per_approval"
            ),
            models.CheckConstraint(condition=Q(state__in=EditState.values), name="edit_state_known"),
        ]

    def __str__(self) -> str:
        return f"edit of approval {self.approval_id} by {self.by_id}: {self.state}"
