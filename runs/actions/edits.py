"""Edits: a person changes the arguments of a call that waits, and the next revision is put before people.

What is asked for is stored at once. The dry run and the verdict of policy are an act of the driver; only then
is the revision before replaced, with its votes, or left as it is with a sentence for whoever asked.
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User

from runs.actions.approvals import (
    BEFORE_START,
    call_of,
    check_may_decide,
    close_question,
    expire,
    run_of,
    stored_reason,
    why_not_eligible,
    why_void,
    withdraw,
)
from runs.actions.calls import Question, put_question
from runs.actions.change import Change, Lease, change
from runs.actions.clocks import end_waiting
from runs.actions.errors import ActionError, ApprovalExpired, BeingChanged, InvalidEdit
from runs.actions.proving import why_not_as_asked, why_not_edited, why_unproven
from runs.actions.revising import canonical, differences
from runs.actions.settling import contradict, contradiction, settle_refused
from runs.models import Approval, ApprovalState, Edit, EditState, Origin, Run, RunStatus, Step, StepStatus
from tools import boundary, registry

MAX_ARGUMENTS = 10_000  # characters of canonical JSON
UNREADABLE = "These arguments cannot be written as JSON. Send one object of plain values."
SETTLED_EDIT = ["state", "answer", "answered_at"]


def ask_edit(
    *, approval_id: int, editor: User, arguments: Any, reason: str = "", revision: int, digest: str
) -> Edit:
    """Record what this person wants to run instead; a worker makes the dry run and asks about it.

    Raises MayNotDecide, InvalidEdit with what is wrong with the arguments, DigestMismatch, ApprovalExpired,
    AlreadyDecided, BeingChanged, and ActionError with a sentence; nothing is written then, except that an
    approval found past its deadline is marked expired.
    """
    run_id = run_of(approval_id)
    check_may_decide(editor)
    refused: ActionError | None = None
    edit = None
    with change(run_id, actor=editor.get_username()) as current:
        approval = Approval.objects.select_for_update().get(pk=approval_id)
        step = call_of(approval, current)
        if approval.is_open and approval.has_expired(current.now):
            expire(current, approval)
            refused = ApprovalExpired(
                "The deadline has passed. The call did not run; nothing was changed.", approval
            )
        else:
            refused = (
                why_not_eligible(current, approval, editor)
                or why_void(approval, revision, digest)
                or _why_not(current.run, step, approval, arguments)
            )
        if refused is None:
            edit = _store(current, step, approval, editor, canonical(arguments), reason)
    if edit is None:
        assert refused is not None
        raise refused
    return edit


def unchecked_edits(run: Run) -> list[Edit]:
    """Edits of this run that wait for their dry run, in the order of asking."""
    open_ones = run.edits.filter(state=EditState.ASKED)
    return list(open_ones.select_related("approval__step", "by").order_by("pk"))


def open_revision(lease: Lease, edit: Edit, question: Question, *, summary: str) -> None:
    """The edit passed its dry run: it is the next revision, and the one before is replaced.

    Nothing happens when a decision or the deadline was faster.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        approval = _still_wanted(current, edit)
        if approval is None:
            return
        if unproven := why_not_as_asked(current, approval) or why_not_edited(current, edit):
            withdraw(current, approval, contradiction(unproven))
            return
        name = edit.by.get_username()
        _answer(current, edit, EditState.OPENED, "")
        approval.ended_at, approval.ended_by, approval.ended_why = current.now, name, edit.reason
        close_question(current, approval, ApprovalState.SUPERSEDED, edit=edit.pk)
        step = call_of(approval, current)
        step.summary = summary[:300]
        current.update(step, ["summary"])
        put_question(
            current,
            step,
            question,
            revision=approval.revision + 1,
            origin=Origin.EDITED,
            edited_by=edit.by,
            differences=differences(json.loads(approval.arguments), json.loads(question.arguments)),
        )


def deny_edit(lease: Lease, edit: Edit, why: str) -> None:
    """What the person wanted cannot be asked: they are told why, and the earlier revision stays pending."""
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        if _still_wanted(current, edit) is not None:
            _answer(current, edit, EditState.DENIED, why)


