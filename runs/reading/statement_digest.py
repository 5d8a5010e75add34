"""The digest over the entries of a statement, so that a printed one can be checked later.

One line of JSON per entry, in the order of (at, entry_id), each with a newline; SHA-256 over all of them.
`docs/check_statement.py` does the same with an exported file and without this program.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain

from runs.models import Charge, Statement
from runs.money import FRACTION
from runs.reading.entries import KINDS, in_order, iso, month_entries, usd

VERSION = 1  # of the line; what it holds never changes under the same number
SETTLED = timedelta(hours=1)  # after its end a month is closed: what was under way then is booked by now
_COLUMNS = (
    *(
        "id",
        "entry",
        "at",
        "booked_at",
        "run__request_id",
        "step__seq",
        "agent",
        "user",
        "model",
        "simulated",
    ),
    *("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "output_tokens"),
    *("web_searches", "amount"),
)


@dataclass(frozen=True)
class Digest:
    """Of how many entries, their sums in whole fractions of a dollar, and the hash in hexadecimal."""

    entries: int
    amount: int
    simulated_amount: int
    sha256: str

    @property
    def usd(self) -> Decimal:
        return Decimal(self.amount) / FRACTION

    @property
    def simulated_usd(self) -> Decimal:
        return Decimal(self.simulated_amount) / FRACTION


def bounds(month: date) -> tuple[datetime, datetime]:
    """The first moment of a month and the first one after it, UTC; `month` is its first day."""
    return _midnight(month), _midnight((month + timedelta(days=31)).replace(day=1))


def digest_of(month: date) -> Digest:
    """Computed from every entry of the month's statement; takes some 30 microseconds for each."""
    hashed, entries, sums = hashlib.sha256(), 0, {False: 0, True: 0}
    corrected, own = month_entries(*bounds(month))
    for pk, entry, at, booked_at, request, *values, amount in chain(
        in_order(corrected, _COLUMNS), in_order(own, _COLUMNS)
    ):
        line = [pk, KINDS[entry], iso(at), iso(booked_at), str(request), *values, usd(amount)]
        hashed.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        entries += 1
        sums[values[4]] += amount or 0
    return Digest(entries, sums[False], sums[True], hashed.hexdigest())


def closed_digest(statement: Statement | None) -> Digest | None:
    """What was written down when the month was closed, if it was."""
    if statement is None:
        return None
    return Digest(statement.entries, statement.amount, statement.simulated_amount, statement.sha256)


def months_to_close(now: datetime) -> list[date]:
    """First days of the months that are over and have no fingerprint yet, oldest first."""
    first = Charge.objects.order_by("at").values_list("at", flat=True).first()
    if first is None:
        return []
    last = (now - SETTLED).astimezone(UTC).date().replace(day=1)  # this one goes on
    closed = set(Statement.objects.values_list("month", flat=True))
    return [month for month in months_between(first, last) if month < last and month not in closed]


def months_between(first: datetime, last: date) -> list[date]:
    """First days of all months from that of `first` to that of `last`."""
    month, found = first.astimezone(UTC).date().replace(day=1), []
    while month <= last:
        found.append(month)
        month = (month + timedelta(days=31)).replace(day=1)
    return found


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
