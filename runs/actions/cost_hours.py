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

    Call it after an entry for the past was booked, and after anything that reports group by was changed: the
    tags of a run, or whether and how it ended.
    """
    hours: set[int] = set()
    for some in batched(run_ids, AT_ONCE, strict=False):
        times = Charge.objects.filter(run__in=some).order_by().values_list("at", flat=True)
        hours |= {hour_of(at) for at in times.iterator(chunk_size=2_000)}
    # Hours first: whoever makes a day of them holds them until the day is sealed.
    for length, starts in ((1, hours), (24, {hour - hour % 24 for hour in hours})):
        for part in batched(sorted(starts), AT_ONCE, strict=False):
            CostSeal.objects.filter(hours=length, hour__in=part).delete()


def outcome_changed(run: Run, now: datetime) -> None:
    """The same for a run that ended or goes on again; nothing for a young one."""
    if now - run.created_at >= YOUNG:
        count_again([run.pk])


def booked(run: Run, at: datetime, now: datetime) -> None:
    """The same after an entry of this time; nothing for one of the present."""
    if now - at >= LATE:
        count_again([run.pk])
