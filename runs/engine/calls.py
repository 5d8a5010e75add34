"""Tool calls of a run: ask policy, ask a person, run, record."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from django.db import connections

from runs import actions, pool
from runs.actions import Lease, Question, Refusal, Result
from runs.models import Run, Step, StepKind
from tools import boundary, policy, registry
from tools.base import Outcome, Tool, ToolContext

READ_THREADS = 8  # reads of one turn that are under way at once

# What a dry run may find wrong that the model can put right by itself: no person is asked about it.
CORRECTABLE = frozenset(
    {
        "invalid_argument",
        "unknown_service",
        "unknown_metric",
        "stale_precondition",
        "conflict",
        "forbidden",
    }
)


def authorize(lease: Lease, run: Run, steps: list[Step], step: Step) -> None:
    """Let a proposed call run, refuse it, or put it before a person with a preview of what it would do.

    The preview reads production, so it is made before the transaction that stores it.
    """
    tool, refusal = _permitted(run, steps, step)
    if tool is None or refusal is not None:
        actions.refuse_call(lease, step.seq, refusal or _unknown(step.name, run.frozen))
        return
    arguments = json.loads(step.arguments)
    verdict = _verdict(tool, arguments, run)
    if verdict.kind == "allow":
        actions.allow_call(lease, step.seq, rule=verdict.rule)
        return
    pool.give_back()
    preview = boundary.preview(tool, arguments, context(run, step))
    if preview.get("problem_kind") in CORRECTABLE:
        refusal = Refusal(preview["problem_kind"], f"{preview['problem']} It did not run.")
        actions.refuse_call(lease, step.seq, refusal)
        return
    question = Question(
        arguments=actions.canonical(arguments),
        environment=run.frozen["environment"],
        rule=verdict.rule,
        rule_reason=verdict.reason,
        quorum=verdict.quorum,
        decide_within_seconds=verdict.decide_within_seconds,
        execute_within_seconds=verdict.execute_within_seconds,
        preview=preview,
    )
    actions.ask_approval(lease, step.seq, question)


def run_tools(lease: Lease, run: Run, steps: list[Step], seqs: Sequence[int]) -> None:
    """Run these authorised calls and record each result: reads at once, effects after them, one by one.

    All starts of the reads are committed in the order of the model before the first of them runs; results
    are recorded in the order in which they come. Raises LeaseLost as soon as a row shows that somebody
    else drives the run: what still runs is left alone, what has not begun never does.
    """
    chosen = [next(step for step in steps if step.seq == seq) for seq in seqs]
    reads = [step for step in chosen if step.effect == "read"]
    started = [begun for step in reads if (begun := _start(lease, run, steps, step)) is not None]
    _run_reads(lease, started)
    for step in chosen:
        if step.effect != "read" and (begun := _start(lease, run, steps, step)) is not None:
            _record(lease, begun, _ask(begun))


@dataclass(frozen=True)
class _Started:
    """A call whose START marker is committed: from here on only its outcome is missing."""

    step: Step
    tool: Tool
    arguments: str
    context: ToolContext


def _start(lease: Lease, run: Run, steps: list[Step], step: Step) -> _Started | None:
    """Commit START on exactly the authorised bytes; None when the call may not run and is settled.

    Tool, offer and policy are looked at again: they may have changed while a person decided.
    """
    tool, refusal = _permitted(run, steps, step)
    if tool is None or refusal is not None:
        actions.refuse_call(lease, step.seq, refusal or _unknown(step.name, run.frozen))
        return None
    arguments = actions.start_call(lease, step.seq, tool_version=tool.version)
    return None if arguments is None else _Started(step, tool, arguments, context(run, step))


def _run_reads(lease: Lease, calls: list[_Started]) -> None:
    """Run started reads side by side; this thread records what comes back, as soon as it does.

    The threads are daemons and end with their calls, each of which ends by its tool's deadline.
    """
    if len(calls) <= 1:
        for call in calls:
            _record(lease, call, _ask(call))
        return
    waiting: SimpleQueue[_Started] = SimpleQueue()
    done: SimpleQueue[tuple[_Started, Outcome | BaseException]] = SimpleQueue()
    given_up = threading.Event()
    pool.give_back()
    for call in calls:
        waiting.put(call)
    for _ in range(min(READ_THREADS, len(calls))):
        threading.Thread(target=_work, args=(waiting, done, given_up), name="read", daemon=True).start()
    try:
        for _ in calls:
            call, outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            _record(lease, call, outcome)
    finally:
        given_up.set()


def _work(
    waiting: SimpleQueue[_Started],
    done: SimpleQueue[tuple[_Started, Outcome | BaseException]],
    given_up: threading.Event,
) -> None:
    """Ask one waiting call after the other, until there is none or nobody wants to know."""
    try:
        while not given_up.is_set():
            call = waiting.get_nowait()
            try:
                done.put((call, _ask(call)))
            except BaseException as error:  # whoever waits for this call must not wait for ever
                done.put((call, error))
    except Empty:
        return
    finally:
        connections.close_all()


def _ask(call: _Started) -> Outcome:
    pool.give_back()
    return boundary.call(call.tool, json.loads(call.arguments), call.context)


def _record(lease: Lease, call: _Started, outcome: Outcome) -> None:
    step, tool = call.step, call.tool
    # An earlier attempt may have acted, too: an error now does not say that nothing happened.
    uncertain = outcome.may_have_acted or (step.attempt > 1 and outcome.is_error and tool.effect != "read")
    if uncertain and tool.idempotency == "key":
        # Asked again with the same key, it answers what happened instead of doing it twice.
        actions.recover_call(lease, step.seq, repeatable=True)
        return
    result = Result(
        outcome.text,
        outcome.is_error,
        outcome.summary,
        outcome.error_kind,
        is_unknown=uncertain,
    )
    actions.finish_call(lease, step.seq, result)


def recover(lease: Lease, step: Step) -> None:
    """Its worker died after START. Reads, and effects that take the same key twice, are run again."""
    tool = registry.find(step.name)
    repeatable = tool is not None and (tool.effect == "read" or tool.idempotency == "key")
    actions.recover_call(lease, step.seq, repeatable=repeatable)


def _permitted(run: Run, steps: list[Step], step: Step) -> tuple[Tool | None, Refusal | None]:
    """The tool of this call, and why it may never run (None: it may, or a person is asked)."""
    configuration = run.frozen
    tool = registry.find(step.name)
    offered = {definition["name"] for definition in configuration["tools"]}
    if tool is None or step.name not in offered:
        return None, _unknown(step.name, configuration)
    limit = configuration["limits"]["tool_calls"]
    if sum(1 for other in steps if other.kind == StepKind.TOOL and other.seq <= step.seq) > limit:
        return tool, Refusal("limit", f"The limit of {limit} tool calls is reached. It did not run.")
    if tool.effect == "read":
        return tool, None  # the boundary explains wrong arguments, and a newer version only reads, too
    if problem := boundary.invalid_arguments(tool, json.loads(step.arguments)):
        return tool, Refusal("invalid_argument", f"{problem} It did not run.")
    if tool.version != step.tool_version or tool.effect != step.effect:
        return tool, Refusal("changed", "The tool changed since this call was proposed. It did not run.")
    verdict = _verdict(tool, json.loads(step.arguments), run)
    if verdict.kind == "deny":
        return tool, Refusal("denied", f"{verdict.reason} It did not run.")
    return tool, None


def _verdict(tool: Tool, arguments: dict[str, Any], run: Run) -> policy.Verdict:
    return policy.decide(tool, arguments, run.agent, run.frozen["environment"])


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
