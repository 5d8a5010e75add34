"""Calls that may have acted: what their tool's probe says, and answers that come too late."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from django.utils import timezone

from runs import actions
from runs.actions import Found, Lease, Result
from runs.models import Says, Step
from tools import boundary
from tools.base import Outcome, Tool, ToolContext
from tools.probing import Probed

WAITS = "A change was cut off and may still be under way. Once its time is over, its tool is asked about it."


def after_loss(lease: Lease, step: Step, tool: Tool, context: ToolContext) -> datetime | None:
    """Its worker is gone: settle the call by what the probe says, or say when that can be known.

    A worker that only seems dead may still be in the tool. Until the deadline of that call only "it happened"
    is final: after any other answer nothing is settled, and the time to ask again is returned.
    """
    probed = boundary.probe(tool, _arguments(step), context)
    over = (step.begun_at or step.started_at) + timedelta(seconds=tool.deadline_seconds)
    if probed.said != "happened" and timezone.now() < over:
        return over
    actions.reconcile_call(lease, step.seq, _found(probed))
    return None


def after_failure(lease: Lease, step: Step, tool: Tool, context: ToolContext, outcome: Outcome) -> None:
    """It ended here without a certain answer. After a timeout it may still be under way: never again."""
    probed = boundary.probe(tool, _arguments(step), context)
    actions.reconcile_call(
        lease,
        step.seq,
        _found(probed),
        may_restart=outcome.error_kind != "timeout",
        lost=result_of(outcome, is_unknown=True),
    )


def too_late(lease: Lease, step: Step, outcome: Outcome) -> None:
    """Keep the answer of a change that came when somebody else drove the run, or nobody."""
    if step.effect == "read":
        return
    says = Says.CANNOT_TELL if outcome.may_have_acted else Says.HAPPENED
    if outcome.is_error and not outcome.may_have_acted:
        says = Says.DID_NOT_HAPPEN
    found = Found(says, outcome.summary, result_of(outcome))
    actions.record_late_result(lease, step.seq, found, attempt=step.attempt)


def result_of(outcome: Outcome, *, is_unknown: bool = False) -> Result:
    """What a tool answered, as actions take it."""
    return Result(outcome.text, outcome.is_error, outcome.summary, outcome.error_kind, is_unknown=is_unknown)


def _found(probed: Probed) -> Found:
    result = result_of(probed.outcome) if probed.outcome else None
    return Found(Says(probed.said), probed.evidence, result)


def _arguments(step: Step) -> object:
    """Exactly what was run: the approved bytes, or those of the model where nobody was asked."""
    approval = step.approvals.order_by("-revision").first()
    return json.loads(approval.arguments if approval else step.arguments)
