"""What was spent, by mail: chosen by each person, once per period and subscriber whatever happens."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core import mail
from django.db import connections
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from runs import actions
from runs.actions import ActionError, WantedChannel
from runs.actions.summaries import due_summaries, send_summary, subscribe
from runs.engine.bookkeeper import keep_books
from runs.engine.sender import deliver
from runs.models import CostSummary, NotificationDelivery
from runs.models.summary import period_of
from runs.money import Usage
from runs.reading.summary_mail import summary_facts
from tests.conftest import ROOT, Installation, eventually
from tests.ledgers import Attempt, an_ended_run, listed

MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
NEXT = MONDAY + timedelta(days=7)
DUE = NEXT + timedelta(hours=2)


@pytest.fixture
def manager(viewer: User) -> User:
    """Vera, who may manage notifications here."""
    viewer.user_permissions.add(Permission.objects.get(codename="notify"))
    return User.objects.get(pk=viewer.pk)


def subscribed(user: User, every: str = "week", address: str = "vera@example.com", **of: Any) -> CostSummary:
    """A subscription that was made in the week of MONDAY."""
    summary = subscribe(every, user=user, address=address, **of)
    assert summary is not None
    CostSummary.objects.filter(pk=summary.pk).update(told_until=period_of(every, MONDAY)[0])
    return summary


def spent() -> None:
    """Real usage of two weeks: 30 cents, then 60; one run failed, one call has no price."""
    at = MONDAY + timedelta(days=1)
    usage = Usage(output_tokens=30_000)
    an_ended_run(Attempt(usage, at - timedelta(days=7), prices=listed(at=at)))
    an_ended_run(Attempt(usage, at, prices=listed(at=at)), agent="incident")
    an_ended_run(Attempt(usage, at, prices=listed(at=at)), agent="triage", status="failed")
    an_ended_run(Attempt(Usage(input_tokens=1_200), at, "mythos-x"))
    an_ended_run(Attempt(usage, at, prices=listed(at=at)), simulated=True)


@pytest.mark.django_db
def test_a_summary_says_what_a_person_wants_to_know(
    manager: User, settings: Settings, mailoutbox: list[mail.EmailMessage]
) -> None:
    settings.AGENTOPS_URL = "https://agents.example.com"
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    spent()
    subscribed(manager)
    actions.set_budget(
        actor="olga", scope="installation", agent="", period="month", tool="", at_limit="wrap_up",
        limits={"cost_usd": "0.01", "tokens": "", "tool_calls": ""},
    )  # fmt: skip
    assert keep_books(NEXT) == 0  # what was under way at midnight is still booked
    assert keep_books(DUE) == 1 and keep_books(DUE) == 0
    delivery = NotificationDelivery.objects.get()
    assert deliver(delivery.pk)
    (sent,) = mailoutbox
    assert sent.to == ["vera@example.com"]
    assert sent.subject == "[agentops] Costs 16 Nov to 22 Nov 2026 (UTC): $0.6000"
    for words in (
        "$0.6000 in 3 runs, 3 model calls.",
        "The week before it was $0.3000 (100 % more).",
        "Agents: incident $0.3000, triage $0.3000.",
        "Models: claude-sonnet-5-5 $0.6000, mythos-x unpriced.",
        "Waste: $0.3000",
        "in no sum: 1 call with 1.2k tokens",
        "Budget installation per month: $0.9000 of $0.0100 used",
        "https://agents.example.com/costs/",
    ):
        assert words in str(sent.body), sent.body


@pytest.mark.django_db
def test_a_week_without_any_price_did_not_cost_nothing() -> None:
    since, until = period_of("week", MONDAY)
    an_ended_run(Attempt(Usage(input_tokens=1_200), since, "mythos-x"))
    facts = summary_facts("week", since, until, now=DUE)
    assert facts["headline"].endswith(": unpriced")
    assert facts["lines"][0] == "unpriced in 1 run, 1 model call."
    assert "Nothing was spent in the week before" in facts["lines"][1]
    after = summary_facts("week", until, until + timedelta(days=7), now=DUE + timedelta(days=7))
    assert after["headline"].endswith(": $0")
    assert after["lines"][1] == "The week before it was unpriced."


@pytest.mark.django_db
def test_each_person_chooses_and_only_his_own_address(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    refused = client.post("/costs/summaries/set", {"every": "week", "address": "boss@example.com"})
    assert refused.status_code == 422 and b"address of your account only" in refused.content
    User.objects.filter(pk=viewer.pk).update(email="vera@example.com")
    client.post("/costs/summaries/set", {"every": "month"})
    summary = CostSummary.objects.get()
    assert (summary.address, summary.told_until) == (
        "vera@example.com",
        period_of("month", timezone.now())[0],
    )
    page = client.get("/costs/summaries/").content.decode()
    assert "vera@example.com" in page and "Send me one now" in page
    for _ in range(3):
        client.post(f"/costs/summaries/{summary.pk}/now")
    assert NotificationDelivery.objects.count() == 1  # one in ten minutes
    assert "so far" in NotificationDelivery.objects.get().facts
    assert b"Ask again in 10 min" in client.get("/costs/summaries/").content
    client.post("/costs/summaries/set", {"every": ""})
    assert not CostSummary.objects.exists()


@pytest.mark.django_db
def test_a_channel_is_subscribed_by_whoever_may_and_nobody_sends_for_another(
    client: Client, manager: User, operator: User
) -> None:
    channel, _ = actions.save_channel(
        WantedChannel("finance", "email", recipients="finance@example.com", notices=["approval.asked"]),
        user=manager,
    )
    with pytest.raises(ActionError, match="notify"):
        subscribe("month", user=operator, channel=channel.pk)
    client.force_login(manager)
    for nothing in ("9" * 30, "first"):  # not taken for the choice of one's own
        answer = client.post(
            "/costs/summaries/set", {"every": "week", "channel": nothing, "address": "m@x.org"}
        )
        assert answer.status_code == 422 and b"no such channel" in answer.content
    mine = subscribed(manager)
    theirs = subscribed(manager, every="month", address="", channel=channel.pk)
    client.force_login(operator)
    for summary in (mine, theirs):
        client.post(f"/costs/summaries/{summary.pk}/now")
    assert not NotificationDelivery.objects.exists()
    assert b"finance@example.com" in client.get("/costs/summaries/").content
    assert keep_books(datetime(2026, 12, 1, 3, tzinfo=UTC)) == 2
    assert set(NotificationDelivery.objects.values_list("channel_name", flat=True)) == {"vera", "finance"}
    actions.remove_channel(channel.pk, user=manager)
    manager.is_active = False
    manager.save()
    assert keep_books(datetime(2027, 1, 2, 3, tzinfo=UTC)) == 0


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_at_once_one_writes_each_summary(manager: User) -> None:
    subscribed(manager)
    (due,) = due_summaries(DUE)
    facts = summary_facts(due.every, due.since, due.until, now=DUE)
    together, written = threading.Barrier(4), list[bool]()

    def worker() -> None:
        together.wait()
        written.append(send_summary(due, facts))
        connections.close_all()

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == [False, False, False, True]
    assert NotificationDelivery.objects.count() == 1


DYING = """
import os, signal, django
django.setup()
from datetime import timedelta
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone
from runs.actions.summaries import due_summaries, send_summary, subscribe
from runs.models import CostSummary, NotificationDelivery

