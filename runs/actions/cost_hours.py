"""Which sums over the ledger no longer hold: whoever changes what an hour says breaks its seal."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from itertools import batched

from runs.counting import hour_of
from runs.models import Charge, CostSeal, Run

# An hour is sealed so long after its end. So no charge of a YOUNG run, and none that is not LATE, can be in a
# sealed hour; the rest is for clocks that differ.
SEALED_AFTER = timedelta(minutes=30)
YOUNG = timedelta(minutes=15)
LATE = timedelta(minutes=5)
AT_ONCE = 500


def count_again(run_ids: Collection[int]) -> None:
    """Break the seals of all hours with charges of these runs. Inside a transaction, after its other writes.

    It is for an entry of the past, and for anything that reports group by: the tags of a run, or whether and
    how it ended. A change of a run says that it `counts_again`, and does it last of all: whoever waits for a
    seal then holds all ledgers of budgets that he needs.
    """
    hours: set[int] = set()
    for some in batched(run_ids, AT_ONCE, strict=False):
        times = Charge.objects.filter(run__in=some).order_by().values_list("at", flat=True)
        hours |= {hour_of(at) for at in times.iterator(chunk_size=2_000)}
    # Hours first: whoever makes a day of them holds them until the day is sealed.
    for length, starts in ((1, hours), (24, {hour - hour % 24 for hour in hours})):
        for part in batched(sorted(starts), AT_ONCE, strict=False):
            CostSeal.objects.filter(hours=length, hour__in=part).delete()


def is_young(run: Run, now: datetime) -> bool:
    """Whether no charge of this run can be in a sealed hour, because it has not been there for so long."""
    return now - run.created_at < YOUNG


def is_late(at: datetime, now: datetime) -> bool:
    """Whether an entry of this time, booked now, may be in a sealed hour."""
    return now - at >= LATE