def forget_edits(lease: Lease) -> None:
    """There is no edit to be checked, whatever the run says."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        current.set(unchecked_edits=0)


def _why_not(run: Run, step: Step, approval: Approval, arguments: Any) -> ActionError | None:
    """Why these arguments cannot be asked for now; what only a dry run can know is found out later."""
    earlier = approval.edits.select_related("by").filter(state=EditState.ASKED).first()
    if earlier is not None:
        name, when = earlier.by.get_username(), f"{earlier.at:%H:%M:%S}"
        return BeingChanged(
            f"{name} asked to change this call at {when} UTC. Yours was not recorded.", approval
        )
    if run.status == RunStatus.PAUSED:
        return ActionError(
            "The run is paused, so nobody would make the dry run. Resume it, then change the call."
        )
    tool = registry.find(step.name)
    if tool is None or tool.version != step.tool_version:
        return InvalidEdit(f"{step.name} is another version now, so this call cannot run. Reject it.")
    try:
        text = canonical(arguments)
    except (TypeError, ValueError, RecursionError):
        return InvalidEdit(UNREADABLE)
    if len(text) > MAX_ARGUMENTS:
        return InvalidEdit(
            f"The arguments have {len(text):,} characters; at most {MAX_ARGUMENTS:,} are taken. Shorten them."
        )
    if problem := boundary.invalid_arguments(tool, arguments):
        return InvalidEdit(problem)
    if text == approval.arguments:
        return InvalidEdit("Nothing is different from what is asked already. Change a value, or approve it.")
    return None


def _store(
    current: Change, step: Step, approval: Approval, editor: User, arguments: str, reason: str
) -> Edit:
    reason = stored_reason(reason)
    edit = Edit.objects.create(
        run=current.run, approval=approval, arguments=arguments, reason=reason, by=editor, at=current.now
    )
    current.event(
        "approval.edit_asked",
        step=step.seq,
        approval=approval.pk,
        edit=edit.pk,
        editor=editor.pk,
        arguments=arguments,
        reason=reason,
    )
    current.add(unchecked_edits=1)
    if current.run.status == RunStatus.WAITING:
        end_waiting(current)
        current.set(status=RunStatus.QUEUED, reason="", explanation="")
    return edit


def _still_wanted(current: Change, edit: Edit) -> Approval | None:
    """The approval this edit is about, locked, while it can still be changed."""
    now = Edit.objects.select_for_update().get(pk=edit.pk)
    approval = Approval.objects.select_for_update().get(pk=edit.approval_id)
    if now.state != EditState.ASKED:
        return None
    if approval.has_expired(current.now):
        expire(current, approval)
        return None
    return approval


def _answer(current: Change, edit: Edit, state: EditState, answer: str) -> None:
    edit.state, edit.answer, edit.answered_at = state, answer, current.now
    edit.save(update_fields=SETTLED_EDIT)
    current.set(unchecked_edits=max(0, current.run.unchecked_edits - 1))
    seq = edit.approval.step.seq
    current.event(
        f"approval.edit_{state}",
        step=seq,
        approval=edit.approval_id,
        edit=edit.pk,
        editor=edit.by_id,
        why=answer,
    )


def ask_again(lease: Lease, seq: int, question: Question, changed: list[dict[str, str]]) -> None:
    """What people saw is no longer so: their approval is void, and they are asked about what is so now."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = current.step(seq)
        approval = step.approvals.select_for_update().order_by("-revision").first()
        if step.status != StepStatus.READY or approval is None or not approval.may_start:
            return
        if unproven := why_unproven(current, step, approval):
            problem = contradiction(unproven)
            contradict(current, approval, problem.message)
            settle_refused(current, step, problem)
            return
        approval.ended_at, approval.ended_by = current.now, BEFORE_START
        approval.ended_why = _sentence(changed)
        approval.state = ApprovalState.INVALIDATED
        approval.save(update_fields=["state", "ended_at", "ended_by", "ended_why"])
        current.event("approval.invalidated", step=seq, approval=approval.pk, reason="drift", changed=changed)
        step.status = StepStatus.WAITING
        current.update(step, ["status"])
        put_question(
            current,
            step,
            question,
            revision=approval.revision + 1,
            origin=Origin.DRIFTED,
            edited_by=approval.edited_by,
            differences=changed,
        )


def _sentence(changed: list[dict[str, str]]) -> str:
    """What changed since it was approved, in one sentence."""
    parts = [f"{one['what']} was {one['was']}, is now {one['now']}" for one in changed]
    return f"Changed since it was approved: {'; '.join(parts)}."
