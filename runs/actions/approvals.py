"""Decisions of people on tool calls, and what happens when nobody decides."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Literal

from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError

from runs.actions.change import Change, change, end_waiting
from runs.actions.eligibility import groups_asked, why_may_not_vote
from runs.actions.errors import (
    ActionError,
    AlreadyDecided,
    ApprovalExpired,
    DigestMismatch,
    MayNotDecide,
)
from runs.actions.notifications import notify
from runs.actions.settling import Refusal, settle_refused
from runs.models import Approval, ApprovalState, RunStatus, Step, StepStatus, Verdict, Vote

MAX_REASON_CHARACTERS = 2_000
logger = logging.getLogger(__name__)


def decide(
    *,
    approval_id: int,
    voter: User,
    verdict: Literal["approve", "reject"],
    reason: str = "",
    revision: int,
    digest: str,
    seconds_on_card: float | None = None,
) -> Approval:
    """Record one person's vote on exactly these bytes; on quorum or on one reject the call moves.

    `seconds_on_card`: how long this person had the question before them, None when nobody knows.

    Raises MayNotDecide, DigestMismatch, ApprovalExpired, AlreadyDecided; nothing is written then, except
    that an approval found past its deadline is marked expired.
    """
    run_id = Approval.objects.values_list("run_id", flat=True).filter(pk=approval_id).first()
    if run_id is None:
        raise ActionError(f"There is no approval {approval_id}.")
    if verdict not in Verdict.values:
        raise ActionError("A decision is either approve or reject.")
    reason = reason.strip()[:MAX_REASON_CHARACTERS]
    with change(run_id, actor=voter.get_username()) as current:
        approval = Approval.objects.select_for_update().get(pk=approval_id)
        if approval.is_open and approval.has_expired(current.now):
            _expire(current, approval)
            refused: ActionError | None = ApprovalExpired(_who_decided(approval), approval)
        else:
            refused = _why_void(current, approval, voter, revision, digest)
            if refused is None:
                _vote(current, approval, voter, Verdict(verdict), reason, seconds_on_card)
    if refused is not None:
        raise refused
    return approval


def expire_approvals(now: datetime) -> int:
    """Refuse every call whose deadline passed without a decision; returns how many."""
    due = Approval.objects.filter(state=ApprovalState.PENDING, expires_at__lte=now).values_list(
        "pk", "run_id"
    )
    expired = 0
    for approval_id, run_id in list(due):
        try:
            expired += _expire_one(approval_id, run_id)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # one row that cannot be written must not keep workers from all others
            logger.exception("approval %s could not be expired", approval_id)
    return expired


def _expire_one(approval_id: int, run_id: int) -> bool:
    with change(run_id, actor="deadline") as current:
        approval = Approval.objects.select_for_update().get(pk=approval_id)
        if not approval.is_open or not approval.has_expired(current.now):
            return False
        _expire(current, approval)
    return True


def withdraw(current: Change, approval: Approval, refusal: Refusal) -> None:
    """Inside a change: this open question is not asked any more, and its call does not run."""
    step = _call_of(approval, current)
    _close(current, approval, ApprovalState.INVALIDATED, reason=refusal.message)
    step.waited_seconds = (current.now - step.started_at).total_seconds()
    settle_refused(current, step, refusal)
    _wake(current)


def _why_void(
    current: Change, approval: Approval, voter: User, revision: int, digest: str
) -> ActionError | None:
    if sentence := why_may_not_vote(approval, current.run, voter):
        return MayNotDecide(sentence)
    if not approval.is_open:
        error = ApprovalExpired if approval.state == ApprovalState.EXPIRED else AlreadyDecided
        return error(_who_decided(approval), approval)
    if revision != approval.revision or digest != approval.digest:
        return DigestMismatch(
            "The arguments changed since you opened this card. Look at it again, then decide."
        )
    if approval.votes.filter(voter=voter, revision=revision).exists():
        return AlreadyDecided("You have voted on this already. It waits for others.", approval)
    return None


def _vote(
    current: Change,
    approval: Approval,
    voter: User,
    verdict: Verdict,
    reason: str,
    seconds_on_card: float | None,
) -> None:
    Vote.objects.create(
        approval=approval,
        revision=approval.revision,
        digest=approval.digest,
        voter=voter,
        verdict=verdict,
        reason=reason,
        seconds_on_card=seconds_on_card,
        at=current.now,
    )
    step = _call_of(approval, current)
    current.event(
        "approval.vote",
        step=step.seq,
        approval=approval.pk,
        voter=voter.pk,
        verdict=verdict,
        digest=approval.digest,
        reason=reason,
        seconds_on_card=seconds_on_card,
        self_approval=current.run.created_by_id == voter.pk,
        **groups_asked(approval, voter),
    )
    if verdict == Verdict.REJECT:
        _close(current, approval, ApprovalState.REJECTED)
        step.waited_seconds = (current.now - step.started_at).total_seconds()
        message = (
            f"A reviewer ({voter.get_username()}) refused this call. It did not run.{_because(reason)} "
            "Do not retry it unless asked."
        )
        settle_refused(current, step, Refusal("rejected", message))
    elif (
        approval.votes.filter(revision=approval.revision, verdict=Verdict.APPROVE).count() >= approval.quorum
    ):
        approval.execute_by = current.now + timedelta(seconds=approval.execute_within_seconds)
        _close(current, approval, ApprovalState.APPROVED)
        step.status = StepStatus.READY
        step.save(update_fields=["status"])
    _wake(current)


def _because(reason: str) -> str:
    stop = "" if reason.endswith((".", "!", "?")) else "."
    return f" Reason: {reason}{stop}" if reason else " They gave no reason."


def _expire(current: Change, approval: Approval) -> None:
    step = _call_of(approval, current)
    _close(current, approval, ApprovalState.EXPIRED)
    step.waited_seconds = (current.now - step.started_at).total_seconds()
    message = "Nobody decided before the deadline. It did not run. Nobody refused it."
    settle_refused(current, step, Refusal("expired", message))
    _wake(current)


def _close(current: Change, approval: Approval, state: ApprovalState, **more: str) -> None:
    approval.state = state
    approval.decided_at = current.now
    approval.save(update_fields=["state", "decided_at", "execute_by"])
    current.event(f"approval.{state}", step=approval.step.seq, approval=approval.pk, **more)
    notify(current, approval)


def _call_of(approval: Approval, current: Change) -> Step:
    step = Step.objects.select_for_update().get(pk=approval.step_id)
    step.run = current.run
    return step


def _wake(current: Change) -> None:
    """When nothing waits for a person any more, the run goes back into the queue of the workers."""
    still = Step.objects.filter(run=current.run, status=StepStatus.WAITING).exists()
    if current.run.status == RunStatus.WAITING and not still:
        end_waiting(current)
        current.set(status=RunStatus.QUEUED, reason="", explanation="")


def _who_decided(approval: Approval) -> str:
    """Who was first, and what it means, in one sentence."""
    if approval.state == ApprovalState.EXPIRED and approval.execute_by is not None:
        return "It was approved, but not started in time. The call did not run, and the agent was told so."
    if approval.state == ApprovalState.EXPIRED:
        return "The deadline has passed. The call did not run, and the agent was told that nobody decided."
    vote = approval.votes.select_related("voter").last()
    who = vote.voter.get_username() if vote else "the system"
    when = f" at {approval.decided_at:%H:%M:%S} UTC" if approval.decided_at else ""
    return f"Already {approval.state} by {who}{when}. Your decision was not recorded."
