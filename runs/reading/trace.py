"""One run as its page shows it: figures, time axis, nested rows, questions that wait for a person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User

from runs.models import Approval, Run, Step, StepKind, StepStatus
from runs.reading.asks import Ask, ask_of, with_votes
from runs.reading.timescale import Scale, build_scale, percent_text

# What a row does not show. Results and reasoning are read for one selected step only.
HEAVY = ("message", "reasoning", "text", "draft", "arguments", "result", "unit_prices", "error")
OPEN_STATUSES = {StepStatus.RUNNING, StepStatus.EXECUTING}
QUIET_STATUSES = {StepStatus.SUCCEEDED}


@dataclass(frozen=True)
class Bar:
    """One stretch of a row. An open one still grows: the browser draws its end, so it does not compare."""

    kind: str  # model, tool, wait, bad
    x: str
    end: str  # right edge in percent; "" while open
    width: str = field(compare=False)

    @property
    def is_open(self) -> bool:
        return not self.end


@dataclass(frozen=True)
class Row:
    """One step in the trace with the steps inside it."""

    pk: int
    seq: int
    kind: str
    icon: str
    name: str
    status: str
    summary: str
    attempt: int
    started_at: datetime
    ended_at: datetime | None
    cost: Decimal | None
    has_cost: bool
    simulated: bool
    bars: tuple[Bar, ...]
    ask: Ask | None
    children: tuple[Row, ...]

    @property
    def shows_time(self) -> bool:
        """A note takes none, and a call that did not start has none yet."""
        unstarted = self.status in {StepStatus.PROPOSED, StepStatus.READY} and self.ask is None
        return self.kind != StepKind.NOTE and not unstarted

    @property
    def shows_status(self) -> bool:
        """Succeeded is the rule and needs no word."""
        return self.status not in QUIET_STATUSES


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
    scale: Scale
    rows: tuple[Row, ...]
    asks: tuple[Ask, ...]
    seqs: tuple[int, ...]
    current_seq: int | None  # the step worth watching now
    now: datetime = field(compare=False)

    @property
    def open_asks(self) -> list[Ask]:
        return [ask for ask in self.asks if ask.is_open]

    @property
    def now_x(self) -> str:
        """Where the line of the present stands; empty once the run has ended."""
        return "" if self.run.is_ended else percent_text(self.scale.x(self.now))


def find_run(request_id: UUID) -> Run | None:
    """The run of this id, with who started it."""
    return Run.objects.select_related("created_by", "parent_run").filter(request_id=request_id).first()


def read_trace(run: Run, *, viewer: User, now: datetime) -> Trace:
    """The trace of this run as it is now: three queries (steps, approvals, votes with voters)."""
    steps = list(run.steps.defer(*HEAVY).order_by("seq"))
    by_step: dict[int, Approval] = {}
    for approval in with_votes(run.approvals.order_by("revision")):
        by_step[approval.step_id] = approval  # the newest revision wins
    start = run.started_at or run.created_at
    end = run.ended_at or now
    scale = build_scale(start, end, _busy(steps, by_step, end), live=not run.is_ended)
    builder = _Builder(run, scale, by_step, viewer, now, end)
    rows = builder.rows(steps)
    return Trace(
        run=run,
        figures=_figures(run),
        scale=scale,
        rows=rows,
        asks=tuple(builder.asks),
        seqs=tuple(step.seq for step in steps),
        current_seq=_current(steps),
        now=now,
    )


class _Builder:
    """Turns steps into nested rows on one time axis."""

    def __init__(
        self,
        run: Run,
        scale: Scale,
        approvals: dict[int, Approval],
        viewer: User,
        now: datetime,
        end: datetime,
    ) -> None:
        self.run, self.scale, self.approvals = run, scale, approvals
        self.viewer, self.now, self.end = viewer, now, end
        self.asks: list[Ask] = []

    def rows(self, steps: Sequence[Step]) -> tuple[Row, ...]:
        children: dict[int | None, list[Step]] = defaultdict(list)
        known = {step.pk for step in steps}
        for step in steps:
            children[step.parent_id if step.parent_id in known else None].append(step)
        return tuple(self._row(step, children) for step in children[None])

    def _row(self, step: Step, children: dict[int | None, list[Step]]) -> Row:
        approval = self.approvals.get(step.pk)
        ask = None
        if approval is not None:
            ask = ask_of(approval, step_seq=step.seq, tool=step.name, viewer=self.viewer, now=self.now)
            self.asks.append(ask)
        return Row(
            pk=step.pk,
            seq=step.seq,
            kind=step.kind,
            icon=_icon(step),
            name=step.name,
            status=step.status,
            summary=step.summary,
            attempt=step.attempt,
            started_at=step.started_at,
            ended_at=step.ended_at,
            cost=step.cost_usd,
            has_cost=step.kind == StepKind.MODEL and step.ended_at is not None and step.total_tokens > 0,
            simulated=self.run.simulated,
            bars=tuple(self._bars(step, approval)),
            ask=ask,
            children=tuple(self._row(child, children) for child in children[step.pk]),
        )

    def _bars(self, step: Step, approval: Approval | None) -> list[Bar]:
        if step.kind == StepKind.NOTE or step.status == StepStatus.PROPOSED:
            return []
        bars = []
        if approval is not None:
            bars.append(self._bar("wait", approval.created_at, approval.decided_at or step.ended_at))
        for begin, end in _work(step, approval):
            failed = step.status in {StepStatus.FAILED, StepStatus.UNKNOWN}
            bars.append(self._bar("bad" if failed else step.kind, begin, end))
        return bars

    def _bar(self, kind: str, begin: datetime, end: datetime | None) -> Bar:
        x, width = self.scale.bar(begin, end or self.end)
        if end is None and not self.run.is_ended:
            return Bar(kind, x, "", width)
        return Bar(kind, x, percent_text(self.scale.x(end or self.end)), width)


def _work(step: Step, approval: Approval | None) -> list[tuple[datetime, datetime | None]]:
    """When the step itself ran: a gated call from its START, another from its beginning."""
    if step.kind == StepKind.NOTE or step.status in {StepStatus.PROPOSED, StepStatus.WAITING}:
        return []
    if approval is not None:
        return [(approval.redeemed_at, step.ended_at)] if approval.redeemed_at else []
    if step.status in {StepStatus.READY, StepStatus.REFUSED}:
        return []
    return [(step.started_at, step.ended_at)]


def _busy(
    steps: Sequence[Step], approvals: dict[int, Approval], now: datetime
) -> list[tuple[datetime, datetime]]:
    """Every stretch in which a model or a tool worked; what lies between is idle."""
    return [
        (begin, end or now)
        for step in steps
        for begin, end in _work(step, approvals.get(step.pk))
        if end is not None or step.status in OPEN_STATUSES
    ]


def _current(steps: Sequence[Step]) -> int | None:
    """The step to watch: what streams, what waits for a person, a change that runs, else the last turn.

    Reads take a moment and would chase the reasoning off the panel.
    """
    ranks = {step.seq: _worth_watching(step) for step in steps}
    return max(ranks, key=lambda seq: (ranks[seq], seq), default=None)


def _worth_watching(step: Step) -> int:
    if step.status == StepStatus.RUNNING:
        return 4
    if step.status == StepStatus.WAITING:
        return 3
    if step.status == StepStatus.EXECUTING and step.effect == "destructive":
        return 2
    return 1 if step.kind == StepKind.MODEL else 0


def _icon(step: Step) -> str:
    if step.kind == StepKind.MODEL:
        return "retry" if step.attempt > 1 or step.status == StepStatus.FAILED else "model"
    return "tool" if step.kind == StepKind.TOOL else "edit"


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
    )
