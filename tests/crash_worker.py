"""Plays cases of the crash matrix: real processes that drive a run and die by SIGKILL at a chosen point.

`main` reads cases as JSON lines and writes what came of each. The processes of a case are forked after
Django is set up, which takes milliseconds instead of a second. They share nothing but the files of their
installation: whoever comes next knows of the dead one what a worker on a fresh machine would know.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone

from runs import actions
from runs.actions.change import Change
from runs.agents import Agent
from runs.claude.simulator import handler
from runs.claude.simulator.answer import Answer, Call
from runs.engine import model
from runs.engine.drive import drive
from runs.models import Approval, ApprovalState, Charge, Run, RunStatus, Step, StepKind, StepStatus
from tests.factories import contradictions_beside_deadlines
from tools import threads
from tools.base import (
    CannotTell,
    DidNotHappen,
    Effect,
    Finding,
    Happened,
    Idempotency,
    Result,
    Tool,
    ToolContext,
    ToolError,
    tool,
)
from tools.registry import TOOLS

SIBLING = "look"  # a read that the model asks for in the same turn
MOST_ROUNDS = 30


@dataclass(frozen=True)
class Death:
    """Where a process ends. `uncommitted`: all rows written, before COMMIT. `committed`: right after it.

    For the tool itself: `before` or `after` its effect. `nth` counts from 1 within the process.
    """

    action: str
    phase: str
    nth: int = 1


@dataclass(frozen=True)
class Case:
    """One run and the deaths of the processes that drive it, in order; the last process lives.

    `person` is what happens to an approval: approve, reject, expire; or approve and then late (not started
    in time), changed (another version of the tool), tampered (other arguments in the row), revoke (taken
    back), drift (what they saw is no longer so: they approve again); or edit and then approve. Or to the run:
    pause (at first), cancel (instead of deciding), cancel_started (once the call has started).
    `faults` are the simulator's, and only the first process meets them.
    """

    name: str
    tool: str
    deaths: tuple[Death, ...]
    mode: str = "fine"
    person: str = "approve"
    faults: str = ""

    @staticmethod
    def read(line: str) -> Case:
        """A case from its JSON."""
        data = json.loads(line)
        return Case(**(data | {"deaths": tuple(Death(**death) for death in data["deaths"])}))


@dataclass
class Stage:
    """What the processes of the present case know; forked with them."""

    folder: Path = Path()
    death: Death | None = None
    reached: int = 0
    dying: bool = False
    run_id: int = 0


stage = Stage()


def die() -> None:
    """End this process as the kernel does when it is out of memory: no handler, no finally, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def is_here(action: str, *phases: str) -> bool:
    """Whether this is the action, and the n-th time of it, at which the process ends."""
    death = stage.death
    if death is None or death.action != action or (phases and death.phase not in phases):
        return False
    stage.reached += 1
    return stage.reached == death.nth


# Tools of each class. What they do is a line with their key in a file.


def toy(name: str, effect: Effect, idempotency: Idempotency) -> Tool:
    """A tool of this class; one with a key looks whether it has been done already, one with a probe can.

    In the mode "blind" the probe cannot tell.
    """

    def act(context: ToolContext, *, mode: str) -> Result:
        key = context.idempotency_key
        append("starts", f"{name} {key}")
        if mode == "refuse":
            raise ToolError("conflict", "It cannot be done now. Nothing was done.")
        if name != SIBLING and is_here("tool", "before"):
            die()
        if idempotency == "key" and f"{name} {key}" in lines("effects"):
            return Result(summary="It was done already.", data={})
        append("effects", f"{name} {key}")
        if name != SIBLING and is_here("tool", "after"):
            die()
        if mode == "lose":
            raise RuntimeError("the connection broke after the effect")
        return Result(summary="Done.", data={"key": key})

    def probe(context: ToolContext, *, mode: str) -> Finding:
        if mode == "blind":
            return CannotTell("It cannot be seen.")
        if f"{name} {context.idempotency_key}" in lines("effects"):
            return Happened(Result(summary="It is there.", data={}))
        return DidNotHappen("It is not there.")

    def seen(context: ToolContext, *, mode: str) -> dict[str, Any]:
        return {"headline": f"Do {name}", "basis": {"drifts": len(lines("drift"))}}

    act.__name__ = name
    act.__doc__ = f"Do {name} once."
    build = tool(
        effect=effect,
        idempotency=idempotency,
        describe=lambda _: f"Do {name}",
        dry_run=seen if effect == "destructive" else None,
        probe=probe if idempotency == "reconcile" else None,
    )
    return build(act)


