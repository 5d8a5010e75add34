"""Which runs paid for input that was not read from the cache, for one reason."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter

from django.db.models import Max

from runs.counting.charges import missed_of, read_lines, steps_of
from runs.models import Charge

MOST_ENTRIES = 20_000  # of the ledger that are read for this, newest first, in whole stretches
STRETCH = timedelta(hours=12)


@dataclass
class MissedByRun:
    """Calls, tokens, extra amount and priced calls by run; `since` is later than asked for when there was
    too much."""

    since: datetime
    runs: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0, 0]))


def missed_by_run(since: datetime, until: datetime, *, simulated: bool, reason: str) -> MissedByRun:
    """What the sums of this reason are made of. Inside of a `snapshot`."""
    found = MissedByRun(until)
    read = 0
    while read < MOST_ENTRIES:
        rest = Charge.objects.filter(at__gte=since, at__lt=found.since)
        newest = rest.aggregate(newest=Max("at"))["newest"]
        if newest is None:
            found.since = since
            break
        begin = max(since, newest - STRETCH)
        read += _add(found, begin, simulated, reason)
        found.since = begin
    return found


def _add(found: MissedByRun, begin: datetime, simulated: bool, reason: str) -> int:
    """Add the entries from this moment to what was read before; how many they are."""
    lines, prices, facts = read_lines(begin, found.since)
    for run, of_run in groupby(lines, key=itemgetter(2)):
        for entries, before in steps_of(list(of_run), facts[run]):
            for line in (line for line in entries if line.simulated == simulated):
                price = prices.get(line.price) if line.price else None
                for why, tokens, extra in missed_of(line, facts[run], before, price):
                    if why == reason:
                        sums = found.runs[run]
                        for place, amount in enumerate((1, tokens, extra, int(price is not None))):
                            sums[place] += line.entry * amount
    return len(lines)
