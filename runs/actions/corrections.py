"""Attempts get other prices: their entries are taken back and charged again, and every total follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

from runs.actions import charges, ledger, rows
from runs.actions.change import Change
from runs.actions.charges import Correction
from runs.models import Charge, Step
from runs.models.amounts import counted
from runs.models.charge import standing
from runs.money import FRACTION

PRICED_STEP = ("cost_usd", "unit_prices", "price_source")


def correct(current: Change, corrections: Sequence[Correction]) -> tuple[Decimal, Decimal]:
    """Inside a change without a lease: write these corrections; steps, run and budgets say the same then.

    What the run cost before and after, in USD. The caller appends an event.
    """
    keys = {correction.entry.step_id for correction in corrections}
    steps = list(Step.objects.select_for_update().filter(pk__in=keys).order_by("pk").defer("draft"))
    before = current.run.cost_usd
    unpriced = _unpriced(keys)
    charges.write_corrections(current, corrections)
    parts: defaultdict[int, list[Charge]] = defaultdict(list)
    entries = Charge.objects.filter(step__in=keys).select_related("price").order_by("step_id", "number")
    for entry in standing(list(entries)):
        parts[entry.step_id].append(entry)
    changes = []
    for step in steps:
        counted_before = counted(step)[1]
        cost_before = step.cost_usd or Decimal(0)
        _describe(step, parts[step.pk])
        rows.update(step, PRICED_STEP)
        current.add(cost_usd=(step.cost_usd or Decimal(0)) - cost_before)
        changes.append((step.started_at, counted(step)[1] - counted_before))
    current.add(unpriced_calls=len(_unpriced(keys)) - len(unpriced))
    ledger.reprice_attempts(current, changes)
    return before, current.run.cost_usd


def _describe(step: Step, parts: Sequence[Charge]) -> None:
    charges.describe(
        step,
        [None if part.price is None else part.price.units for part in parts],
        [part.is_unpriced for part in parts],
    )
    amounts = [part.amount for part in parts if part.amount is not None]
    step.cost_usd = Decimal(sum(amounts)) / FRACTION if amounts else None


def _unpriced(steps: set[int]) -> set[int]:
    """Those of these steps of which something that was used has no price."""
    entries = list(Charge.objects.filter(step__in=steps).order_by("step_id", "number"))
    return {entry.step_id for entry in standing(entries) if entry.is_unpriced}
