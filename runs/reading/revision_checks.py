"""What must hold among the revisions of a call, its edits and its start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from runs.models import Approval, ApprovalState, EditState, Origin, Run, Verdict

VOID = frozenset({ApprovalState.SUPERSEDED, ApprovalState.INVALIDATED})


def revisions_fit(run: Run, approvals: Sequence[Approval]) -> Iterator[str]:
    """Every contradiction among the approvals of a run, given in the order in which they were asked."""
    by_call: dict[int, list[Approval]] = defaultdict(list)
    for approval in approvals:
        by_call[approval.step_id].append(approval)
    for revisions in by_call.values():
        yield from _in_order(revisions)
        for approval in revisions:
            yield from _ended_well(approval)
    yield from _edits_fit(run)


def _in_order(revisions: list[Approval]) -> Iterator[str]:
    seq = revisions[0].step.seq
    numbers = [approval.revision for approval in revisions]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the revisions of call {seq} are numbered {numbers}"
    for approval, following in pairwise(revisions):
        if approval.state not in VOID:
            yield f"revision {approval.revision} of call {seq} is {approval.state}, but another one was asked"
        if (following.origin == Origin.EDITED) != (approval.state == ApprovalState.SUPERSEDED):
            yield f"revision {approval.revision} of call {seq}: {approval.state}, the next {following.origin}"
    if revisions[-1].state == ApprovalState.SUPERSEDED:
        yield f"revision {revisions[-1].revision} of call {seq} was replaced by nothing"


def _ended_well(approval: Approval) -> Iterator[str]:
    seq = approval.step.seq
    if approval.redeemed_at is not None and approval.state != ApprovalState.APPROVED:
        yield f"call {seq} started, and its approval is {approval.state}"
    if approval.redeemed_at and approval.not_before and approval.redeemed_at < approval.not_before:
        yield f"call {seq} started at {approval.redeemed_at}, before {approval.not_before}"
    yes = [vote for vote in approval.votes.all() if vote.verdict == Verdict.APPROVE]
    needs_others = approval.quorum > 1 or not approval.self_approval
    if needs_others and any(vote.voter_id == approval.edited_by_id for vote in yes):
        yield f"approval {approval.pk} was approved by the person who changed it"


def _edits_fit(run: Run) -> Iterator[str]:
    edits = list(run.edits.select_related("approval"))
    waiting = [edit for edit in edits if edit.state == EditState.ASKED]
    if run.unchecked_edits != len(waiting):
        yield f"the run has {run.unchecked_edits} edits to check, there are {len(waiting)}"
    for edit in waiting:
        if not edit.approval.is_open:
            yield f"edit {edit.pk} waits, its approval is {edit.approval.state}"
    opened = {edit.approval_id for edit in edits if edit.state == EditState.OPENED}
    for edit in edits:
        if (edit.approval_id in opened) != (edit.approval.state == ApprovalState.SUPERSEDED):
            yield f"edit {edit.pk} is {edit.state}, its approval is {edit.approval.state}"
