"""A run that begins with the steps of another: a fork with a new instruction, or a follow-up question."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from runs.actions.change import Change, change
from runs.actions.controls import FOLLOW_UP, FORKED
from runs.actions.errors import ActionError
from runs.actions.outcomes import tell
from runs.actions.starting import checked_question
from runs.actions.tags import begin_with, tags_of
from runs.actions.turns import create_note
from runs.models import Run, Step, StepKind
from runs.models.outcome import untold
from runs.models.proof import sha256

SENT_TWICE = timedelta(minutes=1)


def fork_run(*, run_id: int, actor: str, user: User | None, step: int, instruction: str) -> Run:
    """A new run that shares everything up to this step, and goes on with another instruction.

    A tool call stands for its whole turn. Messages, arguments and results are copied exactly, so what the
    model has signed stays valid; they cost nothing a second time, and the new run has limits of its own.
    It works in the same world. Raises ActionError for a step that is not complete, InvalidQuestion.
    """
    text = checked_question(instruction, missing="Write what the agent should do differently from there.")
    with change(run_id, actor=actor) as current:
        steps = list(Step.objects.filter(run=current.run).order_by("seq"))
        return _branch(current, steps[: _cut(steps, step)], name=FORKED, text=text, user=user)


def ask_follow_up(*, run_id: int, actor: str, user: User | None, question: str) -> Run:
    """A new run that knows all of an ended one and is asked one more thing.

    Raises ActionError when the run has not ended or the model never answered, InvalidQuestion.
    """
    text = checked_question(question, missing="Write what you want to know about this run.")
    with change(run_id, actor=actor) as current:
        return follow_up(current, text, user)


def follow_up(current: Change, text: str, user: User | None) -> Run:
    """Inside a change of the run: the new run that is asked this. Raises what ask_follow_up raises."""
    if not current.run.is_ended:
        raise ActionError("This run has not ended yet. Ask when it has, or cancel it first.")
    steps = list(Step.objects.filter(run=current.run).order_by("seq"))
    turns = [step.seq for step in steps if step.is_replayed]
    if not turns:
        raise ActionError("The model never answered in this run. Retry it, or start a new one.")
    return _branch(current, steps[: _cut(steps, turns[-1])], name=FOLLOW_UP, text=text, user=user)


def _cut(steps: Sequence[Step], seq: int) -> int:
    """How many steps belong to the conversation up to and with this one."""
    if not 0 < seq <= len(steps):
        raise ActionError(f"There is no step {seq}. This run has {len(steps)}.")
    step = steps[seq - 1]
    turn = next((other for other in steps if other.pk == step.parent_id), step)
    last = max([turn.seq, *(call.seq for call in steps if call.parent_id == turn.pk)])
    is_open = any(before.kind == StepKind.TOOL and not before.is_settled for before in steps[:last])
    if is_open or not (turn.is_replayed or turn.kind == StepKind.NOTE):
        raise ActionError(
            f"Step {seq} is not complete. Choose a turn that has ended and whose calls have results."
        )
    return last


def _branch(current: Change, steps: Sequence[Step], *, name: str, text: str, user: User | None) -> Run:
    """Inside a change of the parent: the new run with copies of these steps and a note of what is asked.

    The same once more within a minute is a form that was sent twice: it gives that run back.
    """
    parent = current.run
    if (twin := _twin(current, len(steps), text)) is not None:
        return twin
    calls = sum(step.kind == StepKind.TOOL for step in steps)
    run = Run.objects.create(
        request_id=uuid.uuid4(),
        agent=parent.agent,
        model=parent.model,
        user_query=text,
        opening=parent.opening,
        config=parent.config,
        limits=_limits(parent, len(steps), calls),
        simulated=parent.simulated,
        created_by=user,
        started_by=current.actor,
        parent_run=parent,
        copied_steps=len(steps),
        step_count=len(steps),
        model_calls=sum(step.kind == StepKind.MODEL for step in steps),
        tool_calls=calls,
        created_at=timezone.now(),
    )
    branch = Change(run, current.actor, current.now)
    begin_with(branch, tags_of(parent))
    _copy(branch, steps)
    _record_start(branch, parent)
    found = untold(parent, [step.name for step in steps])
    tell(branch, [one for one in found if one.run_id != parent.pk or one.step.seq <= len(steps)], of=parent)
    note = create_note(branch, name=name, text=text, summary=text)
    branch.event("note.added", step=note.seq, name=name)
    branch.save()
    current.event(f"run.{name}", step=len(steps), run=str(run.request_id))
    return run


def _record_start(branch: Change, parent: Run) -> None:
    run = branch.run
    branch.event(
        "run.started",
        agent=run.agent,
        model=run.model,
        simulated=run.simulated,
        parent=str(parent.request_id),
        copied_steps=run.copied_steps,
        config_sha256=sha256(run.config),
        limits=json.loads(run.limits),
    )


def _limits(parent: Run, steps: int, calls: int) -> str:
    """What is copied does not count: the new run may use as much as any other."""
    limits = json.loads(parent.config)["limits"]
    return json.dumps({"steps": limits["steps"] + steps, "tool_calls": limits["tool_calls"] + calls})


def _twin(current: Change, copied_steps: int, text: str) -> Run | None:
    """The run that the same person has just branched off here with the same words."""
    since = current.now - SENT_TWICE
    same = current.run.forks.filter(user_query=text, copied_steps=copied_steps, created_at__gte=since)
    return same.filter(started_by=current.actor).first()


def _copy(branch: Change, steps: Sequence[Step]) -> None:
    """Rows of the new run with the exact texts of the old one; they took no time and cost nothing."""
    new: dict[int, Step] = {}
    for kinds in ({StepKind.MODEL, StepKind.NOTE}, {StepKind.TOOL}):  # a call needs its turn to have a key
        copies = {step.pk: _copied(branch, step, new) for step in steps if step.kind in kinds}
        Step.objects.bulk_create(copies.values())
        new |= copies


def _copied(branch: Change, step: Step, new: dict[int, Step]) -> Step:
    return Step(
        run=branch.run,
        seq=step.seq,
        parent=new[step.parent_id] if step.parent_id else None,
        kind=step.kind,
        status=step.status,
        name=step.name,
        summary=step.summary,
        attempt=step.attempt,
        started_at=branch.now,
        ended_at=branch.now,
        error_action=step.error_action,
        error_kind=step.error_kind,
        error=step.error,
        message=step.message,
        reasoning=step.reasoning,
        text=step.text,
        stop_reason=step.stop_reason,
        request_sha256=step.request_sha256,
        max_tokens=step.max_tokens,
        api_request_id=step.api_request_id,
        price_source="copied" if step.kind == StepKind.MODEL else "",
        tool_use_id=step.tool_use_id,
        arguments=step.arguments,
        result=step.result,
        is_error=step.is_error,
        effect=step.effect,
        tool_version=step.tool_version,
        evidence_id=step.evidence_id,
    )
