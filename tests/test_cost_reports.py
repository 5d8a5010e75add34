"""The cost report: every number is a plain sum over the ledger, and opens the list of exactly its runs."""

from __future__ import annotations

import html
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from runs import actions
from runs.counting import LOST
from runs.counting.misses import Miss, Sent, misses
from runs.models import Charge, CostSeal, Run, RunTag, Step
from runs.reading import cost_findings
from runs.reading.chart import draw
from runs.reading.cost_misses import missed_runs
from runs.reading.cost_periods import PERIODS, CostPeriod, find_period, find_zone
from runs.reading.costs import BREAKDOWNS, CLASSES, QUESTION, UNTAGGED, CostReport, read_costs
from runs.reading.places import NEWEST
from runs.reading.runs import RunQuery, read_page
from tests.factories import a_lease, a_run, a_turn
from tests.ledger_maker import Ledger

NOW = datetime(2026, 11, 20, 12, 20, tzinfo=UTC)


def listed(text: str) -> set[int]:
    """The runs that a search lists, over all pages."""
    query: RunQuery | None = RunQuery(text, NEWEST)
    pks: set[int] = set()
    while query is not None:
        assert query.error is None, query.error
        page = read_page(query, now=NOW)
        pks |= set(page.pks)
        query = page.next or page.further
    return pks


def names_of(charge: Charge, by: str) -> list[str]:
    """The lines that a charge stands in."""
    if by == "tag":
        tags = RunTag.objects.filter(run=charge.run_id).values_list("name", flat=True)
        return list(tags) or [UNTAGGED]
    if by == "tool":
        return charge.caused_by.split(",") if charge.caused_by else [QUESTION]
    return [str(getattr(charge, by))]


def amount_of(charges: Iterable[Charge]) -> int:
    return sum(charge.amount or 0 for charge in charges)


def a_past(seed: int, unsealed: int) -> None:
    """Three days of runs, some over midnight, corrected and tagged, of which some hours are sealed."""
    ledger, random = Ledger(seed), Random(seed)
    for _ in range(25):
        begun = NOW - timedelta(minutes=random.randrange(3 * 24 * 60))
        run = ledger.run(begun, random.choice(("running", "succeeded", "failed", "cancelled")))
        for tag in random.sample(("alpha", "beta"), random.randrange(3)):
            actions.tag_run(run_id=run.pk, name=tag, actor="olga")
        at = begun
        for _ in range(random.randrange(1, 5)):
            charge = ledger.charge(run, min(at, NOW - timedelta(seconds=1)))
            at += timedelta(minutes=random.choice((1, 3, 30, 700)))
            if not random.randrange(5):
                ledger.correct(charge)
    while actions.seal_hours(NOW):
        pass
    for seal in random.sample(list(CostSeal.objects.filter(hours=1)), unsealed):
        CostSeal.objects.filter(hour=seal.hour - seal.hour % 24, hours=24).delete()
        seal.delete()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("seed", "zone", "wanted"),
    [
        (1, "UTC", {"period": "7"}),
        (2, "Asia/Kathmandu", {"from": "2026-11-18", "to": "2026-11-19", "unit": "hour"}),
        (3, "Europe/Berlin", {"period": "7"}),
        (6, "America/New_York", {"period": "7"}),
    ],
)
def test_every_number_is_a_sum_of_the_ledger_and_lists_its_runs(
    seed: int, zone: str, wanted: dict[str, str]
) -> None:
    a_past(seed, unsealed=3 * (seed % 3))
    period = find_period(wanted, find_zone(zone), NOW)
    everything = list(Charge.objects.filter(simulated=False))
    within = [charge for charge in everything if period.since <= charge.at < period.until]
    earlier = [charge for charge in everything if period.before[0] <= charge.at < period.before[1]]
    assert within
    for by, breakdown in BREAKDOWNS.items():
        report = read_costs(period, breakdown, simulated=False)
        assert report.total.amount == amount_of(within) and report.before.amount == amount_of(earlier)
        assert report.total.runs == len({charge.run_id for charge in within})
        assert report.before.runs == len({charge.run_id for charge in earlier})
        assert listed(report.query) == {charge.run_id for charge in within}
        assert sum((bar.cost for bar in report.bars), Decimal(0)) == report.total.cost
        if by == "class":
            _check_classes(report, within)
            continue
        _check_lines(report, within)
    for bar, since, until in zip(report.bars, period.bounds, period.bounds[1:], strict=False):
        here = [charge for charge in within if since <= charge.at < until]
        assert bar.cost * 10**10 == amount_of(here)
        if here and bar.place % 3 == 0:
            assert listed(bar.query) == {charge.run_id for charge in here}
    _check_waste(report, within)
    _check_misses(report, {charge.run_id for charge in within})


