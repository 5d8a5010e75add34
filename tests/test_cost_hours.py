"""Sums of the ledger by hour and day: a report says what the ledger says, at every moment."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone

from runs import actions
from runs.actions.change import change, one_writer
from runs.counting import hour_of, snapshot
from runs.models import Charge, CostSeal, CostSum, Entry, Run, RunStatus
from runs.reading.cost_check import check_costs, check_reports
from runs.reading.cost_periods import find_period, find_zone
from runs.reading.costs import BREAKDOWNS, read_costs
from tests.ledger_maker import Ledger

NOW = datetime.fromisoformat("2026-11-20T12:20:00+00:00")


def seal_all(now: datetime = NOW) -> None:
    while actions.seal_hours(now):
        pass


def differences() -> list[str]:
    return [sentence for _, sentence in check_costs() if sentence]


@pytest.mark.django_db
def test_hours_that_are_over_are_summed_up_and_days_of_them() -> None:
    ledger = Ledger(1)
    for n in range(0, 60, 5):
        run = ledger.run(NOW - timedelta(hours=n), "succeeded")
        for k in range(3):
            ledger.charge(run, NOW - timedelta(hours=n, minutes=-17 * k))
    seal_all()
    hours = set(CostSeal.objects.filter(hours=1).values_list("hour", flat=True))
    assert max(hours) == hour_of(NOW) - 2  # the one after it ended only twenty minutes ago
    assert CostSeal.objects.filter(hours=24, sealed=True).count() == 2  # all of the 18th and 19th
    assert differences() == []
    CostSum.objects.filter(hours=1, dimension=1).first().delete()  # type: ignore[union-attr]
    CostSum.objects.filter(hours=24, dimension=0).update(amount=1)
    assert len(differences()) == 3  # the hour and both days
    assert any("by days of Asia/Kolkata differs" in said for _, said in check_reports())
    with pytest.raises(SystemExit):
        call_command("checkcosts")
    call_command("checkcosts", "--again")


@pytest.mark.django_db
def test_whoever_changes_what_an_hour_says_has_it_counted_again() -> None:
    ledger = Ledger(2)
    old = ledger.run(NOW - timedelta(hours=30))
    charges = [ledger.charge(old, NOW - timedelta(hours=30 - 9 * n)) for n in range(3)]
    seal_all()
    sealed = CostSeal.objects.count()

    def broken() -> int:
        """Seals that are gone; they are made again, and right."""
        gone = sealed - CostSeal.objects.count()
        seal_all()
        assert differences() == []
        return gone

    actions.tag_run(run_id=old.pk, name="false-alarm", actor="olga")
    assert broken() == 4  # three hours, and the one day that is whole
    actions.untag_run(run_id=old.pk, name="false-alarm", actor="olga")
    assert broken() == 4
    with change(old.pk, actor="test") as current:
        current.set(status=RunStatus.FAILED, ended_at=current.now)
    assert broken() == 4
    with transaction.atomic():
        ledger.correct(charges[1])
    assert broken() == 4
    young = ledger.run(timezone.now())
    with change(young.pk, actor="test") as current:
        current.set(status=RunStatus.FAILED, ended_at=current.now)
    assert broken() == 0


@pytest.mark.django_db(transaction=True)
def test_sums_are_right_while_everything_changes() -> None:
    """Threads book, correct, tag and end runs of the past while others seal."""
    first = Ledger(3)
    runs = [first.run(NOW - timedelta(hours=n)) for n in range(12)]
    for run in runs:
        first.charge(run, NOW - timedelta(hours=2 + runs.index(run)))
    over = threading.Event()
    period = find_period({"period": "24h"}, find_zone("Asia/Kolkata"), NOW)
    failures: list[BaseException] = []

    def guarded(work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    def people(seed: int) -> None:
        ledger = Ledger(seed)
        for _ in range(30):
            run = Run.objects.get(pk=ledger.random.choice(runs).pk)
            doing = ledger.random.randrange(4)
            if doing == 0:
                actions.tag_run(run_id=run.pk, name=ledger.random.choice("abc"), actor="olga")
            elif doing == 1:
                with change(run.pk, actor="olga") as current:
                    ended = None if current.run.ended_at else current.now
                    status = RunStatus.CANCELLED if ended else RunStatus.QUEUED
                    current.set(status=status, ended_at=ended)
            else:
                with one_writer(), transaction.atomic():
                    Run.objects.select_for_update().get(pk=run.pk)
                    if doing == 2:
                        ledger.charge(run, NOW - timedelta(minutes=ledger.random.randrange(120, 900)))
                        actions.count_again([run.pk])
                    else:
                        ledger.correct(run.charges.filter(entry=Entry.CHARGE).order_by("-pk")[0])

    def sealer() -> None:
        while not over.is_set():
            actions.seal_hours(NOW)
            assert differences() == []
            with snapshot():
                report = read_costs(period, BREAKDOWNS["agent"], simulated=False)
                rows = Charge.objects.filter(simulated=False, at__gte=period.since, at__lt=period.until)
                assert report.total.amount == sum(row.amount or 0 for row in rows)
                assert report.total.runs == len({row.run_id for row in rows})

    workers = [threading.Thread(target=guarded, args=(people, seed)) for seed in (5, 6, 7)]
    sealers = [threading.Thread(target=guarded, args=(sealer,)) for _ in range(2)]
    for thread in (*workers, *sealers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    for thread in sealers:
        thread.join()
    assert failures == []
    seal_all()
    assert differences() == [] and CostSum.objects.filter(hours=1).exists()
