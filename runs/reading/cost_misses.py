"""The runs behind a reason why input was not read from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from runs.counting import UNAVOIDABLE, Miss, missed_by_run, snapshot
from runs.models import Run
from runs.reading.cost_findings import REASONS, UNREAD
from runs.reading.cost_periods import CostPeriod
from runs.reading.tally import usd

MOST_RUNS = 200


@dataclass(frozen=True)
class MissedRun:
    """A run with what its calls did not read from the cache.

    `extra` is what that cost more, in USD; None when none of its calls has a price.
    """

    run: Run
    calls: int
    tokens: int
    extra: Decimal | None


@dataclass(frozen=True)
class MissedRuns:
    """The runs of one reason, the dearest first. What came before `since` was not read; None: all was."""

    name: str
    about: str
    reason: str
    is_avoidable: bool
    since: datetime | None
    runs: tuple[MissedRun, ...]
    more: int
    calls: int
    tokens: int
    extra: Decimal | None


def missed_runs(period: CostPeriod, *, simulated: bool, reason: str) -> MissedRuns | None:
    """The runs whose calls of the period missed the cache for this reason; None for a reason that is none."""
    words = {Miss.UNREAD: UNREAD} | REASONS
    if reason not in words:
        return None
    with snapshot():
        found = missed_by_run(period.since, period.until, simulated=simulated, reason=reason)
        behind = {run: sums for run, sums in found.runs.items() if sums[1]}
        dearest = sorted(behind, key=lambda run: (-behind[run][2], -behind[run][1], run))[:MOST_RUNS]
        runs = Run.objects.defer("config", "final_response", "opening").in_bulk(dearest)
    total = [sum(sums[place] for sums in behind.values()) for place in range(4)]
    return MissedRuns(
        *words[Miss(reason)],
        reason=reason,
        is_avoidable=reason not in UNAVOIDABLE,
        since=found.since if found.since > period.since else None,
        runs=tuple(
            MissedRun(runs[run], behind[run][0], behind[run][1], _extra(behind[run])) for run in dearest
        ),
        more=len(behind) - len(dearest),
        calls=total[0],
        tokens=total[1],
        extra=_extra(total),
    )


def _extra(sums: Sequence[int]) -> Decimal | None:
    return usd(sums[2]) if sums[3] or not sums[0] else None
