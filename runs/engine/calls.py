"""Tool calls of a run: ask policy, ask a person, run, record."""

from __future__ import annotations

import json
from typing import Any

from runs import actions
from runs.actions import Lease, Question, Refusal, Result
from runs.models import Run, Step
from tools import boundary, policy, registry
from tools.base import Tool, ToolContext


def authorize(lease: Lease, run: Run, step: Step) -> None:
    """Let a proposed call run, refuse it, or put it before a person with a preview of what it would do.

    The preview reads production, so it is made before the transaction that stores it.
    """
    configuration = run.frozen
    tool = registry.find(step.name)
    refusal = _why_never(tool, step, configuration)
    if tool is None or refusal is not None:
        actions.refuse_call(lease, step.seq, refusal or _unknown(step.name, configuration))
        return
    arguments = json.loads(step.arguments)
    environment = configuration["environment"]
    verdict = policy.decide(tool, arguments, run.agent, environment)
    if verdict.kind == "deny":
        actions.refuse_call(lease, step.seq, Refusal("denied", f"{verdict.reason} It did not run."))
    elif verdict.kind == "allow":
        actions.allow_call(lease, step.seq, rule=verdict.rule)
    else:
        question = Question(
            arguments=actions.canonical(arguments),
            environment=environment,
            rule=verdict.rule,
            rule_reason=verdict.reason,
            quorum=verdict.quorum,
            decide_within_seconds=verdict.decide_within_seconds,
            execute_within_seconds=verdict.execute_within_seconds,
            preview=boundary.preview(tool, arguments, context(run, step)),
        )
        actions.ask_approval(lease, step.seq, question)


def run_tool(lease: Lease, run: Run, step: Step) -> None:
    """Commit START, run the tool on exactly the authorised bytes, record its result."""
    arguments = actions.start_call(lease, step.seq)
    if arguments is None:
        return
    tool = registry.TOOLS[step.name]
    outcome = boundary.call(tool, json.loads(arguments), context(run, step))
    result = Result(
        outcome.text,
        outcome.is_error,
        outcome.summary,
        outcome.error_kind,
        # A change that did not answer in time may still happen; a read that did not is just a failure.
        is_unknown=outcome.error_kind == "timeout" and tool.effect != "read",
    )
    actions.finish_call(lease, step.seq, result)


def recover(lease: Lease, step: Step) -> None:
    """Its worker died after START. Reads, and effects that take the same key twice, are run again."""
    tool = registry.find(step.name)
    repeatable = tool is not None and (tool.effect == "read" or tool.idempotency == "key")
    actions.recover_call(lease, step.seq, repeatable=repeatable)


def context(run: Run, step: Step) -> ToolContext:
    """What a tool is told about where it runs. The key stays the same for every attempt of one call."""
    configuration = run.frozen
    return ToolContext(
        environment=configuration["environment"],
        world=configuration["world"],
        idempotency_key=f"call-{run.request_id}-{step.seq}",
        evidence_id=step.evidence_id,
    )


def _why_never(tool: Tool | None, step: Step, configuration: dict[str, Any]) -> Refusal | None:
    offered = {definition["name"] for definition in configuration["tools"]}
    if tool is None or step.name not in offered:
        return _unknown(step.name, configuration)
    limit = configuration["limits"]["tool_calls"]
    if int(step.evidence_id.removeprefix("ev_")) > limit:
        return Refusal("limit", f"The limit of {limit} tool calls is reached. It did not run.")
    if tool.effect != "read" and (problem := boundary.invalid_arguments(tool, json.loads(step.arguments))):
        return Refusal("invalid_argument", f"{problem} It did not run.")
    if tool.version != step.tool_version:
        return Refusal("changed", "The tool changed since this call was proposed. It did not run.")
    return None


def _unknown(name: str, configuration: dict[str, Any]) -> Refusal:
    offered = ", ".join(definition["name"] for definition in configuration["tools"])
    return Refusal("unknown_tool", f"There is no tool {name!r}. It did not run. Available: {offered}.")
