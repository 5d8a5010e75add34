"""Who drives a run: claim, heartbeat, hand back, park, end."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from runs.actions import rows
from runs.actions.change import (
    HELD_MILLISECONDS,
    Change,
    Lease,
    change,
    database_now,
    one_writer,
    shared_transaction,
    wait_only,
)
from runs.actions.clocks import stop_clock
from runs.actions.settling import close_open_steps
from runs.models import Run, RunStatus, Step, StepStatus

logger = logging.getLogger(__name__)

CLAIMABLE_STATUSES = (RunStatus.QUEUED, RunStatus.RUNNING)
_ONE = "WHERE id = %s"
_ONE_LOCKED = f"{_ONE} FOR UPDATE"
CLAIMABLE = Q(status__in=CLAIMABLE_STATUSES)


def claim(run_id: int, owner: str) -> Lease | None:
    """Take the right to drive this run; None when somebody has it or there is nothing to do now."""
    with shared_transaction():
        found = rows.select(Run, _ONE_LOCKED if connection.vendor == "postgresql" else _ONE, [run_id])
        return next((_taken(run, owner) for run in found if _is_claimable(run)), None)


def claim_oldest(owner: str, limit: int) -> list[Lease]:
    """Take the right to drive those runs that have waited longest, in one transaction; for SQLite."""
    with shared_transaction():
        waiting = _waiting(timezone.now())[:limit]
        return [_taken(run, owner) for run in waiting]


def _is_claimable(run: Run) -> bool:
    now = timezone.now()
    is_free = run.lease_until is None or run.lease_until <= now
    is_due = run.retry_at is None or run.retry_at <= now
    return run.status in CLAIMABLE_STATUSES and is_free and is_due


def _taken(run: Run, owner: str) -> Lease:
    """Inside a transaction, of a run that is locked: who drives it from now on."""
    lost = run.lease_owner if run.status == RunStatus.RUNNING else ""
    current = Change(run, owner, database_now())
    if run.driving_since is not None:  # its driver died: count it until its lease ran out
        stop_clock(current, run.lease_until)
    current.set(
        driving_since=current.now,
        status=RunStatus.RUNNING,
        started_at=run.started_at or current.now,
        lease_owner=owner,
        lease_until=timezone.now() + timedelta(seconds=settings.AGENTOPS_LEASE_SECONDS),
        fence=run.fence + 1,
        takeovers=run.takeovers + 1 if lost else 0,
        retry_at=None,
        reason="",
        explanation="",
    )
    current.event("run.claimed", fence=run.fence, taken_over_from=lost)
    current.save()
    lease = Lease(run_id=run.pk, owner=owner, fence=run.fence)
    lease.memory.run = run
    return lease


def claimable(now: datetime, limit: int) -> list[int]:
    """Ids of runs that a worker may claim now, oldest first."""
    return list(_waiting(now).values_list("pk", flat=True)[:limit])


def _waiting(now: datetime) -> QuerySet[Run]:
    free = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
    due = Q(retry_at__isnull=True) | Q(retry_at__lte=now)
    return Run.objects.filter(CLAIMABLE, free, due).order_by("created_at")


def heartbeat(leases: Iterable[Lease]) -> None:
    """Extend these leases; one that was lost meanwhile stays lost.

    No lease waits for another run whose row somebody holds: that one comes last, for a moment, or next time.
    """
    by_run = {lease.run_id: lease for lease in leases}
    with one_writer(), transaction.atomic():
        free = Run.objects.select_for_update(skip_locked=True).filter(pk__in=by_run).order_by()
        _extend([by_run.pop(run_id) for run_id in free.values_list("pk", flat=True)])
    for lease in by_run.values():  # on SQLite there is none, or it was deleted
        try:
            with one_writer(), transaction.atomic():
                wait_only(HELD_MILLISECONDS)
                _extend([lease])
        except OperationalError as error:
            logger.warning("the lease of run %s is not extended this time: %s", lease.run_id, error)


def _extend(leases: Collection[Lease]) -> None:
    until = timezone.now() + timedelta(seconds=settings.AGENTOPS_LEASE_SECONDS)
    for lease in leases:
        Run.objects.filter(pk=lease.run_id, fence=lease.fence, lease_owner=lease.owner).update(
            lease_until=until
        )


def still_held(leases: Collection[Lease]) -> set[Lease]:
    """Those of these leases that are worth anything: not when a run was ended or taken over meanwhile."""
    runs = Run.objects.filter(pk__in=[lease.run_id for lease in leases])
    held = runs.values_list("pk", "lease_owner", "fence")
    return set(leases) & {Lease(run_id=pk, owner=owner, fence=fence) for pk, owner, fence in held}


def hand_back(lease: Lease) -> None:
    """Stop driving in good order: the run is queued for whoever comes next."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        if current.run.status == RunStatus.RUNNING:
            stop_clock(current)
            current.set(status=RunStatus.QUEUED, lease_owner="", lease_until=None)
            current.event("run.handed_back")


def park(lease: Lease, *, until: datetime | None, reason: str, explanation: str) -> bool:
    """Free the driver until a person decides (`until` None) or until a time.

    False when something came in between, a decision or a wish of a person's: go on driving.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        if current.run.asked_for or (until is None and current.run.unchecked_edits):
            return False
        waits = Step.objects.filter(run=current.run, status=StepStatus.WAITING).exists()
        if until is None and not waits:
            return False
        stop_clock(current)
        current.set(
            status=RunStatus.WAITING if until is None else RunStatus.QUEUED,
            waiting_since=current.now if until is None else None,
            retry_at=until,
            reason=reason,
            explanation=explanation,
            lease_owner="",
            lease_until=None,
        )
        current.event("run.parked", reason=reason, until=until.isoformat() if until else "")
    return True


def pause(lease: Lease, *, reason: str, explanation: str) -> None:
    """Nothing more happens until a person acts; the explanation says what to do."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        set_paused(current, reason=reason, explanation=explanation)


def set_paused(current: Change, *, reason: str, explanation: str, until: datetime | None = None) -> None:
    """Inside a change of the driver's: the run is paused, until a person acts or until a time."""
    stop_clock(current)
    current.set(
        status=RunStatus.PAUSED,
        reason=reason,
        explanation=explanation,
        waiting_since=current.now,
        retry_at=until,
        lease_owner="",
        lease_until=None,
        asked_for="",
        asked_by="",
    )
    current.event("run.paused", reason=reason)


def end_run(
    lease: Lease, *, status: RunStatus, reason: str = "", explanation: str = "", final_response: str = ""
) -> None:
    """The run is over: succeeded, stopped by a limit, or failed with what a person can do about it.

    Nothing stays open behind it: questions are withdrawn, calls that never started are refused, and one
    that had started has an unknown outcome.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        close_run(
            current, status=status, reason=reason, explanation=explanation, final_response=final_response
        )


def close_run(
    current: Change, *, status: RunStatus, reason: str, explanation: str, final_response: str, **data: str
) -> None:
    """Inside a change of its driver: the run is over. `data` goes into the event."""
    stop_clock(current)
    close_open_steps(current)
    current.set(
        status=status,
        reason=reason,
        explanation=explanation,
        final_response=final_response,
        ended_at=current.now,
        lease_owner="",
        lease_until=None,
        asked_for="",
        asked_by="",
    )
    current.event(f"run.{status}", reason=reason, **data)
