"""Tool calls: authorised or asked for, started once, finished with a result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from runs.actions.change import Change, Lease, change
from runs.models import Approval, ApprovalState, Step, StepStatus

RESULT_SUMMARY = 300


@dataclass(frozen=True)
class Question:
    """What an approval asks: the rule that wants it, and the card written from arguments and dry run."""

    arguments: str
    environment: str
    rule: str
    rule_reason: str
    quorum: int
    decide_within_seconds: int
    execute_within_seconds: int
    preview: dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """Why a call never runs: a kind for programs, and the sentence the model is told."""

    kind: str
    message: str


@dataclass(frozen=True)
class Result:
    """What a tool answered: the exact text for the model. `is_unknown`: it may still take effect."""

    text: str
    is_error: bool
    summary: str
    error_kind: str
    is_unknown: bool = False


def canonical(arguments: Any) -> str:
    """Canonical JSON text: sorted keys, no spaces, ASCII, no NaN. These bytes are approved and run."""
    return json.dumps(arguments, sort_keys=True, separators=(",", ":"), allow_nan=False)


def action_digest(step: Step, arguments: str, *, revision: int, rule: str, environment: str) -> str:
    """SHA-256 that binds a vote to this call of this run, this tool, these bytes, this rule."""
    parts = [
        "approval-v1",
        str(step.run.request_id),
        step.tool_use_id,
        revision,
        step.name,
        step.tool_version,
        arguments,
        rule,
        environment,
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def allow_call(lease: Lease, seq: int, *, rule: str) -> None:
    """Policy lets this call run without asking."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        step = _move(current, seq, {StepStatus.PROPOSED}, StepStatus.READY)
        step.save(update_fields=["status"])
        current.event("call.allowed", step=seq, rule=rule)


def ask_approval(lease: Lease, seq: int, question: Question) -> None:
    """Put the call before a person: from now on it has exactly one open approval."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        step = _move(current, seq, {StepStatus.PROPOSED}, StepStatus.WAITING)
        step.save(update_fields=["status"])
        digest = action_digest(
            step, question.arguments, revision=1, rule=question.rule, environment=question.environment
        )
        approval = Approval.objects.create(
            run=current.run,
            step=step,
            arguments=question.arguments,
            digest=digest,
            environment=question.environment,
            rule=question.rule,
            rule_reason=question.rule_reason,
            quorum=question.quorum,
            preview=json.dumps(question.preview, ensure_ascii=False),
            created_at=current.now,
            expires_at=current.now + timedelta(seconds=question.decide_within_seconds),
            execute_within_seconds=question.execute_within_seconds,
        )
        current.event("approval.asked", step=seq, approval=approval.pk, digest=digest, rule=question.rule)


def start_call(lease: Lease, seq: int) -> str | None:
    """Commit the START marker and return the exact arguments to run, or None when it may not run.

    A gated call needs an approval that is approved, in time, not used before, and for exactly these
    bytes of exactly this tool; otherwise the call is refused here. The caller runs the tool only after
    this has committed.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        step = _move(current, seq, {StepStatus.READY}, StepStatus.EXECUTING)
        arguments = step.arguments
        approval = step.approvals.select_for_update().order_by("-revision").first()
        if approval is not None:
            problem = _why_not(approval, step, current)
            if problem is not None:
                settle_refused(current, step, problem)
                return None
            approval.redeemed_at = current.now
            approval.save(update_fields=["redeemed_at"])
            arguments = approval.arguments
        elif step.effect == "destructive":
            settle_refused(current, step, Refusal("denied", "It has no approval. It did not run."))
            return None
        if approval is None:
            step.started_at = current.now
        elif step.attempt == 1:
            step.waited_seconds = (current.now - step.started_at).total_seconds()
        step.save(update_fields=["status", "started_at", "waited_seconds"])
        current.event(
            "call.started",
            step=seq,
            summary=step.summary,
            arguments_sha256=hashlib.sha256(arguments.encode()).hexdigest(),
        )
    return arguments


