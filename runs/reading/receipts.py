"""The receipt of one gated call: everything that proves who allowed what, and whether it ran.

`docs/verify_receipt.py` checks it without this program and without its database. Texts that are hashed stand
in it as JSON strings, exactly as they were hashed.
"""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.utils import timezone

from runs.models import Approval, Event, Run, Step, StepKind
from runs.models.proof import digest_parts, sha256
from runs.reading.permit_receipts import call_of, read_permit

FORMAT = "agentops-receipt-1"
TRIES = 5


class NoReceipt(Exception):
    """There is none for this step; the message says why, for the person who asked."""


def receipt_text(run: Run, seq: int) -> str:
    """The receipt as JSON text in ASCII; raises NoReceipt."""
    return json.dumps(read_receipt(run, seq), indent=2, ensure_ascii=True) + "\n"


def receipt_name(run: Run, seq: int) -> str:
    """The name of the file it is kept in."""
    return f"receipt-{run.request_id}-{seq}.json"


def read_receipt(run: Run, seq: int) -> dict[str, Any]:
    """The receipt of the call at this step, of its newest revision, up to the present end of the chain.

    A call that a rule or a grant of people let start has one, too. Raises NoReceipt for a step that is no
    tool call, that nobody had to allow, or that was copied from another run.
    """
    for _ in range(TRIES):
        before = Run.objects.values_list("last_event_hash", flat=True).get(pk=run.pk)
        receipt = _read(run, seq)
        if receipt["run"]["head"] == before:
            break  # nothing was written meanwhile: every write to an approval or a step appends an event
    return receipt


def _read(run: Run, seq: int) -> dict[str, Any]:
    approval = (
        run.approvals.filter(step__seq=seq)
        .select_related("step")
        .prefetch_related("votes__voter")
        .order_by("-revision")
        .first()
    )
    events = [_event(event) for event in run.events.order_by("seq")]
    if approval is None:
        return _permitted(run, seq, events)
    step = approval.step
    step.run = run
    earlier = list(run.approvals.filter(step=step, revision__lt=approval.revision).order_by("revision"))
    return {
        **_head(run, events),
        "call": call_of(step, approval.arguments),
        "approval": _approval(approval),
        "digest": _digest(approval, step),
        "card": {"text": approval.preview, "sha256": sha256(approval.preview)},
        "votes": _votes(approval, events),
        "earlier_revisions": [_earlier(one) for one in earlier],
        "start": _last(events, "call.started", seq),
        "result": {"text": step.result, "sha256": sha256(step.result)} if step.result else None,
        "events": events,
    }


def _permitted(run: Run, seq: int, events: list[dict[str, Any]]) -> dict[str, Any]:
    """The receipt of a call on which nobody voted."""
    found = read_permit(run, seq, events)
    if found is None:
        raise NoReceipt(_why_none(run, seq))
    step, permit = found
    return {
        **_head(run, events),
        "call": call_of(step, step.arguments),
        "approval": None,
        "permit": permit,
        "votes": [],
        "start": _last(events, "call.started", seq),
        "result": {"text": step.result, "sha256": sha256(step.result)} if step.result else None,
        "events": events,
    }


def _head(run: Run, events: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "made_at": timezone.now().isoformat(),
        "made_by": f"agentops {settings.VERSION}",
        "run": _run(run, events),
    }


def _why_none(run: Run, seq: int) -> str:
    step = run.steps.filter(seq=seq).only("kind").first()
    if step is None:
        return f"There is no step {seq}: this run has {run.step_count}."
    if seq <= run.copied_steps and run.parent_run is not None:
        parent = run.parent_run.request_id
        return f"Step {seq} was copied from run {parent}: whatever was decided on it was decided there."
    if step.kind != StepKind.TOOL:
        return f"Step {seq} is no tool call, so nobody was asked about it."
    return f"Step {seq} needed no approval: only gated calls have receipts."


def _run(run: Run, events: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "request_id": str(run.request_id),
        "agent": run.agent,
        "started_by": run.started_by,
        "events": len(events),
        "head": events[-1]["hash"] if events else "",
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "kind": event.kind,
        "actor": event.actor,
        "at": event.at.isoformat(),
        "data": event.data,
        "previous_hash": event.previous_hash,
        "hash": event.hash,
    }


def _approval(approval: Approval) -> dict[str, Any]:
    times = ("created_at", "expires_at", "decided_at", "not_before", "execute_by", "redeemed_at", "ended_at")
    return {
        "id": approval.pk,
        "revision": approval.revision,
        "state": approval.state,
        "environment": approval.environment,
        "rule": approval.rule,
        "rule_reason": approval.rule_reason,
        "quorum": approval.quorum,
        "roles": approval.roles,
        "self_approval": approval.self_approval,
        "policy_version": approval.policy_version,
        "origin": approval.origin,
        "edited_by": approval.edited_by_id,
        "ended_by": approval.ended_by,
        "ended_why": approval.ended_why,
        **{name: _iso(getattr(approval, name)) for name in times},
    }


def _earlier(approval: Approval) -> dict[str, Any]:
    """What was asked before about the same call, and is void."""
    return {
        "id": approval.pk,
        "revision": approval.revision,
        "state": approval.state,
        "digest": approval.digest,
        "arguments": approval.arguments,
        "ended_by": approval.ended_by,
        "ended_why": approval.ended_why,
        "ended_at": _iso(approval.ended_at),
    }


def _iso(moment: Any) -> str | None:
    return moment.isoformat() if moment else None


def _digest(approval: Approval, step: Step) -> dict[str, Any]:
    parts = digest_parts(
        step,
        approval.arguments,
        tool_version=step.tool_version,
        revision=approval.revision,
        rule=approval.rule,
        environment=approval.environment,
        policy_version=approval.policy_version,
    )
    named = [{"name": name, "value": value} for name, value in parts.items()]
    return {"sha256": approval.digest, "parts": named}


def _votes(approval: Approval, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The votes on this revision, under the names that people had when they voted."""
    names = {
        (json.loads(event["data"])["voter"], event["at"]): event["actor"]
        for event in events
        if event["kind"] == "approval.vote"
    }
    return [
        {
            "voter": names.get((vote.voter_id, vote.at.isoformat()), vote.voter.get_username()),
            "voter_id": vote.voter_id,
            "at": vote.at.isoformat(),
            "verdict": vote.verdict,
            "reason": vote.reason,
            "revision": vote.revision,
            "digest": vote.digest,
            "seconds_on_card": vote.seconds_on_card,
        }
        for vote in approval.votes.all()
        if vote.revision == approval.revision
    ]


def _last(events: list[dict[str, Any]], kind: str, seq: int) -> dict[str, Any] | None:
    """The last event of this kind about the step: its number and time."""
    for event in reversed(events):
        if event["kind"] == kind and json.loads(event["data"]).get("step") == seq:
            return {"event": event["seq"], "at": event["at"]}
    return None
