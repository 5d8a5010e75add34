"""Effects whose outcome is unknown: what was found out about them, and what a person says became of them."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from runs.models.run import Run
from runs.models.step import Step


class FoundBy(models.TextChoices):
    PROBE = "probe", "Probe of the tool"
    LATE = "late", "Late answer of the tool"


class Says(models.TextChoices):
    HAPPENED = "happened", "It happened"
    DID_NOT_HAPPEN = "did_not_happen", "It did not happen"
    CANNOT_TELL = "cannot_tell", "Cannot tell"


class Finding(models.Model):
    """Evidence about one start of a call, append-only. It never changes the call by itself."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="findings")
    step = models.ForeignKey(Step, on_delete=models.CASCADE, related_name="findings")
    attempt = models.PositiveIntegerField()
    found_by = models.CharField(max_length=8, choices=FoundBy)
    says = models.CharField(max_length=16, choices=Says)
    evidence = models.TextField()  # one sentence
    result = models.TextField(blank=True, default="")  # the whole envelope, when there is one
    worker = models.CharField(max_length=100)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(says__in=Says.values), name="finding_says_known"),
            models.CheckConstraint(condition=Q(found_by__in=FoundBy.values), name="finding_found_by_known"),
        ]

    def __str__(self) -> str:
        return f"{self.found_by} of step {self.step_id}: {self.says}"


class WhatBecame(models.TextChoices):
    """What a person says became of a call."""

    HAPPENED = "happened", "It happened"
    DID_NOT_HAPPEN = "did_not_happen", "It did not happen"
    ABANDONED = "abandoned", "Abandoned"


class Resolution(models.Model):
    """What one person says became of a call whose outcome was unknown; the first one holds."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="resolutions")
    step = models.OneToOneField(Step, on_delete=models.CASCADE, related_name="resolution")
    verdict = models.CharField(max_length=16, choices=WhatBecame)
    evidence = models.TextField()
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="resolutions")
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(verdict__in=WhatBecame.values), name="resolution_known"),
            models.CheckConstraint(condition=~Q(evidence=""), name="resolution_has_evidence"),
        ]

    def __str__(self) -> str:
        return f"step {self.step_id}: {self.verdict}"


OUTCOME = "outcome"  # notes of this name, with the number of their call, tell the model what a person found


def note_name(resolution: Resolution, run: Run) -> str:
    """The name of the note that tells it in the conversation of this run, or of a copy of it.

    A call of an earlier run, whose work this one goes on with, is named with its run: numbers begin anew.
    """
    if resolution.run_id == run.pk:
        return f"{OUTCOME}:{resolution.step.seq}"
    return f"{OUTCOME}:{resolution.run_id}:{resolution.step.seq}"


def untold(run: Run, names: Iterable[str]) -> list[Resolution]:
    """What people found out that none of these notes tells, also about calls of runs that it goes on for."""
    told = set(names)
    found = [one for one in _found(run) if note_name(one, run) not in told]
    earlier = run.parent_run if run.continues else None
    while earlier is not None:
        said = set(earlier.steps.filter(name__startswith=f"{OUTCOME}:").values_list("name", flat=True))
        about = [one for one in _found(earlier) if note_name(one, earlier) not in said]
        found = [one for one in about if note_name(one, run) not in told] + found
        told |= said
        earlier = earlier.parent_run if earlier.continues else None
    return found


def _found(run: Run) -> Iterable[Resolution]:
    return run.resolutions.select_related("step", "by")