now = timezone.now()
call_command("migrate", verbosity=0)
subscribe("month", user=User.objects.create_user("nora", email="nora@example.com"))
CostSummary.objects.update(told_until=now - timedelta(days=70))
(due,) = due_summaries(now)

def dies(committed):
    connections.close_all()
    if (child := os.fork()) == 0:
        facts = {"outcome": "summary", "headline": "October", "lines": [], "path": "/costs/"}
        if committed:
            assert send_summary(due, facts)
        else:
            with transaction.atomic():
                assert send_summary(due, facts)
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    return NotificationDelivery.objects.count()

print(dies(False), dies(True))
"""


@pytest.mark.server
@pytest.mark.long
def test_workers_that_die_lose_no_summary_and_send_none_twice(
    installation: Installation, tmp_path: Path
) -> None:
    mails = tmp_path / "mails"
    installation.environment["AGENTOPS_MAIL"] = f"file://{mails}"
    environment = installation.environment | {"DJANGO_SETTINGS_MODULE": "agentops.settings"}
    died = subprocess.run(
        [sys.executable, "-c", DYING], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert died.stdout.split() == ["0", "1"], (
        died.stderr
    )  # all written and not committed; committed, not sent
    for _ in range(2):
        installation.start("worker")
    eventually(lambda: installation.rows("SELECT 1 FROM runs_notificationdelivery WHERE state = 'sent'"))
    installation.close()
    assert installation.rows("SELECT state, attempts FROM runs_notificationdelivery") == [("sent", 1)]
    (mail_file,) = mails.iterdir()
    assert "To: nora@example.com" in mail_file.read_text()