def _check_misses(report: CostReport, within: set[int]) -> None:
    lines = [*cost_findings.missed(report), cost_findings.unread(report)]
    for line in (line for line in lines if line is not None):
        found = missed_runs(report.period, simulated=False, reason=line.reason)
        assert found is not None and found.since is None and not found.more
        assert (found.calls, found.tokens, found.extra) == (line.calls, line.tokens, line.extra)
        assert {one.run.pk for one in found.runs} <= within
        assert sum((one.extra or Decimal(0) for one in found.runs), Decimal(0)) == (line.extra or 0)


def _check_lines(report: CostReport, within: list[Charge]) -> None:
    by = report.breakdown.name
    names = [names_of(charge, by) for charge in within]
    assert {line.name for line in report.lines} <= {name for each in names for name in each}
    for line in report.lines:
        here = [charge for charge, each in zip(within, names, strict=True) if line.name in each]
        assert line.tally.calls == sum(charge.entry for charge in here)
        assert listed(line.query) == {charge.run_id for charge in here}
        if by != "tool":
            assert line.tally.amount == amount_of(here)
        if report.breakdown.counts_runs:
            assert line.tally.runs == len({charge.run_id for charge in here})
    if by != "tag":
        assert sum(line.tally.amount for line in report.lines) == report.total.amount


def _check_classes(report: CostReport, within: list[Charge]) -> None:
    assert sum(line.tally.amount for line in report.lines) == report.total.amount
    for line in report.lines:
        key = next(key for key, name in CLASSES.items() if name == line.name)
        column = "web_searches" if key == "web_search" else f"{key}_tokens"
        assert getattr(line.tally, column) == sum(getattr(charge, column) for charge in within)
        standing = [
            charge for charge in within
            if charge.entry == 1 and not charge.step.charges.filter(entry=-1, number__gt=charge.number)
        ]  # fmt: skip
        assert listed(line.query) == {charge.run_id for charge in standing if getattr(charge, column)}


def _check_waste(report: CostReport, within: list[Charge]) -> None:
    """Each charge is in at most one line."""
    statuses = dict(Run.objects.values_list("pk", "status"))
    lost = [charge for charge in within if charge.failed]
    rest = [charge for charge in within if not charge.failed]
    expected = {
        "Attempts without an answer": lost,
        "Failed runs": [charge for charge in rest if statuses[charge.run_id] == "failed"],
        "Cancelled runs": [charge for charge in rest if statuses[charge.run_id] == "cancelled"],
    }
    for line in cost_findings.waste(report):
        assert line.tally.amount == amount_of(expected[line.name])
        assert listed(line.query) == {charge.run_id for charge in expected[line.name]}
    succeeded = [charge for charge in within if statuses[charge.run_id] == "succeeded"]
    assert cost_findings.successes(report).amount == amount_of(succeeded)
    assert cost_findings.successes(report).runs == len({charge.run_id for charge in succeeded})
    assert all(key.removesuffix(LOST) in {*statuses.values(), "open"} for key in report.outcomes)
    best = sorted({step.pk: amount_of(c for c in within if c.step_id == step.pk)
                   for step in Step.objects.all()}.values(), reverse=True)[:10]  # fmt: skip
    found = [entry.cost * 10**10 for entry in cost_findings.costly_steps(report)]
    assert found == [amount for amount in best if amount > 0]


@pytest.mark.django_db
def test_the_dearest_runs_are_found_among_many_as_among_few(monkeypatch: pytest.MonkeyPatch) -> None:
    a_past(4, unsealed=9)
    for run in Run.objects.all():
        total = Decimal(amount_of(run.charges.all())) / 10**10
        Run.objects.filter(pk=run.pk).update(cost_usd=total)
    period = find_period({"from": "2026-11-19", "to": "2026-11-19"}, find_zone("UTC"), NOW)
    report = read_costs(period, BREAKDOWNS["agent"], simulated=False)
    few = [(each.run.pk, each.cost) for each in cost_findings.costly_runs(report)]
    monkeypatch.setattr(cost_findings, "FEW_CALLS", 0)
    assert few and [(each.run.pk, each.cost) for each in cost_findings.costly_runs(report)] == few


