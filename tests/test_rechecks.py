"""A change that had worked is looked at again; what comes back is shown, told, and taken care of once."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.db.models import F
from django.test import Client
from django.utils import timezone

from runs import actions
from runs.engine.drive import drive
from runs.engine.rechecking import look
from runs.engine.worker import Worker
from runs.models import Approval, Event, NotificationChannel, NotificationDelivery, Recheck, Run, RunStatus
from runs.reading.invariants import contradictions
from tests.conftest import eventually
from tests.factories import a_lease, a_run, a_turn, run_calls
from tests.toolbox import expected
from tools.models import World

pytestmark = pytest.mark.django_db(transaction=True)
CURES = {
    "revert_deployment": {"deployment_id": "dep_0412", "reason": "It leaks."},
    "restart_connection_pool": {
        "service_name": "api",
        "mode": "terminate_idle_in_transaction",
        "reason": "To have room again.",
    },
}


def a_cured_run(tool: str, operator: User) -> Run:
    """A run whose remediation was approved, carried out and verified; it has ended."""
    run = a_run()
    lease = a_lease(run)
    arguments: dict[str, Any] = CURES[tool] | {
        "expected_effect": expected("db_sessions_idle_in_tx", "below", 10, within=600)
    }
    a_turn(lease, (tool, "destructive", arguments), text="This cures it.")
    run_calls(lease)
    approval = Approval.objects.get(run=run)
    actions.decide(
        approval_id=approval.pk,
        voter=operator,
        verdict="approve",
        revision=1,
        digest=approval.digest,
    )
    drive(lease, lambda: False)
    run.refresh_from_db()
    step = run.steps.get(name=tool)
    assert run.status == RunStatus.SUCCEEDED, run.explanation
    assert json.loads(step.result)["data"]["verification"]["passed"], step.result
    return run


def an_hour_later() -> None:
    """In the simulated world, and for what was planned."""
    World.objects.update(skipped_seconds=3_600)
    Recheck.objects.filter(state="due").update(due_at=F("due_at") - timedelta(hours=1))


def first_due() -> int:
    return actions.due_rechecks(timezone.now(), 1)[0]


def test_a_cure_that_holds_is_seen_to_hold(client: Client, operator: User) -> None:
    run = a_cured_run("revert_deployment", operator)
    looks = Recheck.objects.order_by("due_at")
    ended = run.steps.get(name="revert_deployment").ended_at
    assert ended and [round((one.due_at - ended).total_seconds() / 60) for one in looks] == [5, 30]
    assert actions.due_rechecks(timezone.now(), 9) == []
    Recheck.objects.filter(pk=looks[0].pk).update(due_at=timezone.now())
    World.objects.update(skipped_seconds=3_600)
    assert look(first_due(), "worker-1") and not look(looks[0].pk, "worker-2")
    looks[0].refresh_from_db()
    assert [one.state for one in looks.all()] == ["holds", "due"]
    client.force_login(operator)
    page = client.get(run.get_absolute_url()).text
    assert "still holds" in page and "still below 10" in page and "It came back" not in page
    assert contradictions(Run.objects.get(pk=run.pk)) == []


def test_what_comes_back_is_shown_told_and_taken_care_of_once(
    client: Client, operator: User, second_operator: User, viewer: User
) -> None:
    NotificationChannel.objects.create(
        name="ops",
        kind="json",
        url="https://hooks.example.com/x",
        notices=["call.relapsed"],
        changed_by="olga",
        changed_at=timezone.now(),
    )
    run = a_cured_run("restart_connection_pool", operator)
    an_hour_later()
    pk = first_due()
    assert look(pk, "worker-1")
    assert sorted(Recheck.objects.values_list("state", flat=True)) == ["dropped", "relapsed"]
    relapsed = Event.objects.get(run=run, kind="call.relapsed")
    assert "no longer below 10" in relapsed.fields["observed"]
    assert NotificationDelivery.objects.get().notice == "call.relapsed"
    client.force_login(viewer)
    for address in (run.get_absolute_url(), "/approvals/"):
        page = client.get(address).text
        assert "It came back" in page and "no longer below 10" in page and "Look into it" not in page
    client.post(f"/relapses/{pk}/taken")
    assert Recheck.objects.filter(answered_at=None, state="relapsed").exists()
    client.force_login(operator)
    assert "Look into it" in client.get("/approvals/").text
    answer = client.post(f"/relapses/{pk}/follow-up")
    again = Run.objects.get(parent_run=run)
    assert answer.status_code == 302 and answer["Location"] == again.get_absolute_url()
    assert "It came back" in again.user_query and "no longer below 10" in again.user_query
    drive(a_lease(again), lambda: False)
    looked = again.steps.filter(seq__gt=again.copied_steps, kind="tool")
    assert {"get_metrics", "create_incident_ticket"} <= set(looked.values_list("name", flat=True))
    client.force_login(second_operator)
    late = client.post(f"/relapses/{pk}/follow-up", follow=True).text
    assert "olga took care of it at" in late and Run.objects.filter(parent_run=run).count() == 1
    assert "It came back" not in client.get("/approvals/").text
    assert f"run {again.pk}" in client.get(run.get_absolute_url()).text
    assert contradictions(Run.objects.get(pk=run.pk)) == []


def test_two_people_who_look_into_it_at_the_same_moment_start_one_run(
    operator: User, second_operator: User
) -> None:
    run = a_cured_run("restart_connection_pool", operator)
    an_hour_later()
    pk = first_due()
    look(pk, "worker-1")
    both = threading.Barrier(2)
    said: list[str] = []

    def click(person: User) -> None:
        page = Client()
        page.force_login(person)
        both.wait()
        said.append(page.post(f"/relapses/{pk}/follow-up", follow=True).text)
        connections.close_all()

    clicks = [threading.Thread(target=click, args=(person,)) for person in (operator, second_operator)]
    for one in clicks:
        one.start()
    for one in clicks:
        one.join()
    assert Run.objects.filter(parent_run=run).count() == 1
    assert sum("took care of it at" in page for page in said) == 1, "the other is told who was first"


def test_a_look_that_sees_nothing_is_made_again_a_few_times(operator: User) -> None:
    a_cured_run("revert_deployment", operator)
    World.objects.all().delete()
    pk = Recheck.objects.order_by("due_at")[0].pk
    for _ in range(3):
        assert Recheck.objects.get(pk=pk).state == "due"
        Recheck.objects.filter(pk=pk).update(due_at=timezone.now())
        assert look(pk, "worker-1")
    seen = Recheck.objects.get(pk=pk)
    assert seen.state == "unclear" and "could not be seen" in seen.observed
    assert not Event.objects.filter(kind="call.relapsed").exists()


def test_a_look_whose_worker_died_is_made_by_another(operator: User) -> None:
    a_cured_run("restart_connection_pool", operator)
    an_hour_later()
    pk = first_due()
    lost = actions.claim_recheck(pk, lease_seconds=60)
    assert lost and not look(pk, "worker-2")
    Recheck.objects.filter(pk=pk).update(claimed_until=timezone.now())
    assert look(pk, "worker-2")
    actions.record_recheck(lost, "holds", "It held.", worker="worker-1")  # type: ignore[arg-type]
    assert Recheck.objects.get(pk=pk).state == "relapsed"


def test_a_worker_looks_by_itself(operator: User) -> None:
    a_cured_run("restart_connection_pool", operator)
    an_hour_later()
    worker = Worker(concurrency=1)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        eventually(lambda: Recheck.objects.filter(state="relapsed").exists())
    finally:
        worker.stop()
        thread.join()
