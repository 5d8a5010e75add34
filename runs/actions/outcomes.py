"""Calls whose outcome is unknown: what a probe finds, an answer that comes late, what a person says.

What was sent to the model is never rewritten: the call stays `unknown`, and what is found out about it
later stands beside it and is said to the model as a note.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.models import User

from runs.actions.approvals import MAX_REASON_CHARACTERS
from runs.actions.calls import MAX_STARTS
from runs.actions.change import Change, Lease, change
from runs.actions.errors import ActionError, AlreadyResolved, MayNotDecide
from runs.actions.notifications import notify_end
from runs.actions.proving import is_recorded
from runs.actions.settling import Refusal, Result, not_run, settle, settle_unknown
from runs.actions.turns import create_note
from runs.models import Finding, FoundBy, Resolution, Run, Says, Step, StepKind, StepStatus, WhatBecame
from runs.models.outcome import OUTCOME, note_name, untold
from runs.models.proof import sha256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What is known about one start of a call. `result` is the answer of a call that happened."""

    says: Says
    evidence: str
    result: Result | None = None


def reconcile_call(
    lease: Lease, seq: int, found: Found, *, may_restart: bool = True, lost: Result | None = None
) -> None:
    """Settle a started call by what its probe found, or make it ready again when it did not happen.

    It is not started again when `may_restart` is false, because what was started may still be under way.
    `lost` is what the model is told about an unknown outcome, instead of our own words.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        step = Step.objects.select_for_update().get(run=current.run, seq=seq)
        step.run = current.run
        if step.status != StepStatus.EXECUTING:
            raise ValueError(f"Step {seq} is {step.status}: there is nothing to reconcile.")
        _record(current, step, FoundBy.PROBE, found, attempt=step.attempt)
        if found.says == Says.HAPPENED and found.result is not None:
            step.status = StepStatus.SUCCEEDED
            settle(current, step, found.result)
            _finished(current, step, "", found_by=FoundBy.PROBE)
        elif found.says == Says.DID_NOT_HAPPEN and may_restart:
            _start_again(current, step)
        elif lost is not None:
            step.status = StepStatus.UNKNOWN
            settle(current, step, lost)
            _finished(current, step, lost.error_kind)
        else:
            settle_unknown(current, step)


def _finished(current: Change, step: Step, error: str, **more: str) -> None:
    digest = sha256(step.result)
    current.event(
        "call.finished", step=step.seq, status=step.status, error=error, result_sha256=digest, **more
    )
    notify_end(current, step)


def _start_again(current: Change, step: Step) -> None:
    if step.attempt < MAX_STARTS:
        step.status = StepStatus.READY
        step.attempt += 1
        step.save(update_fields=["status", "attempt"])
        current.event("call.restarted", step=step.seq, attempt=step.attempt)
        return
    step.status = StepStatus.FAILED
    message = f"It was started {step.attempt} times and did not take effect. Go on without it."
    settle(current, step, not_run(Refusal("unavailable", message)))
    _finished(current, step, "unavailable")


def record_late_result(lease: Lease, seq: int, found: Found, *, attempt: int) -> None:
    """Keep what a tool answered to a worker that no longer drives the run. It is evidence, nothing more.

    Anybody may drive the run meanwhile, and it may be over: no state changes here.
    """
    with change(lease.run_id, actor=lease.owner) as current:
        step = Step.objects.select_for_update().get(run=current.run, seq=seq)
        _record(current, step, FoundBy.LATE, found, attempt=attempt)


def _record(current: Change, step: Step, found_by: FoundBy, found: Found, *, attempt: int) -> None:
    result = found.result.text if found.result else ""
    Finding.objects.create(
        run=current.run,
        step=step,
        attempt=attempt,
        found_by=found_by,
        says=found.says,
        evidence=found.evidence,
        result=result,
        worker=current.actor,
        at=current.now,
    )
    current.event(
        "call.probed" if found_by == FoundBy.PROBE else "call.answered_late",
        step=step.seq,
        attempt=attempt,
        says=found.says,
        evidence=found.evidence,
        result_sha256=hashlib.sha256(result.encode()).hexdigest() if result else "",
    )


def resolve_outcome(*, run_id: int, seq: int, verdict: str, evidence: str, by: User) -> Resolution:
    """Record what this person says became of an unknown call; the first one holds.

    The model is told with the next request, when the run goes on, is retried or is continued. Raises
    MayNotDecide, AlreadyResolved, and ActionError with a sentence when nothing can be resolved like this.
    """
    if not by.is_active or not by.has_perm("runs.decide"):
        raise MayNotDecide(f"{by.get_username()} may look but not decide. Ask for the permission “decide”.")
    if verdict not in WhatBecame.values:
        raise ActionError("Say happened, did_not_happen or abandoned.")
    evidence = evidence.strip()
    if not evidence:
        raise ActionError("Say how you know: what you looked at, and what you saw. Nothing was recorded.")
    if len(evidence) > MAX_REASON_CHARACTERS:
        raise ActionError(
            f"The evidence has {len(evidence):,} characters; at most {MAX_REASON_CHARACTERS:,} are taken."
        )
    with change(run_id, actor=by.get_username()) as current:
        step = _unknown_call(current, seq)
        resolution = Resolution.objects.create(
            run=current.run, step=step, verdict=verdict, evidence=evidence, by=by, at=current.now
        )
        current.event("call.resolved", step=seq, verdict=verdict, evidence=evidence)
        current.add(untold=1)
        _pass_on(current, resolution)
    return resolution


def _pass_on(current: Change, resolution: Resolution) -> None:
    """The run that goes on with the work, when this one handed over, tells it with its next request."""
    heir = current.run
    while heir.handed_over:
        heir = Run.objects.select_for_update().get(parent_run=heir, copied_steps=0)
    if heir.pk != current.run.pk:
        told = Change(heir, current.actor, current.now)
        told.add(untold=1)
        told.event(
            "outcome.passed_on",
            run=str(current.run.request_id),
            call=resolution.step.seq,
            verdict=resolution.verdict,
        )
        told.save()


def _unknown_call(current: Change, seq: int) -> Step:
    """The call that waits to be resolved, or the sentence that says why there is none."""
    step = Step.objects.select_for_update().filter(run=current.run, seq=seq, kind=StepKind.TOOL).first()
    if step is None:
        raise ActionError(f"Step {seq} of this run is no tool call.")
    if step.status != StepStatus.UNKNOWN:
        raise ActionError(f"The outcome of step {seq} is known: it is {step.status}.")
    if seq <= current.run.copied_steps:
        raise ActionError(f"Step {seq} is a copy. Resolve it in the run that this one goes on from.")
    earlier = Resolution.objects.select_related("by").filter(step=step).first()
    if earlier is not None:
        raise AlreadyResolved(
            f"Already resolved by {earlier.by.get_username()} at {earlier.at:%H:%M:%S} UTC: "
            f"{earlier.get_verdict_display().lower()}. Yours was not recorded."
        )
    return step


def tell_outcomes(lease: Lease) -> None:
    """Append what people found to the conversation. Only the driver writes there, between two requests."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        tell(current, untold(current.run, told_in(current.run)), of=current.run)
        current.set(untold=0)


