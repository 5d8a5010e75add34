"""Who can still give the votes that a question needs."""

from __future__ import annotations

from django.contrib.auth.models import User

from runs.models import Approval
from runs.reading.asks import Ask

BACKEND = "django.contrib.auth.backends.ModelBackend"
MAX_NAMED = 6


def who_can_still_vote(ask: Ask) -> tuple[str, ...]:
    """Names of active people who may decide on this question and have not voted; at most six of them."""
    if not ask.is_open:
        return ()
    people = User.objects.with_perm("runs.decide", is_active=True, include_superusers=True, backend=BACKEND)
    if ask.roles:
        people = people.filter(groups__name__in=ask.roles).distinct()
    if not ask.self_approval:
        starter = Approval.objects.filter(pk=ask.pk, run__created_by__isnull=False)
        people = people.exclude(pk__in=starter.values("run__created_by"))
    done = [ballot.voter for ballot in ask.ballots]
    if ask.quorum > 1 or not ask.self_approval:
        done.append(ask.edited_by)  # who changed it may only reject
    waiting = people.exclude(username__in=done)
    return tuple(waiting.order_by("username").values_list("username", flat=True)[:MAX_NAMED])
