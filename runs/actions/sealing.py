"""Keeps sums over the ledger by hour and day, in small steps. Any number of processes may do it at once.

An hour is opened for counting by a row, its seal, that is not sealed yet; that is committed. Only then, and
after every transaction that may not have seen the row is over, its charges are counted. The sums are stored
and the seal closed only if that same row is still there. Whoever changes what the hour says removes the row
after his own writes. So either he was over before the counting began, or he has seen the row, and it is gone.
Bookings look at nothing: an hour is not opened before it is SEALED_AFTER over, and they are of the present.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Min, QuerySet

from runs.actions import rows
from runs.actions.change import database_now, one_writer
from runs.actions.cost_hours import SEALED_AFTER
from runs.counting import Counted, count, hour_of, most_expensive, snapshot, start_of
from runs.counting.hours import DAY
from runs.models import Charge, CostAcross, CostSeal, CostSum, Dimension
from runs.models.cost_sum import MEASURES, VERSION

HOURS_AT_ONCE = 24
WAIT_SECONDS, LOOK_SECONDS = 2.0, 0.02


def seal_hours(now: datetime | None = None, most: int = HOURS_AT_ONCE) -> int:
    """Seal up to so many of the newest hours that are over, and whole days of them; how many hours it tried.

    0 means that all is sealed that can be. `now` is the time of the database, unless a test has its own.
    """
    hours, days = _unsealed(now or database_now(), most)
    if hours:
        seals = _open(hours)
        if _all_have_seen(seals):
            with snapshot():
                counted = {hour: count([start_of(hour), start_of(hour + 1)])[0] for hour in seals}
            for hour, seal in seals.items():
                _close(hour, seal, counted[hour])
    for day in sorted({*days, *map(_day, hours)}):
        _seal_day(day)
    return len(hours)


def forget_sums() -> None:
    """Break all seals: reports read the ledger until the sums are counted anew."""
    with one_writer(), transaction.atomic():
        for length in (1, DAY):
            CostSeal.objects.filter(hours=length).delete()


def _unsealed(now: datetime, most: int) -> tuple[list[int], list[int]]:
    """Hours without a seal of this version, newest first, and days that have none although their hours do."""
    first = Charge.objects.aggregate(first=Min("at"))["first"]
    if first is None:
        return [], []
    last = hour_of(now - SEALED_AFTER) - 1
    sealed_days = set(_seals(DAY).values_list("hour", flat=True))
    found: list[int] = []
    whole: list[int] = []
    for day in range(_day(last), _day(hour_of(first)) - DAY, -DAY):
        if day in sealed_days:
            continue
        sealed = set(_seals(1).filter(hour__gte=day, hour__lt=day + DAY).values_list("hour", flat=True))
        if len(sealed) == DAY:
            whole.append(day)
        found += [hour for hour in range(min(last, day + DAY - 1), day - 1, -1) if hour not in sealed]
        if len(found) >= most:
            break
    return found[:most], whole


def _day(hour: int) -> int:
    return hour - hour % DAY


def _seals(length: int) -> QuerySet[CostSeal]:
    return CostSeal.objects.filter(hours=length, version=VERSION, sealed=True)


def _open(hours: Sequence[int]) -> dict[int, int]:
    """Rows that say that these hours are being counted, by hour; also those of others who do it too."""
    with one_writer(), transaction.atomic():
        CostSeal.objects.filter(hour__in=[*hours, *map(_day, hours)]).exclude(version=VERSION).delete()
        CostSeal.objects.bulk_create(
            [CostSeal(hour=hour, hours=1, version=VERSION) for hour in hours], ignore_conflicts=True
        )
    opened = CostSeal.objects.filter(hours=1, hour__in=hours, sealed=False)
    return dict(opened.values_list("hour", "pk"))


def _all_have_seen(seals: dict[int, int]) -> bool:
    """Wait until no transaction is open that may not have seen these rows; False if that takes too long.

    Those that write hold a lock on their own number. What other databases of the server do is no matter.
    """
    if not seals or connection.vendor != "postgresql":  # SQLite has one writer
        return bool(seals)
    open_then = _numbers(
        "JOIN pg_stat_activity USING (pid) WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    until = time.monotonic() + WAIT_SECONDS
    while open_then & _numbers("WHERE true"):
        if time.monotonic() > until:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _numbers(which: str) -> set[str]:
    """The numbers of open transactions that have written or are about to."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT transactionid::text FROM pg_locks {which} "  # noqa: S608
            "AND locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted"
        )
        return {number for (number,) in cursor.fetchall()}


def _close(hour: int, seal: int, counted: Counted) -> None:
    """Store the sums and seal the hour, unless its row is gone or somebody else was faster."""
    with one_writer(), transaction.atomic():
        if not CostSeal.objects.select_for_update().filter(pk=seal, sealed=False).exists():
            return
        _forget(hour, 1)
        CostAcross.objects.filter(hour=hour).delete()
        rows.append(CostSum, _sums(hour, counted))
        across = [{"hour": hour, "run_id": run, "first_at": at} for run, at in counted.across.items()]
        rows.append(CostAcross, across)
        CostSeal.objects.filter(pk=seal).update(sealed=True)


def _sums(hour: int, counted: Counted) -> list[dict[str, object]]:
    return [
        {"hour": hour, "hours": 1, "dimension": dimension, "simulated": simulated, "key": key}
        | dict(zip(MEASURES, sums, strict=True))
        for (dimension, simulated, key), sums in counted.sums.items()
    ]


def _forget(hour: int, length: int) -> None:
    CostSum.objects.filter(
        hours=length, dimension__in=Dimension.values, simulated__in=(False, True), hour=hour
    ).delete()


def _seal_day(day: int) -> None:
    """Add the sums of the hours of a day up, if all of them are sealed."""
    with one_writer(), transaction.atomic():
        # Held until the end: whoever breaks the seal of an hour waits, and then finds that of the day.
        hours = _seals(1).filter(hour__gte=day, hour__lt=day + DAY).select_for_update().order_by("hour")
        if len(hours) < DAY or _seals(DAY).filter(hour=day).exists():
            return
        _forget(day, DAY)
        _add_up(day)
        CostSeal.objects.filter(hours=DAY, hour=day).delete()
        CostSeal.objects.create(hour=day, hours=DAY, version=VERSION, sealed=True)


def _add_up(day: int) -> None:
    measures = ", ".join(MEASURES)
    summed = ", ".join(f"SUM({name})" for name in MEASURES)
    table = CostSum._meta.db_table
    of_day = "hours = 1 AND simulated IN (%s, %s) AND hour >= %s AND hour < %s"
    places = [False, True, day, day + DAY]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (hour, hours, dimension, simulated, key, {measures}) "  # noqa: S608
            f"SELECT %s, {DAY}, dimension, simulated, key, {summed} FROM {table} "
            f"WHERE dimension < {Dimension.STEP} AND {of_day} GROUP BY dimension, simulated, key",
            [day, *places],
        )
    steps = CostSum.objects.filter(
        hours=1, dimension=Dimension.STEP, simulated__in=(False, True), hour__gte=day, hour__lt=day + DAY
    )
    for kind in (False, True):
        dearest = most_expensive(steps.filter(simulated=kind).values_list("key", "amount"))
        counted = Counted()
        for step, amount in dearest:
            counted.of(Dimension.STEP, kind, step)[MEASURES.index("amount")] = amount
        rows.append(CostSum, [row | {"hours": DAY} for row in _sums(day, counted)])
