"""How reviewing goes: what was asked and answered in a period, and how much time people took for it.

It is about the questions, not about people: nobody is named, and nothing is ranked by person. Where it is not
known how long a card was open, the vote is left out of the figures of time and counted apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from statistics import median
from typing import NamedTuple

from runs.models import Approval, ApprovalState, Verdict, Vote
from runs.reading.timescale import percent_text

PERIODS = (7, 30, 90)  # days
USUAL_PERIOD = 30
MAX_APPROVALS = 5_000  # the newest of the period; the page says when there were more
QUICK_SECONDS = 2.0
HEIGHT = 160.0  # of the plot in pixels, without the labels below it
LEFT = 5.0  # percent kept for the labels of the axis
OUTCOMES = ("approved", "rejected", "expired", "withdrawn")
BUCKETS = (
    ("under 2 s", 2.0),
    ("2 to 5 s", 5.0),
    ("5 to 10 s", 10.0),
    ("10 to 30 s", 30.0),
    ("30 s to 2 min", 120.0),
    ("over 2 min", float("inf")),
)


class Decided(NamedTuple):
    """One decided approval, as little of it as the figures need."""

    pk: int
    state: str
    execute_by: datetime | None
    rule: str
    tool: str
    created_at: datetime
    decided_at: datetime

    @property
    def outcome(self) -> str:
        """What people made of it: one that was approved stays so when it was not started in time."""
        if self.execute_by is not None and self.state != ApprovalState.REVOKED:
            return "approved"
        if self.state in {ApprovalState.REJECTED, ApprovalState.EXPIRED}:
            return self.state
        return "withdrawn"

    @property
    def seconds(self) -> float:
        return (self.decided_at - self.created_at).total_seconds()


class Cast(NamedTuple):
    """One vote on one of them."""

    approval: int
    verdict: str
    seconds_on_card: float | None
    on_own_run: bool


@dataclass(frozen=True)
class Figures:
    """Figures of some approvals. Shares are 0 to 1; None where there is nothing to divide by."""

    name: str
    asked: int
    outcomes: dict[str, int]
    decide_seconds: float | None  # median from asked to approved or rejected
    card_seconds: float | None  # median of the votes whose time is known
    timed: int  # approving votes whose time is known
    quick: int  # of them, under QUICK_SECONDS
    untimed: int  # votes whose time is not known
    self_approved: int

    @property
    def approve_share(self) -> float | None:
        answered = self.outcomes["approved"] + self.outcomes["rejected"]
        return self.outcomes["approved"] / answered if answered else None

    @property
    def quick_share(self) -> float | None:
        return self.quick / self.timed if self.timed else None


@dataclass(frozen=True)
class Bar:
    """One day or one range of time, as counts and as rectangles: series, y, height."""

    label: str
    counts: tuple[int, ...]
    x: str
    width: str
    middle: str
    parts: tuple[tuple[str, str, str], ...]
    labelled: bool

    @property
    def total(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class Report:
    """Everything the page shows of a period of so many days."""

    days: int
    since: datetime
    capped: bool
    total: Figures
    by_rule: tuple[Figures, ...]
    by_tool: tuple[Figures, ...]
    per_day: tuple[Bar, ...]
    on_card: tuple[Bar, ...]
    top: int  # the highest bar of the days, in approvals


def find_period(text: str) -> int:
    """The period of this name in days, or the usual one."""
    return int(text) if text in map(str, PERIODS) else USUAL_PERIOD


def read_reviewing(days: int, *, now: datetime) -> Report:
    """The figures of the last so many days, today included: two queries, bounded."""
    since = datetime.combine(now.date() - timedelta(days=days - 1), time(), UTC)
    rows = Approval.objects.filter(decided_at__gte=since).order_by("-decided_at")
    names = ("pk", "state", "execute_by", "rule", "step__name", "created_at", "decided_at")
    decided = [Decided(*row) for row in rows.values_list(*names)[: MAX_APPROVALS + 1]]
    capped = len(decided) > MAX_APPROVALS
    decided = decided[:MAX_APPROVALS]
    votes = _votes(since, {row.pk for row in decided})
    per_day = _per_day(decided, since, days)
    return Report(
        days=days,
        since=since,
        capped=capped,
        total=_figures("All", decided, votes),
        by_rule=_grouped(decided, votes, lambda row: row.rule),
        by_tool=_grouped(decided, votes, lambda row: row.tool),
        per_day=per_day,
        on_card=_on_card([vote for cast in votes.values() for vote in cast]),
        top=max((bar.total for bar in per_day), default=0),
    )


def _votes(since: datetime, wanted: set[int]) -> dict[int, list[Cast]]:
    """The votes on these approvals, by approval."""
    rows = Vote.objects.filter(approval__decided_at__gte=since).order_by("-approval__decided_at")
    names = ("approval_id", "verdict", "seconds_on_card", "voter_id", "approval__run__created_by_id")
    votes: dict[int, list[Cast]] = defaultdict(list)
    for pk, verdict, seconds, voter, owner in rows.values_list(*names)[: 4 * MAX_APPROVALS]:
        if pk in wanted:
            votes[pk].append(Cast(pk, verdict, seconds, voter == owner))
    return votes


def _grouped(
    decided: Iterable[Decided], votes: dict[int, list[Cast]], key: Callable[[Decided], str]
) -> tuple[Figures, ...]:
    """Figures per value of the key, what was asked most often first."""
    groups: dict[str, list[Decided]] = defaultdict(list)
    for row in decided:
        groups[key(row)].append(row)
    figures = [_figures(name, rows, votes) for name, rows in groups.items()]
    return tuple(sorted(figures, key=lambda one: (-one.asked, one.name)))


def _figures(name: str, decided: list[Decided], votes: dict[int, list[Cast]]) -> Figures:
    cast = [vote for row in decided for vote in votes.get(row.pk, ())]
    times = [vote.seconds_on_card for vote in cast if vote.seconds_on_card is not None]
    yes = [vote for vote in cast if vote.verdict == Verdict.APPROVE]
    timed = [vote.seconds_on_card for vote in yes if vote.seconds_on_card is not None]
    answered = [row.seconds for row in decided if row.outcome in {"approved", "rejected"}]
    return Figures(
        name=name,
        asked=len(decided),
        outcomes={outcome: sum(row.outcome == outcome for row in decided) for outcome in OUTCOMES},
        decide_seconds=median(answered) if answered else None,
        card_seconds=median(times) if times else None,
        timed=len(timed),
        quick=sum(seconds < QUICK_SECONDS for seconds in timed),
        untimed=len(cast) - len(times),
        self_approved=sum(vote.on_own_run for vote in yes),
    )


def _per_day(decided: list[Decided], since: datetime, days: int) -> tuple[Bar, ...]:
    counts = [[0, 0, 0] for _ in range(days)]
    for row in decided:
        if row.outcome in OUTCOMES[:3]:
            counts[(row.decided_at - since).days][OUTCOMES.index(row.outcome)] += 1
    labels = [since + timedelta(days=n) for n in range(days)]
    every = max(1, days // 7)
    return _bars([f"{day.day} {day:%b}" for day in labels], counts, every)


def _on_card(votes: list[Cast]) -> tuple[Bar, ...]:
    counts = [[0] for _ in BUCKETS]
    for vote in votes:
        if vote.seconds_on_card is not None:
            place = next(n for n, (_, end) in enumerate(BUCKETS) if vote.seconds_on_card < end)
            counts[place][0] += 1
    return _bars([label for label, _ in BUCKETS], counts, 1)


def _bars(labels: list[str], counts: list[list[int]], every: int) -> tuple[Bar, ...]:
    """Rectangles from the bottom up, scaled to the highest bar; every so many bars have a label."""
    top = max((sum(numbers) for numbers in counts), default=0) or 1
    room = (100 - LEFT) / len(labels)
    bars = []
    for n, (label, numbers) in enumerate(zip(labels, counts, strict=True)):
        parts, y = [], HEIGHT
        for series, number in enumerate(numbers, 1):
            height = number / top * (HEIGHT - 16)
            y -= height
            if number:
                parts.append((f"c{series}", f"{y:.1f}", f"{max(1.0, height - 0.8):.1f}"))
        x = LEFT + n * room
        bars.append(
            Bar(
                label=label,
                counts=tuple(numbers),
                x=percent_text(x + room * 0.15),
                width=percent_text(room * 0.7),
                middle=percent_text(x + room / 2),
                parts=tuple(parts),
                labelled=n % every == 0,
            )
        )
    return tuple(bars)
