"""What stands out in a cost report: the most expensive runs and steps, outliers, waste, missed caching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from heapq import nlargest
from statistics import median

from django.db.models import Exists, OuterRef, QuerySet, Sum

from runs.counting import LOST, UNAVOIDABLE, Miss
from runs.models import Charge, Run, RunStatus, Step
from runs.reading.cost_lists import listed
from runs.reading.cost_periods import CostPeriod
from runs.reading.costs import CostReport
from runs.reading.tally import Tally, usd

MOST = 10
FEW_CALLS = 3_000  # so many are summed up at once; of more, runs are tried from the most expensive on
MOST_TRIED = 20_000
OUTLIER = 5  # times the median of its agent
MEDIAN_OF, LEAST_RUNS = 200, 10
MOST_AGENTS, SHOWN_OUTLIERS = 8, 3

REASONS = {
    Miss.PAUSE: ("Pause longer than the cache lives", "5 minutes, or an hour where that was asked for"),
    Miss.CHANGED: ("Beginning changed or was forgotten", "the same start was sent, yet not found"),
    Miss.MODEL: ("Another model answered", "each model has a cache of its own"),
    Miss.OFF: ("The turn before wrote nothing", "caching was off or not asked for"),
    Miss.TAIL: ("Behind the cached part", "sent by the turn before without being cached"),
    Miss.SMALL: ("Prompt too small to be cached", "models cache from 512 to 4,096 tokens on"),
    Miss.HAND_OVER: ("Hand-over to another run", "it begins with a summary, which is new"),
    Miss.FIRST: ("First turn of a run", "nothing was sent before"),
    Miss.NEW: ("New in this turn", "results and answers since the turn before"),
}
UNREAD = ("Written and never read", "by the last turn of a run that has ended")


@dataclass(frozen=True)
class CostlyRun:
    """A run and what its calls of the period cost."""

    run: Run
    cost: Decimal


@dataclass(frozen=True)
class CostlyStep:
    """A model call and what it cost."""

    step: Step
    cost: Decimal


@dataclass(frozen=True)
class Outliers:
    """Runs of an agent that cost more than OUTLIER times the median of its newest ones."""

    agent: str
    median: Decimal
    above: Decimal
    runs: tuple[tuple[Run, Decimal], ...]  # with how many times the median
    query: str


@dataclass(frozen=True)
class WasteLine:
    """Money that brought no answer; no charge is in two lines."""

    name: str
    about: str
    tally: Tally
    share: float | None  # of all cost
    query: str


@dataclass(frozen=True)
class MissLine:
    """Input that was not read from the cache, for one reason."""

    name: str
    about: str
    calls: int
    tokens: int
    extra: Decimal | None  # what it cost more than reading would have; None: unpriced
    is_avoidable: bool
    reason: str


def costly_runs(report: CostReport) -> tuple[CostlyRun, ...]:
    """The runs whose calls in the period cost most."""
    amounts = _amounts(report)
    runs = Run.objects.defer("config", "final_response", "opening").in_bulk([pk for pk, _ in amounts])
    return tuple(CostlyRun(runs[pk], usd(amount)) for pk, amount in amounts if pk in runs)


def _amounts(report: CostReport) -> list[tuple[int, int]]:
    """Whole costs are an upper bound: no run further down can have cost more than the last one tried."""
    period = report.period
    if report.total.calls > FEW_CALLS:
        found: dict[int, int] = {}
        size, tried = 40, 0
        going_on = Run.objects.filter(ended_at__isnull=True).order_by("-created_at")
        for pks in _parts(list(going_on.values_list("pk", flat=True)[:MOST_TRIED])):
            found |= _spent(period, report.simulated, pks)
        ended = Run.objects.filter(ended_at__isnull=False).order_by("-cost_usd", "-pk")
        while tried < MOST_TRIED:
            rows = list(ended.values_list("pk", "cost_usd")[tried : tried + size])
            found |= _spent(period, report.simulated, [pk for pk, _ in rows])
            best = nlargest(MOST, found.values())
            if len(rows) < size or (len(best) == MOST and rows[-1][1] <= usd(best[-1])):
                return _best(found)
            tried, size = tried + size, min(4 * size, 4_000)
    return _best(_spent(period, report.simulated, None))


def _parts(pks: Sequence[int]) -> list[Sequence[int]]:
    return [pks[n : n + 1_000] for n in range(0, len(pks), 1_000)]


def _spent(period: CostPeriod, simulated: bool, pks: Sequence[int] | None) -> dict[int, int]:
    charges = Charge.objects.filter(at__gte=period.since, at__lt=period.until, simulated=simulated)
    if pks is not None:
        charges = charges.filter(run__in=pks)
    return dict(charges.order_by().values_list("run").annotate(Sum("amount", default=0)))


def _best(found: dict[int, int]) -> list[tuple[int, int]]:
    best = nlargest(MOST, found.items(), key=lambda item: (item[1], -item[0]))
    return [(pk, amount) for pk, amount in best if amount > 0]


def costly_steps(report: CostReport) -> tuple[CostlyStep, ...]:
    """The calls of the period that cost most."""
    best = nlargest(MOST, report.steps.items(), key=lambda item: (item[1], -item[0]))
    steps = (
        Step.objects.filter(pk__in=[pk for pk, _ in best])
        .select_related("run")
        .only("seq", "name", "summary", "run__request_id", "run__user_query")
        .in_bulk()
    )
    return tuple(CostlyStep(steps[pk], cost) for pk, cost in best if pk in steps and cost > 0)


def outliers(report: CostReport) -> tuple[Outliers, ...]:
    """Per agent its runs that cost far more than the median of its newest runs that ended."""
    found = [_outliers_of(report, agent) for agent in report.agents[:MOST_AGENTS]]
    return tuple(one for one in found if one is not None and one.runs)


def _outliers_of(report: CostReport, agent: str) -> Outliers | None:
    period = report.period
    runs = Run.objects.filter(agent=agent, simulated=report.simulated, ended_at__isnull=False)
    newest = runs.filter(created_at__lt=period.until).order_by("-created_at", "-pk")
    costs = [cost for cost in newest.values_list("cost_usd", flat=True)[:MEDIAN_OF] if cost]
    if len(costs) < LEAST_RUNS:
        return None
    usual = Decimal(median(costs))
    above = OUTLIER * usual
    charged = Charge.objects.filter(run=OuterRef("pk"), at__gte=period.since, at__lt=period.until)
    dear: QuerySet[Run] = runs.filter(Exists(charged), cost_usd__gt=above).order_by("-cost_usd", "-pk")
    return Outliers(
        agent=agent,
        median=usual,
        above=above,
        runs=tuple(
            (run, run.cost_usd / usual)
            for run in dear.only("request_id", "user_query", "cost_usd", "status")[:SHOWN_OUTLIERS]
        ),
        query=listed(
            period.since, period.until, report.simulated,
            ("agent", agent), ("cost", f">{above.normalize():f}"), ("is", "ended"),
        ),
    )  # fmt: skip


def waste(report: CostReport) -> tuple[WasteLine, ...]:
    """Attempts that brought no answer, and all that other attempts of failed and cancelled runs cost."""
    period = report.period
    lost = Tally()
    for key, tally in report.outcomes.items():
        if key.endswith(LOST):
            lost.add(tally.values)

    def line(name: str, about: str, tally: Tally, *conditions: tuple[str, str]) -> WasteLine:
        query = listed(period.since, period.until, report.simulated, *conditions)
        share = tally.amount / report.total.amount if report.total.amount else None
        return WasteLine(name, about, tally, share, query)

    lines = [
        line(
            "Attempts without an answer", "broken off or refused, then tried again or given up, in any run",
            lost, ("charge", "failed"),
        ),
        *(
            line(
                f"{status.label} runs", "their attempts that did bring an answer",
                report.outcomes.get(status, Tally()), ("charge", "answered"), ("status", status),
            )
            for status in (RunStatus.FAILED, RunStatus.CANCELLED)
        ),
    ]  # fmt: skip
    return tuple(each for each in lines if any(each.tally.values))


def successes(report: CostReport) -> Tally:
    """What runs that succeeded used, their lost attempts included; `runs` is how many they are."""
    found = Tally()
    for key in (RunStatus.SUCCEEDED.value, RunStatus.SUCCEEDED + LOST):
        if key in report.outcomes:
            found.add(report.outcomes[key].values)
    return found


def missed(report: CostReport) -> tuple[MissLine, ...]:
    """Why input was not read from the cache: first what can be changed, the dearest reason first."""
    lines = [
        MissLine(
            *REASONS[reason], tally.calls, tally.input_tokens, tally.shown_cost,
            is_avoidable=reason not in UNAVOIDABLE, reason=reason,
        )
        for reason in REASONS
        if (tally := report.misses.get(reason)) is not None and tally.input_tokens
    ]  # fmt: skip
    return tuple(sorted(lines, key=lambda line: (not line.is_avoidable, -(line.extra or 0), -line.tokens)))


def unread(report: CostReport) -> MissLine | None:
    """Cache writes of last turns, which nothing of their run reads any more."""
    tally = report.misses.get(Miss.UNREAD)
    if tally is None or not tally.input_tokens:
        return None
    return MissLine(
        *UNREAD, tally.calls, tally.input_tokens, tally.shown_cost, is_avoidable=True, reason=Miss.UNREAD
    )
