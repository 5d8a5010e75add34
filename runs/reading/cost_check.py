"""Whether reports say what the ledger says: kept sums are counted anew, and reports are added up again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import batched, pairwise

from django.db.models import Max, Min, Sum

from runs.counting import Key, count, snapshot, start_of
from runs.counting.hours import DAY
from runs.models import Charge, CostAcross, CostSeal, CostSum, Dimension
from runs.models.cost_sum import MEASURES, VERSION
from runs.reading.cost_periods import beginnings, find_zone
from runs.reading.cost_sums import NOW, read_sums
from runs.reading.entries import usd
from runs.reading.words import counted as words

# Days that begin with an hour of UTC, and within one: half past and a quarter past.
ZONES = ("UTC", "Asia/Kolkata", "Asia/Kathmandu")
DAYS_AT_ONCE = 90

Sums = dict[Key, tuple[int, ...]]
Total = tuple[int, int]  # calls and amount


def check_costs() -> Iterator[tuple[int, str]]:
    """Each sealed hour or day, as hours since 1970, with a sentence that is empty when all is right."""
    sealed = CostSeal.objects.filter(sealed=True, version=VERSION).order_by("hour", "hours")
    for hour, length in list(sealed.values_list("hour", "hours")):
        with snapshot():
            if sealed.filter(hour=hour, hours=length).exists():  # nobody broke it since
                yield hour, _day(hour) if length == DAY else _hour(hour)


def check_reports() -> Iterator[tuple[str, str]]:
    """Days of reports in several time zones, each with a sentence that is empty when all is right.

    The calls and the amount of the whole and the amount of each day, as a report reads them, are compared
    with what the database adds up.
    """
    ends = Charge.objects.aggregate(first=Min("at"), last=Max("at"))
    if ends["first"] is None:
        return
    until = ends["last"] + timedelta(microseconds=1)
    for name in ZONES:
        days = list(beginnings(ends["first"], until, "day", find_zone(name)))
        for some in batched(days, DAYS_AT_ONCE, strict=False):
            after = days.index(some[-1]) + 1
            bounds = [*some, days[after] if after < len(days) else until]
            with snapshot():
                found = _wrong_report(bounds)
            what = f"the report from {bounds[0]:%Y-%m-%d %H:%M} UTC by days of {name}"
            yield name, f"{what} differs from the ledger: {found}" if found else ""


def _wrong_report(bounds: Sequence[datetime]) -> str:
    sums = read_sums(
        bounds, (bounds[0], bounds[0]), {Dimension.TOTAL}, Dimension.TOTAL, ("unpriced", "amount")
    )
    bars = [_added_up(since, until) for since, until in pairwise(bounds)]
    for simulated in (False, True):
        line = sums.lines.get((NOW, Dimension.TOTAL, simulated, ""), [0] * len(MEASURES))
        said = line[MEASURES.index("calls")], line[MEASURES.index("amount")]
        true = tuple(map(sum, zip(*(bar[simulated] for bar in bars), strict=True)))
        if said != true:
            return f"{said[0]:,} calls for {true[0]:,}, ${usd(said[1])} for ${usd(true[1])}"
        for place, bar in enumerate(bars):
            amount = sums.bars.get((place, simulated, ""), [0, 0])[1]
            if amount != bar[simulated][1]:
                return f"${usd(amount)} for ${usd(bar[simulated][1])} on day {place + 1}"
    return ""


def _added_up(since: datetime, until: datetime) -> dict[bool, Total]:
    rows = Charge.objects.filter(at__gte=since, at__lt=until).order_by().values_list("simulated")
    sums = rows.annotate(Sum("entry"), Sum("amount", default=0))
    return {False: (0, 0), True: (0, 0)} | {kind: (calls, amount) for kind, calls, amount in sums}


def _hour(hour: int) -> str:
    since, until = start_of(hour), start_of(hour + 1)
    kept, ledger = _kept(hour, 1), count([since, until])[0]
    across = dict(CostAcross.objects.filter(hour=hour).values_list("run_id", "first_at"))
    wrong = _differences(kept, {key: tuple(sums) for key, sums in ledger.sums.items()})
    if across != ledger.across:
        wrong.append("runs that go on")
    # The same once more by the database alone, so that an error in counting shows, too.
    for kind, amount in (
        Charge.objects.filter(at__gte=since, at__lt=until)
        .order_by()
        .values_list("simulated")
        .annotate(amount=Sum("amount"))
    ):
        total = kept.get((Dimension.TOTAL, kind, ""), (0,) * len(MEASURES))
        if total[MEASURES.index("amount")] != (amount or 0):
            wrong.append("the amount")
    return _sentence(hour, "hour", wrong)


def _day(day: int) -> str:
    hours = CostSum.objects.filter(hours=1, hour__gte=day, hour__lt=day + DAY, dimension__lt=Dimension.STEP)
    grouped = hours.order_by().values_list("dimension", "simulated", "key")
    summed = {row[:3]: tuple(map(int, row[3:])) for row in grouped.annotate(*map(Sum, MEASURES))}
    kept = {key: sums for key, sums in _kept(day, DAY).items() if key[0] != Dimension.STEP}
    return _sentence(day, "day", _differences(kept, summed))


def _kept(hour: int, length: int) -> Sums:
    rows = CostSum.objects.filter(
        hours=length, hour=hour, dimension__in=Dimension.values, simulated__in=(False, True)
    ).values_list("dimension", "simulated", "key", *MEASURES)
    return {row[:3]: row[3:] for row in rows}


def _differences(kept: Sums, ledger: Sums) -> list[str]:
    return [
        f"{Dimension(key[0]).label.lower()} {key[2]}".strip()
        for key in sorted(kept.keys() | ledger.keys())
        if kept.get(key) != ledger.get(key)
    ]


def _sentence(hour: int, what: str, wrong: list[str]) -> str:
    if not wrong:
        return ""
    more = f" and {words(len(wrong) - 5, 'more sum')}" if len(wrong) > 5 else ""
    return f"{what} {start_of(hour):%Y-%m-%d %H:%M} UTC differs from the ledger: {', '.join(wrong[:5])}{more}"
