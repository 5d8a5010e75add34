"""Plain functions that fill the ledger at chosen times, as runs, steps and entries of their own making."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from runs.models import Charge, Entry, Price, Run, RunStatus, Step, StepKind, StepStatus
from runs.models.charge import PRICES, USAGE
from runs.money import FRACTION, UnitPrices, Usage, unit_prices

MODEL = "claude-sonnet-5-5"


@dataclass
class Attempt:
    """One attempt at a model call as the ledger keeps it."""

    usage: Usage
    at: datetime
    model: str = MODEL
    prices: UnitPrices | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def a_price(model: str, prices: UnitPrices) -> Price:
    """The stored row of these prices."""
    values = {name: getattr(prices, name) for name in PRICES}
    return Price.objects.get_or_create(model=model, source=prices.source, **values)[0]


def listed(model: str = MODEL, *, at: datetime, prompt_tokens: int = 0) -> UnitPrices:
    """What the price table says."""
    found = unit_prices(model, at=at, prompt_tokens=prompt_tokens)
    assert found is not None
    return found


def an_ended_run(
    *attempts: Attempt, agent: str = "incident", user: str = "alert", simulated: bool = False, **fields: Any
) -> Run:
    """A run that is over, with one step and one charge for each attempt."""
    first, last = attempts[0].at, attempts[-1].at
    values: dict[str, Any] = {
        "agent": agent, "model": attempts[0].model, "user_query": "Pool exhausted", "config": "{}",
        "status": RunStatus.SUCCEEDED, "started_by": user, "simulated": simulated, "created_at": first,
        "started_at": first, "ended_at": last, "step_count": len(attempts), "model_calls": len(attempts),
    }  # fmt: skip
    run = Run.objects.create(**(values | fields))
    for seq, attempt in enumerate(attempts, 1):
        a_charge_of(run, seq, attempt)
    priced = run.charges.exclude(amount=None).values_list("amount", flat=True)
    run.cost_usd = Decimal(sum(amount or 0 for amount in priced)) / FRACTION
    run.unpriced_calls = run.charges.filter(price=None).count()
    for name in ("input_tokens", "cache_write_5m_tokens", "cache_read_tokens", "output_tokens"):
        setattr(run, name, sum(getattr(attempt.usage, name) for attempt in attempts))
    run.save()
    return run


def a_charge_of(run: Run, seq: int, attempt: Attempt) -> Charge:
    """One step with its entry."""
    prices, usage = attempt.prices, attempt.usage
    failed = attempt.fields.get("failed", False)
    amount = None if prices is None else int(prices.cost(usage) * FRACTION)
    step = Step.objects.create(
        run=run, seq=seq, kind=StepKind.MODEL, name=attempt.model, ended_at=attempt.at,
        started_at=attempt.at - timedelta(seconds=2),
        status=StepStatus.FAILED if failed else StepStatus.SUCCEEDED,
        cost_usd=None if amount is None else Decimal(amount) / FRACTION,
    )  # fmt: skip
    values: dict[str, Any] = {name: getattr(usage, name) for name in USAGE}
    values |= {"at": attempt.at, "booked_at": attempt.at, "agent": run.agent, "user": run.started_by}
    values |= {"model": attempt.model, "simulated": run.simulated, "amount": amount}
    values["price"] = None if prices is None else a_price(attempt.model, prices)
    return Charge.objects.create(run=run, step=step, **(values | attempt.fields))


def priced_anew(charge: Charge, prices: UnitPrices | None, *, booked_at: datetime) -> Charge:
    """The entry reversed and charged again at other prices, as the ledger has it."""
    kept = {name: getattr(charge, name) for name in USAGE}
    shared: dict[str, Any] = {
        name: getattr(charge, name)
        for name in ("step", "run", "at", "agent", "user", "model", "simulated", "failed", "estimated")
    } | {"booked_at": booked_at}
    Charge.objects.create(
        number=charge.number + 1, entry=Entry.REVERSAL, price=charge.price,
        amount=None if charge.amount is None else -charge.amount,
        **{name: -count for name, count in kept.items()}, **shared,
    )  # fmt: skip
    amount = None if prices is None else int(prices.cost(charge.usage) * FRACTION)
    price = None if prices is None else a_price(charge.model, prices)
    return Charge.objects.create(number=charge.number + 2, price=price, amount=amount, **kept, **shared)
