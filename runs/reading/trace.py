"""One run as its page shows it: figures, and its rows in sections, each on a time axis of its own.

A run of a usual length is one section. A long one is read and drawn one section at a time: the page holds
places for the others, which the browser fills when the reader comes near, and which are links without it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q

from runs.models import Approval, Run, Step, StepKind
from runs.reading.asks import Ask, with_votes
from runs.reading.timescale import Scale, build_scale, percent_text
from runs.reading.trace_rows import Row, RowBuilder, busy, extent, light, with_words, worth_watching

SECTION_STEPS = 200
# Steps so close to the end of a live run may still change; what stands before them is settled.
UNSETTLED_STEPS = 100
# Pixels that a place keeps free for a row: as in the stylesheet, and about what a step takes that talks.
ROW_HEIGHT = 30
TALK_HEIGHT = 96


@dataclass(frozen=True)
class Section:
    """Some successive steps of a run. `rows` is None where only its place is drawn."""

    number: int
    first: int
    last: int
    is_open: bool  # its rows may still change, or get more
    rows: tuple[Row, ...] | None = None
    scale: Scale | None = None
    row_height: int = ROW_HEIGHT

    @property
    def height(self) -> int:
        """Pixels of its place."""
        return (self.last - self.first + 1) * self.row_height


@dataclass(frozen=True)
class Figures:
    """The numbers at the top of the page."""

    steps: int
    step_limit: int | None
    tool_calls: int
    tokens: int
    cache_share: float | None
    cost: Decimal
    budget: Decimal | None
    unpriced_calls: int
    waited_seconds: float  # for people, up to the present wait
    waiting_since: datetime | None

    @property
    def counts_from(self) -> datetime | None:
        """Since when a person is waited for, earlier waits added: for the clock in the browser."""
        if self.waiting_since is None:
            return None
        return self.waiting_since - timedelta(seconds=self.waited_seconds)

    @property
    def budget_share(self) -> str:
        """Percent of the budget, as an SVG width; never more than all of it."""
        if not self.budget:
            return "0%"
        return percent_text(min(100.0, 100 * float(self.cost / self.budget)))

    @property
    def budget_tone(self) -> str:
        share = self.cost / self.budget if self.budget else 0
        return "fg-bad" if share >= 1 else "fg-warn" if share >= Decimal("0.8") else "fg"


@dataclass(frozen=True)
class Trace:
    """Everything of the run page but the selected step."""

    run: Run
    figures: Figures
    sections: tuple[Section, ...]
    asks: tuple[Ask, ...]
    current_seq: int | None  # the step worth watching now
    now: datetime = field(compare=False)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all sections that were read."""
        return tuple(row for section in self.sections for row in section.rows or ())

    @property
    def is_long(self) -> bool:
        """Whether it has several sections."""
        return len(self.sections) > 1

    @property
    def open_asks(self) -> list[Ask]:
        return [ask for ask in self.asks if ask.is_open]

    @cached_property
    def live_section(self) -> Section | None:
        """The section on whose axis the present stands; None once the run has ended."""
        return None if self.run.is_ended or not self.sections else self.sections[-1]

    @property
    def now_x(self) -> str:
        """Where the line of the present stands on its axis; empty once the run has ended."""
        live = self.live_section
        return percent_text(live.scale.x(self.now)) if live is not None and live.scale is not None else ""


def find_run(request_id: UUID) -> Run | None:
    """The run of this id, with who started it, and whether it asks or asked a person."""
    asked = Exists(Approval.objects.filter(run=OuterRef("pk")))
    found = Run.objects.select_related("created_by", "parent_run").annotate(asked=asked)
    return found.filter(request_id=request_id).first()


def has_asked(run: Run) -> bool:
    """Whether any step of this run asks or asked a person. No query for a run of `find_run`."""
    asked: bool | None = getattr(run, "asked", None)
    return run.approvals.exists() if asked is None else asked


def section_of(seq: int) -> int:
    """The number of the section that holds this step, from 1."""
    return (max(1, seq) - 1) // SECTION_STEPS + 1


def ending_sections(run: Run) -> frozenset[int]:
    """The sections that may have changed lately: those with the last steps."""
    return frozenset({section_of(run.step_count - UNSETTLED_STEPS + 1), section_of(run.step_count)})


