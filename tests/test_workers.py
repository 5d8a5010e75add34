"""Who works, what waits, and how the backends are: seen on a page, whatever happens to the processes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from runs import actions
from runs.engine.presence import Presence
from runs.engine.worker import Heart
from runs.hints import postgres_parameters
from runs.models import Run, RunStatus, WorkerProcess
from tests.conftest import Installation, eventually, wait_for_line
from tests.factories import a_lease, a_run, an_attempt
from tests.test_live import cookie, do, fresh_layer, open_page
from tests.toolbox import call
from tools.base import Result, ToolContext, ToolError, tool
from tools.boundary import MOST_ABANDONED
from tools.breaker import MOST_FAILURES

__all__ = ["cookie", "fresh_layer"]  # fixtures
NOBODY = "No worker is running"


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def text_of(client: Client, path: str) -> str:
    """The page without markup, on one line."""
    response = client.get(path)
    assert response.status_code == 200, path
    return words_of(response.content.decode())


def words_of(html: str) -> str:
    main = html[html.index('<main id="main"') : html.index("</main>")]
    return " ".join(re.sub(r"<[^>]+>", " ", main).split())


def last_seen(name: str, ago: timedelta) -> None:
    moment = timezone.now() - ago
    WorkerProcess.objects.filter(name=name).update(seen_at=moment)


@pytest.mark.server
def test_the_page_tells_a_living_worker_from_a_killed_and_a_stopped_one(tmp_path: Path) -> None:
    installation = Installation(tmp_path, AGENTOPS_LEASE_SECONDS="2")
    try:
        tell_them_apart(installation)
    finally:
        installation.close()


def tell_them_apart(installation: Installation) -> None:
    started = installation.command("runagent", "--detach", "PostgreSQL connection pool exhausted")
    assert started.returncode == 0, started.stderr
    (user,) = installation.rows("SELECT username FROM auth_user")
    base = installation.serve()
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    link = installation.command("signinlink", user[0], "--base-url", base).stdout.strip()
    assert f"{NOBODY}: 1 run waits" in read(browser, link), "the list says so"

    doomed = installation.start("worker", "--concurrency", "3")
    wait_for_line(doomed, "drives up to")
    eventually(lambda: states(browser, base).get(doomed.pid) in {"idle", "working"})
    eventually(lambda: "of 3 at once" in read(browser, f"{base}/workers/"))
    eventually(lambda: NOBODY not in read(browser, f"{base}/"))

    doomed.kill()
    eventually(lambda: states(browser, base) == {doomed.pid: "lost"})
    shown = read(browser, f"{base}/workers/")
    assert f"{NOBODY}: queued runs wait" in shown and "1 lost within a day" in shown
    assert "It died or cannot reach the database." in shown

    polite = installation.start("worker")
    wait_for_line(polite, "drives up to")
    eventually(lambda: states(browser, base).get(polite.pid) in {"idle", "working"})
    polite.terminate()
    assert polite.wait(30) == 0
    assert states(browser, base) == {doomed.pid: "lost", polite.pid: "stopped"}


def read(browser: OpenerDirector, address: str) -> str:
    with browser.open(address, timeout=30) as answer:
        return words_of(answer.read().decode())


def states(browser: OpenerDirector, base: str) -> dict[int, str]:
    """What the machine-readable page says of each process."""
    with browser.open(f"{base}/workers.json", timeout=30) as answer:
        found = json.load(answer)
    return {worker["pid"]: worker["state"] for worker in found["workers"]}


@pytest.mark.django_db
def test_the_page_says_what_each_worker_drives_and_what_waits(page: Client) -> None:
    Presence("one", concurrency=4).show(1)
    Presence("two", concurrency=2).show(0)
    driven, waiting = a_run("driven"), a_run("waiting")
    a_lease(driven, "one")
    later = a_run("later")
    Run.objects.filter(pk=later.pk).update(retry_at=timezone.now() + timedelta(minutes=5))
    shown = text_of(page, "/workers/")
    assert "Runs driven 1 of 6 at once" in shown
    assert f"Waiting for a worker 1 run {waiting.pk} asked" in shown
    assert "Trying again later 1" in shown
    assert re.search(rf"Working \S+ process \d+ run {driven.pk} 1 of 4", shown)
    assert re.search(r"Idle \S+ process \d+ nothing 0 of 2", shown)
    assert NOBODY not in shown

    a_lease(later_is_due(later), "olga-in-a-terminal")
    assert f"Driven by a command in a terminal: run {later.pk}" in text_of(page, "/workers/")


def later_is_due(run: Run) -> Run:
    Run.objects.filter(pk=run.pk).update(retry_at=None)
    return run


@pytest.mark.django_db
def test_a_waiting_run_says_that_nobody_works_and_stops_saying_so(page: Client, settings: Settings) -> None:
    run = a_run()
    address = run.get_absolute_url()
    assert NOBODY in text_of(page, address) and f"{NOBODY}: 1 run waits" in text_of(page, "/")
    Presence("one", concurrency=4).show(0)
    assert NOBODY not in text_of(page, address) and NOBODY not in text_of(page, "/")

    a_lease(run, "one")
    last_seen("one", timedelta(seconds=settings.AGENTOPS_LEASE_SECONDS + 1))
    assert NOBODY not in text_of(page, address), "its lease still holds"
    Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert NOBODY in text_of(page, address), "it was left behind"
    Run.objects.update(status=RunStatus.CANCELLED, ended_at=timezone.now(), lease_owner="", lease_until=None)
    assert NOBODY not in text_of(page, address) and NOBODY not in text_of(page, "/")


@pytest.mark.django_db
def test_workers_of_last_week_are_forgotten_and_another_version_is_named(page: Client) -> None:
    for name, days in (("old", 8), ("recent", 2)):
        Presence(name, concurrency=1).show(0)
        last_seen(name, timedelta(days=days))
    Presence("new", concurrency=1).show(0)
    assert set(WorkerProcess.objects.values_list("name", flat=True)) == {"recent", "new"}
    WorkerProcess.objects.filter(name="new").update(version="0.0.9")
    shown = text_of(page, "/workers/")
    assert "version 0.0.9" in shown and "Lost" not in shown, "what is gone for days is not shown"


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_cannot_be_shown_keeps_its_leases_alive(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AGENTOPS_LEASE_SECONDS = 4
    lease = a_lease(a_run())
    Run.objects.update(lease_until=timezone.now() + timedelta(seconds=1))
    with connection.schema_editor() as editor:
        editor.delete_model(WorkerProcess)  # as in a database of an older version
    try:
        with Heart(Presence(lease.owner, concurrency=1)) as heart:
            heart.hold(lease)
            eventually(lambda: Run.objects.get().lease_until > timezone.now() + timedelta(seconds=2))
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(WorkerProcess)
    assert "this worker could not be shown" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite locks no rows")
def test_a_row_that_somebody_holds_costs_no_other_run_its_lease(caplog: pytest.LogCaptureFixture) -> None:
    leases = [a_lease(a_run()) for _ in range(3)]
    Run.objects.update(lease_until=timezone.now())
    held = Run.objects.get(pk=leases[1].run_id)
    with psycopg.connect(**postgres_parameters()) as somebody:
        somebody.execute("SELECT 1 FROM runs_run WHERE id = %s FOR UPDATE", [held.pk])
        actions.heartbeat(leases)
    extended = Run.objects.filter(lease_until__gt=timezone.now()).values_list("pk", flat=True)
    assert set(extended) == {leases[0].run_id, leases[2].run_id}
    assert f"the lease of run {held.pk} is not extended this time" in caplog.text
    actions.heartbeat(leases)
    assert Run.objects.filter(lease_until__gt=timezone.now()).count() == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite locks no rows")
def test_a_row_that_somebody_holds_does_not_hold_up_who_looks_after_all_turns() -> None:
    lease = a_lease(a_run())
    attempt = an_attempt(lease)
    with psycopg.connect(**postgres_parameters()) as somebody:
        somebody.execute("SET idle_in_transaction_session_timeout = '10s'")  # who waits longer gets the row
        somebody.execute("SELECT 1 FROM runs_step WHERE id = %s FOR UPDATE", [attempt.pk])
        with pytest.raises(OperationalError, match="lock timeout"):
            actions.save_draft(lease, attempt, "Looking")
    actions.save_draft(lease, attempt, "Looking at the logs")
    attempt.refresh_from_db()
    assert attempt.draft == "Looking at the logs"


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Calls wait for it; they end with the test."""
    release = threading.Event()
    yield release
    release.set()


