"""Taking an approval back before its call has started."""

from __future__ import annotations

from django.contrib.auth.models import User

from runs.actions.approvals import (
    because,
    call_of,
    check_may_decide,
    run_of,
    stored_reason,
    who_decided,
)
from runs.actions.change import change
from runs.actions.cooling import end_cooling_off
from runs.actions.errors import ActionError, AlreadyDecided, AlreadyStarted, DigestMismatch
from runs.actions.notifications import notify
from runs.actions.settling import Refusal, settle_refused
from runs.models import Approval, ApprovalState, StepStatus


def revoke(*, approval_id: int, reviewer: User, reason: str = "", revision: int, digest: str) -> Approval:
    """Take back an approval whose call has not started: it never will, and the model is told so.

    Of this and START exactly one wins. Raises MayNotDecide, DigestMismatch, AlreadyStarted, AlreadyDecided;
    nothing is written then.
    """
    run_id = run_of(approval_id)
    check_may_decide(reviewer)
    reason = stored_reason(reason)
    name = reviewer.get_username()
    with change(run_id, actor=name) as current:
        approval = Approval.objects.select_for_update().get(pk=approval_id)
        _check(approval, revision, digest)
        step = call_of(approval, current)
        if step.status != StepStatus.READY:
            raise AlreadyDecided("This call is over: it did not run, and it never will.", approval)
        approval.state = ApprovalState.REVOKED
        approval.ended_at, approval.ended_by, approval.ended_why = current.now, name, reason
        approval.save(update_fields=["state", "ended_at", "ended_by", "ended_why"])
        current.event(
            "approval.revoked", step=step.seq, approval=approval.pk, reviewer=reviewer.pk, reason=reason
        )
        notify(current, approval)
        step.waited_seconds = (current.now - step.started_at).total_seconds()
        message = (
            f"It was approved, and a reviewer ({name}) took that back before it started. It did not run."
            f"{because(reason)} Do not retry it unless asked."
        )
        settle_refused(current, step, Refusal("revoked", message))
        end_cooling_off(current)
    return approval


def _check(approval: Approval, revision: int, digest: str) -> None:
    if approval.redeemed_at is not None:
        raise AlreadyStarted(
            f"Too late: it started at {approval.redeemed_at:%H:%M:%S} UTC. What it does cannot be taken back "
            "here; read its result.",
            approval,
        )
    if approval.is_open:
        raise ActionError("It is not approved yet, so there is nothing to take back. Reject it instead.")
    if approval.state != ApprovalState.APPROVED:
        raise AlreadyDecided(who_decided(approval), approval)
    if revision != approval.revision or digest != approval.digest:
        raise DigestMismatch(
            "The arguments changed since you opened this card. Look at it again, then decide."
        )