@pytest.mark.django_db
def test_outliers_are_measured_by_the_median_of_their_agent() -> None:
    ledger = Ledger(5)
    for n in range(12):
        run = ledger.run(NOW - timedelta(hours=n), "succeeded")
        ledger.charge(run, run.created_at)
        Run.objects.filter(pk=run.pk).update(agent="incident", simulated=False, cost_usd=1)
    Run.objects.filter(pk=run.pk).update(cost_usd=Decimal("5.01"))
    Charge.objects.update(agent="incident", simulated=False)
    period = find_period({"period": "7"}, find_zone("UTC"), NOW)
    (found,) = cost_findings.outliers(read_costs(period, BREAKDOWNS["agent"], simulated=None))
    assert [dear.pk for dear, _ in found.runs] == [run.pk] and found.median == 1
    assert listed(found.query) == {run.pk}


def sent(model: str, began: int, *tokens: int) -> Sent:
    """A call of a minute."""
    at = NOW + timedelta(seconds=began)
    return Sent(model, at, at + timedelta(seconds=60), (*tokens, 0, 0, 0))


@pytest.mark.parametrize(
    ("before", "call", "expected"),
    [
        (None, (0, 10, 2_000, 0, 0), {Miss.FIRST: 2_010}),
        ((0, 10, 2_000, 0, 0), (70, 10, 500, 0, 2_000), {Miss.NEW: 500, Miss.TAIL: 10}),
        (
            (0, 10, 2_000, 0, 0),
            (60 + 301, 10, 2_500, 0, 0),
            {Miss.NEW: 500, Miss.PAUSE: 2_000, Miss.TAIL: 10},
        ),
        (
            (0, 10, 0, 2_000, 0),
            (60 + 301, 10, 2_500, 0, 0),
            {Miss.NEW: 500, Miss.CHANGED: 2_000, Miss.TAIL: 10},
        ),
        ((0, 2_000, 0, 0, 0), (70, 2_500, 0, 0, 0), {Miss.NEW: 500, Miss.OFF: 2_000}),
        ((0, 400, 0, 0, 0), (70, 900, 0, 0, 0), {Miss.NEW: 500, Miss.SMALL: 400}),
    ],
)
def test_the_reason_for_a_miss_is_told_from_the_call_before(
    before: tuple[int, ...] | None, call: tuple[int, ...], expected: dict[Miss, int]
) -> None:
    model = "claude-sonnet-5-5"
    earlier = None if before is None else sent(model, *before)
    assert dict(misses(sent(model, *call), earlier, handed_over=False)) == expected
    if before is not None:
        other = dict(misses(sent(model, *call), sent("claude-haiku-5-5", *before), handed_over=False))
        assert other[Miss.MODEL] == sum(expected.values()) - expected[Miss.NEW]


@pytest.mark.parametrize(
    ("wanted", "zone", "bars", "first"),
    [
        ({"period": "24h"}, "Asia/Kathmandu", 24, "2026-11-19 13:15"),
        ({"period": "7"}, "Europe/Berlin", 7, "2026-11-13 23:00"),
        ({"period": "90"}, "America/New_York", 90, "2026-08-23 04:00"),  # summer time ends in between
        ({"period": "90", "unit": "week"}, "UTC", 14, "2026-08-23 00:00"),
        ({"period": "month"}, "UTC", 20, "2026-11-01 00:00"),
        ({"period": "last-month"}, "Europe/Berlin", 31, "2026-09-30 22:00"),
        ({"from": "2026-11-30", "to": "2026-11-02"}, "UTC", 19, "2026-11-02 00:00"),  # and not the future
        ({"from": "nonsense", "period": "nonsense", "unit": "year"}, "UTC", 14, "2026-11-07 00:00"),
    ],
)
def test_periods_begin_with_days_of_the_reader(
    wanted: dict[str, str], zone: str, bars: int, first: str
) -> None:
    period: CostPeriod = find_period(wanted, find_zone(zone), NOW)
    assert len(period.bounds) == bars + 1 and f"{period.since:%Y-%m-%d %H:%M}" == first
    assert list(period.bounds) == sorted(set(period.bounds)) and period.bounds[-1] == period.until <= NOW
    assert period.before[0] <= period.before[1] <= period.since
    assert find_zone("Mars/Olympus", zone) == ZoneInfo(zone)


