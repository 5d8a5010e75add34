"""Decisions of people on tool calls, and what happens when nobody decides."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Literal

from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError

from runs.actions.change import Change, change
from runs.actions.clocks import end_waiting
from runs.actions.cooling import set_start
from runs.actions.eligibility import groups_asked, why_may_not_vote
from runs.actions.errors import (
    ActionError,
    AlreadyDecided,
    ApprovalExpired,
    BeingChanged,
    DigestMismatch,
    MayNotDecide,
)
from runs.actions.notifications import notify
from runs.actions.settling import Refusal, settle_refused, void_edits
from runs.models import Approval, ApprovalState, EditState, RunStatus, Step, StepStatus, Verdict, Vote
from runs.models.eligible import why_no_yes

MAX_REASON_CHARACTERS = 2_000
BEFORE_START = "the check before the start"
ENDED = ("ended_at", "ended_by", "ended_why")
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
    run_id = run_of(approval_id)
    if verdict not in Verdict.values:
        raise ActionError("A decision is either approve or reject.")
    reason = stored_reason(reason)
    with change(run_id, actor=voter.get_username()) as current:
        approval = Approval.objects.select_for_update().get(pk=approval_id)
        if approval.is_open and approval.has_expired(current.now):
            expire(current, approval)
            refused: ActionError | None = ApprovalExpired(who_decided(approval), approval)
        else:
            refused = (
                why_not_eligible(current, approval, voter)
                or why_void(approval, revision, digest)
                or _why_no_vote(approval, voter, verdict)
            )
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
        expire(current, approval)
    return True


def withdraw(current: Change, approval: Approval, refusal: Refusal) -> None:
    """Inside a change: this open question is not asked any more, and its call does not run."""
    step = call_of(approval, current)
    approval.ended_at, approval.ended_by, approval.ended_why = current.now, current.actor, refusal.message
    close_question(current, approval, ApprovalState.INVALIDATED, reason=refusal.message)
    step.waited_seconds = (current.now - step.started_at).total_seconds()
    settle_refused(current, step, refusal)
    _wake(current)


def run_of(approval_id: int) -> int:
    """The key of the run that asks; raises ActionError when there is no such approval."""
    run_id = Approval.objects.values_list("run_id", flat=True).filter(pk=approval_id).first()
    if run_id is None:
        raise ActionError(f"There is no approval {approval_id}.")
    return run_id


def check_may_decide(person: User) -> None:
    """Raises MayNotDecide unless this person may decide at all."""
    if not person.is_active or not (person.is_superuser or person.has_perm("runs.decide")):
        raise MayNotDecide(
            f"{person.get_username()} may look but not decide. Ask for the permission “decide”."
        )


def why_not_eligible(current: Change, approval: Approval, person: User) -> ActionError | None:
    """Inside a change: why this person has no say in this question, as the rows of now have it."""
    sentence = why_may_not_vote(approval, current.run, person)
    return MayNotDecide(sentence) if sentence else None


def why_void(approval: Approval, revision: int, digest: str) -> ActionError | None:
    """Why nothing can be decided about this question, or not about the one that the person saw."""
    if not approval.is_open:
        error = ApprovalExpired if approval.state == ApprovalState.EXPIRED else AlreadyDecided
        return error(who_decided(approval), approval)
    if revision != approval.revision or digest != approval.digest:
        return DigestMismatch(
            "The arguments changed since you opened this card. Look at it again, then decide."
        )
    return None


def _why_no_vote(approval: Approval, voter: User, verdict: str) -> ActionError | None:
    """Why this person's vote is not taken now. A no is taken whatever is being checked."""
    if approval.votes.filter(voter=voter, revision=approval.revision).exists():
        return AlreadyDecided("You have voted on this already. It waits for others.", approval)
    if verdict != Verdict.APPROVE:
        return None
    if changed_it := why_no_yes(
        changed_it=approval.edited_by_id == voter.pk,
        quorum=approval.quorum,
        self_approval=approval.self_approval,
        rule=approval.rule,
    ):
        return MayNotDecide(f"{changed_it} You may still reject it.")
    edit = approval.edits.select_related("by").filter(state=EditState.ASKED).first()
    if edit is None:
        return None
    return BeingChanged(
        f"{edit.by.get_username()} asked to change this call at {edit.at:%H:%M:%S} UTC. Your approval was "
        "not recorded: look at the changed call when it is there, in a moment.",
        approval,
    )


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
    step = call_of(approval, current)
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
        close_question(current, approval, ApprovalState.REJECTED)
        step.waited_seconds = (current.now - step.started_at).total_seconds()
        message = (
            f"A reviewer ({voter.get_username()}) refused this call. It did not run.{because(reason)} "
            "Do not retry it unless asked."
        )
        settle_refused(current, step, Refusal("rejected", message))
    elif (
        approval.votes.filter(revision=approval.revision, verdict=Verdict.APPROVE).count() >= approval.quorum
    ):
        set_start(current, approval)
        close_question(current, approval, ApprovalState.APPROVED, **_start(approval))
        step.status = StepStatus.READY
        step.save(update_fields=["status"])
    _wake(current)


