"""Who looks at the live pages of this process, and whether they still may: asked at once for all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db.models import Value
from django.utils import timezone

from runs.sharing import shared

_connections: Counter[tuple[str, int]] = Counter()  # by session and person


@dataclass(frozen=True)
class Present:
    """The sessions that were asked about, those that go on, and the stored passwords of active people."""

    asked: frozenset[tuple[str, int]]
    sessions: frozenset[str]
    passwords: dict[int, str]


def enter(session: str, person: int) -> None:
    """A page was opened; every call needs one `leave`."""
    _connections[session, person] += 1


def leave(session: str, person: int) -> None:
    """It was closed."""
    _connections[session, person] -= 1
    if not _connections[session, person]:
        del _connections[session, person]


def is_still_here(session: str, viewer: User) -> bool:
    """Whether this session goes on for this person, who is active and has the same password as before."""
    present = shared.get("present", _read)
    if (session, viewer.pk) not in present.asked:  # they came after the others were asked about
        present = _read()
    return session in present.sessions and present.passwords.get(viewer.pk) == viewer.password


def _read() -> Present:
    """One query."""
    asked = frozenset(_connections)
    sessions = Session.objects.filter(
        session_key__in=[session for session, _ in asked], expire_date__gt=timezone.now()
    )
    people = User.objects.filter(pk__in={person for _, person in asked}, is_active=True)
    nobody, nothing = Value(0), Value("")
    found = list(
        sessions.values_list(nobody, "session_key", nothing).union(
            people.values_list("pk", nothing, "password"), all=True
        )
    )
    return Present(
        asked,
        frozenset(session for person, session, _ in found if not person),
        {person: password for person, _, password in found if person},
    )
