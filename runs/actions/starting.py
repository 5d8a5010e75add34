"""A run begins."""

from __future__ import annotations

import json
import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from runs import agents
from runs.actions import rows
from runs.actions.amounts import quoted
from runs.actions.change import Change, database_now, one_writer
from runs.actions.errors import (
    ActionError,
    InvalidQuestion,
    NoModelConfigured,
    UnknownAgent,
    UnknownScenario,
)
from runs.actions.tags import begin_with, checked_tags
from runs.models import Run
from runs.models.proof import sha256
from tools.backends import estate

MAX_QUESTION_CHARACTERS = 20_000
MISSING = "Write what the agent should find out: the text of the alert is enough."


def start_run(
    *,
    question: str,
    agent: str,
    user: User | None,
    started_by: str,
    scenario: str = "",
    request_id: uuid.UUID | None = None,
    tags: Iterable[str] = (),
) -> Run:
    """Store a new run in the queue and freeze its configuration.

    It carries `tags` from the beginning, so that their budgets count it. `scenario` names the simulated
    incident; empty takes the one that fits the question. A `request_id` that exists already gives that run
    back, so that a form sent twice starts one run.
    Raises InvalidQuestion, UnknownAgent, UnknownScenario, NoModelConfigured, or ActionError for a tag.
    """
    question = checked_question(question)
    carried = checked_tags(tags)
    if not settings.ANTHROPIC_API_KEY and not settings.AGENTOPS_SIMULATOR:
        raise NoModelConfigured(
            "There is no model to ask. Set ANTHROPIC_API_KEY to use Claude, or leave AGENTOPS_SIMULATOR "
            "on to try agentops with the local simulator."
        )
    installed = agents.installed()
    if agent not in installed:
        names = ", ".join(installed)
        raise UnknownAgent(f"There is no agent {quoted(agent)}. Installed: {names}.")
    known = {item.id for item in estate.scenarios()}
    if scenario and scenario not in known:
        raise UnknownScenario(f"There is no incident {quoted(scenario)}. Known: {', '.join(sorted(known))}.")
    scenario = scenario or estate.match_scenario(question)
    existing = Run.objects.filter(request_id=request_id).first() if request_id else None
    if existing is not None:
        return _the_same(existing, question)
    request_id = request_id or uuid.uuid4()
    now = timezone.now()
    run = Run(
        request_id=request_id,
        agent=agent,
        opening=_opening(question, installed[agent].environment, now),
        model=installed[agent].model,
        user_query=question,
        config=installed[agent].configuration(world=str(request_id)),
        simulated=not settings.ANTHROPIC_API_KEY,
        created_by=user,
        started_by=started_by,
        created_at=now,
    )
    try:
        _store(run, scenario, carried)
    except IntegrityError:  # the same form, sent twice at the same moment
        return _the_same(Run.objects.get(request_id=request_id), question)
    return run


def _opening(question: str, environment: str, now: datetime) -> str:
    """The first message of the conversation: the question, and where and when it was asked."""
    setting = f"Environment: {environment}. The time is {now:%Y-%m-%dT%H:%M:%SZ}."
    blocks = [{"type": "text", "text": question}, {"type": "text", "text": setting}]
    return json.dumps({"role": "user", "content": blocks}, ensure_ascii=False)


def _the_same(existing: Run, question: str) -> Run:
    """The run that this form has started already, if it is that."""
    if existing.user_query != question:
        raise ActionError("This form has started another run already. Open a new form for this question.")
    return existing


def _store(run: Run, scenario: str, tags: Sequence[str]) -> None:
    with one_writer(), transaction.atomic():
        estate.open_world(str(run.request_id), scenario, now=run.created_at)
        rows.insert(run)
        current = Change(run, run.started_by, database_now())
        begin_with(current, tags)
        said: dict[str, Any] = {"config_sha256": sha256(run.config)} | ({"tags": list(tags)} if tags else {})
        current.event("run.started", agent=run.agent, model=run.model, simulated=run.simulated, **said)
        current.save()


def checked_question(question: str, *, missing: str = MISSING) -> str:
    """The question without surrounding space and control characters; raises InvalidQuestion.

    `missing` is the sentence for one that holds nothing.
    """
    kept = "".join(_kept(character) for character in question).strip()
    if not kept:
        raise InvalidQuestion(missing)
    if len(kept) > MAX_QUESTION_CHARACTERS:
        raise InvalidQuestion(
            f"The question has {len(kept):,} characters; at most {MAX_QUESTION_CHARACTERS:,} are taken. "
            "Shorten it: the agent reads logs and metrics itself."
        )
    return kept


def _kept(character: str) -> str:
    """A character as it is stored: any kind of space is a space, what cannot be seen is dropped.

    Joiners stay: without them some scripts and emoji fall apart.
    """
    category = unicodedata.category(character)
    if character in "\n\t\u200c\u200d":
        return character
    if category[0] == "Z":
        return " "
    return "" if category[0] == "C" else character
