"""The rows of a run hold together: constraints, leases, totals and the chain of events."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, transaction

from runs import actions
from runs.actions import rows
from runs.models import Approval, Event, Run, RunStatus, Step, StepKind, StepStatus, event_hash
from runs.money import Usage
from tests.factories import a_charge, a_lease, a_run, a_turn, a_waiting_call, an_attempt


def test_the_database_itself_refuses_contradictions(db: None) -> None:
    _, step, approval = a_waiting_call()
    run = Run.objects.get()

    def step_with(**fields: object) -> None:
        Step.objects.create(
            **{"run": run, "seq": 99, "kind": "tool", "status": "ready", "name": "x"} | fields
        )

    wrong = [
        lambda: step_with(seq=step.seq),
        lambda: step_with(tool_use_id=step.tool_use_id),
        lambda: step_with(status="dancing"),
        lambda: step_with(cost_usd=Decimal("-0.01")),
        lambda: Run.objects.filter(pk=run.pk).update(cost_usd=Decimal(-1)),
        lambda: Run.objects.filter(pk=run.pk).update(status="lost"),
        lambda: Approval.objects.create(
            run=run, step=step, revision=2, expires_at=approval.expires_at, preview="{}", arguments="{}"
        ),
        lambda: Event.objects.create(run=run, seq=1, kind="x", actor="x", hash="x"),
    ]
    for attempt in wrong:
        with pytest.raises(IntegrityError), transaction.atomic():
            attempt()


def test_every_change_is_an_event_in_an_unbroken_chain(operator: User) -> None:
    _, _, approval = a_waiting_call()
    actions.decide(
        approval_id=approval.pk,
        voter=operator,
        verdict="approve",
        revision=1,
        digest=approval.digest,
    )
    run = Run.objects.get()
    events = list(Event.objects.filter(run=run).order_by("seq"))
    assert [event.kind for event in events] == [
        "run.started",
        "run.claimed",
        "model.started",
        "model.finished",
        "approval.asked",
        "run.parked",
        "approval.vote",
        "approval.approved",
    ]
    assert [event.seq for event in events] == list(range(1, 9)) and run.last_event == 8
    previous = ""
    for event in events:
        assert event.previous_hash == previous
        previous = event_hash(
            previous_hash=previous,
            request_id=str(run.request_id),
            seq=event.seq,
            kind=event.kind,
            actor=event.actor,
            data=event.data,
            at=event.at,
        )
        assert event.hash == previous
    assert run.last_event_hash == previous
    assert events[-1].actor == "olga"


def test_totals_are_the_sum_of_what_the_calls_cost(db: None) -> None:
    lease = a_lease(a_run())
    a_turn(lease, ("search_logs", "read", {"query": ""}))
    failed = an_attempt(lease)
    partial = Usage(input_tokens=500, cache_read_tokens=7_000, output_tokens=3)
    actions.fail_attempt(
        lease, failed, action="retry", kind="overloaded_error", sentence="Busy.", charge=a_charge(partial)
    )
    run = Run.objects.get()
    costs = [step.cost_usd for step in Step.objects.filter(kind=StepKind.MODEL)]
    assert run.cost_usd == sum(costs) == Decimal("0.003") + Decimal("0.00173")
    assert run.total_tokens == 1_100 + 7_503
    assert (run.model_calls, run.tool_calls, run.step_count) == (2, 1, 3)


def test_an_unknown_model_is_unpriced_and_counted_as_such(db: None) -> None:
    lease = a_lease(a_run())
    step = an_attempt(lease)
    charge = a_charge(model="claude-mythos-5-1")
    actions.fail_attempt(lease, step, action="retry", kind="x", sentence="X.", charge=charge)
    step.refresh_from_db()
    run = Run.objects.get()
    assert (step.cost_usd, step.price_source) == (None, "unpriced")
    assert (run.cost_usd, run.unpriced_calls) == (0, 1)


def test_only_one_worker_drives_and_the_one_that_lost_its_lease_writes_nothing(db: None) -> None:
    run = a_run()
    first = a_lease(run, "worker-1")
    assert actions.claim(run.pk, "worker-2") is None
    Run.objects.filter(pk=run.pk).update(lease_until=run.created_at)
    second = a_lease(run, "worker-2")
    assert second.fence == first.fence + 1
    with pytest.raises(actions.LeaseLost):
        an_attempt(first)
    with pytest.raises(actions.LeaseLost):
        actions.end_run(first, status=RunStatus.FAILED)
    assert not Step.objects.exists()
    actions.heartbeat([first])
    assert actions.claim(run.pk, "worker-3") is None, "the heartbeat of the loser must not free the run"


def test_a_worker_takes_those_that_have_waited_longest_and_as_many_as_it_has_room_for(db: None) -> None:
    runs = [a_run(f"Question {number}") for number in range(5)]
    a_lease(runs[1], "worker-1")
    first, second = actions.claim_oldest("worker-2", 3), actions.claim_oldest("worker-3", 3)
    assert [lease.run_id for lease in first] == [runs[number].pk for number in (0, 2, 3)]
    assert [lease.run_id for lease in second] == [runs[4].pk]
    assert actions.claim_oldest("worker-4", 3) == []
    for lease in (*first, *second):
        assert an_attempt(lease).status == StepStatus.RUNNING
    assert {run.lease_owner for run in Run.objects.all()} == {"worker-1", "worker-2", "worker-3"}


def test_a_decision_that_comes_before_the_run_parks_is_not_missed(operator: User) -> None:
    lease = a_lease(a_run())
    (step,) = a_turn(lease, ("create_incident_ticket", "write", {}))
    assert not actions.park(lease, until=None, reason="approval", explanation="")
    assert Run.objects.get().status == RunStatus.RUNNING
    assert Step.objects.get(pk=step.pk).status == StepStatus.PROPOSED


def test_a_paused_run_goes_on_when_a_person_says_so(db: None) -> None:
    run = a_run()
    lease = a_lease(run)
    step = an_attempt(lease)
    actions.fail_attempt(
        lease, step, action="pause", kind="billing_error", sentence="Pay.", charge=a_charge(Usage())
    )
    actions.pause(lease, reason="billing_error", explanation="Pay.")
    actions.resume_run(run_id=run.pk, actor="olga")
    run.refresh_from_db()
    step.refresh_from_db()
    assert (run.status, step.error_action) == (RunStatus.QUEUED, "pause")
    assert run.steps.last().name == "resumed", "what is recorded stays; a mark says that it no longer counts"
    with pytest.raises(actions.ActionError, match="Only a paused run"):
        actions.resume_run(run_id=run.pk, actor="olga")


@pytest.mark.parametrize("question", ["", "  \n ", "\x00\x01", "x" * 100_000])
def test_a_question_that_makes_no_sense_is_refused_with_what_to_do(db: None, question: str) -> None:
    with pytest.raises(actions.InvalidQuestion, match=r"(Write what|Shorten it)"):
        a_run(question)
    assert not Run.objects.exists()


def test_unknown_agents_and_incidents_are_refused_with_what_there_is(db: None) -> None:
    with pytest.raises(actions.UnknownAgent, match="incident"):
        actions.start_run(question="Why?", agent="nobody", user=None, started_by="alert")
    with pytest.raises(actions.UnknownScenario, match="Known:"):
        a_run(scenario="volcano")


def test_the_same_form_sent_twice_starts_one_run(db: None) -> None:
    first = a_run()
    again = a_run(request_id=first.request_id)
    assert again == first and Run.objects.count() == 1


def test_an_error_between_two_rows_is_one_of_django(db: None) -> None:
    first, second = a_run("First"), a_run("Second")
    assert [run.pk for run in rows.select(Run, "WHERE id >= %s ORDER BY id", [first.pk])] == [
        first.pk,
        second.pk,
    ]
    with pytest.raises(DatabaseError, match=r"overflow|out of range"), transaction.atomic():
        rows.select(Run, "WHERE abs(%s - id) > 0 ORDER BY id", [second.pk - 2**63])
