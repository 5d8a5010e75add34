"""Runs as rows of the list: what each one says, and how its time was spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import DurationField, ExpressionWrapper, F, QuerySet, Sum
from django.db.models.functions import Left
from django.utils.text import Truncator

from runs.models import Approval, ApprovalState, Run, RunStatus, Step, StepKind, StepStatus
from runs.reading.labels import tags_of
from runs.reading.timescale import percent_text

SHOWN_QUESTION = 300
SHOWN_ANSWER = 240
MOST_ADDED_UP = 500  # steps of a run whose times are added up; the bar of a longer one is one piece
BAR_STEPS = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Piece:
    """A part of the duration bar."""

    kind: str
    x: str
    width: str


@dataclass(frozen=True)
class RunRow:
    """One row of the list."""

    run: Run = field(compare=False)
    pk: int
    status: str
    question: str
    line: str  # what it does now, or how it ended
    tone: str
    steps: int
    tokens: int
    cost: str
    unpriced: int
    started_at: datetime | None
    ended_at: datetime | None
    pieces: tuple[Piece, ...] = field(compare=False)
    times: str = field(compare=False)  # the bar in words
    last_event: int
    day: str
    tags: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The status word, where the usual one says too little."""
        return "Continued" if self.run.handed_over else ""

    @property
    def is_quiet(self) -> bool:
        return self.status in {RunStatus.SUCCEEDED, RunStatus.CANCELLED}


def read_rows(pks: Sequence[int], *, now: datetime) -> tuple[RunRow, ...]:
    """These runs as rows, newest first: five queries."""
    found = light(Run.objects.filter(pk__in=pks)).order_by("-created_at", "-pk")
    return rows_of(list(found), now)


def light(runs: QuerySet[Run]) -> QuerySet[Run]:
    """Only what a row shows: a run carries its whole configuration and answer."""
    return runs.defer("config", "final_response", "user_query").annotate(
        question=Left("user_query", SHOWN_QUESTION), answer=Left("final_response", SHOWN_ANSWER)
    )


def rows_of(runs: list[Run], now: datetime) -> tuple[RunRow, ...]:
    """Runs that were read through `light`, as rows: four queries."""
    pks = [run.pk for run in runs]
    worked = _worked([run.pk for run in runs if run.step_count <= MOST_ADDED_UP])
    tags = tags_of(pks)
    headlines = _headlines(pks)
    doing = _doing([run.pk for run in runs if run.status == RunStatus.RUNNING])
    full = _full_bar([run.elapsed(now).total_seconds() for run in runs])
    return tuple(_row(run, now, worked, headlines, doing, full, tags.get(run.pk, ())) for run in runs)


def _full_bar(lengths: list[float]) -> float:
    """The time a full bar stands for: one run that took hours must not flatten all others."""
    started = sorted(length for length in lengths if length > 0)
    if not started:
        return 1.0
    wanted = min(started[-1], 4 * started[len(started) // 2])
    return next((float(step) for step in BAR_STEPS if wanted <= step), wanted)


def _row(
    run: Run,
    now: datetime,
    worked: dict[tuple[int, str], float],
    headlines: dict[int, str],
    doing: dict[int, str],
    full: float,
    tags: tuple[str, ...],
) -> RunRow:
    line, tone = _line(run, headlines.get(run.pk, ""), doing.get(run.pk, ""))
    waited = run.waited_seconds
    if run.waiting_since is not None:
        waited += (now - run.waiting_since).total_seconds()
    seconds = {
        "model": worked.get((run.pk, StepKind.MODEL), 0.0),
        "tool": worked.get((run.pk, StepKind.TOOL), 0.0),
        "wait": waited,
    }
    if run.step_count > MOST_ADDED_UP:
        seconds["model"] = run.active_seconds(now)
    return RunRow(
        run=run,
        pk=run.pk,
        status=run.status,
        question=_first_line(getattr(run, "question", "")),
        line=Truncator(line).chars(SHOWN_ANSWER),
        tone=tone,
        steps=run.step_count,
        tokens=run.total_tokens,
        cost=str(run.cost_usd),
        unpriced=run.unpriced_calls,
        started_at=run.started_at,
        ended_at=run.ended_at,
        pieces=_pieces(seconds, full),
        times=_times(seconds),
        last_event=run.last_event,
        day=_day(run.created_at, now),
        tags=tags,
    )


def _line(run: Run, headline: str, doing: str) -> tuple[str, str]:
    """The second line of a row: what happens now, what is asked, or how it ended; and its tone."""
    if run.status == RunStatus.WAITING:
        return headline or run.explanation or "waits for a person", "tone-warn"
    if run.status == RunStatus.RUNNING:
        return doing, "now"
    if run.status == RunStatus.QUEUED:
        return run.explanation or "in line for a worker", ""
    if run.status == RunStatus.PAUSED:
        return run.explanation, "tone-warn"
    if run.status == RunStatus.FAILED:
        return run.explanation, "tone-bad"
    if run.status == RunStatus.SUCCEEDED:
        return _first_line(getattr(run, "answer", "")), ""
    return run.explanation, ""


def _day(moment: datetime, now: datetime) -> str:
    """The heading a run stands under."""
    days = (now.date() - moment.date()).days
    if days <= 1:
        return "Today" if days <= 0 else "Yesterday"
    return f"{moment:%A}, {moment.day} {moment:%B}" + (f" {moment.year}" if moment.year != now.year else "")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _pieces(seconds: dict[str, float], full: float) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    x = 0.0
    for kind, length in seconds.items():
        if length <= 0 or x >= 100:
            continue
        width = max(1.5, min(100 * length / full, 100 - x))
        pieces.append(Piece(kind, percent_text(x), percent_text(width)))
        x += width
    return tuple(pieces)


def _times(seconds: dict[str, float]) -> str:
    names = {"model": "model", "tool": "tools", "wait": "waiting"}
    return ", ".join(f"{names[kind]} {round(length)} s" for kind, length in seconds.items() if length > 0)


def _worked(pks: list[int]) -> dict[tuple[int, str], float]:
    """Seconds per run and kind of step, without the time a call waited for people."""
    length = ExpressionWrapper(F("ended_at") - F("started_at"), output_field=DurationField())
    sums = (
        Step.objects.filter(run__in=pks, ended_at__isnull=False)
        .order_by()
        .values_list("run_id", "kind")
        .annotate(length=Sum(length), waited=Sum("waited_seconds"))
    )
    return {
        (run, kind): max(0.0, length.total_seconds() - (waited or 0)) for run, kind, length, waited in sums
    }


def _headlines(pks: list[int]) -> dict[int, str]:
    """What each waiting run asks for: the first open question."""
    asked = Approval.objects.filter(run__in=pks, state=ApprovalState.PENDING).order_by("-expires_at")
    return {approval.run_id: str(approval.card.get("headline", "")) for approval in asked}


def _doing(pks: list[int]) -> dict[int, str]:
    """What each running run does now: its newest unfinished step."""
    steps = (
        Step.objects.filter(run__in=pks, status__in=[StepStatus.RUNNING, StepStatus.EXECUTING])
        .order_by("seq")
        .values_list("run_id", "kind", "name", "summary")
    )
    return {
        run: f"{name} {summary}".strip() if kind == StepKind.TOOL else f"{name} is thinking"
        for run, kind, name, summary in steps
    }
