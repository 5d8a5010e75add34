"""Tool calls: authorised or asked for, started once, finished with a result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User

from runs.actions import ledger, permits
from runs.actions.change import Change, Lease, change
from runs.actions.eligibility import who_left
from runs.actions.notifications import notify, notify_end
from runs.actions.proving import why_unproven
from runs.actions.settling import (
    CONTRADICTED,
    Refusal,
    Result,
    contradict,
    contradiction,
    invalidate_approval,
    not_run,
    settle,
    settle_refused,
    settle_unknown,
    settle_void,
)
from runs.models import Approval, ApprovalState, Origin, Step, StepStatus
from runs.models.proof import asked, decided, digest_of, digest_parts, sha256
from tools.policy import Verdict, what_became_stricter

MAX_STARTS = 3  # a call that ends its process each time is not started for ever


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
    roles: tuple[str, ...] = ()
    self_approval: bool = True
    cooling_off_seconds: int = 0
    rule_change: int | None = None
    policy_version: str = ""


def action_digest(step: Step, arguments: str, **bound: Any) -> str:
    """SHA-256 that binds a vote to this call, this version of this tool, these bytes, this rule."""
    return digest_of(digest_parts(step, arguments, **bound))


def allow_call(lease: Lease, seq: int, *, rule: str, verdict: Verdict | None = None) -> None:
    """Policy lets this call run without asking. Whether it still does is looked at again at START."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = _move(current, seq, {StepStatus.PROPOSED}, StepStatus.READY)
        current.update_later(step, "status")  # a read starts in the same transaction
        current.event("call.allowed", step=seq, **({"rule": rule} | (decided(verdict) if verdict else {})))


def ask_approval(lease: Lease, seq: int, question: Question) -> None:
    """Put the call before a person: from now on it has exactly one open approval."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = _move(current, seq, {StepStatus.PROPOSED}, StepStatus.WAITING)
        current.update(step, ["status"])
        put_question(current, step, question)


def put_question(
    current: Change,
    step: Step,
    question: Question,
    *,
    revision: int = 1,
    origin: Origin = Origin.PROPOSED,
    edited_by: User | None = None,
    differences: list[dict[str, str]] | None = None,
) -> None:
    """Inside a change: a new approval of this call, which has no other one that is open."""
    digest = action_digest(
        step,
        question.arguments,
        tool_version=step.tool_version,
        revision=revision,
        rule=question.rule,
        environment=question.environment,
        policy_version=question.policy_version,
    )
    approval = Approval.objects.create(
        run=current.run,
        step=step,
        revision=revision,
        origin=origin,
        edited_by=edited_by,
        differences=json.dumps(differences) if differences else "",
        arguments=question.arguments,
        digest=digest,
        environment=question.environment,
        rule=question.rule,
        rule_reason=question.rule_reason,
        quorum=question.quorum,
        roles=list(question.roles),
        self_approval=question.self_approval,
        cooling_off_seconds=question.cooling_off_seconds,
        rule_change=question.rule_change,
        policy_version=question.policy_version,
        preview=json.dumps(question.preview),
        created_at=current.now,
        expires_at=current.now + timedelta(seconds=question.decide_within_seconds),
        execute_within_seconds=question.execute_within_seconds,
    )
    current.event("approval.asked", step=step.seq, **asked(approval))
    notify(current, approval)


def start_call(lease: Lease, seq: int, *, tool_version: str, verdict: Verdict | None = None) -> str | None:
    """Commit the START marker and return the exact arguments to run, or None when it may not run.

    A gated call needs an approval that is approved, in time, not used before, and for exactly these
    bytes of exactly this tool: `tool_version` is that of the tool that would run now. Otherwise the call
    is settled here. `verdict` is what the rules say now: what nobody voted on starts only while they allow
    it, and a decision holds only while they ask for no more than it was. The caller runs the tool only
    after this has committed.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = _move(current, seq, {StepStatus.READY}, StepStatus.EXECUTING)
        if full := ledger.why_no_call(current, step):
            settle_refused(current, step, Refusal("limit", full))
            return None
        arguments = step.arguments
        approval = None
        if step.effect != "read":  # nobody is asked about a read
            approval = step.approvals.select_for_update().order_by("-revision").first()
        if approval is not None:
            if approval.not_before is not None and current.now < approval.not_before:
                raise ValueError(f"Step {seq} can still be taken back: it does not start yet.")
            if not _redeem(approval, step, current, tool_version, verdict):
                return None
            arguments = approval.arguments
        elif step.effect != "read" and not permits.may_start(current, step, verdict):
            return None
        else:
            step.started_at = current.now
        ledger.count_call(current, step)
        step.begun_at = current.now
        current.update(step, ["status", "started_at", "begun_at", "waited_seconds", "counted_at"])
        current.event(
            "call.started",
            step=seq,
            summary=step.summary,
            arguments_sha256=sha256(arguments),
            **_allowed_by(step, approval, verdict),
        )
    return arguments