def finish_call(lease: Lease, seq: int, result: Result) -> None:
    """Store what the tool answered."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        to = StepStatus.FAILED if result.is_error else StepStatus.SUCCEEDED
        to = StepStatus.UNKNOWN if result.is_unknown else to
        step = _move(current, seq, {StepStatus.EXECUTING}, to)
        _settle(current, step, result)
        current.event("call.finished", step=seq, status=step.status, error=result.error_kind)


def refuse_call(lease: Lease, seq: int, refusal: Refusal) -> None:
    """The call will never run; the model is told why."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        step = _move(current, seq, {StepStatus.PROPOSED, StepStatus.READY}, StepStatus.REFUSED)
        settle_refused(current, step, refusal)


def recover_call(lease: Lease, seq: int, *, repeatable: bool) -> None:
    """Its worker died after START. A repeatable call is made ready again; another's outcome is unknown."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        if repeatable:
            step = _move(current, seq, {StepStatus.EXECUTING}, StepStatus.READY)
            step.attempt += 1
            step.save(update_fields=["status", "attempt"])
            current.event("call.restarted", step=seq, attempt=step.attempt)
            return
        step = _move(current, seq, {StepStatus.EXECUTING}, StepStatus.UNKNOWN)
        message = (
            "The process that ran this call died before it could record the result. The call may or may "
            "not have taken effect. Read the state of production. Do not repeat the call."
        )
        _settle(current, step, not_run(Refusal("outcome_unknown", message)))
        current.event("call.unknown", step=seq)


def settle_refused(current: Change, step: Step, refusal: Refusal) -> None:
    """Inside a change: mark the call refused and write the result the model will read."""
    step.status = StepStatus.REFUSED
    _settle(current, step, not_run(refusal))
    current.event("call.refused", step=step.seq, reason=refusal.kind)


def not_run(refusal: Refusal) -> Result:
    """The result of a call that no tool answered, in the same envelope that tools use."""
    envelope = {
        "status": "error",
        "summary": refusal.message,
        "error": {"kind": refusal.kind, "retryable": False, "message": refusal.message},
    }
    return Result(json.dumps(envelope, ensure_ascii=False), True, refusal.message, refusal.kind)


def _why_not(approval: Approval, step: Step, current: Change) -> Refusal | None:
    """Why an approval does not let this call start now; None when it does."""
    digest = action_digest(
        step,
        approval.arguments,
        revision=approval.revision,
        rule=approval.rule,
        environment=approval.environment,
    )
    if approval.redeemed_at is not None:
        # The same call started before and its tool takes the same idempotency key again.
        return (
            None if step.attempt > 1 else Refusal("denied", "Its approval was used already. It did not run.")
        )
    if approval.state != ApprovalState.APPROVED:
        return Refusal("denied", f"Its approval is {approval.state}. It did not run.")
    if approval.execute_by is not None and current.now > approval.execute_by:
        approval.state = ApprovalState.EXPIRED
        approval.save(update_fields=["state"])
        return Refusal(
            "expired", "It was approved but not started in time. It did not run. Nobody refused it."
        )
    if digest != approval.digest:
        approval.state = ApprovalState.INVALIDATED
        approval.save(update_fields=["state"])
        return Refusal("invalidated", "It changed after it was approved. It did not run.")
    return None


def _move(current: Change, seq: int, allowed: set[StepStatus], to: StepStatus) -> Step:
    """The call in its new status, not saved yet; ValueError when the transition does not exist."""
    step = Step.objects.select_for_update().get(run=current.run, seq=seq)
    step.run = current.run
    if step.status not in allowed:
        raise ValueError(f"Step {seq} is {step.status}: it cannot become {to}.")
    step.status = to
    return step


def _settle(current: Change, step: Step, result: Result) -> None:
    step.ended_at = current.now
    step.result = result.text
    step.is_error = result.is_error
    step.error_kind = result.error_kind
    step.error = result.summary if result.is_error else ""
    step.summary = (result.summary or step.summary)[:RESULT_SUMMARY]
    step.save(
        update_fields=[
            "status",
            "ended_at",
            "result",
            "is_error",
            "error_kind",
            "error",
            "summary",
            "waited_seconds",
        ]
    )
