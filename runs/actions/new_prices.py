"""What charges of a period would be at the prices that hold now, run by run."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from django.db.models import QuerySet

from runs.actions.charges import COPIED, Correction
from runs.models import Charge, Price, Repricing, RepricingLine
from runs.models.charge import USAGE, standing
from runs.models.prices_in_force import unit_prices
from runs.money import UnitPrices, fractions

AT_ONCE = 2_000  # rows


class _Known(dict[int, UnitPrices]):
    """Unit prices by the key of their row, each read once."""

    def __missing__(self, key: int) -> UnitPrices:
        self.update((row.pk, row.units) for row in Price.objects.all())
        return self[key]


@dataclass
class RunChanges:
    """What changes in one run: the corrections, and the sums by model."""

    run_id: int
    corrections: list[Correction] = field(default_factory=list)
    facts: list[object] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Over every entry that is taken back and the prices that it gets."""
        return hashlib.sha256(json.dumps(self.facts).encode()).hexdigest()

    @property
    def seal(self) -> bytes:
        """What the digest of the whole dry run is made over."""
        return f"{self.run_id} {self.digest}\n".encode()

    def lines(self, repricing: Repricing) -> Iterator[RepricingLine]:
        """One for each model."""
        by_model: defaultdict[str, list[Correction]] = defaultdict(list)
        for correction in self.corrections:
            by_model[correction.entry.model].append(correction)
        for model, corrections in sorted(by_model.items()):
            entries = [correction.entry for correction in corrections]
            yield RepricingLine(
                repricing=repricing,
                run_id=self.run_id,
                model=model,
                simulated=entries[0].simulated,
                charges=len(corrections),
                newly_priced=sum(entry.price_id is None for entry in entries),
                newly_unpriced=sum(one.prices is None for one in corrections),
                before=sum(entry.amount or 0 for entry in entries),
                after=sum(_after(one) for one in corrections),
                digest=self.digest,
            )


def changes_at_new_prices(plan: Repricing, run_id: int | None = None) -> Iterator[RunChanges]:
    """What changes in each run of the plan, in order of runs; or in this one."""
    known = _Known()
    for _, entries in groupby(_entries(plan, run_id).iterator(chunk_size=AT_ONCE), attrgetter("run_id")):
        changes = _of_run(list(entries), known)
        if changes.corrections:
            yield changes


def _entries(plan: Repricing, run_id: int | None) -> QuerySet[Charge]:
    """All entries that the plan is about; a reversal has time, model and agent of what it takes back."""
    entries = Charge.objects.filter(at__gte=plan.since, at__lt=plan.until)
    if plan.model:
        entries = entries.filter(model=plan.model)
    if plan.agent:
        entries = entries.filter(agent=plan.agent)
    if run_id is not None:
        entries = entries.filter(run=run_id)
    columns = (*COPIED, *USAGE, "number", "entry", "takes_back", "price_id", "amount", "step__started_at")
    return entries.select_related("step").order_by("run_id", "step_id", "number").only(*columns)


def _of_run(entries: list[Charge], known: _Known) -> RunChanges:
    changes = RunChanges(entries[0].run_id)
    for entry in standing(entries):
        usage = entry.usage
        if not usage.total_tokens and not usage.web_searches:
            continue
        started, prompt = entry.step.started_at, usage.prompt_tokens
        new = unit_prices(entry.model, at=started, prompt_tokens=prompt, context=entry.context)
        old = None if entry.price_id is None else known[entry.price_id]
        if _units(new) == _units(old):
            continue
        changes.corrections.append(Correction(entry, new))
        used = [getattr(entry, name) for name in USAGE]
        changes.facts.append(
            [entry.pk, entry.step_id, entry.number, used, entry.amount, _said(old), _said(new)]
        )
    return changes


def _units(prices: UnitPrices | None) -> tuple[object, ...] | None:
    """The prices alone: the same price from a newer list changes nothing."""
    if prices is None:
        return None
    classes = (prices.input, prices.cache_write_5m, prices.cache_write_1h, prices.cache_read, prices.output)
    return tuple(price.normalize() for price in (*classes, prices.web_search))


def _said(prices: UnitPrices | None) -> list[str] | None:
    units = _units(prices)
    return None if prices is None or units is None else [*map(str, units), prices.source]


def _after(correction: Correction) -> int:
    return 0 if correction.prices is None else fractions(correction.prices.cost(correction.entry.usage))