def append(kind: str, line: str) -> None:
    """One line, in one write, at the end of a file of this case."""
    handle = os.open(stage.folder / kind, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def lines(kind: str) -> list[str]:
    """The lines of a file of this case; none when it does not exist."""
    path = stage.folder / kind
    return path.read_text().splitlines() if path.exists() else []


TOYS = (
    toy(SIBLING, "read", "none"),
    toy("read", "read", "none"),
    toy("write_with_key", "write", "key"),
    toy("write_with_probe", "write", "reconcile"),
    toy("write_without_key", "write", "none"),
    toy("destroy_with_key", "destructive", "key"),
    toy("destroy_with_probe", "destructive", "reconcile"),
    toy("destroy_without_key", "destructive", "none"),
)
AGENTS = [
    Agent(
        name="toy",
        description="Calls what it is told to call.",
        instructions="Call the tool you are told to call, then say that it is done.",
        tools=tuple(item.name for item in TOYS),
    )
]


def scripted(body: dict[str, Any]) -> Answer:
    """The model: calls the tool of the question and the sibling, then says that it is done."""
    append("requests", json.dumps(body))
    conversation = body["messages"]
    if any(block["type"] == "tool_result" for said in conversation for block in said["content"]):
        return Answer("I have the results.", text="It is done.")
    asked = json.loads(conversation[0]["content"][0]["text"])
    arguments = {} if asked["mode"] == "invalid" else {"mode": asked["mode"]}
    return Answer(
        "I was told what to call.", calls=(Call(asked["tool"], arguments), Call(SIBLING, {"mode": "fine"}))
    )


# The processes.


def main() -> None:
    """Play the cases that come in, one line each; write one line of JSON for each."""
    settings.AGENTS = f"{__name__}.AGENTS"
    TOOLS.update({item.name: item for item in TOYS})
    handler.think = scripted  # type: ignore[attr-defined]
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("olga")
    rehearse()
    for number, line in enumerate(sys.stdin):
        case = Case.read(line)
        begin(case, f"case-{number}")
        print(json.dumps(play(case)), flush=True)


def begin(case: Case, folder: str) -> None:
    """Store the run of this case, with a folder for what its tools do."""
    stage.folder = Path(settings.DATA_DIR) / folder
    stage.folder.mkdir()
    question = json.dumps({"tool": case.tool, "mode": case.mode})
    stage.run_id = actions.start_run(question=question, agent="toy", user=None, started_by="test").pk


def rehearse() -> None:
    """Live through one run here, so that the processes inherit what is imported and built on first use."""
    case = Case("rehearsal", "destroy_with_key", ())
    begin(case, case.name)
    live(case, None, 0)
    model.disconnect()
    threads.end(10)
    connections.close_all()
    gc.collect()
    gc.freeze()  # collecting in a child would copy the memory that it shares


def play(case: Case) -> dict[str, Any]:
    """Run the processes of this case one after another; returns what each left behind."""
    problems, after_death = [], []
    for number, death in enumerate((*case.deaths, None)):
        status = in_a_process(partial(live, case, death, number))
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if died != (death is not None):
            problems.append(f"process {number + 1} ended with status {status}, its death was {death}")
        after_death.append(rows(case))
        # Its lease would run out; nobody waits for that here.
        past = timezone.now() - timedelta(seconds=1)
        Run.objects.filter(pk=stage.run_id, status=RunStatus.RUNNING).update(lease_until=past)
    return {
        "name": case.name,
        "problems": problems,
        "after_death": after_death[:-1],
        "end": after_death[-1],
        "starts": [line for line in lines("starts") if line.split()[0] == case.tool],
        "requests": [json.loads(line) for line in lines("requests")],
        "attempts": list(
            Step.objects.filter(run_id=stage.run_id, kind=StepKind.MODEL)
            .order_by("seq")
            .values("seq", "status", "error_kind", "request_sha256")
        ),
    }


def in_a_process(work: Callable[[], None]) -> int:
    """Do this in a process of its own; its wait status. It inherits no connection."""
    connections.close_all()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def rows(case: Case) -> dict[str, Any]:
    """What the tables and the file say now."""
    run = Run.objects.get(pk=stage.run_id)
    call = Step.objects.filter(run=run, name=case.tool).first()
    approval = Approval.objects.filter(run=run).order_by("-revision").first()
    attempts = list(Step.objects.filter(run=run, kind=StepKind.MODEL).order_by("seq"))
    return {
        "run": run.status,
        "reason": run.reason,
        "call": call.status if call else "",
        "attempt": attempts[-1].status if attempts else "",
        "attempts": len(attempts),
        "approval": approval.state if approval else "",
        "redeemed": bool(approval and approval.redeemed_at),
        "effects": sum(line.split()[0] == case.tool for line in lines("effects")),
        "contradictions": contradictions_beside_deadlines(run),
    }


def live(case: Case, death: Death | None, number: int) -> None:
    """Drive the run to its end and decide what waits, unless death comes first."""
    stage.death = death
    if death is not None:
        install(death)
    settings.AGENTOPS_SIMULATOR_FAULTS = case.faults if number == 0 else ""
    if case.person == "pause" and number == 0:
        actions.pause_run(run_id=stage.run_id, actor="olga")
    for _ in range(MOST_ROUNDS):
        spoil(case)
        lease = actions.claim(stage.run_id, f"worker-{os.getpid()}")
        if lease is not None:
            drive(lease, lambda: death is not None and death.action == "hand_back")
        run = Run.objects.get(pk=stage.run_id)
        if run.is_ended:
            return
        if run.status == RunStatus.PAUSED:
            actions.resume_run(run_id=run.pk, actor="olga")
        elif run.retry_at is not None:
            skip_the_wait(run)
        for approval in Approval.objects.filter(run=run, state=ApprovalState.PENDING):
            settle(case, approval)
    raise AssertionError(f"the run never ends: {run.status} {run.reason}")


def skip_the_wait(run: Run) -> None:
    """The time until the retry is over, and that of a call that was cut off; nothing else changes."""
    earlier = timezone.now() - timedelta(hours=1)
    Step.objects.filter(run=run, status=StepStatus.EXECUTING).update(begun_at=earlier)
    Step.objects.filter(run=run, status=StepStatus.FAILED).update(ended_at=earlier)
    Charge.objects.filter(run=run, failed=True).update(at=earlier)
    Run.objects.filter(pk=run.pk).update(retry_at=earlier)


def settle(case: Case, approval: Approval) -> None:
    """What the person does, or the deadline."""
    if case.person == "cancel":
        actions.cancel_run(run_id=approval.run_id, actor="olga")
        return
    if case.person == "expire":
        Approval.objects.filter(pk=approval.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        actions.expire_approvals(timezone.now())
        return
    if case.person == "edit" and approval.revision == 1:
        if not approval.edits.exists():
            actions.ask_edit(
                approval_id=approval.pk,
                editor=User.objects.get(username="olga"),
                arguments={"mode": "as olga wants it"},
                revision=1,
                digest=approval.digest,
            )
        return
    actions.decide(
        approval_id=approval.pk,
        voter=User.objects.get(username="olga"),
        verdict="reject" if case.person == "reject" else "approve",
        revision=approval.revision,
        digest=approval.digest,
    )


def spoil(case: Case) -> None:
    """Between the decision and the start, or between the start and the next worker, something changes."""
    started = Step.objects.filter(run_id=stage.run_id, name=case.tool, status=StepStatus.EXECUTING)
    if case.person == "cancel_started" and started.exists():
        actions.cancel_run(run_id=stage.run_id, actor="olga")
    approved = Approval.objects.filter(run_id=stage.run_id, state=ApprovalState.APPROVED, redeemed_at=None)
    if not approved.exists():
        return
    if case.person == "late":
        approved.update(execute_by=timezone.now() - timedelta(seconds=1))
    elif case.person == "drift" and not lines("drift"):
        append("drift", "somebody else was here")
    elif case.person == "revoke":
        approval = approved.get()
        actions.revoke(
            approval_id=approval.pk,
            reviewer=User.objects.get(username="olga"),
            revision=approval.revision,
            digest=approval.digest,
        )
    elif case.person == "tampered":
        approved.update(arguments='{"mode":"else"}')
    elif case.person == "changed":
        TOOLS[case.tool] = replace(TOOLS[case.tool], version="another")


def install(death: Death) -> None:
    """Put the kill switch into the action, and into the end of its transaction."""
    original: Callable[..., Any] | None = getattr(actions, death.action, None)
    if original is None:
        assert death.action == "tool", f"there is no action {death.action}"
        return
    save = Change.save

    def switched(*arguments: Any, **named: Any) -> Any:
        if is_of_the_sibling(arguments) or not is_here(death.action):
            return original(*arguments, **named)
        stage.dying = death.phase == "uncommitted"
        answer = original(*arguments, **named)
        if death.phase == "committed":
            transaction.on_commit(die)  # at once, unless a driver records more in the same transaction
        return answer

    def saved(change: Change) -> None:
        save(change)
        if stage.dying:
            die()

    setattr(actions, death.action, switched)
    Change.save = saved  # type: ignore[method-assign, assignment]


def is_of_the_sibling(arguments: tuple[Any, ...]) -> bool:
    """Whether this action is about the other call of the turn."""
    if len(arguments) < 2 or not isinstance(arguments[1], int):
        return False
    return Step.objects.filter(run_id=stage.run_id, seq=arguments[1], name=SIBLING).exists()
