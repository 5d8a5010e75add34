"""On PostgreSQL a job tells the workers that a run can be driven; on SQLite there are none.

A job is deferred in the transaction that puts the run into the queue, and wakes an idle worker with its
commit. It carries nothing but the run's id: the row and its lease are the truth. So a job too many ends at
once, and one too few is made up for by the sweep of the workers.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db import connection, transaction

if connection.vendor == "postgresql":  # loading it takes a seventh of a second that SQLite has no use for
    from procrastinate.contrib.django import app
    from procrastinate.contrib.django.models import ProcrastinateJob
    from procrastinate.exceptions import AlreadyEnqueued

QUEUE = "runs"
DRIVE = "drive"  # the only task: claim the run and drive it


def defer(run_id: int, due: datetime | None = None) -> None:
    """Have a worker look at this run, now or when it is due. Takes part in the caller's transaction.

    Does nothing when such a job waits already, and nothing on SQLite.
    """
    if connection.vendor != "postgresql":
        return
    lock = _lock(run_id, due)
    # The lock includes the time: a job for later must not stand in the way of one for now.
    job = app.configure_task(DRIVE, queue=QUEUE, queueing_lock=lock, schedule_at=due)
    try:
        with transaction.atomic():  # a savepoint: what fails here must not fail the change of the run
            job.defer(run_id=run_id)
    except AlreadyEnqueued:
        return


def without_job(run_ids: Collection[int]) -> list[int]:
    """Those of these runs that no waiting job would wake now, in the given order. PostgreSQL only."""
    locks = ProcrastinateJob.objects.filter(
        status="todo", queueing_lock__in=[_lock(run_id, None) for run_id in run_ids]
    )
    waiting = set(locks.values_list("queueing_lock", flat=True))
    return [run_id for run_id in run_ids if _lock(run_id, None) not in waiting]


def _lock(run_id: int, due: datetime | None) -> str:
    """What only one waiting job can have."""
    return f"run {run_id} at {due.isoformat()}" if due else f"run {run_id}"
