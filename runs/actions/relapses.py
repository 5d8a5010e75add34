"""Somebody takes care of what came back after a change that had worked."""

from __future__ import annotations

from django.contrib.auth.models import User

from runs.actions.change import change
from runs.actions.errors import ActionError
from runs.actions.forking import follow_up
from runs.actions.starting import checked_question
from runs.models import Recheck, RecheckState


def answer_relapse(*, recheck_id: int, by: User, question: str = "") -> Recheck:
    """This person takes care of what came back; the first one does. Raises ActionError with who was first.

    With a question, a follow-up run is asked it, in the same transaction: two people start one run.
    """
    run_id = Recheck.objects.values_list("run_id", flat=True).filter(pk=recheck_id).first()
    if run_id is None:
        raise ActionError("There is no such check. It may have been deleted with its run.")
    name = by.get_username()
    with change(run_id, actor=name) as current:
        recheck = Recheck.objects.select_for_update().select_related("step").get(pk=recheck_id)
        if recheck.state != RecheckState.RELAPSED:
            raise ActionError("It did not come back, so there is nothing to take care of.")
        if recheck.answered_at is not None:
            when = f"{recheck.answered_at:%H:%M:%S}"
            raise ActionError(f"{recheck.answered_by} took care of it at {when} UTC already.")
        started = follow_up(current, checked_question(question), by) if question else None
        recheck.answered_by, recheck.answered_at, recheck.follow_up = name, current.now, started
        recheck.save(update_fields=["answered_by", "answered_at", "follow_up"])
        run = str(started.request_id) if started else ""
        current.event("call.relapse_answered", step=recheck.step.seq, run=run)
    return recheck
