"""Whether the texts of a run are still those that its events were made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from runs.models import Approval, ApprovalState, Event, Step, StepKind
from runs.models.proof import approval_digest, sha256

SETTLING = frozenset({"call.finished", "call.refused", "call.unknown"})


def changed_texts(
    steps: Sequence[Step], events: Sequence[Event], approvals: Sequence[Approval]
) -> Iterator[str]:
    """What was changed after it was recorded: messages, arguments, results, and what people approved."""
    by_number = {step.seq: step for step in steps}
    approved = {approval.step_id: approval.arguments for approval in approvals}
    results: dict[int, str] = {}
    for event in events:
        data = event.fields
        step = by_number.get(data.get("step", 0))
        if step is None:
            continue
        if event.kind == "model.finished" and data["message_sha256"] != sha256(step.message):
            yield f"the message of turn {step.seq} is not the one that was recorded"
        if event.kind == "call.started":
            ran = approved.get(step.pk, step.arguments)
            if data["arguments_sha256"] != sha256(ran):
                yield f"the arguments of call {step.seq} are not those it was started with"
        if event.kind in SETTLING and "result_sha256" in data:
            results[step.seq] = data["result_sha256"]
    for number, digest in results.items():
        if sha256(by_number[number].result) != digest:
            yield f"the result of call {number} is not the one that was recorded"
    yield from _other_arguments(steps)
    for approval in approvals:
        if approval.state != ApprovalState.INVALIDATED and approval_digest(approval) != approval.digest:
            yield f"approval {approval.pk} is not about what its digest says"


def _other_arguments(steps: Sequence[Step]) -> Iterator[str]:
    """Calls whose arguments are not those of the message that proposed them."""
    turns = {step.pk: step for step in steps if step.kind == StepKind.MODEL}
    for step in steps:
        turn = turns.get(step.parent_id or 0)
        if step.kind != StepKind.TOOL or turn is None:
            continue
        asked = {block.get("id"): block.get("input") for block in turn.content}
        if json.loads(step.arguments) != asked.get(step.tool_use_id):
            yield f"call {step.seq} has other arguments than the message that proposed it"
