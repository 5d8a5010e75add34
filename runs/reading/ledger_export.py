"""The ledger as files: its entries, or their sums by period, as CSV for spreadsheets and JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice, pairwise
from typing import Any

from django.db.models import Count, F, Max, Min, Q, QuerySet, Sum

from runs.models import Charge
from runs.models.charge import PRICED_CLASSES, USAGE
from runs.money import FRACTION
from runs.reading.cost_periods import beginnings
from runs.reading.entries import COLUMNS, END, BadFilter, EntryFilter, iso, iso_local
from runs.reading.export import money
from runs.reading.history_export import cell

FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
BREAKDOWNS = ("agent", "model", "user", "caused_by", "context", "simulated")
BUCKETS = ("hour", "day", "week", "month", "all")
MOST_BUCKETS = 2_000
ALL_TOKENS = sum((F(f"{name}_tokens") for name in PRICED_CLASSES[1:]), F("input_tokens"))
SUMS = (
    *USAGE,
    *("unpriced_tokens", "entries", "unpriced_entries", "failed_entries", "estimated_entries", "amount_usd"),
)


class _Line:
    """What csv writes to: it keeps one line."""

    text = ""

    def write(self, text: str) -> int:
        self.text = text
        return len(text)


def csv_lines(rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = COLUMNS) -> Iterator[str]:
    """A heading and one line per row; numbers are numbers, and no text is a formula to a spreadsheet."""
    names, line = list(columns), _Line()
    writer = csv.writer(line)
    writer.writerow(names)
    yield line.text
    for row in rows:
        writer.writerow([_cell(row[name]) for name in names])
        yield line.text


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One JSON object per row, in ASCII; money is exact decimal text, null where there is no price."""
    for row in rows:
        shown = {name: money(value) if isinstance(value, Decimal) else value for name, value in row.items()}
        yield json.dumps(shown, ensure_ascii=True) + "\n"


def summary_columns(by: tuple[str, ...]) -> tuple[str, ...]:
    """The names of what `summary` says."""
    return ("from", "to", "from_local", "to_local", *by, *SUMS)


def parse_summary(sent: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """What to break down by, and the length of a period. Raises BadFilter."""
    by = tuple(dict.fromkeys(word.strip() for word in sent.get("by", "agent").split(",") if word.strip()))
    if not set(by) <= set(BREAKDOWNS):
        raise BadFilter(f"by has to be one or several of {', '.join(BREAKDOWNS)}, with commas between them.")
    bucket = sent.get("period", "day")
    if bucket not in BUCKETS:
        raise BadFilter(f"period has to be one of {', '.join(BUCKETS)}.")
    return by, bucket


def bounds_of(wanted: EntryFilter, bucket: str) -> list[tuple[datetime, datetime]]:
    """The periods from the first to the last wanted entry, oldest first. Raises BadFilter for too many."""
    ends = wanted.rows().aggregate(first=Min("at"), last=Max("at"))
    if ends["first"] is None:
        return []
    since, until = (
        max(wanted.since, ends["first"]),
        min(wanted.until, ends["last"] + timedelta(microseconds=1)),
    )
    if bucket == "all":
        return [(max(wanted.since, next(beginnings(since, until, "hour", wanted.zone))), until)]
    starts = list(islice(beginnings(since, until, bucket, wanted.zone), MOST_BUCKETS + 1))
    if len(starts) > MOST_BUCKETS:
        raise BadFilter(f"That is more than {MOST_BUCKETS:,} periods: choose longer ones, or less time.")
    _, after = islice(beginnings(starts[-1], END, bucket, wanted.zone), 2)
    return [(max(start, wanted.since), min(end, wanted.until)) for start, end in pairwise([*starts, after])]


def summary(
    wanted: EntryFilter, by: tuple[str, ...], bounds: Iterable[tuple[datetime, datetime]]
) -> Iterator[dict[str, Any]]:
    """Sums of each period and each value of the breakdown, one period at a time, by `summary_columns`."""
    columns = summary_columns(by)
    for since, until in bounds:
        for row in _sums(wanted.rows().filter(at__gte=since, at__lt=until), by):
            amount, priced = row.pop("amount"), row.pop("priced")
            has_none = not priced and row["unpriced_tokens"]  # also where a price was taken back
            row["amount_usd"] = None if amount is None or has_none else Decimal(amount) / FRACTION
            row |= {"from": iso(since), "to": iso(until)}
            row |= {"from_local": iso_local(since, wanted.zone), "to_local": iso_local(until, wanted.zone)}
            yield {name: row[name] for name in columns}


def _sums(rows: QuerySet[Charge], by: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    """One row per value of the breakdown; without a breakdown, one row."""
    # First what names columns of the ledger; those after it have the names of columns.
    sums: dict[str, Any] = {"unpriced_tokens": Sum(ALL_TOKENS, filter=Q(price=None), default=0)}
    sums |= {name: Sum(name, default=0) for name in USAGE}
    sums |= {"entries": Count("pk"), "unpriced_entries": Count("pk", filter=Q(price=None))}
    sums |= {f"{name}_entries": Count("pk", filter=Q(**{name: True})) for name in ("failed", "estimated")}
    sums |= {"priced": Sum("entry", filter=Q(price__isnull=False), default=0), "amount": Sum("amount")}
    if not by:
        return [rows.aggregate(**sums)]
    found: Iterable[dict[str, Any]] = rows.order_by(*by).values(*by).annotate(**sums)
    return found


def _cell(value: Any) -> str:
    return money(value) or "" if isinstance(value, Decimal) else cell(value)
