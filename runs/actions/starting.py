"""A run begins."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from runs import agents
from runs.actions.change import Change, one_writer
from runs.actions.errors import InvalidQuestion, UnknownAgent, UnknownScenario
from runs.models import Run
from tools.backends import estate

MAX_QUESTION_CHARACTERS = 20_000


def start_run(
    *,
    question: str,
    agent: str,
    user: User | None,
    started_by: str,
    scenario: str = "",
    request_id: uuid.UUID | None = None,
) -> Run:
    """Store a new run in the queue and freeze its configuration.

    `scenario` names the simulated incident; empty takes the one that fits the question. A `request_id`
    that exists already gives that run back, so that a form sent twice starts one run.
    Raises InvalidQuestion, UnknownAgent or UnknownScenario.
    """
    question = checked_question(question)
    installed = agents.installed()
    if agent not in installed:
        names = ", ".join(installed)
        raise UnknownAgent(f"There is no agent {agent!r}. Installed: {names}.")
    known = {item.id for item in estate.scenarios()}
    if scenario and scenario not in known:
        raise UnknownScenario(f"There is no incident {scenario!r}. Known: {', '.join(sorted(known))}.")
    request_id = request_id or uuid.uuid4()
    now = timezone.now()
    with one_writer(), transaction.atomic():
        existing = Run.objects.filter(request_id=request_id).first()
        if existing is not None:
            return existing
        estate.open_world(str(request_id), scenario or estate.match_scenario(question), now=now)
        run = Run.objects.create(
            request_id=request_id,
            agent=agent,
            model=installed[agent].model,
            user_query=question,
            config=installed[agent].configuration(world=str(request_id)),
            simulated=not settings.ANTHROPIC_API_KEY,
            created_by=user,
            started_by=started_by,
            created_at=now,
        )
        current = Change(run, started_by)
        current.event("run.started", agent=agent, model=run.model, simulated=run.simulated)
        current.save()
    return run


def checked_question(question: str) -> str:
    """The question without surrounding space and control characters; raises InvalidQuestion."""
    kept = "".join(c for c in question if c in "\n\t" or c.isprintable()).strip()
    if not kept:
        raise InvalidQuestion("Write what the agent should find out: the text of the alert is enough.")
    if len(kept) > MAX_QUESTION_CHARACTERS:
        raise InvalidQuestion(
            f"The question has {len(kept):,} characters; at most {MAX_QUESTION_CHARACTERS:,} are taken. "
            "Shorten it: the agent reads logs and metrics itself."
        )
    return kept
