"""Calls that may have acted: what their tool's probe says, and answers that come too late."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from django.utils import timezone

from runs import actions
from runs.actions import Found, Lease, Result
from runs.engine.acts import Record, Standing
from runs.models import Says, Step
from tools import boundary
from tools.base import Outcome, Tool, ToolContext
from tools.deadlines import LEFT
from tools.probing import Probed
from tools.rechecking import was_verified

WAITS = "A change was cut off and may still be under way. Once its time is over, its tool is asked about it."


@dataclass(frozen=True)
class Lost:
    """A call that had started when its worker died; `arguments` are exactly those that were run."""

    step: Step
    tool: Tool
    arguments: str
    context: ToolContext


def after_loss(lease: Lease, calls: Sequence[Lost]) -> Record:
    """Their worker is gone: ask the probes, and settle each call by what its probe says.

    A worker that only seems dead may still be in the tool. Until the deadline of that call only "it happened"
    is final: after any other answer nothing is settled, and the run comes back when the time is over.
    """
    found, waits = [], []
    for call in calls:
        probed = boundary.probe(call.tool, json.loads(call.arguments), call.context)
        over = (call.step.begun_at or call.step.started_at) + timedelta(seconds=call.tool.deadline_seconds)
        if probed.said != "happened" and timezone.now() < over:
            waits.append(over)
        else:
            found.append((call.step.seq, _found(probed, call.tool)))

    def store() -> Standing | None:
        for seq, finding in found:
            actions.reconcile_call(lease, seq, finding)
        if not waits:
            return None
        parked = actions.park(lease, until=max(waits), reason="probe", explanation=WAITS)
        return Standing.OVER if parked else None

    return Record(store)


def after_failure(
    lease: Lease, step: Step, tool: Tool, arguments: str, context: ToolContext, outcome: Outcome
) -> Callable[[], None]:
    """It ended here without a certain answer: ask the probe, and return what stores what it said.

    After a timeout the call may still be under way: it is never started again then.
    """
    probed = boundary.probe(tool, json.loads(arguments), context)
    return partial(
        actions.reconcile_call,
        lease,
        step.seq,
        _found(probed, tool),
        may_restart=outcome.error_kind != "timeout",
        lost=result_of(outcome, is_unknown=True),
    )


def too_late(lease: Lease, step: Step, attempt: int, outcome: Outcome) -> None:
    """Keep what this attempt at a change answered when somebody else drove the run, or nobody.

    The step may be at a later attempt by then.
    """
    if step.effect == "read" or outcome.error_kind == LEFT:
        return
    says = Says.CANNOT_TELL if outcome.may_have_acted else Says.HAPPENED
    if outcome.is_error and not outcome.may_have_acted:
        says = Says.DID_NOT_HAPPEN
    found = Found(says, outcome.summary, result_of(outcome))
    actions.record_late_result(lease, step.seq, found, attempt=attempt)


def result_of(outcome: Outcome, tool: Tool | None = None, *, is_unknown: bool = False) -> Result:
    """What a tool answered, as actions take it; with the tool also whether it can be looked at later."""
    return Result(
        outcome.text,
        outcome.is_error,
        outcome.summary,
        outcome.error_kind,
        is_unknown=is_unknown,
        is_verified=tool is not None and was_verified(tool, outcome),
    )


def _found(probed: Probed, tool: Tool) -> Found:
    result = result_of(probed.outcome, tool) if probed.outcome else None
    return Found(Says(probed.said), probed.evidence, result)


def arguments_of(step: Step) -> str:
    """Exactly what was run: the approved bytes, or those of the model where nobody was asked."""
    approval = step.approvals.order_by("-revision").first()
    return approval.arguments if approval else step.arguments
