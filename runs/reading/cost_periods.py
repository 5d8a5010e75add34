"""Stretches of time of a cost report in the time zone of its reader, and the bars they are cut into. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

DAYS = {"7": "7 days", "14": "14 days", "30": "30 days", "90": "90 days"}
PERIODS = {"24h": "24 h", **DAYS, "month": "This month", "last-month": "Last month"}
OWN = "own"
USUAL_PERIOD = "14"
UNITS = {"hour": "Hour", "day": "Day", "week": "Week", "month": "Month"}
MOST_BARS = 130
MOST_DAYS = 3_660
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class CostPeriod:
    """What a report is about: [since, until) in UTC, the period before that it is compared with, its bars.

    `bounds` are the beginnings of the bars and `until`; the first bar may begin within its unit.
    """

    name: str
    label: str
    zone: ZoneInfo
    since: datetime
    until: datetime
    before: tuple[datetime, datetime]
    unit: str
    units: tuple[str, ...]  # those that give a readable number of bars
    bounds: tuple[datetime, ...]

    @property
    def first_day(self) -> date:
        return self.since.astimezone(self.zone).date()

    @property
    def last_day(self) -> date:
        return (self.until - timedelta(microseconds=1)).astimezone(self.zone).date()

    @property
    def query(self) -> str:
        """The part of an address that says it."""
        if self.name == OWN:
            return f"from={self.first_day}&to={self.last_day}"
        return f"period={self.name}"

    @property
    def zone_name(self) -> str:
        return self.zone.key

    def local(self, at: datetime) -> datetime:
        """This moment on the reader's clock."""
        return at.astimezone(self.zone)


@cache
def zones() -> tuple[str, ...]:
    """Names of time zones that a reader can choose, UTC first."""
    names = {name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix"))}
    return ("UTC", *sorted(names))


def find_zone(*names: str) -> ZoneInfo:
    """The first of these that is a time zone, or UTC."""
    return ZoneInfo(next((name for name in names if name in zones()), "UTC"))


def find_period(wanted: Mapping[str, str], zone: ZoneInfo, now: datetime) -> CostPeriod:
    """The period that an address asks for by period, or from and to, and unit. Nonsense is the usual one."""
    since, until, before, name, label = _stretch(wanted, zone, now)
    days = max(1, (until - since) // DAY)
    hours = max(24, -((since - until) // HOUR))  # the last day may be nearly whole
    fitting = {"hour": hours, "day": days, "week": days // 7, "month": days // 28}
    units = tuple(unit for unit, bars in fitting.items() if bars <= MOST_BARS and (bars > 1 or unit == "day"))
    usual = "hour" if since + 2 * DAY >= until else "day" if "day" in units else "week"
    usual = usual if usual in units else units[-1]
    unit = wanted.get("unit", "")
    unit = unit if unit in units else usual
    bounds = (since, *(at for at in beginnings(since, until, unit, zone) if since < at < until), until)
    return CostPeriod(name, label, zone, since, until, before, unit, units, bounds)


def _stretch(
    wanted: Mapping[str, str], zone: ZoneInfo, now: datetime
) -> tuple[datetime, datetime, tuple[datetime, datetime], str, str]:
    today = now.astimezone(zone).date()
    own = _own_days(wanted, today)
    if own is not None:
        first, last = own
        length = (last - first).days + 1
        label = f"{_day(first)} to {_day(last)}" if first != last else _day(first)
        until = min(_midnight(last + DAY, zone), now)
        since = _midnight(first, zone)
        return since, until, _shifted(since, until, length, zone), OWN, label
    name = wanted.get("period", "")
    name = name if name in PERIODS else USUAL_PERIOD
    if name == "24h":
        since = _whole_hour(_whole_hour(now, zone) - 23 * HOUR, zone)
        earlier = _whole_hour(since - DAY, zone), _whole_hour(now - DAY, zone)
        return since, now, earlier, name, PERIODS[name]
    if name in DAYS:
        since = _midnight(today - int(name) * DAY + DAY, zone)
        return since, now, _shifted(since, now, int(name), zone), name, PERIODS[name]
    month = today.replace(day=1)
    last_month = (month - DAY).replace(day=1)
    if name == "month":
        since, start = _midnight(month, zone), _midnight(last_month, zone)
        end = _whole_hour(min(start + (now - since), since), zone)
        return since, now, (start, max(start, end)), name, PERIODS[name]
    since, until = _midnight(last_month, zone), _midnight(month, zone)
    return since, until, (_midnight((last_month - DAY).replace(day=1), zone), since), name, PERIODS[name]


def _own_days(wanted: Mapping[str, str], today: date) -> tuple[date, date] | None:
    try:
        first, last = (date.fromisoformat(wanted.get(name, "")) for name in ("from", "to"))
    except ValueError:
        return None
    first, last = min(first, last, today), min(max(first, last), today)
    return max(first, last - MOST_DAYS * DAY, date(2000, 1, 1)), max(last, date(2000, 1, 1))


def _shifted(since: datetime, until: datetime, days: int, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """As many days earlier on the reader's clock."""
    back = [at.astimezone(zone).replace(tzinfo=None) - days * DAY for at in (since, until)]
    start, end = (at.replace(tzinfo=zone).astimezone(UTC) for at in back)
    return start, max(start, _whole_hour(min(end, since), zone))


def _whole_hour(at: datetime, zone: tzinfo) -> datetime:
    """The full hour of the local clock before this moment: most of what is compared with is summed up."""
    return next(beginnings(at, at + timedelta(microseconds=1), "hour", zone))


def beginnings(since: datetime, until: datetime, unit: str, zone: tzinfo) -> Iterator[datetime]:
    """When units begin by the clocks of this zone, in UTC and rising, from the one that holds `since` on.

    An hour begins with a full hour of the local clock, or when that clock is changed.
    """
    current = None
    for at in _hours(since, until, zone) if unit == "hour" else _days(since, until, unit, zone):
        if current is not None and at > max(current, since):
            yield current
        current = at
    if current is not None:
        yield current


def _hours(since: datetime, until: datetime, zone: tzinfo) -> Iterator[datetime]:
    """From local midnight on, so that an hour begins at the same moment whatever is asked for."""
    at = _midnight(since.astimezone(zone).date(), zone)
    while at < until:
        yield at
        local = at.astimezone(zone)
        after = at + HOUR - timedelta(minutes=local.minute, seconds=local.second)
        if after.astimezone(zone).utcoffset() != local.utcoffset():
            minutes = (at + n * MINUTE for n in range(1, 61))
            after = next(m for m in minutes if m.astimezone(zone).utcoffset() != local.utcoffset())
        at = after


def _days(since: datetime, until: datetime, unit: str, zone: tzinfo) -> Iterator[datetime]:
    """A day that the clocks left out begins when the next one does."""
    day = since.astimezone(zone).date()
    if unit == "week":
        day -= day.weekday() * DAY
    elif unit == "month":
        day = day.replace(day=1)
    while (at := _midnight(day, zone)) < until:
        yield at
        day += DAY * (7 if unit == "week" else 1)
        if unit == "month":
            day = (day + 31 * DAY).replace(day=1)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"