def stored_reason(reason: str) -> str:
    """What a person gave as reason, as it is kept: PostgreSQL has no text with NUL."""
    return reason.replace("\0", "").strip()[:MAX_REASON_CHARACTERS]


def because(reason: str) -> str:
    """What the model is told of the reason that a person gave, or that they gave none."""
    stop = "" if reason.endswith((".", "!", "?")) else "."
    return f" Reason: {reason}{stop}" if reason else " They gave no reason."


def expire(current: Change, approval: Approval) -> None:
    """Inside a change: nobody decided in time, so the call is refused."""
    step = call_of(approval, current)
    close_question(current, approval, ApprovalState.EXPIRED)
    step.waited_seconds = (current.now - step.started_at).total_seconds()
    message = "Nobody decided before the deadline. It did not run. Nobody refused it."
    settle_refused(current, step, Refusal("expired", message))
    _wake(current)


def _start(approval: Approval) -> dict[str, str]:
    """For the event: until when the call may start, and from when, where that is not at once."""
    times = {"not_before": approval.not_before, "execute_by": approval.execute_by}
    return {name: moment.isoformat() for name, moment in times.items() if moment}


def close_question(current: Change, approval: Approval, state: ApprovalState, **data: Any) -> None:
    """Inside a change: this pending question is over; the data goes into the event."""
    approval.state = state
    approval.decided_at = current.now
    approval.save(update_fields=["state", "decided_at", "execute_by", "not_before", *ENDED])
    current.event(f"approval.{state}", step=approval.step.seq, approval=approval.pk, **data)
    notify(current, approval)
    void_edits(current, approval)


def call_of(approval: Approval, current: Change) -> Step:
    """The call that is asked about, locked with its run."""
    step = Step.objects.select_for_update().get(pk=approval.step_id)
    step.run = current.run
    return step


def _wake(current: Change) -> None:
    """When nothing waits for a person any more, the run goes back into the queue of the workers."""
    still = Step.objects.filter(run=current.run, status=StepStatus.WAITING).exists()
    if current.run.status == RunStatus.WAITING and not still:
        end_waiting(current)
        current.set(status=RunStatus.QUEUED, reason="", explanation="")


def who_decided(approval: Approval) -> str:
    """Who was first, and what it means, in one sentence."""
    if approval.state == ApprovalState.EXPIRED and approval.execute_by is not None:
        return "It was approved, but not started in time. The call did not run, and the agent was told so."
    if approval.state == ApprovalState.EXPIRED:
        return "The deadline has passed. The call did not run, and the agent was told that nobody decided."
    ended = approval.ended_at or approval.decided_at
    when = f" at {ended:%H:%M:%S} UTC" if ended else ""
    how = f"Already {approval.state}"
    if approval.state == ApprovalState.SUPERSEDED:
        newest = "Look at the next revision."
        return f"Changed by {approval.ended_by}{when}. Your decision was not recorded. {newest}"
    if approval.state == ApprovalState.REVOKED:
        how = f"Revoked by {approval.ended_by}"
    elif approval.state == ApprovalState.INVALIDATED:
        how = f"{how} by {approval.ended_by or BEFORE_START}"
    elif approval.state == ApprovalState.CANCELLED:
        how = f"{how} with its run"
    elif vote := approval.votes.select_related("voter").last():
        how = f"{how} by {vote.voter.get_username()}"
    return f"{how}{when}. Your decision was not recorded."
