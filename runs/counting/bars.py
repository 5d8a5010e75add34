"""Adds up many short stretches of the ledger at once, by what a chart shows: a report needs far more."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import reduce
from itertools import batched
from operator import or_
from typing import Any

from django.db.models import Q

from runs.counting.prices import WholePrices
from runs.models import Charge, Dimension, Price, RunTag
from runs.models.charge import USAGE
from runs.models.cost_sum import AMOUNT_MEASURES

STRETCHES_AT_ONCE = 100
COLUMNS = {
    Dimension.AGENT: "agent",
    Dimension.MODEL: "model",
    Dimension.USER: "user",
    Dimension.TAGS: "run_id",
    Dimension.CAUSE: "caused_by",
}

BarSums = dict[tuple[bool, str], dict[str, int]]  # (simulated, key): measures that are not zero


def count_bars(
    stretches: Sequence[tuple[datetime, datetime]], dimension: Dimension, *, by_class: bool
) -> list[BarSums]:
    """Of each stretch `unpriced` and `amount`, and the amounts by token class if wanted. In a `snapshot`.

    The stretches rise and do not overlap. Every dimension of a chart, and the total.
    """
    found: list[BarSums] = [defaultdict(lambda: defaultdict(int)) for _ in stretches]
    rows = _rows(stretches, COLUMNS.get(dimension, "pk"))
    prices = {
        pk: WholePrices.of(price)
        for pk, price in Price.objects.in_bulk({row[4] for row in rows} - {None}).items()
    }
    tags = _tags({row[0] for row in rows}) if dimension == Dimension.TAGS else {}
    begins = [since for since, _ in stretches]
    for column, at, entry, simulated, price_id, amount, *used in rows:
        key = (
            ""
            if dimension not in COLUMNS
            else tags.get(column, "")
            if dimension == Dimension.TAGS
            else column
        )
        sums = found[bisect_right(begins, at) - 1][simulated, key]
        if price_id is None:
            sums["unpriced"] += entry if any(used[:5]) else 0
            continue
        sums["amount"] += amount
        if by_class:
            classes = prices[price_id].by_class([abs(tokens) for tokens in used], abs(amount))
            for name, part in zip(AMOUNT_MEASURES, classes, strict=True):
                sums[name] += entry * part
    return found


def _rows(stretches: Sequence[tuple[datetime, datetime]], column: str) -> list[tuple[Any, ...]]:
    columns = (column, "at", "entry", "simulated", "price_id", "amount", *USAGE)
    rows: list[tuple[Any, ...]] = []
    for some in batched(stretches, STRETCHES_AT_ONCE, strict=False):
        within = reduce(or_, (Q(at__gte=since, at__lt=until) for since, until in some))
        rows += Charge.objects.filter(within).order_by().values_list(*columns)
    return rows


def _tags(runs: Collection[int]) -> dict[int, str]:
    tags: dict[int, list[str]] = defaultdict(list)
    for some in batched(runs, 2_000, strict=False):
        for run, name in RunTag.objects.filter(run__in=some).order_by("name").values_list("run_id", "name"):
            tags[run].append(name)
    return {run: ",".join(names) for run, names in tags.items()}
