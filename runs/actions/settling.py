"""How a call ends: with a tool's result, refused, or unknown. Inside a change of the caller's."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from runs.actions.change import Change
from runs.actions.notifications import notify, notify_end
from runs.actions.rechecks import plan_rechecks
from runs.actions.revising import told
from runs.actions.turns import close_attempt, estimate
from runs.models import Approval, ApprovalState, EditState, FoundBy, Says, Step, StepStatus
from runs.models.proof import decided, sha256
from tools.policy import Verdict

RESULT_SUMMARY = 300
CONTRADICTED = "contradicted"
RECORD_CONTRADICTS = "The record of decisions contradicts this approval."
logger = logging.getLogger(__name__)
SETTLED_CALL = (
    "status",
    "ended_at",
    "result",
    "is_error",
    "error_kind",
    "error",
    "summary",
    "waited_seconds",
)
OPEN = [StepStatus.PROPOSED, StepStatus.WAITING, StepStatus.READY, StepStatus.EXECUTING]


@dataclass(frozen=True)
class Refusal:
    """Why a call never runs: a kind for programs, the sentence the model is told, the verdict of policy."""

    kind: str
    message: str
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Result:
    """What a tool answered: the exact text for the model. `is_unknown`: it may still take effect."""

    text: str
    is_error: bool
    summary: str
    error_kind: str
    is_unknown: bool = False
    is_verified: bool = False  # the effect it was for was seen, and can be looked at again later


def not_run(refusal: Refusal) -> Result:
    """The result of a call that no tool answered, in the same envelope that tools use."""
    envelope = {
        "status": "error",
        "summary": refusal.message,
        "error": {"kind": refusal.kind, "retryable": False, "message": refusal.message},
    }
    return Result(json.dumps(envelope, ensure_ascii=False), True, refusal.message, refusal.kind)


def settle(current: Change, step: Step, result: Result) -> None:
    """Store the result with the status the step has by now."""
    step.ended_at = current.now
    step.result = told(step, result.text)
    step.is_error = result.is_error
    step.error_kind = result.error_kind
    step.error = result.summary if result.is_error else ""
    step.summary = (result.summary or step.summary)[:RESULT_SUMMARY]
    current.update(step, SETTLED_CALL)
    if result.is_verified and step.status == StepStatus.SUCCEEDED:
        plan_rechecks(current, step)


def settle_refused(current: Change, step: Step, refusal: Refusal) -> None:
    """Mark the call refused and write the result the model will read."""
    step.status = StepStatus.REFUSED
    settle(current, step, not_run(refusal))
    rule = decided(refusal.verdict) if refusal.verdict else {}
    digest = sha256(step.result)
    current.event("call.refused", step=step.seq, reason=refusal.kind, result_sha256=digest, **rule)


def settle_unknown(current: Change, step: Step) -> None:
    """It was started, and nobody knows what came of it."""
    step.status = StepStatus.UNKNOWN
    message = (
        "This call was started and its result was never recorded. It may or may not have taken effect. "
        "Read the state of production. Do not repeat the call."
    )
    settle(current, step, not_run(Refusal("outcome_unknown", message)))
    current.event("call.unknown", step=step.seq, result_sha256=sha256(step.result))
    notify_end(current, step)


def settle_void(current: Change, step: Step, refusal: Refusal) -> None:
    """It may not start now, and never will: refused, unless an earlier start may have done something."""
    if step.attempt == 1 or step.effect == "read":
        settle_refused(current, step, refusal)
        return
    earlier = step.findings.filter(found_by=FoundBy.PROBE, attempt=step.attempt - 1).last()
    if earlier is None or earlier.says != Says.DID_NOT_HAPPEN:
        settle_unknown(current, step)
        return
    step.status = StepStatus.FAILED
    message = f"It was started, and a probe found that it did not take effect. {refusal.message}"
    settle(current, step, not_run(Refusal(refusal.kind, message)))
    current.event(
        "call.finished",
        step=step.seq,
        status=step.status,
        error=refusal.kind,
        result_sha256=sha256(step.result),
    )
    notify_end(current, step)


def invalidate_approval(current: Change, step: Step, reason: str, why: str) -> None:
    """What was approved can no longer run, so nobody can rely on the decision any more."""
    unused = Approval.objects.select_for_update().filter(
        step=step, state=ApprovalState.APPROVED, redeemed_at__isnull=True
    )
    for approval in unused:
        approval.state = ApprovalState.INVALIDATED
        approval.ended_at, approval.ended_why = current.now, why
        approval.save(update_fields=["state", "ended_at", "ended_why"])
        current.event("approval.invalidated", step=step.seq, approval=approval.pk, reason=reason)
        notify(current, approval)


def contradiction(sentence: str) -> Refusal:
    """Why a call never runs that the record does not bear out."""
    return Refusal(CONTRADICTED, f"{RECORD_CONTRADICTS} {sentence} It did not run.")


def contradict(current: Change, approval: Approval, why: str) -> None:
    """Nobody can rely on this approval: its rows are not what the events record. People are told."""
    approval.state = ApprovalState.INVALIDATED
    approval.ended_at, approval.ended_why = current.now, why
    approval.save(update_fields=["state", "ended_at", "ended_why"])
    current.event("approval.contradicted", step=approval.step.seq, approval=approval.pk, reason=why)
    notify(current, approval)
    logger.error("approval %s of run %s: %s", approval.pk, current.run.request_id, why)


def void_edits(current: Change, approval: Approval) -> None:
    """It is decided: nobody waits any more for the dry run of other arguments."""
    if not current.run.unchecked_edits:
        return
    for edit in approval.edits.filter(state=EditState.ASKED):
        edit.state, edit.answered_at = EditState.VOID, current.now
        edit.answer = f"It was {approval.state} before your change was checked."
        edit.save(update_fields=["state", "answer", "answered_at"])
        current.set(unchecked_edits=current.run.unchecked_edits - 1)
        current.event(
            "approval.edit_void", step=approval.step.seq, approval=approval.pk, edit=edit.pk, why=edit.answer
        )


def close_open_steps(current: Change) -> None:
    """The run ends: no question, call or attempt stays open behind it."""
    if current.has_no_open_step():
        return
    for approval in Approval.objects.filter(run=current.run, state=ApprovalState.PENDING):
        approval.state = ApprovalState.CANCELLED
        approval.decided_at = current.now
        approval.save(update_fields=["state", "decided_at"])
        current.event("approval.cancelled", step=approval.step.seq, approval=approval.pk)
        notify(current, approval)
        void_edits(current, approval)
    for step in Step.objects.filter(run=current.run, status__in=OPEN).order_by("seq"):
        if step.status == StepStatus.EXECUTING and step.effect != "read":
            settle_unknown(current, step)
        elif step.status == StepStatus.EXECUTING:
            settle_refused(current, step, Refusal("cancelled", "The run ended before it answered."))
        else:
            settle_refused(current, step, Refusal("cancelled", "The run ended first. It did not run."))
    close_attempts(current, kind="run_ended", sentence="The run ended in the middle of this turn.")


def close_attempts(current: Change, *, kind: str, sentence: str) -> None:
    """Model calls that nobody waits for any more: paid for by estimate, and holding no budget."""
    for attempt in Step.objects.filter(run=current.run, status=StepStatus.RUNNING):
        close_attempt(
            current, attempt, action="retry", kind=kind, sentence=sentence, charge=estimate(attempt)
        )
