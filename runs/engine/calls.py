"""Tool calls of a run: ask policy, ask a person, run, record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from django.utils import timezone

from runs import actions
from runs.actions import Lease, Question, Refusal
from runs.engine import looking_again, reconciling, repeats, running
from runs.engine.acts import Act, Record, Standing
from runs.engine.running import Started
from runs.models import Approval, Run, Step, StepKind, StepStatus
from runs.models.in_force import policy_in_force
from tools import boundary, policy, registry
from tools.base import Tool, ToolContext
from tools.policy import Policy, Verdict


def authorize(lease: Lease, run: Run, steps: list[Step], seqs: Sequence[int]) -> Act | None:
    """Let proposed calls run, refuse them, or put them before a person with a preview of what they would do.

    Returns the act that makes the previews, which read production; None when no person has to be asked.
    """
    rules = actions.rules_now(lease)
    judged = (_judge(lease, run, steps, steps[seq - 1], rules) for seq in seqs)
    requests = [made for made in judged if made is not None]
    if not requests:
        return None

    def act() -> Record:
        previews = [
            boundary.preview(asked.tool, json.loads(asked.arguments), asked.context) for asked in requests
        ]

        def record() -> None:
            for request, preview in zip(requests, previews, strict=True):
                _put_before_a_person(lease, request, preview)

        return Record(record)

    return act


def _judge(lease: Lease, run: Run, steps: list[Step], step: Step, rules: Policy) -> _Request | None:
    """Allow or refuse this call; what a person is asked otherwise."""
    tool, refusal = _permitted(run, steps, step, rules)
    refusal = repeats.refusal(steps, step, timezone.now()) or refusal
    if tool is None or refusal is not None:
        actions.refuse_call(lease, step.seq, refusal or _unknown(step.name, run.frozen))
        return None
    verdict = verdict_on(run, step, tool, rules)
    if verdict.kind == "allow":
        actions.allow_call(lease, step.seq, rule=verdict.rule, verdict=verdict)
        return None
    return _Request(step.seq, tool, step.arguments, context(run, step), verdict)


@dataclass(frozen=True)
class _Request:
    """A call that a person has to decide on."""

    seq: int
    tool: Tool
    arguments: str
    context: ToolContext
    verdict: Verdict


def _put_before_a_person(lease: Lease, request: _Request, preview: dict[str, Any]) -> None:
    """Ask, unless the dry run found what the model can put right by itself."""
    if preview.get("problem_kind") in looking_again.CORRECTABLE:
        refusal = Refusal(preview["problem_kind"], f"{preview['problem']} It did not run.")
        actions.refuse_call(lease, request.seq, refusal)
        return
    actions.ask_approval(lease, request.seq, _question(request, preview))


def question_anew(
    run: Run, step: Step, tool: Tool, approval: Approval, arguments: str, preview: dict[str, Any]
) -> Question | Refusal:
    """What people are asked in the next revision of this call, as policy stands now; or that it says no.

    What was asked once is not allowed without people: the earlier rule stays when policy has become milder.
    """
    verdict = _verdict(run, tool, arguments, policy_in_force())
    if verdict.kind == "deny":
        return Refusal("denied", verdict.reason, verdict)
    if verdict.kind == "allow":
        verdict = replace(
            verdict,
            kind="ask",
            rule=approval.rule,
            reason=approval.rule_reason,
            ask=approval.ask,
            change=approval.rule_change,
        )
    return _question(_Request(step.seq, tool, arguments, context(run, step), verdict), preview)


def _question(request: _Request, preview: dict[str, Any]) -> Question:
    verdict = request.verdict
    return Question(
        arguments=actions.canonical(json.loads(request.arguments)),
        environment=request.context.environment,
        rule=verdict.rule,
        rule_reason=verdict.reason,
        quorum=verdict.quorum,
        decide_within_seconds=verdict.decide_within_seconds,
        execute_within_seconds=verdict.execute_within_seconds,
        preview=preview,
        roles=verdict.ask.roles,
        self_approval=verdict.ask.self_approval,
        cooling_off_seconds=verdict.ask.cooling_off_seconds,
        rule_change=verdict.change,
        policy_version=verdict.version,
    )


def begin_calls(lease: Lease, run: Run, steps: list[Step], seqs: Sequence[int]) -> Act | Standing | None:
    """Record START of these authorised calls: reads that run side by side, or one call with an effect.

    The act runs them. Results of reads are recorded in the order in which they come, the last one with what
    follows. It raises LeaseLost as soon as a row shows that somebody else drives the run: what still runs is
    left alone, what has not begun never does. None when no call may run. What people approved is looked at
    again first, which is an act of its own, and where it cannot be undone later the run waits.
    """
    changes = any(steps[seq - 1].effect != "read" for seq in seqs)
    rules = actions.rules_now(lease, hold=changes)
    first = _before_start(lease, run, steps, steps[seqs[0] - 1], rules)
    if first is not None:
        return first
    begun = (_start(lease, run, steps, steps[seq - 1], rules) for seq in seqs)
    started = [one for one in begun if one is not None]
    if not started:
        return None
    return partial(running.run, lease, started)


def _before_start(
    lease: Lease, run: Run, steps: list[Step], step: Step, rules: Policy
) -> Act | Standing | None:
    """What has to be done or waited for before this approved call starts; None when nothing has."""
    if step.effect == "read":
        return None
    approval = step.approvals.order_by("-revision").first()
    if approval is None:
        return None
    vars(step)["_approved"] = approval.arguments
    if not approval.may_start:
        return None
    tool, refusal = _permitted(run, steps, step, rules)
    if tool is None or refusal is not None:
        return None
    ask = partial(question_anew, run, step, tool, approval, approval.arguments)
    return looking_again.begin(lease, step, approval, tool, context(run, step), ask)


def _start(lease: Lease, run: Run, steps: list[Step], step: Step, rules: Policy) -> Started | None:
    """Record START on exactly the authorised bytes; None when the call may not run now.

    Tool, offer and policy are looked at again: they may have changed while a person decided.
    """
    tool, refusal = _permitted(run, steps, step, rules)
    if tool is None or refusal is not None:
        actions.refuse_call(lease, step.seq, refusal or _unknown(step.name, run.frozen))
        return None
    verdict = verdict_on(run, step, tool, rules)
    arguments = actions.start_call(lease, step.seq, tool_version=tool.version, verdict=verdict)
    return None if arguments is None else Started(step, tool, arguments, context(run, step))


def recover(lease: Lease, run: Run, steps: list[Step], seqs: Sequence[int]) -> Act | None:
    """Their worker died after START. Reads, and effects that take the same key twice, are run again.

    Tools with a probe are asked what became of their calls, which is the act; None when there is none.
    """
    probes = []
    for step in (steps[seq - 1] for seq in seqs):
        tool = registry.find(step.name)
        if tool is not None and tool.idempotency == "reconcile":
            probes.append(reconciling.Lost(step, tool, reconciling.arguments_of(step), context(run, step)))
            continue
        repeatable = tool is not None and (tool.effect == "read" or tool.idempotency == "key")
        actions.recover_call(lease, step.seq, repeatable=repeatable)
    return partial(reconciling.after_loss, lease, probes) if probes else None


def _permitted(run: Run, steps: list[Step], step: Step, rules: Policy) -> tuple[Tool | None, Refusal | None]:
    """The tool of this call, and why it may never run (None: it may, or a person is asked)."""
    configuration = run.frozen
    tool = registry.find(step.name)
    offered = {definition["name"] for definition in configuration["tools"]}
    if tool is None or step.name not in offered:
        return None, _unknown(step.name, configuration)
    limit = configuration["limits"]["tool_calls"]
    if run.tool_calls > limit and _number(steps, step) > limit:
        return tool, Refusal("limit", f"The limit of {limit} tool calls is reached. It did not run.")
    if sentence := _used_up(run, steps, step):
        return tool, Refusal("limit", sentence)
    if tool.effect == "read":  # the boundary explains wrong arguments, and a newer version only reads, too
        return tool, _denied(verdict_on(run, step, tool, rules), step)
    arguments = json.loads(_arguments(step))
    if problem := boundary.invalid_arguments(tool, arguments):
        return tool, Refusal("invalid_argument", f"{problem} It did not run.")
    if tool.version != step.tool_version or tool.effect != step.effect:
        return tool, Refusal("changed", "The tool changed since this call was proposed. It did not run.")
    return tool, _denied(verdict_on(run, step, tool, rules), step)


def _denied(verdict: Verdict, step: Step) -> Refusal | None:
    if verdict.kind != "deny":
        return None
    changed = "" if step.status == StepStatus.PROPOSED else "The rules changed since it was allowed. "
    return Refusal("denied", f"{changed}{verdict.reason} It did not run.", verdict)


def _number(steps: list[Step], step: Step) -> int:
    """Which tool call of the run this is, from 1."""
    return sum(1 for other in steps if other.kind == StepKind.TOOL and other.seq <= step.seq)


def _used_up(run: Run, steps: list[Step], step: Step) -> str:
    """Why this tool may not be called again in this run, or "". Calls that were refused do not count."""
    limit = run.frozen["limits"].get("calls_per_tool", {}).get(step.name)
    if limit is None:
        return ""
    same = [s for s in steps[run.copied_steps :] if s.kind == StepKind.TOOL and s.name == step.name]
    made = sum(1 for other in same if other.seq < step.seq and other.status != StepStatus.REFUSED)
    if made < limit:
        return ""
    return (
        f"{step.name} was called {made} times, which is its limit in this run. It did not run. "
        "Go on with what you have, or use another tool."
    )


def verdict_on(run: Run, step: Step, tool: Tool, rules: Policy) -> Verdict:
    """What the rules in code and these say of this call, with the arguments that would run.

    It is asked for four times in one transaction, and stays the same while all of that does.
    """
    arguments = _arguments(step)
    kept: tuple[Policy, Tool, str, Verdict] | None = vars(step).get("_verdict")
    if kept is not None and kept[0] is rules and kept[1] is tool and kept[2] == arguments:
        return kept[3]
    verdict = _verdict(run, tool, arguments, rules)
    vars(step)["_verdict"] = rules, tool, arguments, verdict
    return verdict


def _verdict(run: Run, tool: Tool, arguments: str, rules: Policy) -> Verdict:
    return policy.decide(tool, json.loads(arguments), run.agent, run.frozen["environment"], rules)


def _arguments(step: Step) -> str:
    """The arguments that would run: those that people approved, who may have changed them."""
    return vars(step).get("_approved") or step.arguments


def context(run: Run, step: Step) -> ToolContext:
    """What a tool is told about where it runs. The key stays the same for every attempt of one call."""
    configuration = run.frozen
    return ToolContext(
        environment=configuration["environment"],
        world=configuration["world"],
        idempotency_key=f"call-{run.request_id}-{step.seq}",
        evidence_id=step.evidence_id,
    )


def _unknown(name: str, configuration: dict[str, Any]) -> Refusal:
    offered = ", ".join(definition["name"] for definition in configuration["tools"])
    return Refusal("unknown_tool", f"There is no tool {name!r}. It did not run. Available: {offered}.")
