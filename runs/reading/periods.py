"""Stretches of time that end now, as the pages of agents, tools and errors offer them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Period:
    """A stretch of time that ends now. `hours` draws one bar per hour, else one per day (UTC)."""

    name: str
    label: str
    length: timedelta
    hours: bool = False

    def slots(self, now: datetime) -> list[datetime]:
        """Beginnings of the bars, oldest first; the last one holds `now`."""
        step = timedelta(hours=1) if self.hours else timedelta(days=1)
        last = now.replace(minute=0, second=0, microsecond=0)
        if not self.hours:
            last = last.replace(hour=0)
        return [last - step * n for n in reversed(range(self.length // step))]


PERIODS = (
    Period("24h", "24 h", timedelta(hours=24), hours=True),
    Period("7", "7 days", timedelta(days=7)),
    Period("14", "14 days", timedelta(days=14)),
    Period("30", "30 days", timedelta(days=30)),
)
USUAL_PERIOD = PERIODS[2]


def find_period(name: str) -> Period:
    """The period of this name, or the usual one."""
    return next((period for period in PERIODS if period.name == name), USUAL_PERIOD)
