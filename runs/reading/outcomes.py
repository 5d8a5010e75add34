"""Calls whose outcome is unknown: what waits for a person, what is known of each, what was said."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, QuerySet

from runs.models import (
    Approval,
    Event,
    Finding,
    FoundBy,
    Resolution,
    Run,
    Says,
    Step,
    StepStatus,
    WhatBecame,
)

MAX_UNKNOWN = 100
MAX_RESOLVED = 10
LIGHT = (
    "message",
    "reasoning",
    "text",
    "draft",
    "result",
    "unit_prices",
    "run__opening",
    "run__final_response",
)
WORDS = {
    Says.HAPPENED: "it happened",
    Says.DID_NOT_HAPPEN: "it did not happen",
    Says.CANNOT_TELL: "cannot tell",
}
SHAPES = {  # a status that looks like it
    "happened": "succeeded",
    "did_not_happen": "refused",
    "cannot_tell": "unknown",
    "abandoned": "cancelled",
}


@dataclass(frozen=True)
class Clue:
    """What a probe or a late answer says about one start of the call. `evidence` is a tool's text."""

    is_late: bool
    says: str
    shape: str
    word: str
    evidence: str
    attempt: int
    worker: str
    at: datetime


@dataclass(frozen=True)
class Said:
    """What a person says became of it."""

    shape: str
    word: str
    by: str
    evidence: str
    at: datetime


@dataclass(frozen=True)
class Unknown:
    """One call whose outcome is not known, or was not until a person said what became of it."""

    pk: int
    seq: int
    run: Run
    tool: str
    headline: str
    object: str
    environment: str
    effect: str
    arguments: str
    sentence: str  # what the agent was told
    begun_at: datetime
    worker: str
    attempts: int
    clues: tuple[Clue, ...]
    said: Said | None
    heir: Run  # the run that goes on with the work: this one, unless it was handed over

    @property
    def late(self) -> Clue | None:
        """The newest late answer that says it happened: a person may take it as it is."""
        return next((clue for clue in reversed(self.clues) if clue.is_late and clue.says == "happened"), None)

    @property
    def goes_on(self) -> bool:
        """Whether the agent will read what a person finds without being asked again."""
        return not self.heir.is_ended

    @property
    def was_handed_over(self) -> bool:
        return self.heir.pk != self.run.pk


def count_unknown() -> int:
    """How many outcomes wait for a person."""
    return _unresolved()[:MAX_UNKNOWN].count()


def read_unknown() -> list[Unknown]:
    """What waits, oldest first: five queries."""
    return _read(_unresolved().order_by("started_at", "id")[:MAX_UNKNOWN])


def read_resolved() -> list[Unknown]:
    """What people settled last, newest first: five queries."""
    resolved = Step.objects.filter(resolution__isnull=False)
    return _read(resolved.order_by("-resolution__id")[:MAX_RESOLVED])


def read_outcome(pk: int) -> Unknown | None:
    """One call by the key of its step, resolved or not; None when its outcome was never unknown."""
    found = _read(Step.objects.filter(pk=pk, status=StepStatus.UNKNOWN, seq__gt=F("run__copied_steps")))
    return found[0] if found else None


def _unresolved() -> QuerySet[Step]:
    return Step.objects.filter(
        status=StepStatus.UNKNOWN, resolution__isnull=True, seq__gt=F("run__copied_steps")
    )


def _read(steps: QuerySet[Step]) -> list[Unknown]:
    rows = list(steps.select_related("run").defer(*LIGHT))
    keys = [step.pk for step in rows]
    findings = _by_step(Finding.objects.filter(step_id__in=keys))
    resolutions = _by_step(Resolution.objects.filter(step_id__in=keys).select_related("by"))
    approvals = _by_step(Approval.objects.filter(step_id__in=keys).order_by("revision"))
    starts = _starts(rows)
    return [
        _unknown(
            step,
            starts.get((step.run_id, step.seq)),
            next(reversed(approvals.get(step.pk, [])), None),
            [_clue(finding) for finding in findings.get(step.pk, [])],
            next(iter(resolutions.get(step.pk, [])), None),
        )
        for step in rows
    ]


def _unknown(
    step: Step, start: Event | None, approval: Approval | None, clues: list[Clue], said: Resolution | None
) -> Unknown:
    card = approval.card if approval else {}
    return Unknown(
        pk=step.pk,
        seq=step.seq,
        run=step.run,
        tool=step.name,
        headline=str(card.get("headline") or (start and start.fields.get("summary")) or f"Run {step.name}"),
        object=str(card.get("object") or ""),
        environment=approval.environment if approval else str(step.run.frozen["environment"]),
        effect=step.effect,
        arguments=approval.arguments if approval else step.arguments,
        sentence=step.error,
        begun_at=step.begun_at or step.started_at,
        worker=start.actor if start else "",
        attempts=step.attempt,
        clues=tuple(clues),
        said=None if said is None else _said(said),
        heir=_heir(step.run),
    )


def _heir(run: Run) -> Run:
    """Where the work of this run goes on: itself, or the last of the runs that it was handed over to."""
    while run.handed_over and (heir := run.forks.filter(copied_steps=0).first()) is not None:
        run = heir
    return run


def _by_step(rows: Iterable[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row.step_id, []).append(row)
    return found


def _starts(steps: list[Step]) -> dict[tuple[int, int], Event]:
    """The last START of each call: it holds the worker, and the headline that the call had then."""
    wanted = {(step.run_id, step.seq) for step in steps}
    events = Event.objects.filter(kind="call.started", run_id__in={run for run, _ in wanted})
    found: dict[tuple[int, int], Event] = {}
    for event in events.order_by("run_id", "seq"):
        key = (event.run_id, json.loads(event.data).get("step"))
        if key in wanted:
            found[key] = event
    return found


def _clue(finding: Finding) -> Clue:
    return Clue(
        is_late=finding.found_by == FoundBy.LATE,
        says=finding.says,
        shape=SHAPES[finding.says],
        word=WORDS[Says(finding.says)],
        evidence=finding.evidence,
        attempt=finding.attempt,
        worker=finding.worker,
        at=finding.at,
    )


def _said(resolution: Resolution) -> Said:
    return Said(
        shape=SHAPES[resolution.verdict],
        word=WhatBecame(resolution.verdict).label,
        by=resolution.by.get_username(),
        evidence=resolution.evidence,
        at=resolution.at,
    )
