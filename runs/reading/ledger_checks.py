"""What must hold in the ledger of charges of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal

from runs.models import Charge, Entry, Run, Step, StepKind
from runs.models.charge import PRICED_CLASSES, USAGE, standing
from runs.money import FRACTION, fractions

COPIED = "copied"  # the price source of a turn that another run has paid for
AS_OF_RUN = ("agent", "simulated")
SAME_IN_REVERSAL = ("model", "price_id", "at", "agent", "user", "simulated", "context", "caused_by", "run_id")
TOKENS = (*(f"{name}_tokens" for name in (*PRICED_CLASSES, "thinking")),)


def charges_fit(run: Run, steps: Sequence[Step]) -> Iterator[str]:
    """Every contradiction between the steps of this run, its totals and its entries in the ledger."""
    every = list(run.charges.select_related("price").order_by("step_id", "number"))
    entries: defaultdict[int, list[Charge]] = defaultdict(list)
    for entry in every:
        entries[entry.step_id].append(entry)
    for step in steps:
        yield from _step_fits(step, entries.pop(step.pk, []))
    for step_id in entries:
        yield f"there are charges of step {step_id}, which is not of this run"
    yield from _totals_fit(run, every)


def _step_fits(step: Step, entries: list[Charge]) -> Iterator[str]:
    is_charged = step.kind == StepKind.MODEL and step.ended_at is not None and step.price_source != COPIED
    if not is_charged:
        if entries:
            yield f"step {step.seq} has {len(entries)} charges and nothing to be charged for"
        return
    if not entries:
        yield f"step {step.seq} has no charge"
        return
    numbers = [entry.number for entry in entries]
    if numbers != list(range(len(entries))):
        yield f"the charges of step {step.seq} are numbered {numbers}"
    for name in TOKENS:
        total, parts = getattr(step, name), sum(getattr(entry, name) for entry in entries)
        if total != parts:
            yield f"{name} of step {step.seq}: the step says {total}, its charges add up to {parts}"
    amounts = [entry.amount for entry in entries if entry.amount is not None]
    cost = Decimal(sum(amounts)) / FRACTION
    if (step.cost_usd or Decimal(0)) != cost:
        yield f"step {step.seq} cost {step.cost_usd}, its charges add up to {cost}"
    now = standing(entries)
    if (step.cost_usd is None) != all(entry.price_id is None for entry in now):
        yield f"step {step.seq} cost {step.cost_usd}, and its charges say whether it has a price"
    for entry in entries:
        yield from _entry_fits(step, entry, entries)
    if entries[0].model != step.name:
        yield f"step {step.seq} is of {step.name}, its charge of {entries[0].model}"


def _entry_fits(step: Step, entry: Charge, entries: list[Charge]) -> Iterator[str]:
    which = f"charge {entry.number} of step {step.seq}"
    if entry.price is not None and entry.amount != fractions(entry.price.units.cost(entry.usage)):
        yield f"{which} is {entry.cost_usd}, which its usage is not at its prices"
    if entry.at != step.ended_at:
        yield f"{which} counts at {entry.at}, the attempt ended at {step.ended_at}"
    for name in AS_OF_RUN:
        if getattr(entry, name) != getattr(step.run, name):
            yield f"{which} is of the {name} {getattr(entry, name)}, the run of {getattr(step.run, name)}"
    if entry.user != step.run.started_by:
        yield f"{which} is of {entry.user}, the run was started by {step.run.started_by}"
    if (entry.entry == Entry.REVERSAL) != (entry.takes_back is not None):
        yield f"{which} is a {entry.get_entry_display().lower()} and takes back {entry.takes_back}"
    if entry.takes_back is None:
        return
    taken = next((one for one in entries if one.number == entry.takes_back), None)
    if taken is None or taken.number >= entry.number or taken.entry != Entry.CHARGE:
        yield f"{which} takes back {entry.takes_back}, which is no charge before it"
        return
    if sum(one.takes_back == entry.takes_back for one in entries) > 1:
        yield f"charge {entry.takes_back} of step {step.seq} is taken back more than once"
    used = all(getattr(entry, name) == -getattr(taken, name) for name in USAGE)
    same = all(getattr(entry, name) == getattr(taken, name) for name in SAME_IN_REVERSAL)
    if not (used and same and (entry.amount or 0) == -(taken.amount or 0)):
        yield f"{which} does not mirror charge {taken.number}, which it takes back"


def _totals_fit(run: Run, entries: list[Charge]) -> Iterator[str]:
    cost = Decimal(sum(entry.amount or 0 for entry in entries)) / FRACTION
    if run.cost_usd != cost:
        yield f"cost_usd: the run says {run.cost_usd}, its charges add up to {cost}"
    unpriced = len({entry.step_id for entry in standing(entries) if entry.is_unpriced})
    if run.unpriced_calls != unpriced:
        yield f"the run counts {run.unpriced_calls} unpriced calls, its charges {unpriced}"
    for name in (f"{name}_tokens" for name in PRICED_CLASSES):
        total, parts = getattr(run, name), sum(getattr(entry, name) for entry in entries)
        if total != parts:
            yield f"{name}: the run says {total}, its charges add up to {parts}"
