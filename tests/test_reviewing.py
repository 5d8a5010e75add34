"""How reviewing goes is told by the questions, honestly where something is not known, and names nobody."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from runs import actions
from runs.models import Approval, Run
from runs.reading.reviewing import read_reviewing
from tests.factories import a_run, a_waiting_call

pytestmark = pytest.mark.django_db


def ask(rule: str, verdict: str, voter: User, seconds: float | None, *, own: bool = False) -> Approval:
    """One question that was answered a minute after it was asked."""
    run = a_run("Why?")
    if own:
        Run.objects.filter(pk=run.pk).update(created_by=voter)
    _, _, approval = a_waiting_call(run, rule=rule)
    Approval.objects.filter(pk=approval.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    actions.decide(
        approval_id=approval.pk,
        voter=voter,
        verdict=verdict,  # type: ignore[arg-type]
        revision=1,
        digest=approval.digest,
        seconds_on_card=seconds,
    )
    return approval


@pytest.fixture
def week(operator: User, second_operator: User) -> None:
    """Four answers, one of them to a run of one's own, and one question that nobody answered."""
    ask("often", "approve", operator, 0.5)
    ask("often", "approve", operator, 30.0, own=True)
    ask("often", "approve", second_operator, None)
    ask("often", "reject", second_operator, 1.0)
    a_waiting_call(a_run("Unseen"), rule="seldom", decide_within_seconds=0)
    actions.expire_approvals(timezone.now())


def test_it_counts_what_was_asked_and_answered(week: None) -> None:
    report = read_reviewing(7, now=timezone.now())
    assert report.total.outcomes == {"approved": 3, "rejected": 1, "expired": 1, "withdrawn": 0}
    assert report.total.approve_share == 0.75
    assert (report.total.quick, report.total.timed, report.total.untimed) == (1, 2, 1)
    assert (report.total.self_approved, report.total.card_seconds) == (1, 1.0)
    assert report.total.decide_seconds == pytest.approx(60, abs=10)
    assert [(line.name, line.asked, line.approve_share) for line in report.by_rule] == [
        ("often", 4, 0.75),
        ("seldom", 1, None),
    ]
    assert report.per_day[-1].counts == (3, 1, 1) and len(report.per_day) == 7
    assert [bar.total for bar in report.on_card] == [2, 0, 0, 0, 1, 0]


def test_an_approval_that_was_not_started_in_time_was_still_approved(operator: User) -> None:
    approval = ask("often", "approve", operator, None)
    Approval.objects.filter(pk=approval.pk).update(state="expired")
    assert read_reviewing(7, now=timezone.now()).total.outcomes["approved"] == 1


def test_older_decisions_belong_to_longer_periods(operator: User) -> None:
    approval = ask("often", "approve", operator, None)
    Approval.objects.filter(pk=approval.pk).update(decided_at=timezone.now() - timedelta(days=20))
    assert [read_reviewing(days, now=timezone.now()).total.asked for days in (7, 30, 90)] == [0, 1, 1]


def test_the_page_is_for_people_who_decide_and_names_none(
    week: None,
    client: Client,
    operator: User,
    viewer: User,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    client.force_login(viewer)
    assert client.get("/approvals/reviewing/").status_code == 403
    assert "/approvals/reviewing/" not in client.get("/approvals/history/").content.decode()
    client.force_login(operator)
    assert "/approvals/reviewing/" in client.get("/approvals/history/").content.decode()
    # session, user, permissions (2), approvals, votes, counts of the day, pending
    with django_assert_num_queries(9):
        html = client.get("/approvals/reviewing/?days=7").content.decode()
    assert "1 of 2 timed approvals, 1 vote not timed" in html
    assert "dana" not in html
    assert client.get("/approvals/reviewing/?days=nonsense").context["report"].days == 30


def test_an_empty_period_says_so(client: Client, operator: User) -> None:
    client.force_login(operator)
    assert "Nothing was decided in this period" in client.get("/approvals/reviewing/").content.decode()
