"""What `live.py` asks of the database, in a process of its own. Prints one JSON object.

python -m benchmarks.live_data people COUNT | start TURNS MILLISECONDS | events RUN
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentops.settings")

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY  # noqa: E402
from django.contrib.auth.models import Permission, User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402

from agentops.agents import AGENTS  # noqa: E402
from runs import actions  # noqa: E402
from runs.models import Event, Run  # noqa: E402

SHOWN_BY = {  # the event that a change of the page follows
    "model.started": "begin",
    "model.finished": "end",
    "call.allowed": "begin",
    "call.finished": "end",
}


def people(count: int) -> dict[str, Any]:
    """So many users, every second one of whom may start runs and decide, each signed in."""
    may = Permission.objects.filter(content_type__app_label="runs", codename__in=("start", "decide"))
    sessions = []
    for number in range(count):
        user, _ = User.objects.get_or_create(username=f"viewer-{number}")
        user.user_permissions.set(may if number % 2 else ())
        session = SessionStore()
        session[SESSION_KEY], session[BACKEND_SESSION_KEY] = (
            str(user.pk),
            settings.AUTHENTICATION_BACKENDS[-1],
        )
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        sessions.append(session.session_key)
    return {"sessions": sessions}


def start(turns: int, milliseconds: int) -> dict[str, Any]:
    """A queued run that the scripted server answers so many times, each time so long after it was asked."""
    asked = f"Benchmark: {turns} turns, {milliseconds} ms, read"
    run = actions.start_run(question=asked, agent=AGENTS[0].name, user=None, started_by="benchmark")
    return {"pk": run.pk, "page": run.get_absolute_url()}


def events(run: int) -> dict[str, Any]:
    """Milliseconds of the clock at which each step began and ended, in the words of the page."""
    found = Event.objects.filter(run=run, kind__in=SHOWN_BY).values_list("kind", "data", "at")
    times = {f"{SHOWN_BY[kind]}-{json.loads(data)['step']}": at.timestamp() * 1e3 for kind, data, at in found}
    return {"times": times, "ended": Run.objects.get(pk=run).is_ended}


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    parts: dict[str, Callable[..., dict[str, Any]]] = {"people": people, "start": start, "events": events}
    print(json.dumps(parts[name](*map(int, words))))
