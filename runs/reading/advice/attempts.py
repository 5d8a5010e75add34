"""The model attempts of the last runs of an agent: what all advice is computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import accumulate, batched
from typing import Any

from runs.models import ENDED, Charge, Price, Run, RunStatus
from runs.models.charge import USAGE
from runs.money import FRACTION, UnitPrices, Usage

SIZES = (50, 200, 1_000)  # runs that can be looked at
AT_ONCE = 250  # runs whose charges are read with one query
MOST_ATTEMPTS = 20_000  # of longer runs fewer are looked at
FEWEST_RUNS = 20  # of fewer nothing is suggested
_COLUMNS = (
    *("step_id", "run_id", "number", "step__started_at", "at", "model", "context", "caused_by", "failed"),
    *("price_id", "amount", *USAGE),
)


@dataclass(frozen=True)
class Attempt:
    """One model call as it was made; without `prices` and `cost` it has no price."""

    run: int
    started_at: datetime
    ended_at: datetime
    model: str
    context: str
    caused_by: str
    failed: bool
    usage: Usage
    prices: UnitPrices | None
    cost: Decimal | None


@dataclass(frozen=True)
class Looked:
    """The last ended runs of an agent by key, newest first, and the attempts of each in their order."""

    agent: str
    simulated: bool
    runs: dict[int, Run]
    attempts: dict[int, list[Attempt]] = field(default_factory=dict)
    is_cut: bool = False  # fewer runs than were asked for, because they made so many calls

    @property
    def all(self) -> Iterator[Attempt]:
        """Every attempt, run by run."""
        for attempts in self.attempts.values():
            yield from attempts

    @property
    def succeeded(self) -> list[Run]:
        """The runs that came to a good end."""
        return [run for run in self.runs.values() if run.status == RunStatus.SUCCEEDED]


def look_at(agent: str, count: int, *, simulated: bool | None = None) -> Looked:
    """The last `count` ended runs of this agent, real or simulated ones; None: of the kind of the newest one.

    Reads these runs and their charges by index, whatever else there is, and no more than MOST_ATTEMPTS or
    one run.
    """
    ended = Run.objects.filter(agent=agent, status__in=ENDED).order_by("-created_at", "-id")
    if simulated is None:
        simulated = ended.values_list("simulated", flat=True).first() or False
    narrow = ended.defer("config", "opening", "final_response", "explanation", "limits")
    found = list(narrow.filter(simulated=simulated)[:count])
    so_far = accumulate(run.model_calls for run in found)
    runs = {
        run.pk: run
        for place, (run, calls) in enumerate(zip(found, so_far, strict=True))
        if calls <= MOST_ATTEMPTS or not place
    }
    looked = Looked(agent, simulated, runs, {pk: [] for pk in runs}, is_cut=len(runs) < len(found))
    units: dict[int, UnitPrices] = {}
    for keys in batched(runs, AT_ONCE, strict=False):
        for attempt in _attempts(keys, units):
            looked.attempts[attempt.run].append(attempt)
    return looked


def _attempts(runs: tuple[int, ...], units: dict[int, UnitPrices]) -> Iterator[Attempt]:
    """The attempts of these runs in order; a corrected one with the price and the amount that hold now."""
    amounts: dict[int, int] = {}
    newest: dict[int, tuple[Any, ...]] = {}
    charges = Charge.objects.filter(run__in=runs).order_by("run_id", "at", "step_id", "number")
    for row in charges.values_list(*_COLUMNS):
        newest[row[0]] = row
        amounts[row[0]] = amounts.get(row[0], 0) + (row[10] or 0)
    missing = {row[9] for row in newest.values() if row[9] is not None} - units.keys()
    units |= {price.pk: price.units for price in Price.objects.in_bulk(missing).values()}
    for step, row in newest.items():
        run, _, started, ended, model, context, caused_by, failed, price = row[1:10]
        yield Attempt(
            run, started or ended, ended, model, context, caused_by, failed,
            usage=Usage(*row[11:]),
            prices=units.get(price),
            cost=None if price is None else Decimal(amounts[step]) / FRACTION,
        )  # fmt: skip
