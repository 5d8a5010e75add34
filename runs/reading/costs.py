"""What was spent: a report of a period, broken down one way, compared with the period before.

Simulated calls and real ones are never added together. A call without a price is in no sum of money and is
counted apart; it is never zero. `query` of a line or bar is the search that lists exactly the runs behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from runs.models import Dimension
from runs.models.cost_sum import AMOUNT_MEASURES, MEASURES
from runs.reading.cost_lists import listed
from runs.reading.cost_periods import CostPeriod
from runs.reading.cost_sums import BEFORE, NOW, Sums, read_sums
from runs.reading.tally import Tally, usd

QUESTION, UNTAGGED = "the question", "untagged"
CLASSES = {
    "input": "input, not cached",
    "cache_write_5m": "cache write, 5 minutes",
    "cache_write_1h": "cache write, 1 hour",
    "cache_read": "cache read",
    "output": "output",
    "web_search": "web searches",
}


@dataclass(frozen=True)
class Breakdown:
    """A way to divide what was spent."""

    name: str
    label: str  # of a column
    dimension: Dimension
    field: str  # of the search, that lists the runs of a line
    counts_runs: bool = False


BREAKDOWNS = {
    each.name: each
    for each in (
        Breakdown("agent", "Agent", Dimension.AGENT, "agent", counts_runs=True),
        Breakdown("model", "Model", Dimension.MODEL, "billed"),
        Breakdown("user", "User", Dimension.USER, "user", counts_runs=True),
        Breakdown("tag", "Tag", Dimension.TAGS, "tag", counts_runs=True),
        Breakdown("tool", "Tool", Dimension.CAUSE, "caused"),
        Breakdown("class", "Token class", Dimension.TOTAL, "class"),
    )
}
USUAL_BREAKDOWN = "model"


@dataclass(frozen=True)
class Line:
    """One line of a breakdown."""

    name: str
    tally: Tally
    before: Tally
    share: float | None  # of all priced cost, 0 to 1
    change: float | None
    query: str


@dataclass(frozen=True)
class Bar:
    """One bar of the chart: cost by series, and calls without a price."""

    place: int
    costs: dict[str, Decimal]
    unpriced: int
    query: str

    @property
    def cost(self) -> Decimal:
        return sum(self.costs.values(), Decimal(0))


@dataclass(frozen=True)
class CostReport:
    """What the cost page says about a period. `series` are the names of the chart, dearest first."""

    period: CostPeriod
    breakdown: Breakdown
    simulated: bool
    both_kinds: bool
    total: Tally
    before: Tally
    change: float | None
    lines: tuple[Line, ...]
    series: tuple[str, ...]
    bars: tuple[Bar, ...]
    agents: tuple[str, ...]  # dearest first
    outcomes: dict[str, Tally]  # by status, "open", and the same with LOST behind it
    misses: dict[str, Tally]  # by reason: calls, input_tokens, and in cost what it cost more
    steps: dict[int, Decimal]  # the dearest, by key
    query: str
    before_query: str

    @property
    def is_overlapping(self) -> bool:
        """Whether a charge can stand in several lines."""
        return self.breakdown.name == "tag"


def read_costs(period: CostPeriod, breakdown: Breakdown, *, simulated: bool | None) -> CostReport:
    """The report of a period. `simulated` None shows real calls when there are any."""
    is_class = breakdown.name == "class"
    dimensions = {Dimension.TOTAL, Dimension.AGENT, Dimension.OUTCOME, Dimension.MISS, breakdown.dimension}
    measures = ("unpriced", *(AMOUNT_MEASURES if is_class else ("amount",)))
    sums = read_sums(period.bounds, period.before, dimensions, breakdown.dimension, measures)
    kinds = {kind for place, _, kind, _ in sums.lines if place == NOW}
    wanted = simulated if simulated is not None else kinds == {True}
    total, before = (_tally(sums, place, Dimension.TOTAL, wanted, "") for place in (NOW, BEFORE))
    lines = _lines(sums, period, breakdown, wanted, total)
    agents = _keys(sums, Dimension.AGENT, wanted)
    bars = _bars(sums, period, breakdown, wanted)
    dearest = {name: cost for bar in bars for name, cost in bar.costs.items()}
    for name in dearest:
        dearest[name] = sum((bar.costs.get(name, Decimal(0)) for bar in bars), Decimal(0))
    return CostReport(
        period=period,
        breakdown=breakdown,
        simulated=wanted,
        both_kinds=len(kinds) == 2,
        total=total,
        before=before,
        change=_change(total, before),
        lines=lines,
        series=tuple(sorted(dearest, key=lambda name: (-dearest[name], name))),
        bars=bars,
        agents=tuple(sorted(agents, key=lambda name: (-agents[name].amount, name))),
        outcomes=_keys(sums, Dimension.OUTCOME, wanted),
        misses=_keys(sums, Dimension.MISS, wanted),
        steps={step: usd(amount) for (kind, step), amount in sums.steps.items() if kind == wanted},
        query=listed(period.since, period.until, wanted),
        before_query=listed(*period.before, wanted),
    )


def _tally(sums: Sums, place: int, dimension: Dimension, simulated: bool, key: str) -> Tally:
    return Tally(sums.lines.get((place, dimension, simulated, key), ()))


def _keys(sums: Sums, dimension: Dimension, simulated: bool, place: int = NOW) -> dict[str, Tally]:
    wanted = (place, dimension, simulated)
    return {line[3]: Tally(values) for line, values in sums.lines.items() if line[:3] == wanted}


def _lines(
    sums: Sums, period: CostPeriod, breakdown: Breakdown, simulated: bool, total: Tally
) -> tuple[Line, ...]:
    now, before = (
        _divided(breakdown, _keys(sums, breakdown.dimension, simulated, place)) for place in (NOW, BEFORE)
    )
    nothing = Tally()
    lines = [
        Line(
            name=_named(breakdown, key),
            tally=tally,
            before=before.get(key, nothing),
            share=tally.amount / total.amount if total.amount else None,
            change=_change(tally, before.get(key, nothing)),
            query=listed(period.since, period.until, simulated, (breakdown.field, key)),
        )
        for key, tally in now.items()
        if any(tally.values)
    ]
    return tuple(sorted(lines, key=lambda line: (-line.tally.amount, -line.tally.tokens, line.name)))


def _divided(breakdown: Breakdown, keys: dict[str, Tally]) -> dict[str, Tally]:
    """Sums per line: a tag has all of its runs, a tool its share of each turn that it caused with others."""
    divide: dict[str, Callable[[str, Tally], Iterable[tuple[str, list[int]]]]] = {
        "tag": lambda key, tally: [(tag, tally.values) for tag in key.split(",")],
        "tool": _by_tool,
        "class": lambda _, tally: _by_class(tally),
    }
    if breakdown.name not in divide:
        return keys
    found: dict[str, Tally] = {}
    for key, tally in keys.items():
        for name, values in divide[breakdown.name](key, tally):
            found.setdefault(name, Tally()).add(values)
    return found


def _by_tool(key: str, tally: Tally) -> list[tuple[str, list[int]]]:
    tools = key.split(",")
    return [(tool, tally.part(len(tools), first=n == 0)) for n, tool in enumerate(tools)]


def _by_class(tally: Tally) -> list[tuple[str, list[int]]]:
    """The tokens of a class stand where their kind stands, its amount also as the whole amount."""
    found = []
    for name in CLASSES:
        tokens = "web_searches" if name == "web_search" else f"{name}_tokens"
        amount = getattr(tally, f"{name}_amount")
        values = {tokens: getattr(tally, tokens), "amount": amount, "priced": tally.priced}
        if values[tokens]:
            found.append((name, [values.get(measure, 0) for measure in MEASURES]))
    return found


def _named(breakdown: Breakdown, key: str) -> str:
    if breakdown.name == "class":
        return CLASSES[key]
    return key or {"tag": UNTAGGED, "tool": QUESTION}.get(breakdown.name, "unknown")


def _bars(sums: Sums, period: CostPeriod, breakdown: Breakdown, simulated: bool) -> tuple[Bar, ...]:
    """Every charge is in one series of its bar, also where lines overlap."""
    costs: dict[int, dict[str, int]] = {}
    unpriced: dict[int, int] = {}
    for (place, kind, key), values in sums.bars.items():
        if kind != simulated:
            continue
        unpriced[place] = unpriced.get(place, 0) + values[0]
        of_bar = costs.setdefault(place, {})
        for name, amount in _series(breakdown, key, values[1:]):
            of_bar[name] = of_bar.get(name, 0) + amount
    return tuple(
        Bar(
            place=n,
            costs={name: usd(amount) for name, amount in costs.get(n, {}).items() if amount},
            unpriced=unpriced.get(n, 0),
            query=listed(since, until, simulated),
        )
        for n, (since, until) in enumerate(zip(period.bounds, period.bounds[1:], strict=False))
    )


def _series(breakdown: Breakdown, key: str, amounts: list[int]) -> list[tuple[str, int]]:
    if breakdown.name == "class":
        return [(CLASSES[name], amount) for name, amount in zip(CLASSES, amounts, strict=True)]
    if breakdown.name == "tool" and key:
        tools = key.split(",")
        share, rest = divmod(amounts[0], len(tools))
        return [(tool, share + (rest if n == 0 else 0)) for n, tool in enumerate(tools)]
    return [(_named(breakdown, key).replace(",", " + "), amounts[0])]


def _change(now: Tally, before: Tally) -> float | None:
    """0.12 is 12 % more; None when a percentage would say nothing."""
    if before.amount <= 0 or now.amount > 10 * before.amount:
        return None
    return now.amount / before.amount - 1
