"""What a person needs to make a better tool: how it is called, how it answers, what nobody uses."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet
from django.db.models.functions import Length

from runs.agents import installed
from runs.models import Approval, Step, StepKind, StepStatus
from runs.reading.histogram import Histogram, draw_histogram, percentile
from runs.reading.periods import Period
from runs.reading.words import duration
from tools import policy, registry
from tools.base import Tool

MOST_CALLS = 10_000  # started calls that are looked at, newest first, of all tools together
MOST_OF_ONE = 1_000  # of these, whose sizes and arguments are read for the page of one tool


@dataclass
class ToolTally:
    """Calls of one tool in a period."""

    name: str
    tool: Tool | None
    calls: int = 0
    failed: int = 0
    unknown: int = 0
    seconds: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    approvals: Counter[str] = field(default_factory=Counter)
    last: datetime | None = None

    @property
    def ranked_kinds(self) -> list[tuple[str, int]]:
        """Kinds of errors with their counts, the most frequent first."""
        return self.kinds.most_common()

    @property
    def error_share(self) -> float | None:
        return (self.failed + self.unknown) / self.calls if self.calls else None

    @property
    def median(self) -> str:
        return duration(percentile(sorted(self.seconds), 0.5)) if self.seconds else "–"

    @property
    def p95(self) -> str:
        return duration(percentile(sorted(self.seconds), 0.95)) if self.seconds else "–"

    @property
    def approval_share(self) -> float | None:
        """Of the decided questions, how many were approved."""
        decided = sum(self.approvals.values())
        return self.approvals["approved"] / decided if decided else None

    @property
    def asked(self) -> int:
        return sum(self.approvals.values())


@dataclass(frozen=True)
class Verdict:
    """What policy says of a call of this agent, before its arguments are known."""

    agent: str
    environment: str
    kind: str
    rule: str
    reason: str


@dataclass(frozen=True)
class ArgumentUse:
    """One argument of the schema, and in how many of the calls it was given."""

    name: str
    type: str
    description: str
    required: bool
    given: int
    share: float | None

    @property
    def is_unused(self) -> bool:
        return not self.required and self.given == 0


@dataclass(frozen=True)
class ToolPage:
    """One tool in full."""

    tally: ToolTally
    period: Period
    definition: str  # as the model sees it, JSON
    verdicts: tuple[Verdict, ...]
    agents: tuple[str, ...]
    latency: Histogram | None
    sizes: Histogram | None
    arguments: tuple[ArgumentUse, ...]
    looked_at: int
    recent_errors: tuple[Step, ...]
    most_calls: int  # of all tools that are looked at
    is_cut: bool  # there were more in the period

    @property
    def describes_arguments(self) -> bool:
        """Whether the schema says something of single arguments."""
        return any(one.description for one in self.arguments)


def read_tools(period: Period, *, now: datetime) -> list[ToolTally]:
    """Every tool of this installation, and those that were called and are gone: two queries."""
    tallies = {name: ToolTally(name, tool) for name, tool in sorted(registry.TOOLS.items())}
    columns = ("name", "status", "error_kind", "begun_at", "ended_at", "counted_at")
    for name, status, error_kind, begun, ended, at in _calls(period, now).values_list(*columns)[:MOST_CALLS]:
        _count(tallies.setdefault(name, ToolTally(name, None)), status, error_kind, begun, ended, at)
    decided = Approval.objects.filter(decided_at__gte=now - period.length)
    for name, state, count in decided.values_list("step__name", "state").annotate(n=Count("pk")).order_by():
        tallies.setdefault(name, ToolTally(name, None)).approvals[state] += count
    return list(tallies.values())


def read_tool(name: str, period: Period, *, now: datetime) -> ToolPage | None:
    """One tool, or None when there is none of this name and it was never called: six queries."""
    tool = registry.find(name)
    tally = ToolTally(name, tool)
    recent = _calls(period, now).values("pk")[:MOST_CALLS]
    mine = Step.objects.filter(pk__in=recent, name=name)
    columns = ("status", "error_kind", "begun_at", "ended_at", "counted_at")
    for row in mine.order_by("-counted_at").values_list(*columns):
        _count(tally, *row)
    if tool is None and not tally.calls:
        return None
    decided = Approval.objects.filter(decided_at__gte=now - period.length, step__name=name)
    tally.approvals.update(dict(decided.values_list("state").annotate(n=Count("pk")).order_by()))
    newest = mine.order_by("-counted_at")
    texts = newest.annotate(size=Length("result")).values_list("arguments", "size")[:MOST_OF_ONE]
    given, sizes, looked_at = _arguments(texts)
    is_cut = _calls(period, now).values("pk")[MOST_CALLS : MOST_CALLS + 1].exists()
    return ToolPage(
        tally=tally,
        period=period,
        definition=json.dumps(tool.definition(), ensure_ascii=False) if tool else "",
        verdicts=_verdicts(tool) if tool else (),
        agents=tuple(agent.name for agent in installed().values() if name in agent.tools),
        latency=draw_histogram("Time of a call", tally.seconds, duration),
        sizes=draw_histogram("Size of a result", sizes, characters),
        arguments=_uses(tool, given, looked_at) if tool else (),
        looked_at=looked_at,
        most_calls=MOST_CALLS,
        is_cut=is_cut,
        recent_errors=tuple(
            newest.filter(status__in=["failed", "unknown"])
            .select_related("run")
            .only("seq", "error", "error_kind", "ended_at", "run__request_id", "run__id")[:10]
        ),
    )


def characters(count: float) -> str:
    """800, 12k, 1.5M characters."""
    if count < 1_000:
        return f"{count:.0f}"
    return f"{count / 1_000:.3g}k" if count < 1_000_000 else f"{count / 1_000_000:.3g}M"


def _calls(period: Period, now: datetime) -> QuerySet[Step]:
    """Calls that were started in this period, newest first, along the index of counted calls."""
    started = Step.objects.filter(counted_at__isnull=False, counted_at__gte=now - period.length)
    return started.filter(kind=StepKind.TOOL).order_by("-counted_at")


def _count(
    tally: ToolTally,
    status: str,
    error_kind: str,
    begun: datetime | None,
    ended: datetime | None,
    at: datetime,
) -> None:
    tally.calls += 1
    tally.last = max(tally.last or at, at)
    tally.failed += status == StepStatus.FAILED
    tally.unknown += status == StepStatus.UNKNOWN
    if status in {StepStatus.FAILED, StepStatus.UNKNOWN}:
        tally.kinds[error_kind or status] += 1
    if begun is not None and ended is not None:
        tally.seconds.append(max(0.0, (ended - begun).total_seconds()))


def _arguments(texts: Any) -> tuple[Counter[str], list[float], int]:
    """How often each argument was given, the sizes of the results, and how many calls that were."""
    given: Counter[str] = Counter()
    sizes = []
    looked_at = 0
    for text, size in texts:
        looked_at += 1
        if size:
            sizes.append(float(size))
        try:
            arguments = json.loads(text)
        except ValueError:
            continue
        if isinstance(arguments, dict):
            given.update(name for name, value in arguments.items() if value is not None)
    return given, sizes, looked_at


def _uses(tool: Tool, given: Counter[str], looked_at: int) -> tuple[ArgumentUse, ...]:
    required = set(tool.input_schema.get("required", ()))
    return tuple(
        ArgumentUse(
            name=name,
            type=_type(schema),
            description=str(schema.get("description", "")),
            required=name in required,
            given=given[name],
            share=given[name] / looked_at if looked_at else None,
        )
        for name, schema in tool.input_schema.get("properties", {}).items()
    )


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(one) for one in schema["anyOf"])
    return str(schema.get("type", "any"))


def _verdicts(tool: Tool) -> tuple[Verdict, ...]:
    found = []
    for agent in installed().values():
        if tool.name in agent.tools:
            said = policy.decide(tool, {}, agent.name, agent.environment)
            found.append(Verdict(agent.name, agent.environment, said.kind, said.rule, said.reason))
    return tuple(found)
