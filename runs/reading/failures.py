"""Errors of all runs, grouped by what they say once numbers, names and ids are taken out of it."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import BooleanField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Left

from runs.models import Run, Step, StepKind
from runs.reading.periods import Period

MOST = 5_000  # failures that are looked at, newest first
SHOWN_GROUPS = 50
EXAMPLES = 10
SENTENCE = 400  # characters of an error that tell it from others
# In the words of the partial index, not as parameters: SQLite would not know that they are the same.
FAILED = RawSQL("\"runs_step\".\"status\" IN ('failed', 'unknown')", [], BooleanField())

# From the most to the least special; what matches becomes one sign, so that two errors of a kind are equal.
SIGNS = (
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?"), "<time>"),
    (re.compile(r"\b(?:req|msg|toolu|call|ev|dep)_\w+\b"), "<id>"),
    (re.compile(r"https?://[^\s'\"<>]+"), "<address>"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b"), "<address>"),
    (re.compile(r"'[^']{1,200}'|\"[^\"]{1,200}\"|“[^”]{1,200}”"), "<text>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\d[\d,._]*"), "<n>"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Occurrence:
    """One failure: which step of which run, and when."""

    run_id: int
    seq: int
    at: datetime
    sentence: str
    run: Run | None = None


@dataclass
class Group:
    """Failures of one kind. `examples` are the newest."""

    fingerprint: str
    name: str  # of the tool, or of the model
    kind: str  # of the step: model or tool
    error_kind: str
    pattern: str
    count: int = 0
    runs: set[int] = field(default_factory=set)
    first: datetime | None = None
    last: datetime | None = None
    examples: list[Occurrence] = field(default_factory=list)
    per_slot: dict[datetime, int] = field(default_factory=lambda: defaultdict(int))
    bars: tuple[tuple[str, str, str, str], ...] = ()  # x, y, width, height of the small chart


@dataclass(frozen=True)
class Failures:
    """The groups, the most frequent first. `is_cut`: there were more failures than were looked at."""

    period: Period
    groups: tuple[Group, ...]
    more_groups: int
    looked_at: int
    is_cut: bool


def pattern_of(sentence: str) -> str:
    """What an error says without what differs from one time to the next."""
    text = sentence[:SENTENCE]
    for expression, sign in SIGNS:
        text = expression.sub(sign, text)
    return text.strip()


def fingerprint_of(kind: str, name: str, error_kind: str, pattern: str) -> str:
    """Twelve hex digits; the same for errors of the same kind, in every run and at all times.

    Errors of the model are the same whichever model it was.
    """
    who = name if kind == StepKind.TOOL else ""
    return hashlib.sha256("\0".join((kind, who, error_kind, pattern)).encode()).hexdigest()[:12]


def read_failures(period: Period, *, now: datetime, tool: str = "") -> Failures:
    """What failed in this period, at most MOST of it, all tools and models or one: two queries.

    Nothing is computed when a step fails; a partial index leads to the newest failures.
    """
    since = now - period.length
    failed = Step.objects.filter(FAILED, ended_at__isnull=False, ended_at__gte=since)
    if tool:
        failed = failed.filter(name=tool)
    columns = ("run_id", "seq", "kind", "name", "error_kind", "ended_at")
    newest = failed.order_by("-ended_at").values_list(*columns, Left("error", SENTENCE))
    rows = list(newest[: MOST + 1])
    groups: dict[str, Group] = {}
    for run_id, seq, kind, name, error_kind, at, sentence in rows[:MOST]:
        pattern = pattern_of(sentence)
        fingerprint = fingerprint_of(kind, name, error_kind, pattern)
        group = groups.get(fingerprint)
        if group is None:
            group = groups[fingerprint] = Group(fingerprint, name, kind, error_kind, pattern, last=at)
        _add(group, Occurrence(run_id, seq, at, sentence), period)
    ranked = sorted(groups.values(), key=lambda group: -group.count)
    shown = ranked[:SHOWN_GROUPS]
    _with_runs(shown)
    _with_bars(shown, period, now)
    return Failures(
        period,
        tuple(shown),
        len(ranked) - len(shown),
        looked_at=min(len(rows), MOST),
        is_cut=len(rows) > MOST,
    )


def _add(group: Group, one: Occurrence, period: Period) -> None:
    group.count += 1
    group.runs.add(one.run_id)
    group.first = one.at
    group.per_slot[_slot(one.at, period)] += 1
    if len(group.examples) < EXAMPLES:
        group.examples.append(one)


def _slot(moment: datetime, period: Period) -> datetime:
    slot = moment.replace(minute=0, second=0, microsecond=0)
    return slot if period.hours else slot.replace(hour=0)


def _with_runs(groups: list[Group]) -> None:
    wanted = {one.run_id for group in groups for one in group.examples}
    runs = Run.objects.only("pk", "request_id", "agent").in_bulk(wanted)
    for group in groups:
        group.examples = [
            Occurrence(one.run_id, one.seq, one.at, one.sentence, runs.get(one.run_id))
            for one in group.examples
        ]


def _with_bars(groups: list[Group], period: Period, now: datetime) -> None:
    """A bar per day or hour, 0 to 18 pixels high, in proportion to the highest of its group."""
    slots = period.slots(now)
    width = 100 / len(slots)
    for group in groups:
        top = max(group.per_slot.values(), default=1)
        bars = []
        for place, slot in enumerate(slots):
            height = 18 * group.per_slot.get(slot, 0) / top
            if height:
                drawn = max(2.0, height)
                bars.append(
                    (f"{place * width:.2f}%", f"{18 - drawn:.1f}", f"{width * 0.75:.2f}%", f"{drawn:.1f}")
                )
        group.bars = tuple(bars)
