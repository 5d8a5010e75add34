"""Adds up the entries of the ledger in some stretches of time, in every way that reports show them."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nlargest
from itertools import batched, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from django.db.models import OuterRef, Q, Subquery

from runs.counting.misses import Miss, Sent, misses
from runs.counting.prices import WholePrices
from runs.models import ENDED, Charge, Dimension, Entry, Price, Run, RunTag
from runs.models.charge import USAGE
from runs.models.cost_sum import MEASURES

LOST = " lost"  # behind the outcome: of attempts that brought no answer
OPEN = "open"
DEAREST_STEPS = 10
RUNS_AT_ONCE = 2_000

Key = tuple[int, bool, str]  # dimension, simulated, key
PLACE = {name: n for n, name in enumerate(MEASURES)}
COLUMNS = (
    *("id", "step_id", "run_id", "at", "entry", "agent", "user", "model", "simulated", "caused_by"),
    *("failed", "estimated", "price_id", "amount", "step__started_at", *USAGE),
)


class Line(NamedTuple):
    """One entry of the ledger with what a report needs of it; `tokens` as in USAGE, never negative."""

    id: int
    step: int
    run: int
    at: datetime
    entry: int
    agent: str
    user: str
    model: str
    simulated: bool
    caused_by: str
    failed: bool
    estimated: bool
    price: int | None
    amount: int | None
    began: datetime
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, row: Sequence[Any]) -> Line:
        """From the columns of the ledger."""
        return cls._make((*row[:15], tuple(map(abs, row[15:]))))

    @property
    def sent(self) -> Sent:
        return Sent(self.model, self.began, self.at, self.tokens)


@dataclass(frozen=True)
class RunFacts:
    """What a report needs of a run besides its charges."""

    outcome: str
    tags: str
    handed_over: bool
    first_at: datetime  # its first charge of all
    last_at: datetime
    before: Line | None  # its last answered attempt before the stretch


@dataclass
class Counted:
    """Sums of one stretch of time, measures in the order of MEASURES."""

    sums: dict[Key, list[int]] = field(default_factory=dict)
    across: dict[int, datetime] = field(default_factory=dict)  # runs with charges before it: their first

    def of(self, dimension: Dimension, simulated: bool, key: str) -> list[int]:
        """The sums under this key, to be added to."""
        place = (int(dimension), simulated, key)
        found = self.sums.get(place)
        if found is None:
            found = self.sums[place] = [0] * len(MEASURES)
        return found


def count(cuts: Sequence[datetime]) -> list[Counted]:
    """Sums of each stretch between two neighbouring cuts; the cuts rise. Inside of a `snapshot`."""
    found = [Counted() for _ in cuts[1:]]
    lines, prices, facts = read_lines(cuts[0], cuts[-1])
    for run, of_run in groupby(lines, key=itemgetter(2)):
        _count_run(found, cuts, list(of_run), facts[run], prices)
    for counted in found:
        counted.sums = {key: sums for key, sums in counted.sums.items() if any(sums)}
        _keep_dearest(counted)
    return found


def read_lines(
    since: datetime, until: datetime
) -> tuple[list[Line], dict[int, WholePrices], dict[int, RunFacts]]:
    """The entries from one moment up to another by run and step, and the prices and runs that they name."""
    rows = Charge.objects.filter(at__gte=since, at__lt=until).order_by("run_id", "at", "step_id", "id")
    lines = [Line.of(row) for row in rows.values_list(*COLUMNS)]
    named = Price.objects.in_bulk({line.price for line in lines} - {None})
    prices = {pk: WholePrices.of(price) for pk, price in named.items()}
    return lines, prices, _facts({line.run for line in lines}, since)


def steps_of(lines: Sequence[Line], facts: RunFacts) -> Iterator[tuple[list[Line], Sent | None]]:
    """The entries of one run step by step, each with the last answer before it."""
    before = facts.before.sent if facts.before else None
    for _, of_step in groupby(lines, key=itemgetter(1)):
        entries = list(of_step)
        yield entries, before
        charge = next((line for line in reversed(entries) if line.entry == Entry.CHARGE), None)
        if charge is not None and not charge.failed:
            before = charge.sent


def _count_run(
    found: list[Counted],
    cuts: Sequence[datetime],
    lines: list[Line],
    facts: RunFacts,
    prices: dict[int, WholePrices],
) -> None:
    """Add the lines of one run, in order, to the stretches that they are in."""
    seen: set[int] = set()
    for entries, before in steps_of(lines, facts):
        place = bisect_right(cuts, entries[0].at) - 1
        counted = found[place]
        if place not in seen:
            seen.add(place)
            if facts.first_at < cuts[place]:
                counted.across[entries[0].run] = facts.first_at
            else:
                _count_as_run(counted, entries[0], facts)
        for line in entries:
            _add(counted, line, facts, before, prices.get(line.price) if line.price else None)


def _count_as_run(counted: Counted, line: Line, facts: RunFacts) -> None:
    for dimension, key in (
        (Dimension.TOTAL, ""),
        (Dimension.AGENT, line.agent),
        (Dimension.USER, line.user),
        (Dimension.TAGS, facts.tags),
        (Dimension.OUTCOME, facts.outcome),
    ):
        counted.of(dimension, line.simulated, key)[PLACE["runs"]] += 1


def _add(
    counted: Counted, line: Line, facts: RunFacts, before: Sent | None, price: WholePrices | None
) -> None:
    values = _values(line, price)
    for dimension, key in (
        (Dimension.TOTAL, ""),
        (Dimension.AGENT, line.agent),
        (Dimension.MODEL, line.model),
        (Dimension.USER, line.user),
        (Dimension.TAGS, facts.tags),
        (Dimension.CAUSE, line.caused_by),
        (Dimension.OUTCOME, facts.outcome + (LOST if line.failed else "")),
    ):
        sums = counted.of(dimension, line.simulated, key)
        for n, value in values:
            sums[n] += value
    if line.amount:
        counted.of(Dimension.STEP, line.simulated, str(line.step))[PLACE["amount"]] += line.amount
    for reason, tokens, extra in missed_of(line, facts, before, price):
        sums = counted.of(Dimension.MISS, line.simulated, reason)
        sums[PLACE["calls"]] += line.entry
        sums[PLACE["unpriced" if price is None else "priced"]] += line.entry
        sums[PLACE["input_tokens"]] += line.entry * tokens
        sums[PLACE["amount"]] += line.entry * extra


def _values(line: Line, price: WholePrices | None) -> list[tuple[int, int]]:
    """What an entry adds to each of its sums, as (place of the measure, number)."""
    used = sum(line.tokens[:5])
    measures = {
        "calls": 1,
        "priced": price is not None,
        "unpriced": price is None and used > 0,
        "unpriced_tokens": used if price is None else 0,
        "failed": line.failed,
        "estimated": line.estimated,
    } | dict(zip(USAGE, line.tokens, strict=True))
    if price is not None:
        amount = abs(line.amount or 0)
        measures |= {"amount": amount, "uncached_amount": price.uncached(line.tokens)}
        classes = price.by_class(line.tokens, amount)
        measures |= dict(zip(MEASURES[-6:], classes, strict=True))
    return [(PLACE[name], line.entry * value) for name, value in measures.items() if value]


def missed_of(
    line: Line, facts: RunFacts, before: Sent | None, price: WholePrices | None
) -> Iterator[tuple[str, int, int]]:
    """Reason, tokens, and what they cost more, of all that an answered call did not read from the cache."""
    if line.failed:
        return
    for reason, tokens in misses(line.sent, before, handed_over=facts.handed_over):
        yield reason, tokens, price.missed(line.tokens, tokens) if price else 0
    written = line.tokens[1] + line.tokens[2]
    if written and line.at == facts.last_at and not facts.outcome.startswith(OPEN):
        yield Miss.UNREAD, written, price.unread(line.tokens) if price else 0


def most_expensive(steps: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of these (step, amount) that cost most; of equal ones the older."""
    return nlargest(DEAREST_STEPS, steps, key=lambda step: (step[1], -int(step[0])))


