"""What must hold in the rows of every run, and where it does not.

Each check reads rows only and says in one sentence what contradicts what. `manage.py checkruns` runs
them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from runs.models import (
    Approval,
    ApprovalState,
    Event,
    FoundBy,
    Run,
    RunStatus,
    Says,
    Step,
    StepKind,
    StepStatus,
    Verdict,
    event_hash,
)
from runs.models.outcome import untold
from runs.reading.decision_checks import decisions_fit
from runs.reading.hashes import changed_texts
from runs.reading.ledger_checks import charges_fit
from runs.reading.revision_checks import revisions_fit

TOKEN_CLASSES = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output")
STARTED = {StepStatus.EXECUTING, StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.UNKNOWN}


@dataclass(frozen=True)
class Rows:
    """One run with everything that belongs to it, read once."""

    run: Run
    steps: list[Step]
    events: list[Event]
    approvals: list[Approval]


def contradictions(run: Run) -> list[str]:
    """Every contradiction in the rows of this run; empty when they agree."""
    rows = Rows(
        run=run,
        steps=list(run.steps.order_by("seq")),
        events=list(run.events.order_by("seq")),
        approvals=list(run.approvals.select_related("step").prefetch_related("votes").order_by("id")),
    )
    return [sentence for check in CHECKS for sentence in _said(check, rows)]


def _said(check: Callable[[Rows], Iterator[str]], rows: Rows) -> Iterator[str]:
    """What a check finds. Columns may hold anything; a row that cannot be read is a contradiction, too."""
    try:
        yield from check(rows)
    except Exception as error:
        yield f"a row cannot be read, so not all was checked ({type(error).__name__}: {str(error)[:100]})"


def _events_are_chained(rows: Rows) -> Iterator[str]:
    previous = ""
    for number, event in enumerate(rows.events, 1):
        if event.seq != number:
            yield f"event {number} is missing"
            return
        expected = event_hash(
            previous_hash=previous,
            request_id=str(rows.run.request_id),
            seq=event.seq,
            kind=event.kind,
            actor=event.actor,
            data=event.data,
            at=event.at,
        )
        if event.previous_hash != previous or event.hash != expected:
            yield f"event {event.seq} ({event.kind}) does not fit its hash"
            return
        previous = event.hash
    if rows.run.last_event != len(rows.events) or rows.run.last_event_hash != previous:
        yield f"the run knows {rows.run.last_event} events, there are {len(rows.events)}"


def _steps_are_complete(rows: Rows) -> Iterator[str]:
    numbers = [step.seq for step in rows.steps]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the steps are numbered {numbers}"
    if rows.run.step_count != len(numbers):
        yield f"the run counts {rows.run.step_count} steps, there are {len(numbers)}"
    for kind, counted in ((StepKind.MODEL, rows.run.model_calls), (StepKind.TOOL, rows.run.tool_calls)):
        found = sum(step.kind == kind for step in rows.steps)
        if found != counted:
            yield f"the run counts {counted} {kind} steps, there are {found}"


def _tokens_add_up(rows: Rows) -> Iterator[str]:
    turns = [step for step in rows.steps if step.kind == StepKind.MODEL]
    for name in TOKEN_CLASSES:
        column = f"{name}_tokens"
        total, parts = getattr(rows.run, column), sum(getattr(step, column) for step in turns)
        if total != parts:
            yield f"{column}: the run says {total}, its calls add up to {parts}"


def _every_call_has_one_result(rows: Rows) -> Iterator[str]:
    last_turn = max((step.seq for step in rows.steps if step.kind == StepKind.MODEL), default=0)
    for turn in rows.steps:
        if turn.kind != StepKind.MODEL or turn.stop_reason != "tool_use" or turn.status != "succeeded":
            continue
        asked = [block["id"] for block in _content(turn) if block.get("type") == "tool_use"]
        calls = [step for step in rows.steps if step.parent_id == turn.pk]
        if [call.tool_use_id for call in calls] != asked:
            yield f"turn {turn.seq} asked for {asked}, its calls are {[c.tool_use_id for c in calls]}"
        for call in calls:
            if call.is_settled != bool(call.result):
                yield f"call {call.seq} is {call.status} and has {'a' if call.result else 'no'} result"
            if not call.is_settled and turn.seq < last_turn:
                yield f"call {call.seq} is {call.status}, but the conversation went on"


def _content(turn: Step) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(turn.message)["content"] if turn.message else []
    return content


def _gated_calls_were_decided(rows: Rows) -> Iterator[str]:
    decided = {approval.step_id: approval for approval in rows.approvals}
    allowed = _allowed_by_people(rows)
    for step in rows.steps:
        if step.effect != "destructive" or step.status not in STARTED:
            continue
        if step.seq <= rows.run.copied_steps:  # it was decided on in the run it was copied from
            continue
        approval = decided.get(step.pk)
        if approval is None:
            if step.seq not in allowed:
                yield f"call {step.seq} started without an approval"
        elif approval.redeemed_at is None or approval.state != ApprovalState.APPROVED:
            yield f"call {step.seq} started, its approval is {approval.state}"
    for approval in rows.approvals:
        yes = {vote.voter_id for vote in approval.votes.all() if _counts(vote, approval)}
        if approval.state == ApprovalState.APPROVED and len(yes) < approval.quorum:
            yield f"approval {approval.pk} is approved with {len(yes)} of {approval.quorum} votes"
        if decided[approval.step_id] is not approval:
            continue
        if approval.is_open != (approval.step.status == StepStatus.WAITING):
            yield f"approval {approval.pk} is {approval.state}, its call is {approval.step.status}"


def _allowed_by_people(rows: Rows) -> set[int]:
    """Calls whose START names a rule that people wrote, or a grant of which it took one use."""
    used = {event.fields["step"] for event in rows.events if event.kind == "grant.used"}
    started = [event.fields for event in rows.events if event.kind == "call.started"]
    by_rule = {data["step"] for data in started if data.get("source") == "rule"}
    by_grant = {data["step"] for data in started if data.get("source") == "grant"}
    return by_rule | (by_grant & used)


def _counts(vote: Any, approval: Approval) -> bool:
    same = vote.revision == approval.revision and vote.digest == approval.digest
    return bool(same and vote.verdict == Verdict.APPROVE)


def _outcomes_fit(rows: Rows) -> Iterator[str]:
    """What was said about unknown outcomes fits the calls, and the model was told of it or is yet to be."""
    said = {event.fields.get("step") for event in rows.events if event.kind == "call.resolved"}
    notes = {step.name for step in rows.steps if step.kind == StepKind.NOTE}
    resolutions = list(rows.run.resolutions.select_related("step"))
    for resolution in resolutions:
        step = resolution.step
        if step.status != StepStatus.UNKNOWN:
            yield f"call {step.seq} is {step.status}, but a person said what became of it"
        if step.seq not in said:
            yield f"what became of call {step.seq} was said without an event"
    left = len(untold(rows.run, notes))
    if rows.run.untold != left:
        yield f"the run has {rows.run.untold} outcomes to tell, there are {left}"
    probed = rows.run.findings.filter(found_by=FoundBy.PROBE).select_related("step")
    for finding in probed:
        step = finding.step
        of_the_end = finding.attempt == step.attempt and step.status == StepStatus.SUCCEEDED
        if of_the_end and finding.says != Says.HAPPENED:
            yield f"call {step.seq} is succeeded, but its probe said {finding.says}"


def _status_fits(rows: Rows) -> Iterator[str]:
    run = rows.run
    unsettled = [s.seq for s in rows.steps if s.kind == StepKind.TOOL and not s.is_settled]
    streaming = [s.seq for s in rows.steps if s.status == StepStatus.RUNNING]
    if run.is_ended != (run.ended_at is not None):
        yield f"the run is {run.status} and its end is {run.ended_at}"
    if run.is_ended and (unsettled or streaming):
        yield f"the run is {run.status}, but steps {unsettled + streaming} are open"
    if run.lease_owner and run.status != RunStatus.RUNNING:
        yield f"the run is {run.status}, but {run.lease_owner} drives it"
    if run.status == RunStatus.WAITING and not any(approval.is_open for approval in rows.approvals):
        yield "the run waits for a decision nobody is asked for"
    if (run.status in {RunStatus.WAITING, RunStatus.PAUSED}) != (run.waiting_since is not None):
        yield f"the run is {run.status} and waits since {run.waiting_since}"


def _handed_over_once(rows: Rows) -> Iterator[str]:
    if rows.run.handed_over:
        successors = rows.run.forks.filter(copied_steps=0).count()
        if successors != 1:
            yield f"the run was handed over, and {successors} runs go on with its work"


def _texts_are_unchanged(rows: Rows) -> Iterator[str]:
    yield from changed_texts(rows.steps, rows.events, rows.approvals)


CHECKS: tuple[Callable[[Rows], Iterator[str]], ...] = (
    _events_are_chained,
    _steps_are_complete,
    _tokens_add_up,
    lambda rows: charges_fit(rows.run, rows.steps),
    _every_call_has_one_result,
    _gated_calls_were_decided,
    lambda rows: revisions_fit(rows.run, rows.approvals),
    lambda rows: decisions_fit(rows.run, rows.approvals, rows.events),
    _outcomes_fit,
    _status_fits,
    _handed_over_once,
    _texts_are_unchanged,
)
