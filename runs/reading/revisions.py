"""The revisions of a call that was put before people more than once, and edits that are not revisions yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User

from runs.models import Approval, Edit, EditState
from runs.reading.asks import Ask, ask_of, with_votes


@dataclass(frozen=True)
class Wish:
    """What somebody wanted to run instead, and the answer to it; "" while it is being checked."""

    by: str
    at: datetime
    reason: str
    answer: str


@dataclass(frozen=True)
class Revisions:
    """What belongs to one approval: earlier questions about the same call, newest first, with void votes.

    `newer` is the key of the newest approval of this call when this one is not it.
    """

    earlier: tuple[Ask, ...]
    newer: int | None
    checked: Wish | None
    denied: Wish | None


def read_revisions(approval: Approval, *, viewer: User, now: datetime) -> Revisions:
    """All there is around this approval: three queries, and two more when it is not the only one."""
    step = approval.step
    same = Approval.objects.filter(step_id=approval.step_id)
    newest = same.order_by("-revision").values_list("pk", flat=True)[0]
    earlier = (
        list(with_votes(same.filter(revision__lt=approval.revision).order_by("-revision")))
        if approval.revision > 1
        else []
    )
    edits = list(Edit.objects.filter(approval=approval).select_related("by").order_by("pk"))
    return Revisions(
        earlier=tuple(
            ask_of(one, step_seq=step.seq, tool=step.name, viewer=viewer, now=now) for one in earlier
        ),
        newer=newest if newest != approval.pk else None,
        checked=_last(edits, EditState.ASKED),
        denied=_last(edits, EditState.DENIED) if approval.is_open else None,
    )


def _last(edits: list[Edit], state: EditState) -> Wish | None:
    for edit in reversed(edits):
        if edit.state == state:
            return Wish(edit.by.get_username(), edit.at, edit.reason, edit.answer)
    return None
