"""Cooling-off: a while between the last vote and the start of what cannot be undone, to take it back in."""

from __future__ import annotations

from datetime import datetime, timedelta

from runs.actions.change import Change, Lease, change
from runs.models import COOLING_OFF, Approval, RunStatus

WAITS = (
    "It is approved and cannot be undone later, so it starts in a moment. Until then it can be taken back."
)


def cooling_off(approval: Approval) -> timedelta:
    """How long this call waits after the last approving vote."""
    return timedelta(seconds=approval.cools_off_seconds)


def set_start(current: Change, approval: Approval) -> None:
    """It was just approved: from when and until when it may start."""
    wait = cooling_off(approval)
    approval.not_before = current.now + wait if wait else None
    approval.execute_by = current.now + wait + timedelta(seconds=approval.execute_within_seconds)


def cools_off(lease: Lease, not_before: datetime | None) -> bool:
    """Whether the start of a call is still to be waited for."""
    if not_before is None:
        return False
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        return current.now < not_before


def end_cooling_off(current: Change) -> None:
    """It was taken back: nobody has to wait any more."""
    if current.run.status == RunStatus.QUEUED and current.run.reason == COOLING_OFF:
        current.set(retry_at=None, reason="", explanation="")
