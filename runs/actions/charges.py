"""The ledger of what model attempts cost: an entry with the end of each attempt, in its transaction."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.db.models.signals import post_migrate
from django.utils import timezone

from runs.actions import cost_hours, rows
from runs.actions.change import Change
from runs.models import Charge as ChargeRow
from runs.models import Entry, Price, Step, StepKind, StepStatus
from runs.models.charge import PRICES
from runs.money import UnitPrices, Usage, fractions

TOKENS = (
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
    "thinking_tokens",
)
MOST_CAUSES = 300  # characters of tool names that a charge holds

# Keys of the prices that are committed: they never change, unless the tables are made anew.
_known: dict[tuple[str, UnitPrices], int] = {}


@dataclass(frozen=True)
class Charge:
    """What one attempt used and costs. `prices` None: unpriced. `estimated`: the stream broke off.

    `context` is what selects a price besides the model, as `money.context_from_api` says it.
    """

    usage: Usage
    prices: UnitPrices | None
    estimated: bool = False
    context: str = ""


def book(current: Change, step: Step, charge: Charge) -> str:
    """Inside the change that ends this attempt: its usage and cost, on the step, the run and the ledger.

    The caller saves the step afterwards. Returns the cost in USD as text, for the event.
    """
    usage, prices = charge.usage, charge.prices
    tokens: dict[str, int] = {name: getattr(usage, name) for name in TOKENS}
    for name, amount in tokens.items():
        setattr(step, name, amount)
    step.usage_estimated = charge.estimated
    if prices is None:
        step.cost_usd, step.price_source = None, "unpriced"
    else:
        step.cost_usd = prices.cost(usage)
        step.unit_prices = prices.as_json()
        step.price_source = prices.source
        current.add(cost_usd=step.cost_usd)
    _append(current, step, charge)
    cost_hours.booked(current.run, step.ended_at or current.now, timezone.now())
    if prices is None and usage.total_tokens:
        current.add(unpriced_calls=1)
    del tokens["thinking_tokens"]  # they are part of the output
    current.add(**tokens)
    return "unpriced" if step.cost_usd is None else str(step.cost_usd)


def price_row(model: str, prices: UnitPrices) -> int:
    """Inside a transaction: the key of the row with these prices, which is stored when it is new."""
    key = _known.get((model, prices))
    if key is None:
        values = {name: getattr(prices, name) for name in PRICES} | {"model": model, "source": prices.source}
        Price.objects.bulk_create([Price(**values)], ignore_conflicts=True)
        key = Price.objects.values_list("pk", flat=True).get(**values)
        found = key
        transaction.on_commit(lambda: _known.__setitem__((model, prices), found))
    return key


def _forget(**_: object) -> None:
    _known.clear()


post_migrate.connect(_forget, dispatch_uid="keys of prices")


def _append(current: Change, step: Step, charge: Charge) -> None:
    run, cost = current.run, step.cost_usd
    rows.append(
        ChargeRow,
        [
            {
                "step_id": step.pk,
                "number": 0,
                "entry": int(Entry.CHARGE),
                "at": step.ended_at,
                "booked_at": current.now,
                "run_id": run.pk,
                "agent": run.agent,
                "user": run.started_by,
                "model": step.name,
                "simulated": run.simulated,
                "caused_by": _caused_by(current, step),
                "failed": step.status == StepStatus.FAILED,
                "estimated": charge.estimated,
                "context": charge.context,
                **{name: getattr(charge.usage, name) for name in TOKENS},
                "web_searches": charge.usage.web_searches,
                "price_id": None if charge.prices is None else price_row(step.name, charge.prices),
                "amount": None if cost is None else fractions(cost),
            }
        ],
    )


def _caused_by(current: Change, step: Step) -> str:
    """The tools that were called since the last answer: this request is the first to hold their results."""
    tools: set[str] = set()
    for earlier in current.steps_before(step):
        if earlier.kind == StepKind.TOOL:
            tools.add(earlier.name)
        elif earlier.kind == StepKind.MODEL and earlier.status == StepStatus.SUCCEEDED:
            break
    names = sorted(tools)
    while len(",".join(names)) > MOST_CAUSES:
        names.pop()
    return ",".join(names)
