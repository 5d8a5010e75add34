"""What a summary of costs says: the facts of one week or month, ready for JSON. Our own words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum

from runs.models import Charge, Every, RunStatus
from runs.models.charge import PRICED_CLASSES
from runs.models.summary import period_of
from runs.money import FRACTION
from runs.reading.budgets import read_budgets
from runs.reading.words import counted, line, money, tokens

MOST_LINES = 5
NEARLY = 80.0  # percent of a budget that are worth a line
ALL_TOKENS = sum((F(f"{name}_tokens") for name in PRICED_CLASSES[1:]), F("input_tokens"))


@dataclass(frozen=True)
class _Totals:
    cost: Decimal | None  # of what has a price; None: something was used, and nothing of it has one
    unpriced_calls: int
    unpriced_tokens: int
    waste: Decimal
    runs: int
    calls: int

    @property
    def shown(self) -> str:
        """The cost; where nothing that was used has a price it is unpriced, and not zero."""
        return money(None) if self.cost is None else _usd(self.cost)


def summary_facts(every: str, since: datetime, until: datetime, *, now: datetime) -> dict[str, Any]:
    """The facts of a message about this week or month. Real and simulated usage are never added together.

    What is told is the real usage, and that of the simulator only when there was nothing else.
    """
    before = period_of(every, since - timedelta(days=1))
    kinds = set(_entries(since, until).values_list("simulated", flat=True).distinct())
    simulated = kinds == {True}
    entries = _entries(since, until).filter(simulated=simulated)
    totals, earlier = _totals(entries), _totals(_entries(*before).filter(simulated=simulated))
    last_day = until - timedelta(days=1)
    name = (
        f"{since.day} {since:%b} to {last_day.day} {last_day:%b %Y} (UTC)"
        if every == Every.WEEK
        else f"{since:%B %Y} (UTC)"
    )
    so_far = " so far" if until > now else ""
    lines = [
        f"{totals.shown} in {counted(totals.runs, 'run')}, {counted(totals.calls, 'model call')}."
        + (" All of it simulated." if simulated else ""),
        _change(totals, earlier, every) + (" The period is not over yet." if so_far else ""),
        *_top("Agents", entries, "agent"),
        *_top("Models", entries, "model"),
        f"Waste: {_usd(totals.waste)} for failed attempts and for runs that failed or were cancelled.",
        *_unpriced(totals),
        *_budgets(simulated, now),
    ]
    month = every == Every.MONTH
    return {
        "outcome": "summary",
        "headline": f"{name}{so_far}: {totals.shown}{' simulated' if simulated else ''}",
        "lines": lines,
        "path": f"/costs/statement/{since:%Y-%m}/" if month else "/costs/",
        "simulated": simulated,
        "from": since.isoformat(),
        "to": until.isoformat(),
    }


def _entries(since: datetime, until: datetime) -> QuerySet[Charge]:
    return Charge.objects.filter(at__gte=since, at__lt=until).order_by()


def _totals(entries: QuerySet[Charge]) -> _Totals:
    lost = Q(failed=True) | Q(run__status__in=[RunStatus.FAILED, RunStatus.CANCELLED])
    unpriced = Q(price=None)
    found = entries.aggregate(
        cost=Sum("amount", default=0),
        priced=Sum("entry", filter=~unpriced, default=0),
        waste=Sum("amount", filter=lost, default=0),
        unpriced_calls=Sum("entry", filter=unpriced & ~_EMPTY, default=0),
        unpriced_tokens=Sum(ALL_TOKENS, filter=unpriced, default=0),
        runs=Count("run", distinct=True),
        calls=Sum("entry", default=0),
    )
    for name in ("cost", "waste"):
        found[name] = Decimal(found[name]) / FRACTION
    if not found.pop("priced") and found["unpriced_tokens"]:
        found["cost"] = None
    return _Totals(**found)


_EMPTY = Q(**{f"{name}_tokens": 0 for name in PRICED_CLASSES})


def _change(totals: _Totals, earlier: _Totals, every: str) -> str:
    if not earlier.cost and not earlier.unpriced_tokens:
        return f"Nothing was spent in the {every} before."
    if not earlier.cost or totals.cost is None:
        return f"The {every} before it was {earlier.shown}."
    change = totals.cost - earlier.cost
    share = (
        f" ({100 * abs(change) / earlier.cost:.0f} % {'more' if change > 0 else 'less'})" if change else ""
    )
    return f"The {every} before it was {_usd(earlier.cost)}{share}."


def _top(heading: str, entries: QuerySet[Charge], by: str) -> Iterable[str]:
    groups = entries.values_list(by).annotate(amounts=Sum("amount"))
    found = list(groups.order_by(F("amounts").desc(nulls_last=True), by)[: MOST_LINES + 1])
    if not found:
        return
    shown = [f"{line(name)} {_amount(amount)}" for name, amount in found[:MOST_LINES]]
    yield f"{heading}: {', '.join(shown)}{', and others' if len(found) > MOST_LINES else ''}."


def _unpriced(totals: _Totals) -> Iterable[str]:
    if totals.unpriced_tokens:
        yield (
            f"Without a price, and in no sum: {counted(totals.unpriced_calls, 'call')} with "
            f"{tokens(totals.unpriced_tokens)} tokens."
        )


def _budgets(simulated: bool, now: datetime) -> Iterable[str]:
    for budget in read_budgets(simulated=simulated, now=now):
        for meter in budget.meters:
            if meter.used_share >= NEARLY:
                yield f"Budget {budget.budget.title}: {meter.used} of {meter.limit} used ({meter.percent})."


def _amount(amount: int | None) -> str:
    return money(None) if amount is None else _usd(Decimal(amount) / FRACTION)


def _usd(amount: Decimal) -> str:
    return money(amount) if amount >= 0 else f"−{money(-amount)}"
