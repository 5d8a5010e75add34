"""What the steps of a period say that a budget has used: the same sums as its ledger, from the rows."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from django.db.models import BigIntegerField, Case, F, QuerySet, Sum, Value, When
from django.db.models.functions import Cast, Coalesce, Greatest, Round

from runs.models.budget import AMOUNTS, Budget, Scope, period_bounds
from runs.models.step import Step, StepKind, StepStatus
from runs.money import FRACTION

TOKENS = (
    F("input_tokens")
    + F("cache_write_5m_tokens")
    + F("cache_write_1h_tokens")
    + F("cache_read_tokens")
    + F("output_tokens")
)


def counted(step: Step) -> tuple[int, Decimal]:
    """Tokens and USD that an ended attempt uses up: all it reserved, where its usage is only estimated."""
    tokens, usd = step.total_tokens, step.cost_usd or Decimal(0)
    if not step.usage_estimated:
        return tokens, usd
    return max(tokens, step.reserved_tokens), max(usd, step.reserved_usd or Decimal(0))


def steps_of(budget: Budget, *, simulated: bool) -> QuerySet[Step]:
    """The steps of the runs that share this budget."""
    steps = Step.objects.filter(run__simulated=simulated).order_by()
    match budget.scope:
        case Scope.AGENT:
            return steps.filter(run__agent=budget.agent)
        case Scope.USER:
            return steps.filter(run__created_by=budget.user_id)
        case Scope.TAG:
            return steps.filter(run__tags__name=budget.tag)
    return steps


def turns_and_calls(steps: QuerySet[Step], budget: Budget, starts_on: date) -> tuple[Any, Any]:
    """Of these steps those that count in this period: model attempts by their start, calls by their first."""
    since, until = period_bounds(budget.period, starts_on)
    calls = steps.filter(kind=StepKind.TOOL, counted_at__gte=since, counted_at__lt=until)
    if budget.tool:
        return steps.none(), calls.filter(name=budget.tool)
    return steps.filter(kind=StepKind.MODEL, started_at__gte=since, started_at__lt=until), calls


def amounts_of_steps(
    budget: Budget, starts_on: date, *, simulated: bool, run_id: int | None = None
) -> dict[str, Any]:
    """What the steps of this period say: the columns of its ledger. Exact.

    With `run_id` those of this run alone, whether or not it shares the budget.
    """
    since, _ = period_bounds(budget.period, starts_on)
    steps = (
        steps_of(budget, simulated=simulated)
        if run_id is None
        else Step.objects.filter(run=run_id).order_by()
    )
    turns, calls = turns_and_calls(steps, budget, starts_on)
    if budget.tool:
        return dict.fromkeys(AMOUNTS, 0) | {"tool_calls": calls.count()}
    # What started in the period ended in it or later, or runs: one index knows the ends, one what runs.
    used = turns.filter(ended_at__gte=since).aggregate(tokens=Sum(used_tokens()), cost_usd=Sum(used_usd()))
    held = turns.filter(status=StepStatus.RUNNING).aggregate(
        reserved_tokens=Sum("reserved_tokens"), reserved_usd=Sum(whole(F("reserved_usd")))
    )
    sums: dict[str, Any] = {name: value or 0 for name, value in (used | held).items()}
    for name in ("cost_usd", "reserved_usd"):
        sums[name] = Decimal(sums[name]) / FRACTION
    return sums | {"tool_calls": calls.count()}


def used_tokens() -> Any:
    """The tokens that an ended attempt uses up, as `counted` has them."""
    return _used(TOKENS, F("reserved_tokens"))


def used_usd() -> Any:
    """The same in USD, in whole numbers of the smallest fraction."""
    return _used(whole(F("cost_usd")), whole(F("reserved_usd")))


def whole(amount: Any) -> Any:
    """An amount as a whole number of its smallest fraction: whole numbers add up exactly everywhere."""
    return Cast(Round(Coalesce(amount, Value(Decimal(0))) * Value(Decimal(FRACTION))), BigIntegerField())


def _used(actual: Any, reserved: Any) -> Any:
    estimated = When(usage_estimated=True, then=Greatest(actual, reserved))
    return Case(estimated, default=actual, output_field=BigIntegerField())
