"""What people keep of the list of runs: tags, notes, searches; and how far the full-text index has come."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from runs.models.run import Run


class RunTag(models.Model):
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="tags", db_index=False)
    name = models.CharField(max_length=40)
    added_by = models.CharField(max_length=150)
    added_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="tag_once_per_run")]
        indexes = [models.Index(fields=["name", "run"], name="tag_runs")]  # tag: in the search

    def __str__(self) -> str:
        return f"{self.name} on run {self.run_id}"


class RunNote(models.Model):
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="notes")
    text = models.TextField()
    written_by = models.CharField(max_length=150)
    written_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"note of {self.written_by} on run {self.run_id}"


class SavedSearch(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="searches")
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=500, blank=True)
    sort = models.CharField(max_length=12, blank=True, default="")
    is_shared = models.BooleanField(default=False)
    is_start = models.BooleanField(default=False)  # what its owner sees first
    saved_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="search_name_once_per_owner"),
            models.UniqueConstraint(
                fields=["owner"], condition=Q(is_start=True), name="search_one_start_per_owner"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.query}"


class SearchState(models.Model):
    """One row. Without it the index is empty and is built anew."""

    done = models.BigIntegerField(default=0)  # every event up to this id is in the index
    seen = models.BigIntegerField(default=0)  # events up to this id were looked at
    # On PostgreSQL: once no transaction is older than this one, nothing can appear below `seen` any more.
    horizon = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"index up to event {self.done}"
