"""The database is away for a moment while a tool runs: what the tool did is not forgotten."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable

import pytest
from django.db import connection

from runs.engine.drive import drive
from runs.models import Run, RunStatus, StepKind
from runs.reading.invariants import contradictions
from tests.factories import a_lease, a_run, a_turn
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
    Run.objects.filter(pk=run.pk).update(config=json.dumps(configuration))
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
