"""Signs of life of worker processes. They change no run, so they are no events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from runs.actions.change import one_writer
from runs.models import WorkerProcess

KEPT = timedelta(days=7)  # how long a worker that left, or was lost, is remembered


@dataclass(frozen=True)
class Identity:
    """Who a worker is; none of it changes while it lives."""

    name: str
    host: str
    pid: int
    version: str
    concurrency: int
    started_at: datetime


def show_worker(identity: Identity, *, driving: int, health: dict[str, dict[str, Any]]) -> None:
    """The worker is there now, drives so many runs, and finds its backends so.

    The first call of a worker makes its row, and forgets those that were last seen a week ago.
    """
    now = timezone.now()
    with one_writer(), transaction.atomic():
        row = WorkerProcess.objects.filter(name=identity.name)
        if row.update(seen_at=now, driving=driving, health=health):
            return
        WorkerProcess.objects.filter(seen_at__lt=now - KEPT).delete()
        WorkerProcess.objects.create(
            name=identity.name,
            host=identity.host,
            pid=identity.pid,
            version=identity.version,
            concurrency=identity.concurrency,
            started_at=identity.started_at,
            seen_at=now,
            driving=driving,
            health=health,
        )


def worker_left(identity: Identity) -> None:
    """The worker ends in good order and drives nothing any more."""
    now = timezone.now()
    with one_writer(), transaction.atomic():
        WorkerProcess.objects.filter(name=identity.name).update(seen_at=now, stopped_at=now, driving=0)
