"""The database is away for a moment while a tool runs: what the tool did is not forgotten."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

import pytest
from django.db import connection

from runs.actions import group_commit
from runs.engine.drive import drive
from runs.models import Run, RunStatus, StepKind
from runs.reading.invariants import contradictions
from tests.conftest import eventually
from tests.factories import a_lease, a_run, a_turn, reconfigure
from tools import registry
from tools.base import Result, ToolContext, tool

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="on PostgreSQL the server is restarted instead")
def test_the_result_of_a_change_is_stored_when_the_database_answers_again(
    faults: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    sent: list[str] = []

    @tool(effect="write", idempotency="none", describe=lambda _: "Send a letter")
    def send_letter(context: ToolContext) -> Result:
        """Send a letter, while somebody else locks the database for a second."""
        sent.append(context.idempotency_key)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(1.0, lambda: other.execute("ROLLBACK")).start()
        return Result(summary="Sent.")

    monkeypatch.setitem(registry.TOOLS, send_letter.name, send_letter)
    run = a_run()
    configuration = run.frozen
    configuration["tools"] += [send_letter.definition()]
    reconfigure(run, configuration)
    lease = a_lease(run)
    a_turn(lease, ("send_letter", "write", {}))
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 50")  # it gives up soon, not after twenty seconds
    try:
        drive(
            lease,
            lambda: bool(sent) and Run.objects.get(pk=run.pk).steps.filter(status="succeeded").count() > 1,
        )
    finally:
        connection.close()
        other.close()
    run.refresh_from_db()
    (call,) = run.steps.filter(kind=StepKind.TOOL, name="send_letter")
    assert (call.status, len(sent)) == ("succeeded", 1)
    assert run.status in {RunStatus.QUEUED, RunStatus.SUCCEEDED, RunStatus.WAITING}
    assert contradictions(run) == []


@pytest.mark.skipif(connection.vendor != "sqlite", reason="on PostgreSQL the server is restarted instead")
def test_a_read_that_came_back_while_the_database_was_away_is_stored_with_the_next_one(
    faults: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    asked: list[str] = []

    @tool(effect="read", idempotency="none", describe=lambda _: "Look")
    def look(context: ToolContext, *, where: str) -> Result:
        """Look, while somebody else holds the database until the first result could not be stored."""
        asked.append(where)
        if where == "here":
            other.execute("BEGIN IMMEDIATE")
        else:
            eventually(lambda: "are kept" in caplog.text)
            other.execute("ROLLBACK")
        return Result(summary=f"Nothing {where}.")

    monkeypatch.setitem(registry.TOOLS, look.name, look)
    run = a_run()
    configuration = run.frozen
    configuration["tools"] += [look.definition()]
    reconfigure(run, configuration)
    lease = a_lease(run)
    a_turn(lease, ("look", "read", {"where": "here"}), ("look", "read", {"where": "there"}))
    with group_commit.sharing(), connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 50")
    try:
        drive(lease, lambda: len(asked) > 1)
    finally:
        group_commit.close()
        other.close()
    run.refresh_from_db()
    calls = run.steps.filter(kind=StepKind.TOOL, name="look")
    assert [(call.status, call.attempt) for call in calls] == [("succeeded", 1)] * 2
    assert sorted(asked) == ["here", "there"]
    assert contradictions(run) == []