def _allowed_by(step: Step, approval: Approval | None, verdict: Verdict | None) -> dict[str, Any]:
    """For the event of a START that nobody voted on: the rule or grant that allows it."""
    if verdict is None or verdict.kind != "allow" or approval is not None or step.effect == "read":
        return {}
    return decided(verdict)


def finish_call(lease: Lease, seq: int, result: Result) -> None:
    """Store what the tool answered."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        to = StepStatus.FAILED if result.is_error else StepStatus.SUCCEEDED
        to = StepStatus.UNKNOWN if result.is_unknown else to
        step = _move(current, seq, {StepStatus.EXECUTING}, to)
        settle(current, step, result)
        current.event(
            "call.finished",
            step=seq,
            status=step.status,
            error=result.error_kind,
            result_sha256=sha256(step.result),
        )
        notify_end(current, step)


def refuse_call(lease: Lease, seq: int, refusal: Refusal) -> None:
    """The call will never run; the model is told why. An approval that nobody used is void from now on."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = _move(current, seq, {StepStatus.PROPOSED, StepStatus.READY}, StepStatus.REFUSED)
        invalidate_approval(current, step, refusal.message, refusal.message)
        settle_void(current, step, refusal)


def recover_call(lease: Lease, seq: int, *, repeatable: bool) -> None:
    """It was started and nothing is known of its end.

    A repeatable call is made ready again, a few times; a read that never ends well has failed; the outcome
    of anything else is unknown.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = _move(current, seq, {StepStatus.EXECUTING}, StepStatus.READY)
        if repeatable and step.attempt < MAX_STARTS:
            step.attempt += 1
            current.update(step, ["status", "attempt"])
            current.event("call.restarted", step=seq, attempt=step.attempt)
        elif step.effect == "read":
            step.status = StepStatus.FAILED
            message = f"It was started {step.attempt} times and never answered. Go on without it."
            settle(current, step, not_run(Refusal("unavailable", message)))
            current.event(
                "call.finished",
                step=seq,
                status=step.status,
                error="unavailable",
                result_sha256=sha256(step.result),
            )
        else:
            settle_unknown(current, step)


def _redeem(
    approval: Approval, step: Step, current: Change, tool_version: str, verdict: Verdict | None
) -> bool:
    """Use the approval for this start; False when it does not hold, and the call is settled then.

    A further attempt of the same call, whose tool takes the same idempotency key twice or whose probe found
    that nothing happened, keeps its approval. What had started before is not simply refused: see settle_void.
    """
    started_before = approval.redeemed_at is not None and step.attempt > 1
    problem = _why_not(approval, step, current, tool_version, verdict)
    if problem is None:
        if not started_before:
            approval.redeemed_at = current.now
            approval.save(update_fields=["redeemed_at"])
            step.waited_seconds = (current.now - step.started_at).total_seconds()
        return True
    if problem.kind == CONTRADICTED:
        contradict(current, approval, problem.message)
    if started_before:
        settle_void(current, step, problem)
        return False
    if problem.kind in {ApprovalState.EXPIRED, ApprovalState.INVALIDATED}:
        approval.state = problem.kind
        approval.ended_at, approval.ended_why = current.now, problem.message
        approval.save(update_fields=["state", "ended_at", "ended_why"])
        current.event(f"approval.{problem.kind}", step=step.seq, approval=approval.pk, reason=problem.message)
        notify(current, approval)
    settle_refused(current, step, problem)
    return False


def _why_not(
    approval: Approval, step: Step, current: Change, tool_version: str, verdict: Verdict | None
) -> Refusal | None:
    """Why an approval does not let this call start now; None when it does."""
    digest = action_digest(
        step,
        approval.arguments,
        tool_version=tool_version,
        revision=approval.revision,
        rule=approval.rule,
        environment=approval.environment,
        policy_version=approval.policy_version,
    )
    if approval.redeemed_at is not None and step.attempt == 1:
        return Refusal("denied", "Its approval was used already. It did not run.")
    if approval.state != ApprovalState.APPROVED:
        return Refusal("denied", f"Its approval is {approval.state}. It did not run.")
    if approval.execute_by is not None and current.now > approval.execute_by:
        return Refusal(
            ApprovalState.EXPIRED,
            "It was approved but not started in time. It did not run. Nobody refused it.",
        )
    if digest != approval.digest:
        return Refusal(ApprovalState.INVALIDATED, "It changed after it was approved. It did not run.")
    stricter = what_became_stricter(approval.ask, verdict) if verdict else ""
    if verdict is not None and stricter:
        sentence = f"The rules changed after it was approved. {stricter} It did not run."
        return Refusal(ApprovalState.INVALIDATED, sentence, verdict)
    if gone := who_left(approval, current.run):
        return Refusal(ApprovalState.INVALIDATED, f"{gone} It did not run.")
    if unproven := why_unproven(current, step, approval):
        return contradiction(unproven)
    return None


def _move(current: Change, seq: int, allowed: set[StepStatus], to: StepStatus) -> Step:
    """The call in its new status, not saved yet; ValueError when the transition does not exist."""
    step = current.step(seq)
    if step.status not in allowed:
        raise ValueError(f"Step {seq} is {step.status}: it cannot become {to}.")
    step.status = to
    return step
