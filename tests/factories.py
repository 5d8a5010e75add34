"""Plain functions that bring a run to a certain point, through the actions that the engine uses."""

from __future__ import annotations

import json
from typing import Any

from django.utils import timezone

from runs import actions
from runs.actions import Charge, CompleteTurn, Lease, ProposedCall, Question
from runs.engine import decision, moves
from runs.engine.acts import Standing
from runs.engine.drive import Driver, begin, situation
from runs.engine.looking_again import Look
from runs.models import Approval, Run, Step, event_hash
from runs.models.proof import sha256
from runs.money import Usage, unit_prices
from runs.reading.invariants import contradictions
from tools import registry

USAGE = Usage(input_tokens=1_000, output_tokens=100)


def a_run(question: str = "PostgreSQL connection pool exhausted", **fields: Any) -> Run:
    """A queued run."""
    return actions.start_run(question=question, agent="incident", user=None, started_by="alert", **fields)


def reconfigure(run: Run, configuration: dict[str, Any]) -> None:
    """Let a run that has just been started have begun with this configuration, in its row and its record."""
    event = run.events.get()
    text = json.dumps(configuration)
    data = json.dumps(event.fields | {"config_sha256": sha256(text)})
    facts = {"seq": event.seq, "kind": event.kind, "actor": event.actor, "data": data, "at": event.at}
    digest = event_hash(previous_hash="", request_id=str(run.request_id), **facts)
    run.events.update(data=data, hash=digest)
    Run.objects.filter(pk=run.pk).update(config=text, last_event_hash=digest)


def a_lease(run: Run, owner: str = "worker-1") -> Lease:
    """The right to drive it."""
    lease = actions.claim(run.pk, owner)
    assert lease is not None
    return lease


def an_attempt(lease: Lease) -> Step:
    """A model call that is on its way."""
    return actions.start_attempt(
        lease,
        model="claude-sonnet-5-5",
        attempt=1,
        request_sha256="0" * 64,
        max_tokens=1_000,
        reserved_tokens=0,
        reserved_usd=None,
    )


def a_charge(usage: Usage = USAGE, model: str = "claude-sonnet-5-5") -> Charge:
    """What a model call cost."""
    return Charge(usage, unit_prices(model, at=timezone.now(), prompt_tokens=usage.prompt_tokens))


def a_turn(lease: Lease, *calls: tuple[str, str, dict[str, Any]], text: str = "") -> list[Step]:
    """A complete turn that proposes these calls, each (name, effect, arguments); returns their steps."""
    step = an_attempt(lease)
    uses = [
        {"type": "tool_use", "id": f"toolu_{step.seq}_{n}", "name": name, "input": arguments}
        for n, (name, _, arguments) in enumerate(calls)
    ]
    content = [*([{"type": "text", "text": text}] if text else []), *uses]
    turn = CompleteTurn(
        message=json.dumps({"id": "msg_1", "role": "assistant", "content": content}),
        model="claude-sonnet-5-5",
        stop_reason="tool_use" if calls else "end_turn",
        api_request_id="req_1",
        reasoning="Let me look.",
        text=text,
        summary=text or "Let me look.",
        calls=tuple(
            ProposedCall(use["id"], name, json.dumps(arguments), effect, version_of(name), name)
            for use, (name, effect, arguments) in zip(uses, calls, strict=True)
        ),
    )
    actions.finish_turn(lease, step, turn, a_charge())
    return list(Step.objects.filter(parent=step).order_by("seq"))


def version_of(name: str) -> str:
    """The tool's own version; any text for a tool that does not exist."""
    tool = registry.find(name)
    return tool.version if tool else "v1"


def a_question(arguments: dict[str, Any], **fields: Any) -> Question:
    """What an approval asks about these arguments."""
    values: dict[str, Any] = {
        "arguments": actions.canonical(arguments),
        "environment": "production",
        "rule": "destructive-needs-a-person",
        "rule_reason": "It changes production.",
        "quorum": 1,
        "decide_within_seconds": 900,
        "execute_within_seconds": 600,
        "preview": {
            "headline": "Revert api from v2.14.0 to v2.13.2",
            "object": "api",
            "environment": "production",
            "action": "revert",
            "chips": [{"text": "4 of 4 replicas", "tone": ""}],
            "changes": [{"title": "Deployment api", "was": ["v2.14.0"], "now": ["v2.13.2"], "same": []}],
            "reversible": True,
            "effect_if_rejected": "Nothing changes; the agent is told why.",
            "problem": "",
        },
    }
    return Question(**(values | fields))


def a_waiting_call(run: Run | None = None, **fields: Any) -> tuple[Lease, Step, Approval]:
    """A gated call before a person; its run is parked."""
    lease = a_lease(run or a_run())
    arguments = {"deployment_id": "dep_0412"}
    (step,) = a_turn(lease, ("revert_deployment", "destructive", arguments), text="I want to revert it.")
    actions.ask_approval(lease, step.seq, a_question(arguments, **fields))
    actions.park(lease, until=None, reason="approval", explanation="A person has to decide.")
    return lease, step, Approval.objects.get(step=step)


def perform(lease: Lease) -> bool:
    """Advance to one act, do it and record it at once; False when this driver has nothing more to do."""
    driver = Driver(lease)
    act = driver.advance(None, lambda: False)
    while act is not None and (driver.is_counting or isinstance(act, Look)):
        act = driver.advance(act(), lambda: False)
    if act is None:
        return False
    record = act()
    with actions.together(lease):
        return record.store() is not Standing.OVER


def run_calls(lease: Lease) -> None:
    """Authorise and run what the last turn asked for, and do not go on to the next turn."""
    while True:
        with actions.together(lease):
            run, steps = actions.driven(lease)
            move = decision.decide(situation(run, steps))
            if not isinstance(move, moves.Authorize | moves.RunTools | moves.Recover):
                return
            act = begin(lease, run, steps, move)
        if not isinstance(act, Standing):
            record = act()
            with actions.together(lease):
                record.store()


def rows(run: Run) -> tuple[Run, list[Step]]:
    """The run and its steps in order, as they are now."""
    return Run.objects.get(pk=run.pk), list(Step.objects.filter(run=run).order_by("seq"))


def contradictions_beside_deadlines(run: Run) -> list[str]:
    """Contradictions of a run whose deadlines a test has moved in the rows, so that nobody waits for them."""
    moved = ("expires_at of approval", "execute_by of approval")
    return [sentence for sentence in contradictions(run) if not sentence.startswith(moved)]