@pytest.mark.django_db
def test_a_backend_that_is_left_alone_and_calls_that_hang_are_shown(
    page: Client, hanging: threading.Event
) -> None:
    @tool(effect="read", idempotency="none", describe=str, backend="ledger")
    def ask_ledger(context: ToolContext) -> Result:
        """Ask the ledger."""
        raise ToolError("bad_response", "The ledger answered with garbage.")

    @tool(effect="read", idempotency="none", describe=str, backend="archive", deadline_seconds=0.05)
    def ask_archive(context: ToolContext) -> Result:
        """Ask the archive."""
        hanging.wait(30)
        return Result(summary="Found.", data={})

    @tool(effect="read", idempotency="none", describe=str, backend="atlas")
    def ask_atlas(context: ToolContext) -> Result:
        """Ask the atlas."""
        return Result(summary="Found.", data={})

    call(ask_atlas)
    for _ in range(MOST_FAILURES):
        call(ask_ledger)
    for _ in range(2):
        call(ask_archive)
    assert MOST_ABANDONED > 2
    Presence("one", concurrency=1).show(0)
    shown = text_of(page, "/workers/")
    assert re.search(r"Left alone ledger It kept failing: left alone since \d\d:\d\d:\d\d UTC\.", shown)
    assert "Answers atlas Its last calls were answered. none" in shown
    assert re.search(r"Answers archive 2 of its last calls failed\. 2 calls hang", shown)
    assert "Abandoned calls 2" in shown
    found: dict[str, Any] = {
        one["name"]: one for one in json.loads(page.get("/workers.json").content)["backends"]
    }
    assert found["ledger"]["state"] == "left alone" and found["archive"]["abandoned_calls"] == 2


@pytest.mark.django_db(transaction=True)
async def test_the_page_is_live(cookie: bytes) -> None:
    async with open_page("/live/workers/", cookie) as page:
        assert NOBODY in await page.hear("workers")
        run = await do(a_run)()
        await do(Presence("one", concurrency=1).show)(0)
        await do(a_lease)(run, "one")
        shown = await page.hear("workers", f"run {run.pk}</a>")
        assert NOBODY not in shown and "Working" in shown