def read_trace(
    run: Run,
    *,
    viewer: User,
    now: datetime,
    wanted: Collection[int] = (),
    and_open: bool = True,
    talks: bool = False,
) -> Trace:
    """The trace of this run as it is now, with the rows of the `wanted` sections and of those still open.

    Without any, those of the first. `talks`: with what was said in each step.

    Three queries (steps, approvals, votes with voters), one when `find_run` saw that nobody was asked; one
    more when the last section is not read.
    """
    places = _places(run, TALK_HEIGHT if talks else ROW_HEIGHT)
    read = {place.number for place in places if (and_open and place.is_open) or place.number in wanted}
    read = read or {place.number for place in places[:1]}
    chosen = [place for place in places if place.number in read]
    steps = _steps(run, chosen, talks=talks)
    approvals = _approvals(run, chosen, places)
    asks: list[Ask] = []
    sections = []
    for place in places:
        mine = [step for step in steps if place.first <= step.seq <= place.last]
        if place.number in read:
            place = _filled(run, place, mine, approvals, asks, viewer=viewer, now=now)
        sections.append(place)
    return Trace(
        run=run,
        figures=_figures(run),
        sections=tuple(sections),
        asks=tuple(asks),
        current_seq=_current(run, steps, read) if and_open else None,
        now=now,
    )


def _places(run: Run, row_height: int) -> list[Section]:
    count = run.step_count
    open_ones = frozenset() if run.is_ended else ending_sections(run)
    return [
        Section(
            number,
            first=(number - 1) * SECTION_STEPS + 1,
            last=min(count, number * SECTION_STEPS),
            is_open=number in open_ones,
            row_height=row_height,
        )
        for number in range(1, section_of(count) + 1 if count else 1)
    ]


def _steps(run: Run, places: Sequence[Section], *, talks: bool) -> list[Step]:
    """The steps of these sections."""
    if not places:
        return []
    ranges = Q(pk__in=())
    for place in places:
        ranges |= Q(seq__range=(place.first, place.last))
    rows = light(run.steps.filter(ranges))
    return list(with_words(rows) if talks else rows)


def _approvals(run: Run, chosen: Sequence[Section], places: Sequence[Section]) -> dict[int, Approval]:
    """By step; the newest revision wins."""
    if not getattr(run, "asked", True):
        return {}
    asked = run.approvals.order_by("revision")
    if len(chosen) < len(places):
        ranges = Q(pk__in=())
        for place in chosen:
            ranges |= Q(step__seq__range=(place.first, place.last))
        asked = asked.filter(ranges)
    return {approval.step_id: approval for approval in with_votes(asked)}


def _filled(
    run: Run,
    place: Section,
    steps: Sequence[Step],
    approvals: dict[int, Approval],
    asks: list[Ask],
    *,
    viewer: User,
    now: datetime,
) -> Section:
    """The section with its rows; what they ask is added to `asks`."""
    begin = run.started_at or run.created_at
    is_last = place.last == run.step_count
    live = is_last and not run.is_ended
    start, end = begin, run.ended_at or now
    if steps and place.number > 1:
        start = min(step.started_at for step in steps)
    if steps and not is_last:
        end = extent(steps, approvals, now)[1]
    scale = build_scale(start, end, busy(steps, approvals, end), live=live, begin=begin)
    builder = RowBuilder(run, scale, approvals, viewer, now, end)
    rows = builder.rows(steps)
    asks.extend(builder.asks)
    return replace(place, rows=rows, scale=scale)


def _current(run: Run, steps: Sequence[Step], read: Collection[int]) -> int | None:
    """The step to watch: what streams, what waits for a person, a change that runs, else the last turn."""
    if run.step_count and section_of(run.step_count) not in read:
        turns = run.steps.filter(kind=StepKind.MODEL).order_by("-seq")
        return turns.values_list("seq", flat=True).first()
    ranks = {step.seq: worth_watching(step) for step in steps}
    return max(ranks, key=lambda seq: (ranks[seq], seq), default=None)


def _figures(run: Run) -> Figures:
    limits: dict[str, Any] = run.frozen.get("limits") or {}
    budget = limits.get("cost_usd")
    return Figures(
        steps=run.step_count,
        step_limit=limits.get("steps"),
        tool_calls=run.tool_calls,
        tokens=run.total_tokens,
        cache_share=run.cache_hit_share,
        cost=run.cost_usd,
        budget=Decimal(str(budget)) if budget is not None else None,
        unpriced_calls=run.unpriced_calls,
        waited_seconds=run.waited_seconds,
        waiting_since=run.waiting_since,
    )
