"""The entries of the ledger, one by one: which are wanted, in what order, and what each of them says.

They are read by the thousand after the last one that was read, so that no answer holds more than that and
no cursor stays open while a slow reader takes them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from django.db.models import Q, QuerySet

from runs.models import Charge, Entry
from runs.models.charge import PRICED_CLASSES, PRICES, USAGE
from runs.money import FRACTION
from runs.reading.cost_periods import find_zone, zones
from runs.reading.export import money

AT_ONCE = 2_000
KINDS = {int(Entry.CHARGE): "charge", int(Entry.REVERSAL): "reversal"}
SIMULATED = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
BEGINNING, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)

_OWN = (
    *("id", "entry", "number", "at", "booked_at", "run__request_id", "step__seq", "agent", "user", "model"),
    *("simulated", "failed", "estimated", "caused_by", "context"),
)
_READ = (*_OWN, *USAGE, *(f"price__{name}" for name in PRICES), "price__source", "amount")
COLUMNS = (
    *("entry_id", "kind", "number", "at", "booked_at", "request_id", "step", "agent", "user", "model"),
    *("simulated", "failed", "estimated", "caused_by", "context"),
    *USAGE,
    *(f"usd_per_million_{name}" for name in PRICED_CLASSES),
    *("usd_per_thousand_web_searches", "price_source", "amount_usd", "at_local"),
)


class BadFilter(ValueError):
    """What was asked for cannot be understood. The message says what to do."""


@dataclass(frozen=True)
class EntryFilter:
    """Which entries: by the time of the usage, `since` included and `until` not; empty values mean all."""

    since: datetime = BEGINNING
    until: datetime = END
    agent: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    simulated: bool | None = None
    zone: tzinfo = UTC  # in which days begin

    @staticmethod
    def parse(sent: Mapping[str, str], *, now: datetime) -> EntryFilter:
        """From the query of an address. Raises BadFilter with a sentence."""
        named = sent.get("zone", "").strip() or "UTC"
        if named not in zones():
            raise BadFilter("zone has to be the name of a time zone such as Europe/Berlin, or UTC.")
        zone = find_zone(named)
        simulated = sent.get("simulated", "").strip().lower()
        if simulated and simulated not in SIMULATED:
            raise BadFilter("simulated has to be 1 (what the simulator made) or 0 (what the API made).")
        since = moment(sent, "from", BEGINNING, zone)
        until = moment(sent, "to", now + timedelta(days=1), zone)
        if since >= until:
            raise BadFilter("from has to be before to.")
        return EntryFilter(
            since=since,
            until=until,
            simulated=SIMULATED.get(simulated),
            agent=_several(sent.get("agent", "")),
            model=_several(sent.get("model", "")),
            user=_several(sent.get("user", "")),
            zone=zone,
        )

    def rows(self) -> QuerySet[Charge]:
        """The entries, in no order."""
        found = Charge.objects.filter(at__gte=self.since, at__lt=self.until)
        for name in ("agent", "model", "user"):
            if wanted := getattr(self, name):
                found = found.filter(**{f"{name}__in": wanted})
        return found if self.simulated is None else found.filter(simulated=self.simulated)


def moment(sent: Mapping[str, str], name: str, otherwise: datetime, zone: tzinfo = UTC) -> datetime:
    """A date or a time of the query; of this zone where it does not say. `to` holds the whole of a day.

    Raises BadFilter for anything else.
    """
    text = sent.get(name, "").strip()
    if not text:
        return otherwise
    try:
        if len(text) == len("2026-11-01"):
            day = date.fromisoformat(text) + timedelta(days=1 if name == "to" else 0)
            return datetime.combine(day, time(), zone).astimezone(UTC)
        found = datetime.fromisoformat(text.replace(" ", "+"))  # a plus in an address is a space
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadFilter(
            f"{name} has to be a day such as 2026-11-01, or a time such as 2026-11-01T08:00Z."
        ) from error


def month_entries(first: datetime, after: datetime) -> tuple[QuerySet[Charge], QuerySet[Charge]]:
    """What a statement is about: corrections booked in this month for earlier ones, and the month's own.

    An entry as it was booked at the end of its attempt counts in the month of that; a correction in the month
    in which it was booked. So each entry is in one statement, and that of a month that is over never changes.
    """
    corrected = Charge.objects.filter(number__gt=0, booked_at__gte=first, booked_at__lt=after, at__lt=first)
    own = Charge.objects.filter(Q(number=0) | Q(booked_at__lt=after), at__gte=first, at__lt=after)
    return corrected, own


def in_order(
    rows: QuerySet[Charge], columns: tuple[str, ...] = _READ, *, at_once: int = AT_ONCE
) -> Iterator[tuple[Any, ...]]:
    """These columns of the entries by (at, id), read in portions; `id` and `at` have to be among them."""
    id_place, at_place = columns.index("id"), columns.index("at")
    page = rows.order_by("at", "id").values_list(*columns)
    found = list(page[:at_once])
    while found:
        yield from found
        if len(found) < at_once:
            return
        at, pk = found[-1][at_place], found[-1][id_place]
        found = list(page.filter(Q(at__gt=at) | Q(id__gt=pk), at__gte=at)[:at_once])


def entries(rows: QuerySet[Charge], zone: tzinfo = UTC) -> Iterator[dict[str, Any]]:
    """Each entry as values by COLUMNS: times are ISO text in UTC, money Decimal, None where unpriced.

    `at_local` is `at` on a clock of this zone, with its offset.
    """
    for row in in_order(rows):
        values = list(row)
        values[1] = KINDS[values[1]]
        values.append(iso_local(values[3], zone))
        values[3], values[4], values[5] = iso(values[3]), iso(values[4]), str(values[5])
        values[-2] = None if values[-2] is None else Decimal(values[-2]) / FRACTION
        yield dict(zip(COLUMNS, values, strict=True))


def iso(at: datetime) -> str:
    """UTC with microseconds, always as long: sorts as text."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def iso_local(at: datetime, zone: tzinfo) -> str:
    """The same moment on a clock of this zone, with its offset from UTC: 2026-11-01T00:00:00+05:30."""
    return at.astimezone(zone).isoformat()


def usd(amount: int | None) -> str:
    """Whole FRACTIONs as exact decimal text; empty when it has no price."""
    return "" if amount is None else money(Decimal(amount) / FRACTION) or ""


def _several(text: str) -> tuple[str, ...]:
    """Names with commas between them; one that has a comma itself stands in quotes, as in CSV."""
    words = next(csv.reader([" ".join(text.replace("\x00", "").splitlines())], skipinitialspace=True), [])
    return tuple(part for word in words if (part := word.strip()))
