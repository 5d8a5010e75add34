"""Later looks at changes that had worked: planned with the result, made by workers, answered by people."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from runs.actions.change import Change, change, one_writer
from runs.actions.notifications import notify_relapse
from runs.models import Recheck, RecheckState, Step

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
