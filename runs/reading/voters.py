"""Who can still give the votes that a question needs."""

from __future__ import annotations

from django.contrib.auth.models import User

from runs.reading.asks import Ask

BACKEND = "django.contrib.auth.backends.ModelBackend"
MAX_NAMED = 6


def who_can_still_vote(ask: Ask) -> tuple[str, ...]:
    """Names of active people with the permission to decide who have not voted; at most six of them."""
    if not ask.is_open:
        return ()
    people = User.objects.with_perm("runs.decide", is_active=True, include_superusers=True, backend=BACKEND)
    waiting = people.exclude(username__in=[ballot.voter for ballot in ask.ballots])
    return tuple(waiting.order_by("username").values_list("username", flat=True)[:MAX_NAMED])