def test_a_day_that_is_nearly_over_does_not_smuggle_in_more_bars_than_can_be_read() -> None:
    late = datetime(2026, 11, 22, 23, 50, tzinfo=UTC)
    period = find_period({"from": "2026-11-17", "to": "2026-11-22", "unit": "hour"}, find_zone("UTC"), late)
    assert period.unit == "day" and len(period.bounds) == 7


@pytest.mark.django_db
@pytest.mark.parametrize("period", [*PERIODS, "nonsense"])
def test_an_empty_period_draws_an_empty_chart(period: str) -> None:
    wanted = find_period({"period": period}, find_zone(""), timezone.now())
    report = read_costs(wanted, BREAKDOWNS["model"], simulated=None)
    chart = draw(report)
    assert report.total.calls == 0 and len(chart.columns) == len(wanted.bounds) - 1
    assert not any(column.parts for column in chart.columns)


@pytest.mark.django_db
def test_bars_stand_on_each_other_and_stay_inside_the_chart() -> None:
    lease = a_lease(a_run())
    for model in "abcdefgh":
        a_turn(lease, text=model)
        Charge.objects.filter(step__seq=Step.objects.latest("seq").seq).update(model=model)
    period = find_period({"period": "7"}, find_zone(""), timezone.now() + timedelta(seconds=1))
    chart = draw(read_costs(period, BREAKDOWNS["model"], simulated=None))
    (today,) = [column for column in chart.columns if column.parts]
    tops = [float(part.y) for part in today.parts]
    assert tops == sorted(tops, reverse=True) and min(tops) >= 0
    assert [series.name for series in chart.legend] == ["a", "b", "c", "d", "e", "3 others"]


@pytest.mark.django_db
def test_simulated_and_real_money_are_never_added_together() -> None:
    simulated, real = a_lease(a_run()), a_lease(a_run())
    a_turn(simulated)
    a_turn(real)
    a_turn(real)
    Run.objects.filter(pk=real.run_id).update(simulated=False)
    Charge.objects.filter(run=real.run_id).update(simulated=False)
    period = find_period({"period": "24h"}, find_zone(""), timezone.now() + timedelta(seconds=1))
    both = [read_costs(period, BREAKDOWNS["user"], simulated=kind) for kind in (None, False, True)]
    assert [report.simulated for report in both] == [False, False, True]
    assert [report.total.calls for report in both] == [2, 2, 1]
    assert all(report.both_kinds for report in both)


@pytest.mark.django_db
def test_the_page_keeps_what_was_chosen_and_says_what_has_no_price(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    a_turn(a_lease(a_run("dear question")))
    Charge.objects.update(price=None, amount=None, at=timezone.now() - timedelta(seconds=5))
    Run.objects.update(cost_usd=0)

    def page(query: str) -> Any:
        return client.get(f"/costs/{query}").content.decode()

    shown = page("?period=24h&by=tool&zone=Asia%2FTokyo")
    assert "1 call has no price" in shown and "1,100 tokens" in shown and "the question" in shown
    assert '<span class="simulated">simulated</span>' in shown and ">$0<" not in shown
    assert ": 1 call without a price<" in shown
    assert "(Asia/Tokyo)" in page("?period=7")  # remembered
    assert "?period=24h&amp;by=tool" in shown or "period=24h&amp;by=model" in shown
    for by in BREAKDOWNS:
        assert "Caching" in page(f"?by={by}&from=2020-01-01&to=2100-01-01")
    assert "Nothing was spent" in page("?from=2020-01-01&to=2020-01-02")


@pytest.mark.django_db
def test_a_reason_why_the_cache_was_missed_opens_its_runs(client: Client, viewer: User) -> None:
    lease = a_lease(a_run("Why is the pool exhausted?"))
    a_turn(lease, text="The deployment.")
    client.force_login(viewer)
    report = client.get("/costs/?period=24h&source=simulated").content.decode()
    address = "/costs/missed/?period=24h&source=simulated&reason="
    assert html.escape(address + "first") in report
    page = client.get(address + "first").content.decode()
    assert "Why is the pool exhausted?" in page and "1 call, 1,000 tokens" in page
    assert "No run" in client.get(address + "pause").content.decode()
    assert client.get(address + "because").status_code == 404
