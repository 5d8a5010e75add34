"""Whether the sums that reports read are those of the ledger: every sealed hour and day is counted anew."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Sum

from runs.counting import Key, count, snapshot, start_of
from runs.counting.hours import DAY
from runs.models import Charge, CostAcross, CostSeal, CostSum, Dimension
from runs.models.cost_sum import MEASURES, VERSION
from runs.reading.words import counted as words

Sums = dict[Key, tuple[int, ...]]


def check_costs() -> Iterator[tuple[int, str]]:
    """Each sealed hour or day, as hours since 1970, with a sentence that is empty when all is right."""
    sealed = CostSeal.objects.filter(sealed=True, version=VERSION).order_by("hour", "hours")
    for hour, length in list(sealed.values_list("hour", "hours")):
        with snapshot():
            if sealed.filter(hour=hour, hours=length).exists():  # nobody broke it since
                yield hour, _day(hour) if length == DAY else _hour(hour)


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