def _keep_dearest(counted: Counted) -> None:
    for simulated in (False, True):
        steps = {
            key[2]: counted.sums.pop(key)
            for key in [key for key in counted.sums if key[:2] == (Dimension.STEP, simulated)]
        }
        amounts = [(step, sums[PLACE["amount"]]) for step, sums in steps.items()]
        for step, amount in most_expensive(amounts):
            if amount > 0:
                counted.sums[Dimension.STEP, simulated, step] = steps[step]


def _facts(runs: set[int], since: datetime) -> dict[int, RunFacts]:
    """Of each of these runs; `before` is its last answer before the stretch."""
    tags: dict[int, list[str]] = defaultdict(list)
    rows: list[Any] = []
    charges = Charge.objects.filter(run=OuterRef("pk"))
    answered = charges.filter(at__lt=since, failed=False, entry=Entry.CHARGE).order_by("-at", "-pk")
    for some in batched(sorted(runs), RUNS_AT_ONCE, strict=False):
        for run, name in RunTag.objects.filter(run__in=some).order_by("name").values_list("run_id", "name"):
            tags[run].append(name)
        rows += (
            Run.objects.filter(pk__in=some)
            .order_by()
            .annotate(
                first=Subquery(charges.order_by("at").values("at")[:1]),
                last=Subquery(charges.order_by("-at").values("at")[:1]),
                before=Subquery(answered.values("pk")[:1]),
            )
            .values_list("pk", "status", "parent_run_id", "copied_steps", "first", "last", "before")
        )
    earlier = _lines(row[6] for row in rows)
    return {
        pk: RunFacts(
            outcome=status if status in ENDED else OPEN,
            tags=",".join(tags[pk]),
            handed_over=parent is not None and not copied,
            first_at=first,
            last_at=last,
            before=earlier.get(before),
        )
        for pk, status, parent, copied, first, last, before in rows
    }


def _lines(pks: Iterable[int | None]) -> dict[int | None, Line]:
    found: dict[int | None, Line] = {}
    for some in batched(sorted(pk for pk in pks if pk), RUNS_AT_ONCE, strict=False):
        rows = Charge.objects.filter(Q(pk__in=some)).values_list(*COLUMNS)
        found |= {row[0]: Line.of(row) for row in rows}
    return found