def told_in(run: Run) -> list[str]:
    """Names of the notes that tell outcomes in this run."""
    return list(run.steps.filter(name__startswith=f"{OUTCOME}:").values_list("name", flat=True))


def tell(current: Change, found: Iterable[Resolution], *, of: Run) -> None:
    """Inside a change: one note for each of these, named as in the run whose steps it holds."""
    for resolution in found:
        if not is_recorded(resolution):
            logger.error("what became of call %s is in no event; not told", resolution.step_id)
            continue
        name, text = note_name(resolution, of), _told(resolution)
        note = create_note(current, name=name, text=text, summary=text)
        current.event("note.added", step=note.seq, name=name)


def _told(resolution: Resolution) -> str:
    step = resolution.step
    what = {
        WhatBecame.HAPPENED: "it took effect. Do not repeat it.",
        WhatBecame.DID_NOT_HAPPEN: "it did not take effect. If it is still right, you may propose it again.",
        WhatBecame.ABANDONED: "nobody could find out. Rely neither on its effect nor on its absence, and do "
        "not repeat it.",
    }[WhatBecame(resolution.verdict)]
    return (
        f"About your call of {step.name} ({step.evidence_id}), whose outcome was unknown. A person "
        f"({resolution.by.get_username()}) looked into it: {what} What they saw: “{resolution.evidence}”"
    )
