"""Adds up many short stretches of the ledger at once, by what a chart shows: a report needs far more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import batched
from typing import Any

from django.db import connection

from runs.counting.prices import WholePrices
from runs.models import Charge, Dimension, Price, RunTag
from runs.models.charge import USAGE
from runs.models.cost_sum import AMOUNT_MEASURES

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

    Every dimension of a chart, and the total. The database adds up: rows would be read one by one for days.
    """
    found: list[BarSums] = [defaultdict(lambda: defaultdict(int)) for _ in stretches]
    if not stretches:
        return found
    column = COLUMNS.get(dimension, "")
    key, named = (f'c."{column}"', f', c."{column}"') if column else ("''", "")
    is_used = " OR ".join(f"c.{name} <> 0" for name in USAGE[:5])
    unpriced = f"SUM(CASE WHEN c.price_id IS NULL AND ({is_used}) THEN c.entry ELSE 0 END)"
    rows = _rows(
        stretches,
        f"{key}, COALESCE(SUM(c.amount), 0), {unpriced}",
        f"GROUP BY stretch.place, c.simulated{named}",
    )
    tags = _tags({row[2] for row in rows}) if dimension == Dimension.TAGS else {}
    for place, simulated, value, amount, calls in rows:
        name = tags.get(value, "") if dimension == Dimension.TAGS else value
        sums = found[place][bool(simulated), name]
        sums["amount"] += int(amount)
        sums["unpriced"] += int(calls)
    if by_class:
        _add_classes(found, stretches)
    return found


def _add_classes(found: list[BarSums], stretches: Sequence[tuple[datetime, datetime]]) -> None:
    """What each token class cost is known of each entry alone."""
    rows = _rows(stretches, ", ".join(f"c.{name}" for name in ("entry", "price_id", "amount", *USAGE)), "")
    prices = Price.objects.in_bulk({row[3] for row in rows} - {None})
    units = {pk: WholePrices.of(price) for pk, price in prices.items()}
    for place, simulated, entry, price, amount, *used in rows:
        if price is not None:
            sums = found[place][bool(simulated), ""]
            classes = units[price].by_class([abs(tokens) for tokens in used], abs(amount))
            for name, part in zip(AMOUNT_MEASURES, classes, strict=True):
                sums[name] += entry * part


def _rows(stretches: Sequence[tuple[datetime, datetime]], columns: str, grouped: str) -> list[Any]:
    """Rows of (place of the stretch, simulated, these columns of the ledger `c`…)."""
    adapted = connection.ops.adapt_datetimefield_value
    bounds = [(n, adapted(since), adapted(until)) for n, (since, until) in enumerate(stretches)]
    values = ", ".join(["(%s, %s, %s)"] * len(bounds))
    fitting = f"{Charge._meta.db_table} c WHERE c.at >= stretch.since AND c.at < stretch.until"
    # Each stretch is looked up in the index: left alone, PostgreSQL compares all entries with all stretches.
    if connection.vendor == "postgresql":
        fitting = f"LATERAL (SELECT * FROM {fitting} OFFSET 0) c"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH stretch(place, since, until) AS (VALUES {values}) "  # noqa: S608
            f"SELECT stretch.place, c.simulated, {columns} FROM stretch CROSS JOIN {fitting} {grouped}",
            [value for bound in bounds for value in bound],
        )
        found: list[Any] = cursor.fetchall()
    return found


def _tags(runs: Collection[int]) -> dict[int, str]:
    tags: dict[int, list[str]] = defaultdict(list)
    for some in batched(runs, 2_000, strict=False):
        for run, name in RunTag.objects.filter(run__in=some).order_by("name").values_list("run_id", "name"):
            tags[run].append(name)
    return {run: ",".join(names) for run, names in tags.items()}
