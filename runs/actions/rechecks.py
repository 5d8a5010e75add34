"""Later looks at changes that had worked: planned with the result, made by workers, answered by people."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from runs.actions.change import Change, change, one_writer
from runs.actions.errors import ActionError
from runs.actions.notifications import notify_relapse
from runs.models import Recheck, RecheckState, Run, Step

MOST_ATTEMPTS = 3  # at one look that could not see anything
AGAIN = timedelta(minutes=1)


def plan_rechecks(current: Change, step: Step) -> None:
    """Inside a change: the effect of this call was just seen, so it is looked at again later."""
    Recheck.objects.bulk_create(
        Recheck(run=current.run, step=step, due_at=current.now + timedelta(minutes=minutes))
        for minutes in settings.AGENTOPS_RECHECK_MINUTES
    )


def due_rechecks(now: datetime, limit: int) -> list[int]:
    """Keys of the looks to make now, longest overdue first."""
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now)
    due = Recheck.objects.filter(free, state=RecheckState.DUE, due_at__lte=now).order_by("due_at")
    return list(due.values_list("pk", flat=True)[:limit])


def claim_recheck(pk: int, *, lease_seconds: float) -> Recheck | None:
    """Take this look for one attempt; None when another worker has it or it is not due any more."""
    now = timezone.now()
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now)
    with one_writer(), transaction.atomic():
        taken = Recheck.objects.filter(free, pk=pk, state=RecheckState.DUE, due_at__lte=now).update(
            claimed_until=now + timedelta(seconds=lease_seconds), attempts=F("attempts") + 1
        )
        return Recheck.objects.select_related("run", "step").get(pk=pk) if taken else None


def record_recheck(claimed: Recheck, state: RecheckState, observed: str, *, worker: str) -> None:
    """Store what a claimed look saw, unless another worker has it by now. A relapse is told to people."""
    with change(claimed.run_id, actor=worker) as current:
        recheck = Recheck.objects.select_for_update().select_related("step").get(pk=claimed.pk)
        if recheck.state != RecheckState.DUE or recheck.attempts != claimed.attempts:
            return
        recheck.observed, recheck.checked_at, recheck.claimed_until = observed, current.now, None
        if state == RecheckState.UNCLEAR and recheck.attempts < MOST_ATTEMPTS:
            recheck.due_at = current.now + AGAIN
            recheck.save()
            return
        recheck.state = state
        recheck.save()
        seq = recheck.step.seq
        if state != RecheckState.RELAPSED:
            current.event("call.rechecked", step=seq, status=state, observed=observed)
            return
        current.event("call.relapsed", step=seq, observed=observed)
        later = Recheck.objects.filter(step=recheck.step, state=RecheckState.DUE)
        later.update(state=RecheckState.DROPPED, checked_at=current.now)
        notify_relapse(current, recheck.step)


def answer_relapse(*, recheck_id: int, by: User, follow_up: Run | None = None) -> Recheck:
    """This person takes care of what came back; the first one does. Raises ActionError with who was first."""
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
        recheck.answered_by, recheck.answered_at, recheck.follow_up = name, current.now, follow_up
        recheck.save(update_fields=["answered_by", "answered_at", "follow_up"])
        run = str(follow_up.request_id) if follow_up else ""
        current.event("call.relapse_answered", step=recheck.step.seq, run=run)
    return recheck
