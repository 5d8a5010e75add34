"""The receipt of a call with an effect on which nobody voted: the rule or grant that let it run.

`docs/verify_receipt.py` checks it like that of an approved call, from the chain alone.
"""

from __future__ import annotations

import json
from typing import Any

from runs.models import PolicyChange, Run, Step, StepKind
from runs.models.proof import sha256

BY_PEOPLE = frozenset({"rule", "grant"})


def read_permit(run: Run, seq: int, events: list[dict[str, Any]]) -> tuple[Step, dict[str, Any]] | None:
    """The call at this step and what let it start; None when no rule of people did."""
    step = run.steps.filter(seq=seq, kind=StepKind.TOOL).exclude(effect="read").first()
    if step is None:
        return None
    step.run = run
    data = [json.loads(event["data"]) for event in events]
    of_step = [(event, told) for event, told in zip(events, data, strict=True) if told.get("step") == seq]
    starts = [told for event, told in of_step if event["kind"] == "call.started"]
    if not starts or starts[0].get("source") not in BY_PEOPLE:
        return None
    start = starts[0]
    change = PolicyChange.objects.select_related("rule", "by").get(pk=start["rule_change"])
    used = [(event, told) for event, told in of_step if event["kind"] == "grant.used"]
    return step, {
        "rule": start["rule"],
        "source": start["source"],
        "policy_version": start["policy"],
        "version": change.number,
        "content": change.content,
        "sha256": start["rule_digest"],
        "by": change.by.get_username(),
        "at": change.at.isoformat(),
        "why": change.why,
        "use": {"event": used[0][0]["seq"], "number": used[0][1]["number"]} if used else None,
    }


def call_of(step: Step, arguments: str) -> dict[str, Any]:
    """What a receipt says of the call itself."""
    return {
        "step": step.seq,
        "tool_use_id": step.tool_use_id,
        "tool": step.name,
        "tool_version": step.tool_version,
        "effect": step.effect,
        "status": step.status,
        "arguments": arguments,
        "arguments_sha256": sha256(arguments),
    }
