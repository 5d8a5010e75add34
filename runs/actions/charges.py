"""The ledger of what model attempts cost: an entry with the end of each attempt, in its transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.db.models.signals import post_migrate
from django.utils import timezone

from runs.actions import cost_hours, rows
from runs.actions.change import Change
from runs.models import Charge as ChargeRow
from runs.models import Entry, Price, Step, StepKind, StepStatus
from runs.models.charge import PRICES, USAGE
from runs.models.prices_in_force import unit_prices
from runs.money import UnitPrices, Usage, context_from_api, fractions, is_uncertain, parts_from_api
from tools.redaction import visible

TOKENS = (
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
    "thinking_tokens",
)
COPIED = (
    *("step_id", "at", "run_id", "agent", "user", "model", "simulated", "caused_by", "failed", "estimated"),
    "context",
)
MOST_CAUSES = 300  # characters of tool names that a charge holds

# Keys of the prices that are committed: they never change, unless the tables are made anew.
_known: dict[tuple[str, UnitPrices], int] = {}


@dataclass(frozen=True)
class Charge:
    """What one attempt used and costs. `prices` None: unpriced.

    `estimated`: the stream broke off, or the API left open what was used.

    `context` is what selects a price besides the model, as `money.context_from_api` says it. Parts that are
    priced on their own, such as those of another model, are in `more`. `model` empty: the one of the step.
    """

    usage: Usage
    prices: UnitPrices | None
    estimated: bool = False
    context: str = ""
    model: str = ""
    more: tuple[Charge, ...] = ()

    @property
    def parts(self) -> tuple[Charge, ...]:
        """All that becomes an entry of its own."""
        return (self, *self.more)

    @property
    def is_unpriced(self) -> bool:
        """Whether this part used something that has no price."""
        return self.prices is None and bool(self.usage.total_tokens)


@dataclass(frozen=True)
class Correction:
    """An entry that has another price by now: it is taken back and charged again. None: it has none."""

    entry: ChargeRow
    prices: UnitPrices | None


def price(
    model: str, raw_usage: Mapping[str, Any], *, at: datetime, estimated: bool = False, output_tokens: int = 0
) -> Charge:
    """What an attempt costs that began at this time, from the API's usage object.

    At least `output_tokens` came back, whatever the object says. What it leaves open makes it an estimate.
    """
    estimated = estimated or (bool(raw_usage) and is_uncertain(raw_usage))
    context = context_from_api(raw_usage)
    first, *more = parts_from_api(model, raw_usage)
    usage = replace(first[1], output_tokens=max(first[1].output_tokens, output_tokens))
    charges = [
        Charge(
            part,
            unit_prices(name, at=at, prompt_tokens=part.prompt_tokens, context=context),
            estimated=estimated,
            context=context,
            model=visible(name)[:128],
        )
        for name, part in ((first[0], usage), *more)
    ]
    return replace(charges[0], more=tuple(charges[1:]))


def book(current: Change, step: Step, charge: Charge) -> str:
    """Inside the change that ends this attempt: its usage and cost, on the step, the run and the ledger.

    The caller saves the step afterwards. Returns the cost in USD as text, for the event.
    """
    parts = charge.parts
    usage = sum((part.usage for part in charge.more), charge.usage)
    tokens: dict[str, int] = {name: getattr(usage, name) for name in TOKENS}
    for name, amount in tokens.items():
        setattr(step, name, amount)
    step.usage_estimated = charge.estimated
    describe(step, [part.prices for part in parts], [part.is_unpriced for part in parts])
    costs = [part.prices.cost(part.usage) for part in parts if part.prices is not None]
    step.cost_usd = sum(costs, Decimal(0)) if costs else None
    if costs:
        current.add(cost_usd=step.cost_usd)
    if any(part.is_unpriced for part in parts):
        current.add(unpriced_calls=1)
    _append(current, step, parts)
    if cost_hours.is_late(step.ended_at or current.now, timezone.now()):
        current.counts_again = True
    del tokens["thinking_tokens"]  # they are part of the output
    current.add(**tokens)
    return "unpriced" if step.cost_usd is None else str(step.cost_usd)


def describe(step: Step, prices: Sequence[UnitPrices | None], unpriced: Sequence[bool]) -> None:
    """What the step says of its prices: those of its first part, and whether another part lacks one."""
    first = prices[0]
    step.unit_prices = "" if first is None else first.as_json()
    step.price_source = "unpriced" if first is None else first.source
    if any(unpriced) and any(one is not None for one in prices):
        step.price_source = "partly unpriced"


def write_corrections(current: Change, corrections: Sequence[Correction]) -> None:
    """Inside a change: the one place where entries for the past are added to the ledger.

    Each entry is reversed at its own price and charged again; numbers count on. Totals are the caller's.
    """
    steps = {correction.entry.step_id for correction in corrections}
    last = ChargeRow.objects.filter(step__in=steps).values_list("step").annotate(Max("number")).order_by()
    numbers: dict[int, int] = dict(last)
    entries = []
    for correction in corrections:
        old = correction.entry
        same = {name: getattr(old, name) for name in COPIED} | {"booked_at": current.now}
        number = numbers[old.step_id] = numbers[old.step_id] + 2
        used = {name: getattr(old, name) for name in USAGE}
        entries.append(
            same
            | {name: -value for name, value in used.items()}
            | {"number": number - 1, "entry": int(Entry.REVERSAL), "takes_back": old.number}
            | {"price_id": old.price_id, "amount": None if old.amount is None else -old.amount}
        )
        entries.append(
            same
            | used
            | {"number": number, "entry": int(Entry.CHARGE), "takes_back": None}
            | _money(old.model, correction.prices, old.usage)
        )
    rows.append(ChargeRow, entries)
    current.counts_again = True


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


def _append(current: Change, step: Step, parts: Sequence[Charge]) -> None:
    run = current.run
    same = {
        "step_id": step.pk,
        "entry": int(Entry.CHARGE),
        "takes_back": None,
        "at": step.ended_at,
        "booked_at": current.now,
        "run_id": run.pk,
        "agent": run.agent,
        "user": run.started_by,
        "simulated": run.simulated,
        "caused_by": _caused_by(current, step),
        "failed": step.status == StepStatus.FAILED,
    }
    entries = []
    for number, part in enumerate(parts):
        model = step.name if number == 0 else part.model
        entries.append(
            same
            | {"number": number, "model": model, "estimated": part.estimated, "context": part.context}
            | {name: getattr(part.usage, name) for name in USAGE}
            | _money(model, part.prices, part.usage)
        )
    rows.append(ChargeRow, entries)


def _money(model: str, prices: UnitPrices | None, usage: Usage) -> dict[str, int | None]:
    """The price and the amount of an entry."""
    if prices is None:
        return {"price_id": None, "amount": None}
    return {"price_id": price_row(model, prices), "amount": fractions(prices.cost(usage))}


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
