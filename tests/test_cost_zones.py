"""Every bar, line and total of a cost report is a plain sum over the ledger, whatever the reader's time zone.

The right numbers are added up here, entry by entry, by what a clock of the zone shows at each of them.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.test import Client

from runs import actions
from runs.models import Charge, CostSeal, Run, RunTag
from runs.models.charge import USAGE
from runs.reading.chart import draw
from runs.reading.cost_check import check_reports
from runs.reading.cost_periods import CostPeriod, find_period, zones
from runs.reading.costs import BREAKDOWNS, QUESTION, UNTAGGED, CostReport, read_costs
from runs.reading.entries import EntryFilter
from runs.reading.language import parse
from runs.reading.ledger_export import bounds_of
from tests.ledger_maker import Ledger
from tests.test_cost_reports import listed

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
DAYS_OF = {"hour": 4, "day": 9, "week": 30, "month": 90}
SEALED, PARTLY, UNSEALED = "sealed", "partly sealed", "unsealed"
# When clocks were changed in an odd way, and where.
ODD = {
    "2026-10-03": ("Australia/Lord_Howe", "Australia/Adelaide"),  # half an hour forward
    "2026-04-04": ("Australia/Lord_Howe", "Pacific/Chatham"),  # half an hour back
    "2011-12-30": ("Pacific/Apia", "Pacific/Fakaofo"),  # a day that never was
    "2010-11-06": ("America/St_Johns",),  # from 00:01 of Sunday back to 23:01 of Saturday
    "2018-05-04": ("Asia/Pyongyang",),  # from +08:30 to +09:00 at half past eleven at night
    "2016-04-30": ("America/Caracas",),  # from -04:30 to -04:00 at half past two
    "2018-11-03": ("America/Sao_Paulo", "America/Havana"),  # no midnight; midnight twice
}


def a_past(day: datetime, state: str) -> datetime:
    """Three days of runs, many charges close to where hours and days begin; the time after them."""
    ledger, random = Ledger(day.day), Random(day.day)
    now = day + 2 * DAY + timedelta(hours=3, minutes=20)
    for n in range(24):
        begun = day + timedelta(minutes=15 * random.randrange(-4 * 24, 4 * 40))
        run = ledger.run(begun, "succeeded")
        for tag in random.sample(("alpha", "beta"), n % 3):
            actions.tag_run(run_id=run.pk, name=tag, actor="olga")
        at = begun
        for _ in range(random.randrange(2, 6)):
            near = random.choice((timedelta(0), timedelta(microseconds=-1), timedelta(seconds=59), MINUTE))
            charge = ledger.charge(run, min(at + near, now - MINUTE))
            at += 15 * MINUTE * random.choice((1, 1, 2, 3, 40))
            if not random.randrange(5):
                ledger.correct(charge)
    while state != UNSEALED and actions.seal_hours(now):
        pass
    if state == PARTLY:
        for seal in random.sample(list(CostSeal.objects.filter(hours=1)), 9):
            CostSeal.objects.filter(hour=seal.hour - seal.hour % 24, hours=24).delete()
            seal.delete()
    return now


def on_clock(at: datetime, zone: ZoneInfo, unit: str) -> Any:
    """What the clock says: the hour and its offset, or the day. A day that has begun is not over at once."""
    local = at.astimezone(zone)
    if unit == "hour":
        return local.date(), local.hour, local.utcoffset()
    day: date = max((at - n * MINUTE).astimezone(zone).date() for n in range(0, 61, 4))
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def names_of(charge: Charge, by: str, tags: dict[int, list[str]]) -> list[str]:
    if by == "tag":
        return tags.get(charge.run_id, [UNTAGGED])
    if by == "tool":
        return charge.caused_by.split(",") if charge.caused_by else [QUESTION]
    return [getattr(charge, by)]


def check(report: CostReport, charges: list[Charge], tags: dict[int, list[str]]) -> None:
    """All of one report against a loop over the ledger."""
    period, by = report.period, report.breakdown.name
    within = [charge for charge in charges if period.since <= charge.at < period.until]
    for tally, entries in (
        (report.total, within),
        (report.before, [c for c in charges if period.before[0] <= c.at < period.before[1]]),
    ):
        assert tally.calls == sum(c.entry for c in entries)
        assert tally.amount == sum(c.amount or 0 for c in entries)
        assert tally.runs == len({c.run_id for c in entries})
        assert all(getattr(tally, name) == sum(getattr(c, name) for c in entries) for name in USAGE)
    bars: dict[Any, dict[str, int]] = {}
    unpriced: dict[Any, int] = defaultdict(int)
    for charge in within:
        unit = on_clock(charge.at, period.zone, period.unit)
        names = names_of(charge, by, tags) if by in {"agent", "model", "user", "tag"} else [""]
        sums = bars.setdefault(unit, defaultdict(int))
        sums[" + ".join(names)] += charge.amount or 0
        unpriced[unit] += charge.entry if charge.price_id is None else 0
    shown = {on_clock(since, period.zone, period.unit): bar for since, bar in
             zip(period.bounds, report.bars, strict=False)}  # fmt: skip
    assert len(shown) == len(report.bars)  # no two bars have one name
    for unit, bar in shown.items():
        costs = {name: int(cost * 10**10) for name, cost in bar.costs.items()}
        if by in {"tool", "class"}:
            costs = {"": sum(costs.values())}
        right = {name: amount for name, amount in bars.pop(unit, {}).items() if amount or not name}
        assert (costs or {"": 0}) == (right or {"": 0}), (period.zone, period.unit, unit)
        assert bar.unpriced == unpriced[unit]
    assert not bars
    for line in report.lines:
        here = [c for c in within if by != "class" and line.name in names_of(c, by, tags)]
        if by in {"agent", "model", "user", "tag"}:
            assert line.tally.amount == sum(c.amount or 0 for c in here)
            assert line.tally.output_tokens == sum(c.output_tokens for c in here)
            assert line.tally.calls == sum(c.entry for c in here)
    if by != "tag":
        assert sum(line.tally.amount for line in report.lines) == report.total.amount


def periods(zone: str, now: datetime, units: tuple[str, ...]) -> Iterator[CostPeriod]:
    for unit in units:
        today = now.astimezone(ZoneInfo(zone)).date()
        first = today - timedelta(days=DAYS_OF[unit])
        period = find_period({"from": f"{first}", "to": f"{today}", "unit": unit}, ZoneInfo(zone), now)
        assert period.unit == unit
        yield period


def everything() -> tuple[list[Charge], dict[int, list[str]]]:
    tags: dict[int, list[str]] = defaultdict(list)
    for run, name in RunTag.objects.order_by("name").values_list("run_id", "name"):
        tags[run].append(name)
    return list(Charge.objects.filter(simulated=False)), tags


@pytest.mark.django_db
@pytest.mark.parametrize("state", [SEALED, PARTLY, UNSEALED])
def test_reports_of_every_offset_are_sums_of_the_ledger(state: str) -> None:
    """One zone for each offset of the tz database in these days, on which Europe sets its clocks back."""
    day = datetime(2026, 10, 25, tzinfo=UTC)
    now = a_past(day, state)
    distinct = {
        tuple((day + n * DAY).astimezone(ZoneInfo(name)).utcoffset() for n in (-1, 1)): name
        for name in reversed(zones())
    }
    assert len(distinct) > 38 and any(offset % HOUR for (offset, _) in distinct)  # type: ignore[operator]
    charges, tags = everything()
    names = list(BREAKDOWNS)
    for n, (offsets, zone) in enumerate(sorted(distinct.items())):
        units = tuple(DAYS_OF) if offsets[0] % HOUR else (tuple(DAYS_OF)[n % 4],)  # type: ignore[operator]
        for m, period in enumerate(periods(zone, now, units)):
            breakdown = BREAKDOWNS[names[(n + m) % len(names)]]
            check(read_costs(period, breakdown, simulated=False), charges, tags)
    assert [sentence for _, sentence in check_reports() if sentence] == []


@pytest.mark.django_db
@pytest.mark.parametrize("day", ODD)
def test_days_on_which_clocks_were_set_in_an_odd_way_lose_and_double_nothing(day: str) -> None:
    middle = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    now = a_past(middle, PARTLY)
    charges, tags = everything()
    for zone in ODD[day]:
        for n, period in enumerate(periods(zone, now, tuple(DAYS_OF))):
            breakdown = BREAKDOWNS[list(BREAKDOWNS)[(n + int(day[-1])) % 6]]
            check(read_costs(period, breakdown, simulated=False), charges, tags)
        for unit in ("hour", "day", "week", "month"):
            bounds = bounds_of(EntryFilter(zone=ZoneInfo(zone)), unit)
            assert all(since < until for since, until in bounds)
            units = [on_clock(since, ZoneInfo(zone), unit) for since, _ in bounds]
            assert len(set(units)) == len(units)
            assert all(a[1] == b[0] for a, b in pairwise(bounds))
            for charge in charges:
                (inside,) = [n for n, (a, b) in enumerate(bounds) if a <= charge.at < b]
                assert units[inside] == on_clock(charge.at, ZoneInfo(zone), unit)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("zone", "day", "labels"),
    [
        ("Europe/Berlin", "2026-10-25", ["25 Oct 02:00 +2", "25 Oct 02:00 +1"]),
        ("America/St_Johns", "2026-11-01", ["1 Nov 01:00 -2:30", "1 Nov 01:00 -3:30"]),
        ("Australia/Lord_Howe", "2026-04-05", ["5 Apr 01:00", "5 Apr 01:30"]),
        ("Europe/Berlin", "2026-10-26", []),
    ],
)
def test_an_hour_that_the_clock_shows_twice_has_two_names(zone: str, day: str, labels: list[str]) -> None:
    now = datetime(2026, 11, 3, tzinfo=UTC)
    period = find_period({"from": day, "to": day, "unit": "hour"}, ZoneInfo(zone), now)
    chart = draw(read_costs(period, BREAKDOWNS["model"], simulated=False))
    names = [row.label for row in chart.table]
    assert names == [column.full_label for column in chart.columns] and len(set(names)) == len(names)
    assert [name for name in names if name.split()[-1][0] in "+-" or ":30" in name] == [
        label for label in labels if not label.endswith("Apr 01:00")
    ]


@pytest.mark.django_db
def test_the_export_says_the_local_day_and_its_offset(client: Client, viewer: User) -> None:
    ledger = Ledger(1)
    run = ledger.run(datetime(2026, 10, 24, tzinfo=UTC))
    for at in ("2026-10-24T18:29:59", "2026-10-24T18:30:00", "2026-10-25T18:29:59"):
        ledger.charge(run, datetime.fromisoformat(f"{at}+00:00"))
    client.force_login(viewer)

    def rows(address: str) -> list[dict[str, str]]:
        text = b"".join(client.get(f"/costs/export/{address}&format=csv")).decode()
        return list(csv.DictReader(io.StringIO(text)))

    days = rows("summary/?zone=Asia/Kolkata&period=day&by=")
    assert [row["from"] for row in days] == ["2026-10-23T18:30:00.000000Z", "2026-10-24T18:30:00.000000Z"]
    assert [row["from_local"] for row in days] == ["2026-10-24T00:00:00+05:30", "2026-10-25T00:00:00+05:30"]
    assert [row["to_local"] for row in days] == ["2026-10-25T00:00:00+05:30", "2026-10-26T00:00:00+05:30"]
    entries = rows("?zone=Asia/Kolkata")
    assert [row["at_local"][:10] for row in entries] == ["2026-10-24", "2026-10-25", "2026-10-25"]
    assert rows("?")[0]["at_local"] == "2026-10-24T18:29:59+00:00"


@pytest.mark.django_db
def test_the_link_of_an_odd_name_lists_its_runs_and_no_others(client: Client, viewer: User) -> None:
    """Names come from gateways: they hold quotation marks, commas, stars and spaces."""
    names = ['say "hi"', '"', 'a""b', "x*", "xy", "a,b", "a", "-", "billed:x", "two words", "back\\slash"]
    ledger = Ledger(2)
    now = datetime(2026, 10, 24, tzinfo=UTC)
    runs = {}
    for name in names:
        run = ledger.run(now, "succeeded")
        Run.objects.filter(pk=run.pk).update(simulated=False)
        ledger.charge(run, now, model=name, simulated=False)
        runs[name] = run.pk
    period = find_period({"from": "2026-10-24", "to": "2026-10-24"}, ZoneInfo("UTC"), now + 2 * DAY)
    report = read_costs(period, BREAKDOWNS["model"], simulated=False)
    assert {line.name for line in report.lines} == set(names)
    for line in report.lines:
        assert listed(line.query) == {runs[line.name]}, line.query
        assert str(parse(line.query)) == line.query
    client.force_login(viewer)
    page = client.get("/", {"q": 'billed:"say ""hi"""'}).content.decode()
    assert Run.objects.get(pk=runs['say "hi"']).get_absolute_url() in page
