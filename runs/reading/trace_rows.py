"""Steps as nested rows on one time axis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from django.contrib.auth.models import User
from django.db.models import Case, CharField, F, QuerySet, TextField, Value, When
from django.db.models.functions import Left

from runs.models import Approval, Run, Step, StepKind, StepStatus
from runs.models.step import newest_part
from runs.reading.asks import Ask, ask_of
from runs.reading.timescale import Scale, percent_text

# What a row shows. Payloads are read for one step at a time: they may have many megabytes, and on SQLite
# also a column that stands behind one in its row is slow to reach.
SHOWN = (
    "pk", "run_id", "seq", "parent_id", "kind", "status", "name", "summary", "attempt", "started_at",
    "ended_at", "error_kind", "cost_usd", "input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens",
    "cache_read_tokens", "output_tokens",
)  # fmt: skip
# Characters of a step that a conversation shows.
SAID_TEXT = 4_000
SAID_REASONING = 2_000
SAID_PAYLOAD = 600
OPEN_STATUSES = frozenset({StepStatus.RUNNING, StepStatus.EXECUTING})
FAILED_STATUSES = frozenset({StepStatus.FAILED, StepStatus.UNKNOWN})


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
class Said:
    """What was said in a step, for reading the run as a conversation: beginnings, the panel has the rest."""

    reasoning: str
    text: str
    arguments: str
    result: str
    is_streaming: bool


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
    is_orphan: bool = False  # its parent stands in an earlier section
    said: Said | None = None  # read for the conversation only

    @property
    def shows_time(self) -> bool:
        """A note takes none, and a call that did not start has none yet."""
        unstarted = self.status in {StepStatus.PROPOSED, StepStatus.READY} and self.ask is None
        return self.kind != StepKind.NOTE and not unstarted

    @property
    def shows_status(self) -> bool:
        """Succeeded is the rule and needs no word."""
        return self.status != StepStatus.SUCCEEDED

    @property
    def holds(self) -> int:
        """How many rows fold away with it."""
        return sum(1 + child.holds for child in self.children)


def light(steps: QuerySet[Step]) -> QuerySet[Step]:
    """Only what rows show, in order; `acts` is the effect of a call that runs now and has no result yet."""
    acts = Case(
        When(status=StepStatus.EXECUTING, then=F("effect")),
        default=Value(""),
        output_field=CharField(),
    )
    return steps.only(*SHOWN).annotate(acts=acts).order_by("seq")


def with_words(steps: QuerySet[Step]) -> QuerySet[Step]:
    """The same rows with the beginnings of what was said; of a turn that streams, the end."""
    streams = When(status=StepStatus.RUNNING, then=F("draft"))
    return steps.annotate(
        said_reasoning=Left("reasoning", SAID_REASONING),
        said_text=Left("text", SAID_TEXT),
        said_arguments=Left("arguments", SAID_PAYLOAD),
        said_result=Left("result", SAID_PAYLOAD),
        said_draft=Case(streams, default=Value(""), output_field=TextField()),
    )


def worth_watching(step: Step) -> int:
    """How much a person wants to see this step while the run is live; reads would chase the reasoning off."""
    if step.status == StepStatus.RUNNING:
        return 4
    if step.status == StepStatus.WAITING:
        return 3
    if step.status == StepStatus.EXECUTING and getattr(step, "acts", "") == "destructive":
        return 2
    return 1 if step.kind == StepKind.MODEL else 0


def busy(
    steps: Iterable[Step], approvals: Mapping[int, Approval], now: datetime
) -> list[tuple[datetime, datetime]]:
    """Every stretch in which a model or a tool worked; what lies between is idle."""
    return [
        (begin, end or now)
        for step in steps
        for begin, end in _work(step, approvals.get(step.pk))
        if end is not None or step.status in OPEN_STATUSES
    ]


def extent(
    steps: Sequence[Step], approvals: Mapping[int, Approval], now: datetime
) -> tuple[datetime, datetime]:
    """From the first beginning to the last end of these steps, waiting for people included."""
    begins = [step.started_at for step in steps]
    ends = [step.ended_at or (now if step.status in OPEN_STATUSES else step.started_at) for step in steps]
    ends += [approvals[step.pk].decided_at or now for step in steps if step.pk in approvals]
    return min(begins), max(*ends, *begins)


class RowBuilder:
    """Turns the steps of one section into nested rows on its axis, and collects their questions."""

    def __init__(
        self,
        run: Run,
        scale: Scale,
        approvals: Mapping[int, Approval],
        viewer: User,
        now: datetime,
        end: datetime,
    ) -> None:
        self.run, self.scale, self.approvals = run, scale, approvals
        self.viewer, self.now, self.end = viewer, now, end
        self.asks: list[Ask] = []

    def rows(self, steps: Sequence[Step]) -> tuple[Row, ...]:
        """The rows of these steps, each inside its parent where that is among them."""
        children: dict[int | None, list[Step]] = defaultdict(list)
        known = {step.pk for step in steps}
        for step in steps:
            children[step.parent_id if step.parent_id in known else None].append(step)
        return tuple(self._row(step, children) for step in children[None])

    def _row(self, step: Step, children: Mapping[int | None, list[Step]], *, inside: bool = False) -> Row:
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
            children=tuple(self._row(child, children, inside=True) for child in children.get(step.pk, ())),
            is_orphan=step.parent_id is not None and not inside,
            said=_said(step),
        )

    def _bars(self, step: Step, approval: Approval | None) -> list[Bar]:
        if step.kind == StepKind.NOTE or step.status == StepStatus.PROPOSED:
            return []
        bars = []
        if approval is not None:
            bars.append(self._bar("wait", approval.created_at, approval.decided_at or step.ended_at))
        for begin, end in _work(step, approval):
            bars.append(self._bar("bad" if step.status in FAILED_STATUSES else step.kind, begin, end))
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


def _said(step: Step) -> Said | None:
    if not hasattr(step, "said_text"):
        return None
    words = {
        name: str(getattr(step, f"said_{name}")) for name in ("reasoning", "text", "arguments", "result")
    }
    streams = step.status == StepStatus.RUNNING
    if streams:
        words["text"] = newest_part(str(getattr(step, "said_draft", "")), SAID_TEXT)
    return Said(**words, is_streaming=streams)


def _icon(step: Step) -> str:
    if step.kind == StepKind.MODEL:
        return "retry" if step.attempt > 1 or step.status == StepStatus.FAILED else "model"
    return "tool" if step.kind == StepKind.TOOL else "edit"
